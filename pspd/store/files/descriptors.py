"""A bounded number of open descriptors, and the bytes of a file behind one of them."""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from pathlib import Path

from pspd.store.files.atomic import open_private
from pspd.store.files.failures import failed
from pspd.store.files.sparse import write_sparse

OPEN_FILES_MAX = 128
"""Descriptors a store keeps open at most, if nothing else is said: for 64 files that are written."""


class OpenFiles:
    """Descriptors by path, opened on demand; the one used least recently is closed to make room.

    Args:
        count_max: how many may be open, if not ``OPEN_FILES_MAX``; two for each file that is written, its bytes and
            its journal.
    """

    def __init__(self, count_max: int | None = None) -> None:
        self._count_max = OPEN_FILES_MAX if count_max is None else count_max
        self._fds: OrderedDict[Path, int] = OrderedDict()

    def fd(self, path: Path, flags: int) -> int:
        """The descriptor of a file; ``flags`` as of ``os.open``, always the same for one path.

        A file that may be made by this is one of the hidden folder: nobody but its owner may read it.

        Raises:
            StorageError: it cannot be opened.
        """
        fd = self._fds.get(path)
        if fd is not None:
            self._fds.move_to_end(path)
            return fd
        try:
            fd = open_private(path, flags) if flags & os.O_CREAT else os.open(path, flags | os.O_CLOEXEC)
        except OSError as error:
            raise failed("open", path, error) from None
        self._fds[path] = fd
        if len(self._fds) > self._count_max:
            os.close(self._fds.popitem(last=False)[1])
        return fd

    def close(self, path: Path) -> None:
        """Closes a file if it is open."""
        fd = self._fds.pop(path, None)
        if fd is not None:
            os.close(fd)

    def move(self, path: Path, new_path: Path) -> None:
        """Knows an open file by another path from now on; its descriptor goes on."""
        self.close(new_path)
        self._fds[new_path] = self._fds.pop(path)

    def close_all(self) -> None:
        """Closes everything."""
        while self._fds:
            os.close(self._fds.popitem()[1])


class FileBytes:
    """The bytes of one file on disk; a ``pspd.store.files.verifier.SavedBytes``.

    It knows by the file's size and time of modification whether somebody else has written to it since it was seen.
    """

    __slots__ = ("_altered", "_flags", "_open_files", "_seen", "path")

    def __init__(self, path: Path, flags: int, open_files: OpenFiles) -> None:
        self.path = path
        self._flags = flags
        self._open_files = open_files
        self._altered = False
        self._seen: tuple[int, int] | None = None

    @property
    def fd(self) -> int:
        """The open descriptor; good until as many other files have been used as may be open."""
        return self._open_files.fd(self.path, self._flags)

    @property
    def size_bytes(self) -> int:
        """The file's size on disk at this moment."""
        return os.fstat(self.fd).st_size

    @property
    def mtime_ns(self) -> int:
        """When the file was last written to."""
        return os.fstat(self.fd).st_mtime_ns

    @property
    def altered(self) -> bool:
        """Whether somebody else has written to the file since :meth:`see`."""
        if self._seen not in (None, self._state()):
            self._altered = True
        return self._altered

    @property
    def is_as_seen(self) -> bool:
        """Whether the file is still in its place, and nobody else has written to it since :meth:`see`."""
        try:
            return os.path.samestat(os.lstat(self.path), os.fstat(self.fd)) and not self.altered
        except OSError:
            return False

    def looks_as_seen(self, state: os.stat_result) -> bool:
        """Whether this is the state of a plain file that looks as this one did at :meth:`see`."""
        return stat.S_ISREG(state.st_mode) and self._seen in (None, (state.st_size, state.st_mtime_ns))

    def see(self) -> None:
        """The file's bytes, as they are now, are known."""
        self._altered = False
        self._seen = self._state()

    def _state(self) -> tuple[int, int]:
        state = os.fstat(self.fd)
        return state.st_size, state.st_mtime_ns

    def write_at(self, offset: int, data: memoryview) -> None:
        """See ``SavedBytes.write_at``. Runs of zeros become holes."""
        fd = self.fd
        altered = self.altered
        try:
            write_sparse(fd, offset, data)
        except OSError as error:
            raise failed("write", self.path, error) from None
        finally:
            self.see()
            self._altered = altered

    def read_at(self, offset: int, length: int) -> bytes:
        """See ``SavedBytes.read_at``.

        A read-only mapping would save one copy (4 GB/s hashed against 3), but a bad sector or a file cut
        short by somebody else then ends the process with SIGBUS, where this raises.
        """
        try:
            return os.pread(self.fd, length, offset)
        except OSError as error:
            raise failed("read", self.path, error) from None
