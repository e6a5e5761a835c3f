"""The hidden folder of ``pspctl run`` beside the copies: logs, the server's state, and a lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from pspctl.deadline import Deadline
from pspctl.local import client_folders
from pspd.core.model.manifest import STORE_FOLDER
from pspd.errors import StorageError, WrongState

RUN_FOLDER = ".psp-run"
WAIT_SECONDS = 6.0
"""How long to wait for the lock: longer than the daemons of a killed run take to end by themselves."""
POLL_SECONDS = 0.05
COUNT_BYTES_MAX = 20


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
        except OSError as error:
            self._release_lock()
            raise StorageError(f"cannot use {self.path}: {error.strerror}: name another folder with --to") from error
        except BaseException:
            self._release_lock()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
