"""Compares PSP with other tools; ``scripts/bench`` starts it.

A setting is a number of clients, a file size, and a link speed or loopback. In each round every tool runs once, and
each round begins with another tool. Every copy is checked. Prints medians, spread and ratios as in
docs/benchmarks.md, which ``--write`` writes with its plots.
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

from scripts.benchmarks.report import Run, table, write_page
from scripts.benchmarks.testbed import Testbed
from scripts.benchmarks.tools import TOOLS, Seconds, Tool
from tests.lab.network import obstacle

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Setting:
    """A network to measure: ``CLIENTSxMIB[@MBIT|@loopback]``."""

    clients: int
    mib: int
    mbit: float = 0
    loopback: bool = False

    @classmethod
    def parse(cls, text: str) -> Setting:
        """Return the setting that a text describes."""
        counts, _, speed = text.partition("@")
        clients, _, mib = counts.partition("x")
        loopback = speed == "loopback"
        return cls(int(clients), int(mib), 0 if loopback or not speed else float(speed), loopback)

    def __str__(self) -> str:
        place = "loopback" if self.loopback else f"{self.mbit:g} Mbit/s" if self.mbit else "unshaped"
        return f"{self.mib} MiB to {self.clients}, {place}"


DEFAULT = "8x256 8x64 32x64 8x64@200 8x256@loopback"


def main() -> int:
    """Measure the settings of the command line; return 1 if a tool failed."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", default=DEFAULT.split(), help=f"CLIENTSxMIB[@MBIT|@loopback]: {DEFAULT}")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--tools", metavar="A,B", help=f"only these of {', '.join(tool.name for tool in TOOLS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md and its plots")
    arguments = parser.parse_args()
    tools = chosen(arguments.tools)
    runs: list[Run] = []
    for setting in map(Setting.parse, arguments.settings):
        if not setting.loopback and (reason := obstacle()):
            print(f"{setting}: left out: {reason}", file=sys.stderr)
            continue
        possible = [tool for tool in tools if tool.on_loopback or not setting.loopback]
        taken = measured(setting, possible, arguments.rounds)
        runs += taken
        print(f"\n{setting}\n\n{table(taken)}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(run) for run in runs], indent=1))
    if arguments.write:
        write_page(runs, tools)
    return 1 if any(run.error for run in runs) else 0


def chosen(names: str | None) -> list[Tool]:
    """Return the named tools that are installed. Print the others."""
    wanted = [tool for tool in TOOLS if not names or tool.name in names.split(",")]
    for tool in wanted:
        if tool.missing:
            print(f"{tool.name}: left out: {', '.join(tool.missing)} not found", file=sys.stderr)
    return [tool for tool in wanted if not tool.missing]


def measured(setting: Setting, tools: list[Tool], rounds: int) -> list[Run]:
    """Run every tool once per round, each round beginning with another; one that failed is not repeated.

    Args:
        setting: the network.
        tools: the tools.
        rounds: the number of rounds.
    """
    runs: list[Run] = []
    with (
        tempfile.TemporaryDirectory() as name,
        Testbed(Path(name), setting.clients, setting.mib * MIB, setting.mbit, loopback=setting.loopback) as bed,
    ):
        for number in range(rounds):
            for tool in tools[number % len(tools) :] + tools[: number % len(tools)]:
                if any(run.tool == tool.name and run.error for run in runs):
                    continue
                run = once(bed, tool, str(setting))
                print(f"{setting}: {tool.name}: {run.error or described(run.seconds)}", file=sys.stderr, flush=True)
                runs.append(run)
    return runs


def once(bed: Testbed, tool: Tool, setting: str) -> Run:
    """Run one tool once; an error becomes part of the result.

    Args:
        bed: the testbed.
        tool: the tool.
        setting: the setting of the result.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()), bed.run():
            seconds = tool.run(bed)
            bed.check()
    except Exception as error:
        return Run(setting, tool.name, {}, f"{error or type(error).__name__}")
    finally:
        bed.settle()
    return Run(setting, tool.name, seconds)


def described(seconds: Seconds) -> str:
    """Return times as text."""
    return ", ".join(f"{name} {value:.3f}" for name, value in seconds.items())


if __name__ == "__main__":
    sys.exit(main())
