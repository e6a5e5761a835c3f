"""A network on this machine alone: the daemons of ``pspctl run``, and its hidden folder beside the copies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from itertools import pairwise
from pathlib import Path
from typing import Self

from pspctl.deadline import Deadline
from pspd.core.model.manifest import STORE_FOLDER
from pspd.daemon.spawn import STOP_SECONDS, DaemonProcess, stop_all
from pspd.errors import StorageError, TimedOut, WrongState
from pspd.host.command import CLIENTS_PER_PROCESS_MAX

START_SECONDS = 60.0
CLIENT_NAME = "client"
RUN_FOLDER = ".psp-run"
WAIT_SECONDS = 6.0
"""How long to wait for the lock: longer than the daemons of a killed run take to end by themselves."""
POLL_SECONDS = 0.05
COUNT_BYTES_MAX = 20


class LocalNetwork:
    """A server and clients. Leaving the ``with`` block stops them and removes the clients' hidden folders.

    Attributes:
        server: the server's address, once it is ready.
    """

    def __init__(self, clients_dir: Path, scratch_dir: Path, lock: int) -> None:
        """Prepare a network without daemons.

        Args:
            clients_dir: each client gets a folder below it, ``client-<i>``.
            scratch_dir: the folder for the server's state and the logs.
            lock: a descriptor that every daemon inherits.
        """
        self.server = ""
        self._lock = lock
        self._clients_dir = clients_dir
        self._scratch_dir = scratch_dir
        self._servers: list[DaemonProcess] = []
        self._clients: list[DaemonProcess] = []
        self._client_count = 0

    def __enter__(self) -> Self:
        """Return the network."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all daemons."""
        self.stop()

    def start(self, client_count: int, server_arguments: list[str], deadline: Deadline) -> None:
        """Start the server, then the clients; return when all are ready.

        Args:
            client_count: how many clients to start.
            server_arguments: more arguments for `pspd server`.
            deadline: when to give up; at most `START_SECONDS` from now.

        Raises:
            PspError: a daemon died.
            TimedOut: a daemon was not ready in time.
            LimitReached: the machine cannot start more processes.
        """
        deadline = deadline.at_most(START_SECONDS)
        arguments = ["server", "--listen", "127.0.0.1:0", "--data-port", "0"]
        arguments += ["--state-dir", str(self._scratch_dir / "server"), *server_arguments]
        self._servers.append(self._daemon("server", arguments))
        self._wait_ready(deadline)
        self.server = str(self._servers[0].ready["listen"])
        self._client_count = client_count
        for first_index, count in client_groups(client_count, process_count(client_count)):
            arguments = ["client", "--server", self.server, "--dir", str(self._clients_dir), "--name", CLIENT_NAME]
            arguments += ["--count", str(count), "--first-index", str(first_index)]
            self._clients.append(self._daemon(f"client-{first_index}", arguments))
        self._wait_ready(deadline)

    def check(self) -> None:
        """Raise PspError with the last line of its log if a daemon died."""
        for daemon in [*self._clients, *self._servers]:
            if daemon.has_ended:
                raise daemon.death()

    def stop(self) -> None:
        """Stop the clients, then the server; kill daemons that have not ended after `STOP_SECONDS`."""
        deadline = Deadline(STOP_SECONDS)
        try:
            stop_all(self._clients, STOP_SECONDS)
            stop_all(self._servers, deadline.within(STOP_SECONDS))
        finally:
            for daemon in [*self._clients, *self._servers]:
                daemon.close()
            for folder in client_folders(self._clients_dir, self._client_count):
                shutil.rmtree(folder / STORE_FOLDER, ignore_errors=True)

    def _daemon(self, title: str, arguments: list[str]) -> DaemonProcess:
        return DaemonProcess(title, arguments, self._scratch_dir / f"{title}.log", pass_fds=(self._lock,))

    def _wait_ready(self, deadline: Deadline) -> None:
        """Wait until all daemons are ready.

        Raises:
            PspError: a daemon died.
            TimedOut: the deadline passed.
        """
        for daemon in [*self._servers, *self._clients]:
            if not daemon.wait_ready(deadline.remaining_seconds):
                waited = f"not ready after {deadline.text}"
                raise TimedOut(f"the {daemon.title} was {waited}: {daemon.last_line}")


def client_folders(clients_dir: Path, client_count: int) -> list[Path]:
    """Return the folders of the clients.

    Args:
        clients_dir: the folder above them.
        client_count: how many clients there are.
    """
    return [clients_dir / f"{CLIENT_NAME}-{index}" for index in range(client_count)]


def require_free(clients_dir: Path, client_count: int, name: str) -> None:
    """Make sure that the clients' folders can be used.

    Args:
        clients_dir: the folder above them.
        client_count: how many clients there are.
        name: the name of the file that they are to get.

    Raises:
        WrongState: a folder contains this name, or belongs to another client.
    """
    for folder in client_folders(clients_dir, client_count):
        for path in (folder / name, folder / STORE_FOLDER):
            if os.path.lexists(path):
                raise WrongState(f"{path} already exists: remove it, or name another folder with --to")


def client_count_max() -> int:
    """Return the most clients that a network on this machine may have."""
    return CLIENTS_PER_PROCESS_MAX * core_count()


def core_count() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_count(client_count: int) -> int:
    """Return over how many processes to spread clients: at most one per core."""
    return min(client_count, core_count())


def client_groups(client_count: int, group_count: int) -> list[tuple[int, int]]:
    """Divide clients evenly; return the first index and the size of each group that is not empty.

    Args:
        client_count: how many clients there are.
        group_count: into how many groups to divide them.
    """
    bounds = [client_count * index // group_count for index in range(group_count + 1)]
    return [(start, stop - start) for start, stop in pairwise(bounds) if start < stop]


class RunFolder:
    """The hidden folder of one run. Leaving the ``with`` block removes it.

    The daemons inherit the lock, so it is free only when the run and all its daemons have ended. A killed run leaves
    its folder; the next run removes it together with the unfinished files of the killed run's clients.

    Attributes:
        path: the folder.
        lock: the descriptor of its lock.
    """

    def __init__(self, copies_dir: Path, client_count: int) -> None:
        """Prepare the folder; entering the ``with`` block creates it.

        Args:
            copies_dir: the folder of the copies.
            client_count: how many clients the run has.
        """
        self.path = copies_dir / RUN_FOLDER
        self.lock = -1
        self._copies_dir = copies_dir
        self._client_count = client_count

    def __enter__(self) -> Self:
        """Create and lock the folder, and remove what a killed run left.

        Raises:
            WrongState: another run uses it.
            StorageError: it cannot be created or locked.
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
        """Remove the folder."""
        try:
            shutil.rmtree(self.path, ignore_errors=True)
        finally:
            self._release_lock()

    def _acquire_lock(self) -> None:
        """Wait for the lock."""
        deadline = Deadline(WAIT_SECONDS)
        path = self.path / "lock"
        while True:
            self.path.mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(FileNotFoundError, BlockingIOError):  # the run that held it removes it
                self.lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(self.lock), os.lstat(path)):
                    return
            self._release_lock()
            if deadline.passed:
                raise WrongState(f"another run still uses {self._copies_dir}: wait for it, or name another with --to")
            time.sleep(POLL_SECONDS)

    def _remove_leftovers(self) -> None:
        """Remove what a killed run left."""
        with contextlib.suppress(ValueError):
            folders = client_folders(self._copies_dir, int(os.pread(self.lock, COUNT_BYTES_MAX, 0)))
            for work in (folder / STORE_FOLDER for folder in folders):
                if not _is_in_use(work):
                    shutil.rmtree(work, ignore_errors=True)
        for entry in os.scandir(self.path):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != "lock":
                os.unlink(entry)

    def note_clients(self) -> None:
        """Store the number of clients: if this run is killed, the next one removes their unfinished files."""
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, str(self._client_count).encode(), 0)

    def _release_lock(self) -> None:
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


def _is_in_use(work: Path) -> bool:
    """Return whether a client uses this hidden folder, because the user started one there after the run was killed."""
    try:
        lock = os.open(work / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
