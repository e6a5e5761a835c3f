"""Measures how slow, late and barely reading clients affect the others.

Each network is a server, a source and clients, each in a network namespace with its own link speed. Prints the time of
the ordinary clients from the release of the exchange, how often holders sent the file, and how much were duplicates.
Needs root; run it with ``.venv/bin/python -m scripts.experiments.mixed_clients``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.lab.network import Lab
from tests.support.daemons import BIN, Network
from tests.support.files import random_file, sha256
from tests.support.hosts import Host

MIB = 1024 * 1024
POLL_SECONDS = 0.005
DONE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Case:
    """One network; speeds in Mbit/s. A client that barely reads still sends at full speed.

    Attributes:
        name: the name in the table.
        mbits: the speed of each client's link.
        late_count: the number of late clients: the last ones join after a quarter of the time that the slowest needs.
        ordinary_count: the number of timed clients: the first ones; 0 for all.
        cache: the server's cache.
        mib: the file's size.
    """

    name: str
    mbits: tuple[float, ...]
    late_count: int = 0
    ordinary_count: int = 0
    cache: str = "1MiB"
    mib: int = 64

    @property
    def late_after_seconds(self) -> float:
        """A quarter of the time that the slowest client needs."""
        return self.mib * MIB * 8 / min(self.mbits) / 1_000_000 / 4


ORDINARY, SLOW, BARELY = 100.0, 25.0, 8.4
"""Mbit/s; the last is 1 MB/s of payload, with headers."""
CASES = (
    Case("ten equal", 10 * (ORDINARY,)),
    Case("half of them four times slower", (*5 * (ORDINARY,), *5 * (SLOW,))),
    Case("the same, three of ten late", (*5 * (ORDINARY,), *5 * (SLOW,)), late_count=3),
    Case("seven alone", 7 * (ORDINARY,), ordinary_count=7, cache="64MiB", mib=256),
    Case("seven, and one that reads 1 MB/s", (*7 * (ORDINARY,), BARELY), ordinary_count=7, cache="64MiB", mib=256),
    Case("seven alone, cache of 1 MiB", 7 * (ORDINARY,), ordinary_count=7),
    Case("seven, and one that reads 1 MB/s, cache of 1 MiB", (*7 * (ORDINARY,), BARELY), ordinary_count=7),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """Results: seconds until each timed client had the file, and traffic as a multiple of the file's size."""

    seconds: tuple[float, ...]
    contributed: float
    duplicates: float


def measured(case: Case) -> Figures:
    """Build a network, run the exchange, and compare every copy.

    Raises:
        RuntimeError: a copy is wrong or missing.
    """
    with tempfile.TemporaryDirectory() as name, Lab(2 + len(case.mbits)) as lab:
        server, source, *hosts = lab.hosts
        file = random_file(Path(name) / "file.bin", case.mib * MIB)
        with contextlib.redirect_stdout(io.StringIO()), Network(Path(name) / "network", server) as network:
            network.server("--cache", case.cache)
            prompt_count = len(hosts) - case.late_count
            names = [f"c{index}" for index in range(len(hosts))]
            for client, host in list(zip(names, hosts, strict=True))[:prompt_count]:
                network.client(client, host=host)
            seeding = [BIN / "pspctl", "seed", file, "--clients", prompt_count, "--hold", "-q"]
            source.run(list(map(str, seeding)), env=network.environment)
            for host, mbit in zip(hosts, case.mbits, strict=True):
                lab.shape(host, mbit, up_mbit=ORDINARY if mbit == BARELY else mbit)
            took = _exchange(network, case, dict(zip(names, hosts, strict=True)), file.name)
            if {sha256(network.copy(client, file.name)) for client in names} != {sha256(file)}:
                raise RuntimeError(f"{case.name}: a copy is wrong")
            traffic = network.file(file.name)["traffic"]
        size = case.mib * MIB
        contributed = traffic["contributed_bytes"] - traffic["seeding_contributed_bytes"]
        return Figures(
            tuple(took[client] for client in names[: case.ordinary_count or None]),
            contributed / size,
            traffic["duplicate_bytes"] / size,
        )


def _exchange(network: Network, case: Case, hosts: dict[str, Host], file: str) -> dict[str, float]:
    """Release a file, and return after how many seconds each client had it."""
    network.ctl("release", file)
    start = time.monotonic()
    late = list(hosts)[len(hosts) - case.late_count :]
    took: dict[str, float] = {}
    while len(took) < len(hosts):
        now = time.monotonic() - start
        if late and now > case.late_after_seconds:
            network.launch_client(late[-1], host=hosts[late.pop()])
        for client in hosts:
            if client not in took and network.copy(client, file).exists():
                took[client] = now
        if now > DONE_SECONDS:
            raise RuntimeError(f"{case.name}: {len(hosts) - len(took)} copies are missing")
        time.sleep(POLL_SECONDS)
    return took


def main() -> None:
    """Measure the cases in turn, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", default="", help="the beginning of a case's name")
    arguments = parser.parse_args()
    cases = [case for case in CASES if case.name.startswith(arguments.only)]
    runs: dict[str, list[Figures]] = {case.name: [] for case in cases}
    for _ in range(arguments.rounds):
        for case in cases:
            runs[case.name].append(measured(case))
            print(case.name, runs[case.name][-1], flush=True)
    print("| network | first, s | last, s | files contributed | duplicates |\n|---|---|---|---|---|")
    for case in cases:
        found = runs[case.name]
        first, last, contributed, duplicates = (
            statistics.median(values)
            for values in zip(
                *((min(run.seconds), max(run.seconds), run.contributed, run.duplicates) for run in found), strict=True
            )
        )
        print(f"| {case.name} | {first:.2f} | {last:.2f} | {contributed:.2f} | {duplicates:.2%} |")


if __name__ == "__main__":
    main()
