"""Files and folders that only their owner may read and write, whatever the umask."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

PRIVATE_FILE_MODE = 0o600
PRIVATE_FOLDER_MODE = 0o700
PERMISSION_BITS = 0o777

_LOG = logging.getLogger(__name__)


def open_private(path: Path, flags: int) -> int:
    """Open a file of the hidden folder. A file that this creates is private.

    Args:
        path: the file.
        flags: those of ``os.open``, with ``O_CREAT``.

    Raises:
        OSError: the file cannot be opened.
    """
    flags |= os.O_CLOEXEC
    try:
        fd = os.open(path, flags, PRIVATE_FILE_MODE)
    except PermissionError:
        # A partial file gets its final mode just before its name. If the name is then refused, it is written again.
        os.chmod(path, PRIVATE_FILE_MODE)
        return os.open(path, flags)
    if os.fstat(fd).st_mode & PRIVATE_FILE_MODE != PRIVATE_FILE_MODE:
        os.fchmod(fd, PRIVATE_FILE_MODE)
    return fd


def make_private_folder(path: str | Path) -> None:
    """Create a private folder.

    Raises:
        OSError: the folder cannot be created.
    """
    os.mkdir(path, PRIVATE_FOLDER_MODE)
    if os.lstat(path).st_mode & PRIVATE_FOLDER_MODE != PRIVATE_FOLDER_MODE:
        os.chmod(path, PRIVATE_FOLDER_MODE)


def make_private(folder: Path) -> None:
    """Make an existing folder, and the regular files directly in it, private.

    Files with a second name are left alone: they may be finished files, which have their source's mode. If modes cannot
    be changed (a file system without modes, a folder of another user), this logs a warning.
    """
    try:
        if os.stat(folder).st_mode & PERMISSION_BITS != PRIVATE_FOLDER_MODE:
            os.chmod(folder, PRIVATE_FOLDER_MODE)
        for entry in os.scandir(folder):
            state = entry.stat(follow_symlinks=False)
            is_open = state.st_mode & PERMISSION_BITS != PRIVATE_FILE_MODE
            if is_open and stat.S_ISREG(state.st_mode) and state.st_nlink == 1:
                os.chmod(entry.path, PRIVATE_FILE_MODE)
    except OSError as error:
        _LOG.warning("other users may be able to read %s: cannot change its mode: %s", folder, error.strerror)


def set_mode(fd: int, mode: int, path: Path) -> None:
    """Set a file's permission bits. If the file system refuses, this logs a warning.

    Args:
        fd: the open file.
        mode: the permission bits.
        path: the file's path, for the log.
    """
    try:
        os.fchmod(fd, mode)
    except OSError as error:
        _LOG.warning("cannot set mode %03o on %s: %s", mode, path, error.strerror)
