"""What a source reads: a regular file, or a folder through its archive."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Protocol

from pspd.core.model.manifest import MODE_BITS, OWNER_READS
from pspd.core.model.storage import FileSlice
from pspd.errors import BadArgument
from pspd.store.filesystem.failures import storage_error
from pspd.store.messages import changed_while_read
from pspd.store.source.parallel_hash import FileState


class SourceContent(Protocol):
    """The bytes that a source seeds. Methods that notice a change since the opening raise ``StorageError``."""

    @property
    def size_bytes(self) -> int:
        """How many bytes there are."""

    @property
    def mode(self) -> int:
        """The permission bits for the copies; they always let the owner read."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Return bytes.

        Args:
            offset: of the first byte.
            length: how many bytes.
        """

    def payload(self, offset: int, length: int) -> FileSlice | memoryview:
        """Return bytes for sending. A descriptor stays valid until :meth:`close`.

        Args:
            offset: of the first byte.
            length: how many bytes.
        """

    def require_unwritten(self) -> None:
        """Check that the opened bytes are unchanged, where that takes at most one system call."""

    def require_unchanged(self) -> None:
        """Check that the bytes are unchanged, and still at their path."""

    def close(self) -> None:
        """Close what is open; idempotent."""


class FileContent:
    """One regular file, read through one descriptor. If the path is replaced, the opened file is still served.

    Implements :class:`SourceContent`.
    """

    def __init__(self, path: Path) -> None:
        """Open the file.

        Args:
            path: the file.

        Raises:
            BadArgument: it is not a regular file.
            StorageError: it cannot be read.
        """
        self._path = path
        try:
            # Without O_NONBLOCK, opening a named pipe would wait for a writer, perhaps for ever.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise storage_error("read", path, error) from None
        self._opened = os.fstat(self._fd)
        if not stat.S_ISREG(self._opened.st_mode):
            os.close(self._fd)
            raise BadArgument(f"cannot seed {path}: it is not a regular file: name one, or a folder")
        if self._opened.st_size == 0 and self._is_generated():
            self.close()
            raise BadArgument(f"cannot seed {path}: its size is unknown until it is read: seed a copy of it")

    def _is_generated(self) -> bool:
        """Return whether the kernel generates the (seemingly empty) file when it is read, as in ``/proc``."""
        try:
            return bool(os.pread(self._fd, 1, 0))
        except OSError:
            return True

    @property
    def size_bytes(self) -> int:
        """The file's size when it was opened."""
        return self._opened.st_size

    @property
    def mode(self) -> int:
        """The permission bits for the copies, as they were when the file was opened."""
        return self._opened.st_mode & MODE_BITS | OWNER_READS

    @property
    def state(self) -> FileState:
        """The file's state when it was opened."""
        return FileState.of(self._opened)

    def read_at(self, offset: int, length: int) -> bytes:
        """See ``SourceContent.read_at``."""
        try:
            data = os.pread(self._fd, length, offset)
        except OSError as error:
            raise storage_error("read", self._path, error) from None
        if len(data) != length:
            raise changed_while_read(self._path)
        return data

    def payload(self, offset: int, length: int) -> FileSlice:
        """See ``SourceContent.payload``."""
        return FileSlice(self._fd, offset, length)

    def require_unwritten(self) -> None:
        """See ``SourceContent.require_unwritten``."""
        if FileState.of(os.fstat(self._fd)) != self.state:
            raise changed_while_read(self._path)

    def require_unchanged(self) -> None:
        """See ``SourceContent.require_unchanged``."""
        try:
            now = os.stat(self._path)
        except OSError:
            raise changed_while_read(self._path) from None
        if FileState.of(now) != self.state:
            raise changed_while_read(self._path)

    def close(self) -> None:
        """See ``SourceContent.close``."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
