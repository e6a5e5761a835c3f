"""Operations on a whole folder of any depth: walk, compare times, remove, flush."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from pspd.store.filesystem.failures import storage_error
from pspd.store.filesystem.files import fsync_path


def walk(
    root: str | Path, onerror: Callable[[OSError], None] = lambda _: None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield a folder and every folder below it, parents first.

    This replaces ``os.walk``, which fails for deep folders in Python 3.11.

    Args:
        root: the folder.
        onerror: a function that is called with the error if a folder cannot be read. If it returns, the folder is
            skipped.

    Yields:
        A folder's path, the names of the folders in it, and the names of everything else, links to folders included.
    """
    pending = [os.fspath(root)]
    while pending:
        folder = pending.pop()
        folders: list[str] = []
        others: list[str] = []
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    (folders if entry.is_dir(follow_symlinks=False) else others).append(entry.name)
        except OSError as error:
            onerror(error)
            continue
        yield folder, folders, others
        pending.extend(os.path.join(folder, name) for name in folders)


def raise_error(error: OSError) -> None:
    """Raise the error: an ``onerror`` that ends :func:`walk`."""
    raise error


def is_real_folder(path: Path) -> bool:
    """Return whether a path is a folder and not a symbolic link to one."""
    return path.is_dir() and not path.is_symlink()


def is_changed_since(root: Path, time_ns: int) -> bool:
    """Return whether a folder or anything in it was changed after a time; also True if something cannot be examined.

    Args:
        root: the folder.
        time_ns: the time in nanoseconds, on the clock of ``st_ctime_ns``.
    """
    try:
        for folder, _, names in walk(root, raise_error):
            if any(os.lstat(os.path.join(folder, name)).st_ctime_ns > time_ns for name in [*names, ""]):
                return True
    except OSError:
        return True
    return False


def remove_tree(path: Path) -> None:
    """Remove a file, or a folder with its content, even if it is read-only. Do nothing if the path does not exist.

    Raises:
        StorageError: the file or folder cannot be removed.
    """
    try:
        if is_real_folder(path):
            os.chmod(path, stat.S_IRWXU)  # nothing can be removed from a read-only folder
            emptied: list[str] = []
            for folder, folders, others in walk(path, raise_error):
                emptied.append(folder)
                for name in folders:
                    os.chmod(os.path.join(folder, name), stat.S_IRWXU)
                for name in others:
                    os.unlink(os.path.join(folder, name))
            for folder in reversed(emptied):
                os.rmdir(folder)
        elif os.path.lexists(path):
            path.unlink()
    except OSError as error:
        raise storage_error("remove", path, error) from None


def flush_tree(root: Path) -> None:
    """Flush a folder, its content, and its entry in the parent folder to the disk.

    Skip paths that vanish, paths that this user may not open, and the content of folders that cannot be listed.

    Raises:
        StorageError: the disk fails.
    """
    try:
        for folder, _, names in walk(root):
            for path in [*(os.path.join(folder, name) for name in names), folder]:
                _fsync_if_possible(path)
        _fsync_if_possible(os.path.realpath(root.parent))
    except OSError as error:
        raise storage_error("flush", root, error) from None


def _fsync_if_possible(path: str | Path) -> None:
    with suppress(FileNotFoundError, PermissionError):
        if stat.S_IFMT(os.lstat(path).st_mode) in (stat.S_IFREG, stat.S_IFDIR):
            fsync_path(path)
