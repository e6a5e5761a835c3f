"""The server's memory in a crowd: hundreds of clients that join at once, dozens of files, and some who read nothing.

All on this machine, on loopback. Samples the server's resident memory through the run, and prints how much it grew,
beside the size of its cache. Run it from the repository's folder: ``.venv/bin/python -m scripts.experiments.crowd``.
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
"""At a time."""


class Memory:
    """The most that a process had resident while the ``with`` block ran, in bytes."""

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
    parser.add_argument(
        "--deaf", type=int, default=10, help="how many of the clients stop for a while, and read nothing"
    )
    parser.add_argument("--cache", default="8MiB")
    plan = parser.parse_args()
    # A daemon dies with the thread that started it: so the threads stay until the end.
    with (
        ThreadPoolExecutor() as starters,
        tempfile.TemporaryDirectory() as place,
        Network(Path(place) / "network") as network,
    ):
        server = network.server("--cache", plan.cache)
        with Memory(server.pid) as memory:
            started = time.monotonic()
            _join(network, plan, starters)
            told = f"{plan.clients - plan.deaf} clients joined within {time.monotonic() - started:.1f} s"
            joined_bytes = memory.peak_bytes
            started = time.monotonic()
            unanswered = _distribute(network, plan, Path(place))
            seconds = time.monotonic() - started
        cache = network.status()["cache"]["high_water_bytes"]
        said = server.log_text()
        print(
            f"{said.count('its lease ran out')} leases ran out, {said.count('is out of reach')} times a client was out"
            f" of reach, {said.count('it joined again')} times one joined again"
        )
        grown, members = memory.peak_bytes - memory.start_bytes, joined_bytes - memory.start_bytes
        print(f"{told}; {plan.files} files of {plan.kib} KiB in {seconds:.0f} s, {plan.deaf} read nothing for a while;")
        print(f"{unanswered} of {plan.files} commands that released a file got no answer in time, and were repeated")
        print(
            f"server: {memory.start_bytes / MIB:.1f} MiB at its start, {members / MIB:.1f} more with all members,"
            f" {grown / MIB:.1f} at most, of which {cache / MIB:.1f} were its cache:"
            f" {(grown - cache - members) / plan.clients / plan.files:.0f} bytes for each client and file"
        )


def _join(network: Network, plan: argparse.Namespace, starters: ThreadPoolExecutor) -> None:
    """Starts those who hear, in as many processes as there are cores."""
    count, cores = plan.clients - plan.deaf, os.cpu_count() or 1
    counts = [count * (index + 1) // cores - count * index // cores for index in range(cores)]
    list(starters.map(lambda item: network.client(f"p{item[0]}", "--count", item[1]), enumerate(counts)))


def _distribute(network: Network, plan: argparse.Namespace, place: Path) -> int:
    """Seeds the files, lets them be exchanged all at once, and compares; returns how many commands got no answer."""
    hearing = plan.clients - plan.deaf
    files = [random_file(place / f"f{index}", plan.kib * KIB, seed=index) for index in range(plan.files)]
    with ThreadPoolExecutor(COMMANDS) as commands:
        list(commands.map(lambda file: network.ctl("seed", file, "--clients", hearing, "--hold"), files))
    deaf = network.client("deaf", "--count", plan.deaf)  # they hold no share: nobody waits for them
    with ThreadPoolExecutor(COMMANDS) as commands:
        releases = commands.map(lambda file: _release(network, file.name), files)
        unanswered = next(releases)
        os.kill(deaf.pid, signal.SIGSTOP)
        unanswered += sum(releases)
    # The copies are looked at, not asked for: the server has enough to do.
    _await_copies(network, "p*", hearing, files)
    os.kill(deaf.pid, signal.SIGCONT)
    _await_copies(network, "deaf*", plan.deaf, files)
    copies = [copy for file in files[:3] for copy in network.folder.rglob(file.name)]
    assert len(copies) == 3 * plan.clients, "every client has its copies"
    assert {sha256(copy) for copy in copies} == {sha256(file) for file in files[:3]}, "and they are right"
    return unanswered


def _await_copies(network: Network, processes: str, client_count: int, files: list[Path]) -> None:
    folders = list(network.folder.glob(f"{processes}/*/"))
    assert len(folders) == client_count, "each client has a folder"
    awaited = [folder / file.name for folder in folders for file in files]

    def are_there() -> bool:
        while awaited and awaited[-1].exists():
            awaited.pop()
        return not awaited

    network.until(f"{processes} have all", are_there, DONE_SECONDS)


def _release(network: Network, name: str) -> int:
    """Releases a file; again, if the server was too busy to answer. Returns how often it was."""
    unanswered = 0
    while network.ctl("release", name, code=None).returncode == TIMED_OUT:
        unanswered += 1
    return unanswered


if __name__ == "__main__":
    main()
