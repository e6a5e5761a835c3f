"""Changes to single files that happen completely or not at all, and that never overwrite a user's file."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from pspd.store.filesystem.failures import storage_error
from pspd.store.filesystem.private import open_private

NAME_BYTES_MAX = 255
"""The longest file name, where the file system does not report one."""

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def replace_file(path: Path, data: bytes) -> None:
    """Write a small private file atomically.

    Args:
        path: the file; an existing one is replaced.
        data: its whole content.

    Raises:
        StorageError: the file cannot be written; an existing one is unchanged.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        fd = open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise storage_error("write", path, error) from None


def remove_file(path: Path) -> None:
    """Remove a file if it exists.

    Raises:
        StorageError: the file cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error("remove", path, error) from None


def publish_file(path: Path, visible: Path) -> None:
    """Give a file a second name, which must be free. Without hard links, rename the file instead.

    Args:
        path: the file.
        visible: its new name.

    Raises:
        FileExistsError: another file has that name.
        OSError: the file system refuses.
    """
    try:
        os.link(path, visible)
    except OSError as error:
        if is_same_file(path, visible):
            return  # done before a crash
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(visible):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(visible)) from None
        os.rename(path, visible)


def flush_file(path: Path) -> None:
    """Flush a file and its name to the disk.

    Raises:
        StorageError: the disk fails.
    """
    try:
        for each in (path, path.parent):
            fd = os.open(each, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
    except OSError as error:
        raise storage_error("flush", path, error) from None


def path_with_suffix(path: Path, suffix: str) -> Path:
    """Return a path in the same folder with ``suffix`` appended to the name.

    Args:
        path: the path.
        suffix: text to append. A name that would become too long is first shortened, to whole characters.
    """
    try:
        bytes_max = os.pathconf(path.parent, "PC_NAME_MAX")
    except OSError:
        bytes_max = NAME_BYTES_MAX
    kept = os.fsencode(path.name)[: bytes_max - len(os.fsencode(suffix))]
    return path.with_name(kept.decode("utf-8", "ignore") + suffix)


def stat_regular(path: Path) -> os.stat_result | None:
    """Return the state of a regular file; None if there is none, or the path is something else."""
    try:
        state = os.lstat(path)
    except OSError:
        return None
    return state if stat.S_ISREG(state.st_mode) else None


def is_same_file(path: Path, other: Path) -> bool:
    """Return whether two paths are names of one regular file.

    Args:
        path: a path.
        other: another path.
    """
    state, other_state = stat_regular(path), stat_regular(other)
    return state is not None and other_state is not None and os.path.samestat(state, other_state)
