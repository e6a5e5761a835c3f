"""The testbed of a comparison: a server, a source, clients, and the programs started on them."""

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
    # No free page has this order, so a virtual machine gives no memory back to its host.
    Path("/sys/module/page_reporting/parameters/page_reporting_order"): "11",
    # In a swarm every host knows every other, and the kernel counts the entries of all namespaces together.
    Path("/proc/sys/net/ipv4/neigh/default/gc_thresh3"): "8192",
    Path("/proc/sys/net/ipv4/neigh/default/gc_thresh2"): "8192",
}
"""Kernel settings while the testbed exists."""


class Testbed:
    """Connected hosts, and a file at the source and the server.

    Attributes:
        server: the host that serves or forwards the file.
        source: the host that has the file. On loopback all hosts are the same.
        clients: the hosts that get the file.
        mbit: the speed of each host's link, each way; 0 for unlimited.
        file: the file.
        folder: the folder for all other files; empty at the start of each run.
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

    def __enter__(self) -> Testbed:
        for setting, value in SETTINGS.items():
            with contextlib.suppress(OSError):
                before = setting.read_text()
                setting.write_text(value)
                self._before[setting] = before
        if self._lab:
            self._lab.__enter__()
            for host in self._lab.hosts:
                host.run(["ip", "route", "add", "224.0.0.0/4", "dev", "eth0"])  # for local peer discovery
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
        """Provide an empty folder for one run; end all programs after it."""
        self.folder.mkdir()
        try:
            yield
        finally:
            for process in self._processes:
                kill_group(process)
            self._processes.clear()
            shutil.rmtree(self.folder)

    def copy(self, index: int) -> Path:
        """Return the path of a client's copy."""
        folder = self.folder / f"c{index}"
        folder.mkdir(exist_ok=True)
        return folder / self.file.name

    def warm(self) -> float:
        """Allocate as much memory as all copies need, and free it, right before a measurement.

        A virtual machine gives idle memory back to its host, and the first write after that is up to ten times slower.

        Returns:
            The time of a monotonic clock.
        """
        filler = self.folder / "filler"
        zeros = bytes(FILLER_BYTES)
        with filler.open("wb") as file:
            for _ in range(0, len(self.clients) * self.file.stat().st_size, FILLER_BYTES):
                file.write(zeros)
        filler.unlink()
        return time.monotonic()

    def start(self, host: Host, *args: object) -> subprocess.Popen[Any]:
        """Start a program, which is killed at the end of the run.

        Args:
            host: the host of the program.
            *args: the command line.
        """
        with (self.folder / "log").open("ab") as log:
            process = host.popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)
        self._processes.append(process)
        return process

    def finish(self, processes: Sequence[subprocess.Popen[Any]]) -> None:
        """Wait until programs have ended with code 0."""
        deadline = time.monotonic() + DONE_SECONDS
        for process in processes:
            try:
                code = process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise RuntimeError(f"not done after {DONE_SECONDS} s") from None
            if code != 0:
                raise RuntimeError(f"{process.args} ended with {code}: {self.log_end()}")

    def until(self, what: str, condition: Callable[[], bool], seconds: float = DONE_SECONDS) -> None:
        """Wait for a condition.

        Args:
            what: the condition, for the error message.
            condition: the function that is called until it returns True.
            seconds: the longest time to wait.

        Raises:
            RuntimeError: a program failed, or the deadline passed.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if any(process.poll() for process in self._processes) or time.monotonic() > deadline:
                raise RuntimeError(f"not reached: {what}: {self.log_end()}")
            time.sleep(POLL_SECONDS)

    def until_answers(self, host: Host, port: int) -> None:
        """Wait until a TCP server listens.

        Args:
            host: the host of the server.
            port: the port of the server.
        """
        probe = f"import socket; socket.create_connection(('{host.address}', {port}), 1)"
        self.until(
            f"port {port} of {host.name}",
            lambda: host.run(["python3", "-c", probe]).returncode == 0,
            READY_SECONDS,
        )

    def log_end(self) -> str:
        """Return the end of the programs' output."""
        with contextlib.suppress(OSError):
            return (self.folder / "log").read_text(errors="replace")[-1000:]
        return ""

    def check(self) -> None:
        """Check every copy.

        Raises:
            RuntimeError: a copy is wrong.
        """
        for index in range(len(self.clients)):
            if sha256(self.copy(index)) != self._digest:
                raise RuntimeError(f"client {index} has a wrong copy")

    def settle(self) -> None:
        """Write everything to disk, so that this does not slow down the next run."""
        os.sync()
