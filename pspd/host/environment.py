"""What a program finds around it: the user's folders, the machine's limits, and the errors that come of these."""

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
"""uvloop and gRPC take some twenty for themselves, and abort where they get none."""
THREADS_MIN = 8
"""gRPC has that many at work."""

Kind = Literal["config", "data", "state"]
_FOLDERS: dict[Kind, Callable[[str], str]] = {
    "config": platformdirs.user_config_dir,
    "data": platformdirs.user_data_dir,
    "state": platformdirs.user_state_dir,
}

_NO_THREADS = "no more threads can be started: end other processes, or raise the limits (ulimit -u, -v)"
_BUGS = {
    *(errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTTY, errno.ESPIPE, errno.EAGAIN, errno.EINPROGRESS),
    *(errno.EALREADY, errno.ENOTSOCK, errno.EDESTADDRREQ, errno.EISCONN, errno.ENOTCONN, errno.EPIPE),
}
"""Errors of the system that only a program of ours can cause."""


def user_folder(kind: Kind) -> Path | None:
    """Where the user keeps what is of a kind; None for a user without a home folder."""
    try:
        return Path(_FOLDERS[kind](APPLICATION))
    except RuntimeError:
        return None


def no_home(kind: Kind, setting: str) -> StorageError:
    """The error for a user without a home folder.

    Args:
        kind: of the folder that would be there.
        setting: what names another one: ``--state-dir``.
    """
    return StorageError(f"no {kind} folder: user {os.getuid()} has no home: set HOME, or name one with {setting}")


def require_descriptors() -> None:
    """Makes sure that a program which moves data can open what it needs.

    Raises:
        LimitReached: the limit on open files is too low.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < DESCRIPTORS_MIN:
        raise LimitReached(f"the limit on open files is {limit}: raise it to {DESCRIPTORS_MIN} or more (ulimit -n)")


def require_threads() -> None:
    """Makes sure that gRPC can start its threads: where it cannot, it aborts or hangs.

    Raises:
        LimitReached: the machine lets too few of them start.
    """
    are_started = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(THREADS_MIN):
            thread = threading.Thread(target=are_started.wait)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        raise LimitReached(_NO_THREADS) from error
    finally:
        are_started.set()
        for thread in started:
            thread.join()


def environment_error(error: BaseException) -> PspError | None:
    """The error of ours that stands for one of the machine's; None if the program itself is at fault."""
    match error:
        case MemoryError():
            return LimitReached("there is no memory left: free some, or raise the limit (ulimit -v)")
        case RuntimeError() if "start new thread" in str(error):
            return LimitReached(_NO_THREADS)
        case OSError(errno=errno.EMFILE | errno.ENFILE):
            return LimitReached("too many open files: raise the limit on open files (ulimit -n)")
        case OSError(errno=errno.ENOMEM):
            return LimitReached("there is no memory left: free some, or raise the limit (ulimit -v)")
        case FileNotFoundError(filename=None) if _current_folder_is_gone():
            return StorageError("the current folder no longer exists: change to another one")
        case OSError(errno=int(number)) if number in errno.errorcode and number not in _BUGS:
            return StorageError(_text(error))
    return None


def _text(error: OSError) -> str:
    if isinstance(error.filename, str | bytes):
        return f"cannot use {os.fsdecode(error.filename)}: {error.strerror}: put it right, or give another path"
    return f"a call to the system failed: {error.strerror}: --debug, or PSPD_LOG=DEBUG for a daemon, shows which"


def _current_folder_is_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False
