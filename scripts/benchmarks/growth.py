"""Measures how time, CPU, memory and datagrams grow with the number of clients and with the size of the file.

``python -m scripts.benchmarks.growth`` runs a server and real clients on loopback, several clients per process, and
prints a table; ``--json FILE`` also writes all results. In theory, the cost per delivered byte is constant.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support.daemons import Daemon, Network
from tests.support.files import random_file, sha256, visible_files

CLIENTS_PER_PROCESS = 25
MIB = 1024 * 1024
GIB = 1024 * MIB
TICKS = os.sysconf("SC_CLK_TCK")
DEFAULT = "8x64 25x64 50x64 100x64 200x64 8x1 8x16 8x256 8x1024 3x4096"


@dataclass(frozen=True, slots=True)
class Growth:
    """One run.

    Attributes:
        clients: the number of clients.
        mib: the file's size in MiB.
        exchange_seconds: the duration of the exchange.
        delivered_gib: the data delivered to clients in GiB, shares included.
        server_cpu_seconds: the CPU time of the server for seeding and exchange.
        client_cpu_seconds: the CPU time of all clients together for seeding and exchange.
        server_grown_mib: the growth of the server's resident memory until its peak, in MiB.
        datagrams: the number of requests and broadcasts.
        contributed: how often holders sent the file in the exchange.
    """

    clients: int
    mib: int
    exchange_seconds: float
    delivered_gib: float
    server_cpu_seconds: float
    client_cpu_seconds: float
    server_grown_mib: float
    datagrams: int
    contributed: float

    def row(self) -> str:
        """Return the run as a row of the table."""
        return (
            f"| {self.clients} | {self.mib} | {self.delivered_gib:.2f} | {self.contributed:.2f} | {self.datagrams}"
            f" | {self.server_grown_mib:.0f} | {self.server_cpu_seconds / self.delivered_gib:.2f}"
            f" | {self.client_cpu_seconds / self.delivered_gib:.2f} | {self.exchange_seconds:.2f}"
            f" | {self.exchange_seconds / self.delivered_gib:.2f} |"
        )


HEAD = """\
| clients | MiB | GiB delivered | contributed / size | datagrams | server's memory grew by, MiB | \
server CPU, s per GiB | client CPU, s per GiB | exchange, s | s per GiB |
|---|---|---|---|---|---|---|---|---|---|"""


def cpu_seconds(daemon: Daemon) -> float:
    """Return the CPU time of a process, in user and system mode."""
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mib(daemon: Daemon, name: str) -> float:
    """Return a field of a process's status in MiB.

    Args:
        daemon: the process.
        name: ``VmRSS`` for resident memory, ``VmHWM`` for its peak.
    """
    lines = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def measured(clients: int, mib: int, folder: Path) -> Growth:
    """Run one network, and compare every copy.

    Args:
        clients: the number of clients.
        mib: the file's size in MiB.
        folder: the folder for all files.

    Raises:
        RuntimeError: a copy is wrong.
    """
    file = random_file(folder / "file.bin", mib * MIB)
    with contextlib.redirect_stdout(io.StringIO()), Network(folder / "network") as network:
        server = network.server()
        counts = [min(CLIENTS_PER_PROCESS, clients - first) for first in range(0, clients, CLIENTS_PER_PROCESS)]
        processes = [network.client(f"p{index}", "--count", count) for index, count in enumerate(counts)]
        Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # resets its peak
        before = cpu_seconds(server), sum(map(cpu_seconds, processes)), memory_mib(server, "VmRSS")
        result = network.json("seed", file, "--clients", clients, "--wait", timeout=1200)
        server_cpu = cpu_seconds(server) - before[0]
        client_cpu = sum(map(cpu_seconds, processes)) - before[1]
        grown_mib = memory_mib(server, "VmHWM") - before[2]
        copies = [path for process in processes for path in visible_files(network.folder / process.name)]
        wrong = {sha256(path) for path in copies if path.name == file.name} != {sha256(file)}
        if wrong or len(copies) != clients:
            raise RuntimeError(f"{clients} clients, {mib} MiB: a copy is wrong")
    traffic = result["file"]["traffic"]
    return Growth(
        clients,
        mib,
        result["seconds"]["exchange"],
        traffic["delivered_bytes"] / GIB,
        server_cpu,
        client_cpu,
        grown_mib,
        traffic["request_datagrams"] + traffic["broadcast_datagrams"],
        (traffic["contributed_bytes"] - traffic["seeding_contributed_bytes"]) / file.stat().st_size,
    )


def main() -> int:
    """Measure the settings of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", default=DEFAULT.split(), metavar="CLIENTSxMIB", help=DEFAULT)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there")
    arguments = parser.parse_args()
    print(HEAD, flush=True)
    runs = []
    for setting in arguments.settings:
        clients, _, mib = setting.partition("x")
        with tempfile.TemporaryDirectory() as folder:
            runs.append(measured(int(clients), int(mib), Path(folder)))
        print(runs[-1].row(), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(run) for run in runs], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
