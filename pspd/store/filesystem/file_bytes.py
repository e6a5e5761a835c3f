"""Read and write the bytes of files: a bounded set of open descriptors, and holes instead of zeros."""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from pspd.store.filesystem.failures import storage_error
from pspd.store.filesystem.files import open_private

OPEN_FILES_MAX = 128
"""How many descriptors a store keeps open by default: two (data, journal) for each of 64 files being written."""
BLOCK_BYTES = 4096
"""The allocation unit of nearly all file systems. Shorter runs of zeros save nothing."""

_ZEROS = bytes(1024 * 1024)
"""As many zeros as a store writes at once."""


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
            path: the file. It is created as a private file.
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


class FileBytes:
    """Read and write one file; a ``pspd.store.files.verifier.SavedBytes``.

    If the file's size or modification time changes without :meth:`write_at`, another program has changed the file.

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
        """Accept the file's present size and modification time: the file counts as unchanged."""
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


def write_sparse(fd: int, offset: int, data: memoryview) -> None:
    """Write all of ``data``. Zeros are written only where the file has no hole.

    The file's length afterwards is the same as after a plain write.

    Args:
        fd: a file open for reading and writing.
        offset: the position in the file, in bytes.
        data: the bytes.

    Raises:
        OSError: the data cannot be written.
    """
    at = 0
    ends_in_hole = False
    for start, stop in zero_runs(offset, data):
        _write(fd, offset + at, data[at:start])
        for written, end in _data_ranges(fd, offset + start, offset + stop):
            _write(fd, written, data[written - offset : end - offset])
        ends_in_hole = stop == len(data)
        at = stop
    _write(fd, offset + at, data[at:])
    if ends_in_hole and os.fstat(fd).st_size < offset + len(data):
        os.ftruncate(fd, offset + len(data))


def zero_runs(offset: int, data: memoryview) -> list[tuple[int, int]]:
    """Return the runs ``[start, stop)`` in which ``data`` fills blocks of the file with zeros.

    A block that ``data`` covers only partly is included if that part is zeros. In most blocks without zeros, the first
    byte is enough to see it.

    Args:
        offset: the position of ``data`` in the file, in bytes.
        data: contiguous bytes.
    """
    if not data:
        return []
    lead = min(-offset % BLOCK_BYTES, len(data))  # bytes of a block that begins before ``offset``
    firsts = bytes(data[lead::BLOCK_BYTES])
    if not any(firsts) and len(data) <= len(_ZEROS) and _is_zeros(data, 0, len(data)):
        return [(0, len(data))]
    runs = [(0, lead)] if lead and _is_zeros(data, 0, lead) else []
    index = firsts.find(0)
    while index >= 0:
        start = lead + index * BLOCK_BYTES
        stop = min(start + BLOCK_BYTES, len(data))
        if _is_zeros(data, start, stop):
            runs.append((runs.pop()[0] if runs and runs[-1][1] == start else start, stop))
        index = firsts.find(0, index + 1)
    return runs


def _is_zeros(data: memoryview, start: int, stop: int) -> bool:
    """Return whether a run of bytes, no longer than ``_ZEROS``, is all zeros. Its ends are checked first."""
    return data[start] == data[stop - 1] == 0 and bytes(data[start:stop]) == _ZEROS[: stop - start]


def _data_ranges(fd: int, offset: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges that are not holes; the whole range if the file system does not report holes."""
    while offset < end:
        try:
            offset = os.lseek(fd, offset, os.SEEK_DATA)
            hole = os.lseek(fd, offset, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the file's end
                return
            hole = end
        if offset < end:
            yield offset, min(hole, end)
        offset = hole


def _write(fd: int, offset: int, data: memoryview) -> None:
    """Write all of ``data``. One call may write less, for example when the disk fills up."""
    while data:
        count = os.pwrite(fd, data, offset)
        data = data[count:]
        offset += count
