"""What clients of different kinds do to each other: slow ones, late ones, and one that hardly reads.

Each network is a server, a source and clients, every one a network namespace with a cable of its own speed. Prints how
long the ordinary clients took from the release of the exchange, what holders sent in files, and what of it in vain.
Needs root; run it from the repository's folder with ``.venv/bin/python -m scripts.experiments.company``.
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
    """One network; speeds in Mbit/s. Who hardly reads sends well.

    Attributes:
        name: what it shows.
        mbits: each client's cable.
        late_count: how many of them, the last, join when a quarter of the time has passed that the slowest needs.
        ordinary_count: of how many, the first, the time is looked at.
        cache: the server's.
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
        """A quarter of what the slowest needs."""
        return self.mib * MIB * 8 / min(self.mbits) / 1_000_000 / 4


ORDINARY, SLOW, HARDLY = 100.0, 25.0, 8.4
"""The last is 1 MB/s of a file's bytes, and what is wrapped around them."""
CASES = (
    Case("lock-step", 10 * (ORDINARY,)),
    Case("four times as slow: half of them", (*5 * (ORDINARY,), *5 * (SLOW,))),
    Case("so, and three of ten come late", (*5 * (ORDINARY,), *5 * (SLOW,)), late_count=3),
    Case("seven alone", 7 * (ORDINARY,), ordinary_count=7, cache="64MiB", mib=256),
    Case("seven, and one that reads 1 MB/s", (*7 * (ORDINARY,), HARDLY), ordinary_count=7, cache="64MiB", mib=256),
    Case("seven alone, cache of 1 MiB", 7 * (ORDINARY,), ordinary_count=7),
    Case("seven, and one that reads 1 MB/s, cache of 1 MiB", (*7 * (ORDINARY,), HARDLY), ordinary_count=7),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What happened: seconds until each ordinary client had the file, and bytes in files."""

    seconds: tuple[float, ...]
    contributed: float
    duplicates: float


def measured(case: Case) -> Figures:
    """Builds the network, lets the exchange happen, and compares every copy.

    Raises:
        RuntimeError: a copy is not right, or does not come.
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
                lab.shape(host, mbit, up_mbit=ORDINARY if mbit == HARDLY else mbit)
            took = _exchange(network, case, dict(zip(names, hosts, strict=True)), file.name)
            if {sha256(network.copy(client, file.name)) for client in names} != {sha256(file)}:
                raise RuntimeError(f"{case.name}: not every copy is right")
            traffic = network.file(file.name)["traffic"]
        size = case.mib * MIB
        contributed = traffic["contributed_bytes"] - traffic["seeding_contributed_bytes"]
        return Figures(
            tuple(took[client] for client in names[: case.ordinary_count or None]),
            contributed / size,
            traffic["duplicate_bytes"] / size,
        )


def _exchange(network: Network, case: Case, hosts: dict[str, Host], file: str) -> dict[str, float]:
    """Releases a file. Returns when each client had it, in seconds from then."""
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
            raise RuntimeError(f"{case.name}: {len(hosts) - len(took)} copies did not come")
        time.sleep(POLL_SECONDS)
    return took


def main() -> None:
    """Measures the cases, one after the other, as often as asked."""
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
    print("| network | first, s | last, s | files contributed | in vain |\n|---|---|---|---|---|")
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
