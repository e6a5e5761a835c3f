"""Measures this project beside what its users would take instead, in one run, in turn; ``scripts/bench`` starts it.

Each setting is a number of clients, a size and a speed of cables, or loopback. In each round every way runs once, in
another order; every copy is checked. Writes what was measured as JSON, and prints medians, spread and ratios as the
tables of docs/benchmarks.md, which ``--write`` makes anew with its plots.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.benchmarks.peers import WAYS, Seconds, Way
from scripts.benchmarks.report import Run, table, write_page
from scripts.benchmarks.room import Room
from tests.lab.network import obstacle

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured: ``CLIENTSxMIB[@MBIT|@loopback]``."""

    clients: int
    mib: int
    mbit: float = 0
    loopback: bool = False

    @classmethod
    def parse(cls, text: str) -> Setting:
        """The setting that a text names."""
        counts, _, place = text.partition("@")
        clients, _, mib = counts.partition("x")
        loopback = place == "loopback"
        return cls(int(clients), int(mib), 0 if loopback or not place else float(place), loopback)

    def __str__(self) -> str:
        place = "loopback" if self.loopback else f"{self.mbit:g} Mbit/s" if self.mbit else "unshaped"
        return f"{self.mib} MiB to {self.clients}, {place}"


USUAL = "8x256 8x64 32x64 8x64@200 8x256@loopback"


def main() -> int:
    """Runs everything that the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", default=USUAL.split(), help=f"CLIENTSxMIB[@MBIT|@loopback]: {USUAL}")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--ways", metavar="A,B", help=f"only these of {', '.join(way.name for way in WAYS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--write", action="store_true", help="make docs/benchmarks.md and its plots anew")
    arguments = parser.parse_args()
    ways = chosen(arguments.ways)
    runs: list[Run] = []
    for setting in map(Setting.parse, arguments.settings):
        if not setting.loopback and (reason := obstacle()):
            print(f"{setting}: left out: {reason}", file=sys.stderr)
            continue
        possible = [way for way in ways if way.on_loopback or not setting.loopback]
        taken = measured(setting, possible, arguments.rounds)
        runs += taken
        print(f"\n{setting}\n\n{table(taken)}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(run) for run in runs], indent=1))
    if arguments.write:
        write_page(runs, ways)
    return 1 if any(run.error for run in runs) else 0


def chosen(names: str | None) -> list[Way]:
    """The ways that are asked for and can be gone; tells of those that cannot."""
    wanted = [way for way in WAYS if not names or way.name in names.split(",")]
    for way in wanted:
        if way.missing:
            print(f"{way.name}: left out: {', '.join(way.missing)} not found", file=sys.stderr)
    return [way for way in wanted if not way.missing]


def measured(setting: Setting, ways: list[Way], rounds: int) -> list[Run]:
    """Every way once in each round, each round beginning with another. What failed is not tried again."""
    runs: list[Run] = []
    with (
        tempfile.TemporaryDirectory() as name,
        Room(Path(name), setting.clients, setting.mib * MIB, setting.mbit, loopback=setting.loopback) as room,
    ):
        for number in range(rounds):
            for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                if any(run.way == way.name and run.error for run in runs):
                    continue
                run = once(room, way, str(setting))
                print(f"{setting}: {way.name}: {run.error or told(run.seconds)}", file=sys.stderr, flush=True)
                runs.append(run)
    return runs


def once(room: Room, way: Way, setting: str) -> Run:
    """One way, one time; what went wrong is part of the result."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), room.run():
            seconds = way.run(room)
            room.check()
    except Exception as error:
        return Run(setting, way.name, {}, f"{error or type(error).__name__}")
    finally:
        room.settle()
    return Run(setting, way.name, seconds)


def told(seconds: Seconds) -> str:
    """Figures for the eye."""
    return ", ".join(f"{name} {value:.3f}" for name, value in seconds.items())


if __name__ == "__main__":
    sys.exit(main())
