"""Compares forecasts with real networks.

Each network is a server, a source and clients, each in a network namespace with its own link speed. Prints the forecast
of ``pspctl simulate``, the measured medians, and their ratio, as the table in docs/simulation.md. Needs root; run it
with ``.venv/bin/python -m scripts.experiments.forecasts``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pspd.core.model.manifest import CHUNK_BYTES
from pspd.core.model.parameters import MILLISECOND_NS, PROFILES, default_cache_chunks
from pspd.sim.forecast import Forecast, Plan, forecast
from pspd.sim.hosts import HostConditions
from pspd.sim.paths import Impairments
from tests.lab.network import Lab
from tests.support.daemons import BIN, Network
from tests.support.files import random_file
from tests.support.hosts import Host

MBIT = 125_000
KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Case:
    """One network. Speeds and the fraction of lost datagrams hold for each direction."""

    clients: int
    size_bytes: int
    server_mbit: float
    client_mbit: float
    cache_bytes: int = 0
    profile: str = "fast"
    loss: float = 0.0

    def __str__(self) -> str:
        cache = f"{self.cache_bytes // KIB} KiB" if self.cache_bytes else "default"
        cells = (
            f"{self.clients}",
            f"{self.size_bytes / MIB:g} MiB",
            f"{self.server_mbit:g} / {self.client_mbit:g}",
            cache,
            f"{self.loss:.0%}",
        )
        return " | ".join(cells)


COMPARED = ("exchange, s", "server sent, MiB", "files contributed", "datagrams")
CASES = (
    Case(8, 64 * MIB, 200, 200),
    Case(8, 32 * MIB, 100, 100),
    Case(4, 32 * MIB, 400, 100),
    Case(4, 32 * MIB, 500, 50),
    Case(16, 8 * MIB, 200, 50),
    Case(8, 32 * MIB, 100, 100, cache_bytes=MIB),
    Case(8, 16 * MIB, 100, 50, cache_bytes=256 * KIB),
    Case(8, 32 * MIB, 100, 100, loss=0.05),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What is compared: seconds, bytes and datagrams of the exchange; what the server sent includes the seeding."""

    exchange_seconds: float
    contributed_bytes: float
    delivered_bytes: float
    server_sent_bytes: float
    datagrams: float


def forecast_of(case: Case) -> Figures:
    """Return the forecast of a network."""
    parameters = PROFILES[case.profile]
    impairments = Impairments(delay_ns=MILLISECOND_NS // 20, loss=case.loss)
    rate = int(case.client_mbit * MBIT)
    found: Forecast = forecast(
        Plan(
            client_count=case.clients,
            size_bytes=case.size_bytes,
            parameters=parameters,
            cache_chunks=case.cache_bytes // CHUNK_BYTES or default_cache_chunks(parameters),
            client_conditions=HostConditions(impairments, up_rate=rate, down_rate=rate),
            server_rate=int(case.server_mbit * MBIT),
            source_conditions=HostConditions(Impairments(delay_ns=MILLISECOND_NS // 20), up_rate=rate, down_rate=rate),
        )
    )
    return Figures(
        found.exchange_seconds,
        found.contributed_bytes,
        found.delivered_bytes,
        found.server_sent_bytes,
        found.request_datagrams + found.broadcast_datagrams,
    )


def measured(case: Case) -> Figures:
    """Build a network, and measure it."""
    with tempfile.TemporaryDirectory() as name, Lab(2 + case.clients) as lab:
        folder = Path(name)
        server, source, *clients = lab.hosts
        file = random_file(folder / "file.bin", case.size_bytes)
        with Network(folder / "network", server) as network:
            cache = ("--cache", str(case.cache_bytes)) if case.cache_bytes else ()
            network.server("--profile", case.profile, *cache)
            names = [f"c{index}" for index in range(case.clients)]
            for client, host in zip(names, clients, strict=True):
                network.client(client, host=host)
                if case.loss:
                    lab.loss(host, 100 * case.loss)
            lab.shape(server, case.server_mbit)
            for host in (source, *clients):
                lab.shape(host, case.client_mbit)
            before = _sent_bytes(server)
            seeded = seed(network, source, file, case.clients)
            sent = _sent_bytes(server) - before
            network.await_copies(file, names)
        traffic = seeded["file"]["traffic"]
        return Figures(
            seeded["seconds"]["exchange"],
            traffic["contributed_bytes"] - traffic["seeding_contributed_bytes"],
            traffic["delivered_bytes"] - traffic["seeding_delivered_bytes"],
            sent,
            traffic["request_datagrams"] + traffic["broadcast_datagrams"],
        )


def seed(network: Network, source: Host, file: Path, count: int) -> dict[str, Any]:
    """Seed a file, and wait until all clients have it.

    Args:
        network: the network.
        source: the source's host.
        file: the file.
        count: the number of clients.
    """
    command = [BIN / "pspctl", "seed", file, "--clients", count, "--wait", "-o", "json"]
    done = source.run(command, timeout=600, env=network.environment)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def _sent_bytes(host: Host) -> int:
    return int(host.run(["cat", "/sys/class/net/eth0/statistics/tx_bytes"]).stdout)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="how often to build each network")
    arguments = parser.parse_args()
    titles = ("clients", "file", "Mbit/s, server / client", "cache", "loss", *COMPARED)
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for case in CASES:
        found = forecast_of(case)
        real = [quietly(measured, case) for _ in range(arguments.runs)]
        cells = [
            _cell(found.exchange_seconds, [each.exchange_seconds for each in real], 1),
            _cell(found.server_sent_bytes, [each.server_sent_bytes for each in real], MIB),
            _cell(found.contributed_bytes, [each.contributed_bytes for each in real], case.size_bytes),
            _cell(found.datagrams, [each.datagrams for each in real], 1),
        ]
        print(f"| {case} | {' | '.join(cells)} |", flush=True)


def quietly(build: Callable[[Case], Figures], case: Case) -> Figures:
    """Run a function without the output of daemons.

    Args:
        build: the function.
        case: the argument of the function.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        return build(case)


def _cell(expected: float, real: list[float], unit: float) -> str:
    middle = statistics.median(real)
    return f"{expected / unit:.4g} : {middle / unit:.4g} = {expected / middle:.2f}"


if __name__ == "__main__":
    main()
