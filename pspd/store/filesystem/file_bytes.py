"""The bytes of one file on disk, and whether another program has changed them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pspd.store.filesystem.descriptors import OpenFiles
from pspd.store.filesystem.failures import storage_error
from pspd.store.filesystem.sparse import write_sparse


class FileBytes:
    """Read and write one file; a ``pspd.store.files.verifier.SavedBytes``.

    A change of the file's size or modification time that is not due to :meth:`write_at` is another program's.

    Args:
        path: the file.
        flags: those of ``os.open``.
        open_files: where the file's descriptor is kept.
    """

    __slots__ = ("_flags", "_is_changed", "_known_state", "_open_files", "path")

    def __init__(self, path: Path, flags: int, open_files: OpenFiles) -> None:
        self.path = path
        self._flags = flags
        self._open_files = open_files
        self._is_changed = False
        self._known_state: tuple[int, int] | None = None

    @property
    def fd(self) -> int:
        """The open descriptor; valid until ``OpenFiles`` closes it to make room."""
        return self._open_files.fd(self.path, self._flags)

    @property
    def size_bytes(self) -> int:
        """The file's size on disk now."""
        return os.fstat(self.fd).st_size

    @property
    def mtime_ns(self) -> int:
        """When the file was last written to."""
        return os.fstat(self.fd).st_mtime_ns

    @property
    def is_changed(self) -> bool:
        """Whether another program has written to the file since :meth:`accept_state`."""
        if self._known_state not in (None, self._state()):
            self._is_changed = True
        return self._is_changed

    @property
    def is_in_place(self) -> bool:
        """Whether the path still leads to this file, and no other program has written to it."""
        try:
            return os.path.samestat(os.lstat(self.path), os.fstat(self.fd)) and not self.is_changed
        except OSError:
            return False

    def matches(self, state: os.stat_result) -> bool:
        """Return whether ``state`` is that of a regular file with this one's accepted size and modification time."""
        return stat.S_ISREG(state.st_mode) and self._known_state in (None, (state.st_size, state.st_mtime_ns))

    def accept_state(self) -> None:
        """Take the file's present size and modification time as known."""
        self._is_changed = False
        self._known_state = self._state()

    def _state(self) -> tuple[int, int]:
        state = os.fstat(self.fd)
        return state.st_size, state.st_mtime_ns

    def write_at(self, offset: int, data: memoryview) -> None:
        """See ``SavedBytes.write_at``. Runs of zeros become holes."""
        fd = self.fd
        is_changed = self.is_changed
        try:
            write_sparse(fd, offset, data)
        except OSError as error:
            raise storage_error("write", self.path, error) from None
        finally:
            self.accept_state()
            self._is_changed = is_changed

    def read_at(self, offset: int, length: int) -> bytes:
        """See ``SavedBytes.read_at``.

        A memory mapping would save one copy, but a bad sector or a truncated file then ends the process with SIGBUS.
        """
        try:
            return os.pread(self.fd, length, offset)
        except OSError as error:
            raise storage_error("read", self.path, error) from None
