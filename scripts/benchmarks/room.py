"""Where one comparison takes place: a server, a source, clients, and everything that is started there."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.lab.network import Lab
from tests.support.files import random_file, sha256
from tests.support.hosts import LOCAL, Host, kill_group

DONE_SECONDS = 90
READY_SECONDS = 30
POLL_SECONDS = 0.005
FILLER_BYTES = 1024 * 1024
SETTINGS = {
    # An order that no free page has: no memory is given back to the host of a virtual machine.
    Path("/sys/module/page_reporting/parameters/page_reporting_order"): "11",
    # In a swarm every host knows every other, and the kernel counts all of them together.
    Path("/proc/sys/net/ipv4/neigh/default/gc_thresh3"): "8192",
    Path("/proc/sys/net/ipv4/neigh/default/gc_thresh2"): "8192",
}
"""What the machine's kernel is told while the room is there."""


class Room:
    """Machines that are plugged together, and a file that is with the source and the server.

    Attributes:
        server: the host from which, or through which, the file comes.
        source: the host that has it; the server's own, on loopback.
        clients: the hosts that are to get it.
        mbit: the speed of each host's cable, each way; 0 for none.
        file: the file.
        folder: for everything else; empty at the beginning of each run.
    """

    def __init__(self, folder: Path, client_count: int, size_bytes: int, mbit: float, *, loopback: bool) -> None:
        self.mbit = mbit
        self.file = random_file(folder / "file.bin", size_bytes)
        self.folder = folder / "run"
        self._digest = sha256(self.file)
        self._lab = None if loopback else Lab(2 + client_count)
        hosts = self._lab.hosts if self._lab else (LOCAL,) * (2 + client_count)
        self.server, self.source, *self.clients = hosts
        self._processes: list[subprocess.Popen[Any]] = []
        self._before: dict[Path, str] = {}

    def __enter__(self) -> Room:
        for setting, value in SETTINGS.items():
            with contextlib.suppress(OSError):
                before = setting.read_text()
                setting.write_text(value)
                self._before[setting] = before
        if self._lab:
            self._lab.__enter__()
            for host in self._lab.hosts:
                host.run(["ip", "route", "add", "224.0.0.0/4", "dev", "eth0"])  # for those who look for each other
                if self.mbit:
                    self._lab.shape(host, self.mbit)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lab:
            self._lab.__exit__(kind, error, trace)
        for setting, value in self._before.items():
            setting.write_text(value)

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """One run: an empty folder before, and nothing that goes on after it."""
        self.folder.mkdir()
        try:
            yield
        finally:
            for process in self._processes:
                kill_group(process)
            self._processes.clear()
            shutil.rmtree(self.folder)

    def copy(self, index: int) -> Path:
        """Where a client's copy is to be."""
        folder = self.folder / f"c{index}"
        folder.mkdir(exist_ok=True)
        return folder / self.file.name

    def warm(self) -> float:
        """Takes as much memory as all copies will, and gives it back: to be called right before the clock starts.

        A virtual machine gives memory that lies idle for seconds back to its host, and whoever is first to use it
        again pays for that: up to ten times what writing a file costs otherwise. Where that can be turned off it is,
        while the room is there.

        Returns:
            The time, by a monotonic clock.
        """
        filler = self.folder / "filler"
        piece = bytes(FILLER_BYTES)
        with filler.open("wb") as file:
            for _ in range(0, len(self.clients) * self.file.stat().st_size, FILLER_BYTES):
                file.write(piece)
        filler.unlink()
        return time.monotonic()

    def start(self, host: Host, *args: object) -> subprocess.Popen[Any]:
        """Starts a program that runs until the end of the run, or ends by itself."""
        with (self.folder / "log").open("ab") as log:
            process = host.popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)
        self._processes.append(process)
        return process

    def finish(self, processes: Sequence[subprocess.Popen[Any]]) -> None:
        """Waits until programs have ended in good order."""
        deadline = time.monotonic() + DONE_SECONDS
        for process in processes:
            try:
                code = process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise RuntimeError(f"it was not done after {DONE_SECONDS} s") from None
            if code != 0:
                raise RuntimeError(f"{process.args} ended with {code}: {self.log_end()}")

    def until(self, what: str, condition: Callable[[], bool], seconds: float = DONE_SECONDS) -> None:
        """Waits for a condition, while nothing that was started fails."""
        deadline = time.monotonic() + seconds
        while not condition():
            if any(process.poll() for process in self._processes) or time.monotonic() > deadline:
                raise RuntimeError(f"{what}: this did not come: {self.log_end()}")
            time.sleep(POLL_SECONDS)

    def until_answers(self, host: Host, port: int) -> None:
        """Waits until a TCP server listens."""
        probe = f"import socket; socket.create_connection(('{host.address}', {port}), 1)"
        self.until(
            f"port {port} of {host.name}",
            lambda: host.run(["python3", "-c", probe]).returncode == 0,
            READY_SECONDS,
        )

    def log_end(self) -> str:
        """The last that programs said."""
        with contextlib.suppress(OSError):
            return (self.folder / "log").read_text(errors="replace")[-1000:]
        return ""

    def check(self) -> None:
        """Every client has the very bytes.

        Raises:
            RuntimeError: one has not.
        """
        for index in range(len(self.clients)):
            if sha256(self.copy(index)) != self._digest:
                raise RuntimeError(f"client {index} has other bytes")

    def settle(self) -> None:
        """What was written is on the disk, so that it is not written in the next one's time."""
        os.sync()
