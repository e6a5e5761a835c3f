"""Operations on a single file or folder: make private, replace atomically, remove, publish, flush, compare."""

from __future__ import annotations

import errno
import logging
import os
import stat
from contextlib import suppress
from pathlib import Path

from pspd.core.model.manifest import MODE_BITS
from pspd.store.filesystem.failures import storage_error

PRIVATE_FILE_MODE = 0o600
PRIVATE_FOLDER_MODE = 0o700

_LINK_REFUSED = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
# With O_NONBLOCK, opening a named pipe does not wait for a writer.
_FLUSH_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_LOG = logging.getLogger(__name__)


def open_private(path: str | Path, flags: int) -> int:
    """Open a file; create it with mode 0600 if it does not exist, whatever the umask is.

    An existing file whose owner may not read and write it gets mode 0600 too.

    Args:
        path: the file.
        flags: the flags for ``os.open``, with ``O_CREAT``.

    Raises:
        OSError: the file cannot be opened.
    """
    flags |= os.O_CLOEXEC
    try:
        fd = os.open(path, flags, PRIVATE_FILE_MODE)
    except PermissionError:
        # A partial file gets its final mode, which may be read-only, before its final name. If it does not get the
        # name, the store may have to write to the partial file again.
        os.chmod(path, PRIVATE_FILE_MODE)
        return os.open(path, flags)
    if os.fstat(fd).st_mode & PRIVATE_FILE_MODE != PRIVATE_FILE_MODE:
        os.fchmod(fd, PRIVATE_FILE_MODE)
    return fd


def create_private_folder(path: Path) -> None:
    """Create a folder with mode 0700, whatever the umask is.

    Raises:
        OSError: the folder cannot be created.
    """
    os.mkdir(path, PRIVATE_FOLDER_MODE)
    if os.lstat(path).st_mode & PRIVATE_FOLDER_MODE != PRIVATE_FOLDER_MODE:
        os.chmod(path, PRIVATE_FOLDER_MODE)


def make_private(folder: Path) -> None:
    """Give a folder mode 0700, and the regular files directly in it mode 0600.

    A file with a second name (hard link) keeps its mode, because it may be a finished file with the mode from its
    manifest. If a mode cannot be changed, for example because the file system has no modes, log a warning and stop.
    """
    try:
        if os.stat(folder).st_mode & MODE_BITS != PRIVATE_FOLDER_MODE:
            os.chmod(folder, PRIVATE_FOLDER_MODE)
        for entry in os.scandir(folder):
            state = entry.stat(follow_symlinks=False)
            has_other_mode = state.st_mode & MODE_BITS != PRIVATE_FILE_MODE
            if has_other_mode and stat.S_ISREG(state.st_mode) and state.st_nlink == 1:
                os.chmod(entry.path, PRIVATE_FILE_MODE)
    except OSError as error:
        _LOG.warning("other users may be able to read %s: cannot change its mode: %s", folder, error.strerror)


def set_mode(fd: int, mode: int, path: Path) -> None:
    """Set a file's permission bits; log a warning if the file system refuses.

    Args:
        fd: the open file.
        mode: the permission bits.
        path: the file's path, for the log.
    """
    try:
        os.fchmod(fd, mode)
    except OSError as error:
        _LOG.warning("cannot set mode %03o on %s: %s", mode, path, error.strerror)


def replace_file(path: Path, data: bytes) -> None:
    """Create or replace a small private file atomically.

    Args:
        path: the file.
        data: the new content of the file.

    Raises:
        StorageError: the file cannot be written; an existing file is unchanged.
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


def publish_file(path: Path, new_path: Path) -> None:
    """Give a file a second name, which must be free; rename the file if the file system refuses hard links.

    Do nothing if the file already has the second name.

    Args:
        path: the file.
        new_path: the path with the second name.

    Raises:
        FileExistsError: another file has the second name.
        OSError: the file system refuses.
    """
    try:
        os.link(path, new_path)
    except OSError as error:
        if is_same_file(path, new_path):
            return  # an earlier call, perhaps before a crash, gave the file this name
        if error.errno not in _LINK_REFUSED:
            raise
        if os.path.lexists(new_path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new_path)) from None
        os.rename(path, new_path)


def fsync_path(path: str | Path) -> None:
    """Flush a regular file or a folder to the disk.

    Raises:
        OSError: the file or folder cannot be opened, or the disk fails.
    """
    fd = os.open(path, _FLUSH_FLAGS)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def flush_file(path: Path) -> None:
    """Flush a file and its name to the disk.

    Raises:
        StorageError: the file or its folder cannot be opened, or the disk fails.
    """
    try:
        fsync_path(path)
        fsync_path(os.path.realpath(path.parent))  # a client's folder may be a symbolic link
    except OSError as error:
        raise storage_error("flush", path, error) from None


def stat_regular(path: Path) -> os.stat_result | None:
    """Return the ``lstat`` result of a regular file; None if the path is no regular file, or cannot be examined."""
    try:
        state = os.lstat(path)
    except OSError:
        return None
    return state if stat.S_ISREG(state.st_mode) else None


def mtime_ns(path: Path) -> int:
    """Return a file's modification time in nanoseconds; 0 if it cannot be read."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def is_same_file(path: Path, other: Path) -> bool:
    """Return whether two paths are names of one regular file.

    Args:
        path: the first path.
        other: the second path.
    """
    state, other_state = stat_regular(path), stat_regular(other)
    return state is not None and other_state is not None and os.path.samestat(state, other_state)
