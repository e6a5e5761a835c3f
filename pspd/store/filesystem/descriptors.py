"""A bounded set of open file descriptors."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

from pspd.store.filesystem.failures import storage_error
from pspd.store.filesystem.private import open_private

OPEN_FILES_MAX = 128
"""How many descriptors a store keeps open by default: two (data, journal) for each of 64 files being written."""


class OpenFiles:
    """Descriptors by path, opened on demand. The least recently used one is closed to make room.

    Args:
        count_max: how many may be open; ``OPEN_FILES_MAX`` if None.
    """

    def __init__(self, count_max: int | None = None) -> None:
        self._count_max = OPEN_FILES_MAX if count_max is None else count_max
        self._fds: OrderedDict[Path, int] = OrderedDict()

    def fd(self, path: Path, flags: int) -> int:
        """Return the descriptor of a file; open the file if necessary.

        Args:
            path: the file. One that this creates is private.
            flags: those of ``os.open``; always the same for one path.

        Raises:
            StorageError: the file cannot be opened.
        """
        fd = self._fds.get(path)
        if fd is not None:
            self._fds.move_to_end(path)
            return fd
        try:
            fd = open_private(path, flags) if flags & os.O_CREAT else os.open(path, flags | os.O_CLOEXEC)
        except OSError as error:
            raise storage_error("open", path, error) from None
        self._fds[path] = fd
        if len(self._fds) > self._count_max:
            os.close(self._fds.popitem(last=False)[1])
        return fd

    def close(self, path: Path) -> None:
        """Close a file if it is open."""
        fd = self._fds.pop(path, None)
        if fd is not None:
            os.close(fd)

    def move(self, path: Path, new_path: Path) -> None:
        """Keep the descriptor of an open file that was renamed.

        Args:
            path: its path until now.
            new_path: its new path. A descriptor that was open under it is closed.
        """
        self.close(new_path)
        self._fds[new_path] = self._fds.pop(path)

    def close_all(self) -> None:
        """Close all files."""
        while self._fds:
            os.close(self._fds.popitem()[1])
