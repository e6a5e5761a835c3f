"""The environment of a program: the user's folders, the machine's limits, and errors of the operating system."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import platformdirs

from pspd.errors import LimitReached, PspError, StorageError

APPLICATION = "psp"
DESCRIPTORS_MIN = 32
"""The number of open files that a program needs. uvloop and gRPC open about twenty, and abort if they cannot."""
THREADS_MIN = 8
"""The number of threads that gRPC needs."""

FolderKind = Literal["config", "data", "state"]
_FOLDERS: dict[FolderKind, Callable[[str], str]] = {
    "config": platformdirs.user_config_dir,
    "data": platformdirs.user_data_dir,
    "state": platformdirs.user_state_dir,
}

_NO_THREADS = "cannot start more threads: end other processes, or raise the limits (ulimit -u, -v)"
_NO_MEMORY = "out of memory: free some, or raise the limit (ulimit -v)"
_BUG_ERRNOS = {
    *(errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTTY, errno.ESPIPE, errno.EAGAIN, errno.EINPROGRESS),
    *(errno.EALREADY, errno.ENOTSOCK, errno.EDESTADDRREQ, errno.EISCONN, errno.ENOTCONN, errno.EPIPE),
}
"""The numbers of the system's errors that only a bug in this program can cause."""


def user_folder(kind: FolderKind) -> Path | None:
    """Return the folder for the user's PSP files of one kind; None if the user has no home folder."""
    try:
        return Path(_FOLDERS[kind](APPLICATION))
    except RuntimeError:
        return None


def no_home_error(kind: FolderKind, setting: str) -> StorageError:
    """Return the error for a user without a home folder.

    Args:
        kind: the kind of folder that is needed.
        setting: the option or variable that sets another folder, such as ``--state-dir``.
    """
    return StorageError(f"no {kind} folder: user {os.getuid()} has no home: set HOME, or name a folder with {setting}")


def require_descriptors() -> None:
    """Check that the limit on open files suffices for a program that uses gRPC.

    Raises:
        LimitReached: the limit on open files is too low.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < DESCRIPTORS_MIN:
        raise LimitReached(f"the limit on open files is {limit}: raise it to {DESCRIPTORS_MIN} or more (ulimit -n)")


def require_threads() -> None:
    """Check that gRPC can start its threads: otherwise gRPC aborts or hangs.

    Raises:
        LimitReached: the machine does not allow :data:`THREADS_MIN` more threads.
    """
    may_end = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(THREADS_MIN):
            thread = threading.Thread(target=may_end.wait)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        raise LimitReached(_NO_THREADS) from error
    finally:
        may_end.set()
        for thread in started:
            thread.join()


def environment_error(error: BaseException) -> PspError | None:
    """Return the ``PspError`` for an error that the machine causes; None for any other error, which is a bug."""
    match error:
        case MemoryError():
            return LimitReached(_NO_MEMORY)
        case RuntimeError() if "start new thread" in str(error):
            return LimitReached(_NO_THREADS)
        case OSError(errno=errno.EMFILE | errno.ENFILE):
            return LimitReached("too many open files: raise the limit on open files (ulimit -n)")
        case OSError(errno=errno.ENOMEM):
            return LimitReached(_NO_MEMORY)
        case FileNotFoundError(filename=None) if _is_current_folder_gone():
            return StorageError("the current folder no longer exists: change to another one")
        case OSError(errno=int(number)) if number in errno.errorcode and number not in _BUG_ERRNOS:
            return StorageError(_storage_error_text(error))
    return None


def _storage_error_text(error: OSError) -> str:
    if isinstance(error.filename, str | bytes):
        return f"cannot use {os.fsdecode(error.filename)}: {error.strerror}: solve this problem, or use another path"
    return f"a system call failed: {error.strerror}: --debug (for a daemon, PSPD_LOG=DEBUG) shows which one"


def _is_current_folder_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False
