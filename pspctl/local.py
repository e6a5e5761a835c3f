"""Runs a network on this machine alone: the daemons of ``pspctl run``, and the run folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Self

from pspctl.deadline import Deadline
from pspd.core.model.manifest import STORE_FOLDER
from pspd.daemon.spawn import STOP_SECONDS, DaemonProcess, stop_all
from pspd.errors import StorageError, TimedOut, WrongState
from pspd.host.command import CLIENTS_PER_PROCESS_MAX

START_SECONDS = 60.0
CLIENT_NAME_PREFIX = "client"
RUN_FOLDER = ".psp-run"
"""The name of the run folder, a hidden folder for the lock, the logs and the server's state of one run."""
LOCK_WAIT_SECONDS = 6.0
"""How long to wait for the lock: longer than it takes until the daemons of a killed run end by themselves."""
LOCK_POLL_SECONDS = 0.05
COUNT_BYTES_MAX = 20
"""The most bytes to read from the lock file, which contains the number of clients in decimal digits."""


def client_folders(copies_dir: Path, client_count: int) -> list[Path]:
    """Return the folders of the clients.

    Args:
        copies_dir: the folder that contains the clients' folders.
        client_count: the number of clients.
    """
    return [copies_dir / f"{CLIENT_NAME_PREFIX}-{index}" for index in range(client_count)]


def client_count_max() -> int:
    """Return the largest number of clients that a network on this machine may have."""
    return CLIENTS_PER_PROCESS_MAX * core_count()


def core_count() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def client_groups(client_count: int, group_count: int) -> list[tuple[int, int]]:
    """Divide clients evenly into groups; return the first client's index and the size of each non-empty group.

    Args:
        client_count: the number of clients.
        group_count: the number of groups.
    """
    bounds = [client_count * index // group_count for index in range(group_count + 1)]
    return [(start, stop - start) for start, stop in pairwise(bounds) if start < stop]


@dataclass(slots=True)
class RunFolder:
    """The run folder of one run. Entering the ``with`` block creates and locks it; leaving the block removes it.

    The daemons inherit the lock, so it is free only when the run and all its daemons have ended. If a run is killed,
    its run folder remains. The next run with the same `copies_dir` empties it, and removes the clients' store folders,
    which contain the unfinished files.

    Attributes:
        copies_dir: the folder of the copies, in which each client has a folder, ``client-<i>``.
        client_count: how many clients the run has.
        lock: the file descriptor of the lock; -1 while this process does not hold the lock.
    """

    copies_dir: Path
    client_count: int
    lock: int = -1

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.copies_dir / RUN_FOLDER

    @property
    def client_folders(self) -> list[Path]:
        """The folders of the clients."""
        return client_folders(self.copies_dir, self.client_count)

    def __enter__(self) -> Self:
        """Create and lock the folder, and remove the leftovers of a killed run.

        Raises:
            WrongState: another run uses the folder.
            StorageError: the folder cannot be created, locked or emptied.
        """
        try:
            self._acquire_lock()
            self._remove_leftovers()
        except BaseException as error:
            self._release_lock()
            if isinstance(error, OSError):
                reason = f"{error.strerror}: name another folder with --to"
                raise StorageError(f"cannot use {self.path}: {reason}") from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the folder, and release the lock."""
        try:
            shutil.rmtree(self.path, ignore_errors=True)
        finally:
            self._release_lock()

    def _acquire_lock(self) -> None:
        """Create the folder and lock it; raise WrongState if another run holds the lock for `LOCK_WAIT_SECONDS`."""
        deadline = Deadline(LOCK_WAIT_SECONDS)
        path = self.path / "lock"
        while True:
            self.path.mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(FileNotFoundError, BlockingIOError):  # another run removes or locks the folder
                self.lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(self.lock), os.lstat(path)):
                    return
            self._release_lock()
            if deadline.has_passed:
                raise WrongState(f"another run still uses {self.copies_dir}: wait for it, or name another with --to")
            time.sleep(LOCK_POLL_SECONDS)

    def _remove_leftovers(self) -> None:
        """Remove the logs, the server's state and the clients' store folders that a killed run left.

        A store folder stays while a client uses it: the user may have started one after the run was killed.
        """
        with contextlib.suppress(ValueError):
            folders = client_folders(self.copies_dir, int(os.pread(self.lock, COUNT_BYTES_MAX, 0)))
            for store_folder in (folder / STORE_FOLDER for folder in folders):
                if not _is_in_use(store_folder):
                    shutil.rmtree(store_folder, ignore_errors=True)
        for entry in os.scandir(self.path):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != "lock":
                os.unlink(entry)

    def claim_client_folders(self, name: str) -> None:
        """Check that the clients' folders are free, and store the number of clients in the lock file.

        If this run is killed, the next run removes the store folders of that many clients.

        Args:
            name: the name of the file that the clients will receive.

        Raises:
            WrongState: a client's folder already contains a file of this name, or a store folder.
        """
        for folder in self.client_folders:
            for path in (folder / name, folder / STORE_FOLDER):
                if os.path.lexists(path):
                    raise WrongState(f"{path} already exists: remove it, or name another folder with --to")
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, str(self.client_count).encode(), 0)

    def _release_lock(self) -> None:
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


def _is_in_use(store_folder: Path) -> bool:
    """Return whether a client uses a store folder."""
    try:
        lock = os.open(store_folder / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


@dataclass(slots=True)
class LocalNetwork:
    """The server and the clients of a run. `close` stops them, and removes the clients' store folders.

    Attributes:
        folder: the run folder; every daemon inherits the folder's lock.
        server_address: the server's address; empty until the server is ready.
    """

    folder: RunFolder
    server_address: str = ""
    _server: DaemonProcess | None = None
    _clients: list[DaemonProcess] = field(default_factory=list)

    def start(self, server_arguments: list[str], deadline: Deadline) -> None:
        """Start the server, then the clients; return when all are ready.

        Args:
            server_arguments: further arguments of `pspd server`.
            deadline: the deadline of the command. The start takes at most `START_SECONDS` in any case.

        Raises:
            PspError: a daemon died.
            TimedOut: a daemon was not ready in time.
            LimitReached: the machine cannot start more processes.
        """
        deadline = deadline.limited_to(START_SECONDS)
        arguments = ["server", "--listen", "127.0.0.1:0", "--data-port", "0"]
        arguments += ["--state-dir", str(self.folder.path / "server"), *server_arguments]
        self._server = server = self._daemon("server", arguments)
        _wait_ready([server], deadline)
        self.server_address = str(server.ready_line["listen"])
        for first_index, count in client_groups(self.folder.client_count, core_count()):  # one process per group
            arguments = ["client", "--server", self.server_address, "--dir", str(self.folder.copies_dir)]
            arguments += ["--name", CLIENT_NAME_PREFIX, "--count", str(count), "--first-index", str(first_index)]
            self._clients.append(self._daemon(f"client-{first_index}", arguments))
        _wait_ready(self._clients, deadline)

    def require_running(self) -> None:
        """Raise PspError if a daemon has ended; the message quotes the last line of the daemon's log."""
        for daemon in self._daemons():
            if daemon.has_ended:
                raise daemon.exit_error()

    def close(self) -> None:
        """Stop the clients, then the server, and remove the clients' store folders.

        If `STOP_SECONDS` are not enough for all daemons, kill those that still run.
        """
        deadline = Deadline(STOP_SECONDS)
        try:
            stop_all(self._clients, STOP_SECONDS)
            stop_all([self._server] if self._server is not None else [], deadline.capped(STOP_SECONDS))
        finally:
            for daemon in self._daemons():
                daemon.close()
            for folder in self.folder.client_folders:
                shutil.rmtree(folder / STORE_FOLDER, ignore_errors=True)

    def _daemons(self) -> list[DaemonProcess]:
        return [*self._clients, *filter(None, [self._server])]

    def _daemon(self, title: str, arguments: list[str]) -> DaemonProcess:
        return DaemonProcess(title, arguments, self.folder.path / f"{title}.log", pass_fds=(self.folder.lock,))


def _wait_ready(daemons: list[DaemonProcess], deadline: Deadline) -> None:
    """Wait until daemons are ready.

    Args:
        daemons: the daemons.
        deadline: the deadline of the wait.

    Raises:
        PspError: a daemon died.
        TimedOut: the deadline passed.
    """
    for daemon in daemons:
        if not daemon.wait_ready(deadline.remaining_seconds):
            waited = f"not ready after {deadline.timeout_text}"
            raise TimedOut(f"the {daemon.title} was {waited}: {daemon.last_log_line}")
