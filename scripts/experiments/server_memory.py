"""Measures the server's memory with hundreds of clients, dozens of files, and clients that stop reading.

All processes run on this machine, on loopback. Samples the server's resident memory, and prints its growth and the use
of the cache. Run it with ``.venv/bin/python -m scripts.experiments.server_memory``.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.daemons import Network
from tests.support.files import random_file, sha256

KIB = 1024
MIB = 1024 * KIB
SAMPLE_SECONDS = 0.05
DONE_SECONDS = 1800
TIMED_OUT = 6
COMMANDS = 4
"""The number of commands that run concurrently."""


class Memory:
    """Samples the resident memory of a process during a ``with`` block.

    Attributes:
        start_bytes: the resident memory at the start.
        peak_bytes: the largest sample.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.start_bytes = self.peak_bytes = self._resident_bytes()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self.peak_bytes = max(self.peak_bytes, self._resident_bytes())


def main() -> None:
    """Run the network, and print how the server's memory grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--kib", type=int, default=256, help="the size of a file")
    parser.add_argument("--stopped", type=int, default=10, help="how many of the clients stop reading for a while")
    parser.add_argument("--cache", default="8MiB")
    plan = parser.parse_args()
    # A daemon exits with the thread that started it, so the threads live until the end.
    with (
        ThreadPoolExecutor() as starters,
        tempfile.TemporaryDirectory() as place,
        Network(Path(place) / "network") as network,
    ):
        server = network.server("--cache", plan.cache)
        with Memory(server.pid) as memory:
            started = time.monotonic()
            _join(network, plan, starters)
            joined = f"{plan.clients - plan.stopped} clients joined within {time.monotonic() - started:.1f} s"
            joined_bytes = memory.peak_bytes
            started = time.monotonic()
            unanswered = _distribute(network, plan, Path(place))
            seconds = time.monotonic() - started
        cache = network.status()["cache"]["high_water_bytes"]
        log = server.log_text()
        print(
            f"{log.count('its lease ran out')} leases expired, {log.count('is unreachable')} times a client became"
            f" unreachable, {log.count('it joined again')} times a client joined again"
        )
        grown, members = memory.peak_bytes - memory.start_bytes, joined_bytes - memory.start_bytes
        print(f"{joined}; {plan.files} files of {plan.kib} KiB in {seconds:.0f} s, {plan.stopped} clients paused;")
        print(f"{unanswered} of {plan.files} release commands timed out and were repeated")
        print(
            f"server: {memory.start_bytes / MIB:.1f} MiB at its start, {members / MIB:.1f} more with all members,"
            f" {grown / MIB:.1f} at most, its cache included ({cache / MIB:.1f}):"
            f" {(grown - cache - members) / plan.clients / plan.files:.0f} bytes for each client and file"
        )


def _join(network: Network, plan: argparse.Namespace, starters: ThreadPoolExecutor) -> None:
    """Start the clients that keep reading, in one process per core."""
    count, cores = plan.clients - plan.stopped, os.cpu_count() or 1
    counts = [count * (index + 1) // cores - count * index // cores for index in range(cores)]
    list(starters.map(lambda item: network.client(f"p{item[0]}", "--count", item[1]), enumerate(counts)))


def _distribute(network: Network, plan: argparse.Namespace, place: Path) -> int:
    """Seed the files, exchange all at once, and compare copies; return how many commands timed out."""
    reading = plan.clients - plan.stopped
    files = [random_file(place / f"f{index}", plan.kib * KIB, seed=index) for index in range(plan.files)]
    with ThreadPoolExecutor(COMMANDS) as commands:
        list(commands.map(lambda file: network.ctl("seed", file, "--clients", reading, "--hold"), files))
    stopped = network.client("stopped", "--count", plan.stopped)  # they own no share
    with ThreadPoolExecutor(COMMANDS) as commands:
        releases = commands.map(lambda file: _release(network, file.name), files)
        unanswered = next(releases)
        os.kill(stopped.pid, signal.SIGSTOP)
        unanswered += sum(releases)
    # Look for the copies, because status requests would load the server.
    _await_copies(network, "p*", reading, files)
    os.kill(stopped.pid, signal.SIGCONT)
    _await_copies(network, "stopped*", plan.stopped, files)
    copies = [copy for file in files[:3] for copy in network.folder.rglob(file.name)]
    assert len(copies) == 3 * plan.clients, "every client has its copies"
    assert {sha256(copy) for copy in copies} == {sha256(file) for file in files[:3]}, "the copies are right"
    return unanswered


def _await_copies(network: Network, processes: str, client_count: int, files: list[Path]) -> None:
    folders = list(network.folder.glob(f"{processes}/*/"))
    assert len(folders) == client_count, "each client has a folder"
    awaited = [folder / file.name for folder in folders for file in files]

    def have_all() -> bool:
        while awaited and awaited[-1].exists():
            awaited.pop()
        return not awaited

    network.until(f"{processes} have all files", have_all, DONE_SECONDS)


def _release(network: Network, name: str) -> int:
    """Release a file; repeat the command while it times out. Return the number of timeouts."""
    unanswered = 0
    while network.ctl("release", name, code=None).returncode == TIMED_OUT:
        unanswered += 1
    return unanswered


if __name__ == "__main__":
    main()
