"""Read and write the bytes of files, with a bounded number of open descriptors, and with holes for blocks of zeros."""

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
"""The maximum number of open descriptors by default: two (data and journal) for each of 64 unfinished files."""
BLOCK_BYTES = 4096
"""The size of a block of nearly all file systems, in bytes. A shorter hole saves no space."""

_ZEROS = bytes(1024 * 1024)
"""Zeros to compare data with; longer data is compared block by block."""


class OpenFiles:
    """The open descriptors of a store, by path.

    A file is opened when its descriptor is requested. If too many are open, the least recently used one is closed.

    Args:
        count_max: the maximum number of open descriptors; None for ``OPEN_FILES_MAX``.
    """

    def __init__(self, count_max: int | None = None) -> None:
        self._count_max = OPEN_FILES_MAX if count_max is None else count_max
        self._fds: OrderedDict[Path, int] = OrderedDict()

    def fd(self, path: Path, flags: int) -> int:
        """Return the descriptor of a file; open the file if necessary.

        Args:
            path: the file.
            flags: the flags for ``os.open``; not used if the file is open already. With ``O_CREAT``,
                :func:`open_private` opens the file.

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

    def record_rename(self, path: Path, new_path: Path) -> None:
        """Record the new path of an open file that was renamed.

        Args:
            path: the old path.
            new_path: the new path. If a descriptor is open for this path, it is closed.
        """
        self.close(new_path)
        self._fds[new_path] = self._fds.pop(path)

    def close_all(self) -> None:
        """Close all files."""
        while self._fds:
            os.close(self._fds.popitem()[1])


class FileBytes:
    """The bytes of one file on disk; implements ``pspd.store.files.verifier.SavedBytes``.

    A change of the file's size or modification time counts as another program's, unless :meth:`write_at` made it.

    Args:
        path: the file.
        flags: the flags for ``os.open``.
        open_files: the store's open descriptors.
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
        """The file's descriptor, which is opened if necessary; valid until ``OpenFiles`` closes the descriptor."""
        return self._open_files.fd(self.path, self._flags)

    @property
    def is_changed(self) -> bool:
        """Whether another program has changed the file since :meth:`mark_unchanged`; False before its first call."""
        if self._known_state not in (None, self._state()):
            self._is_changed = True
        return self._is_changed

    @property
    def is_in_place(self) -> bool:
        """Whether the path still leads to the open file, and no other program has changed the file."""
        try:
            return os.path.samestat(os.lstat(self.path), os.fstat(self.fd)) and not self.is_changed
        except OSError:
            return False

    def matches(self, state: os.stat_result) -> bool:
        """Return whether a ``stat`` result is of a regular file with the recorded size and modification time.

        Before the first :meth:`mark_unchanged`, every regular file matches.
        """
        return stat.S_ISREG(state.st_mode) and self._known_state in (None, (state.st_size, state.st_mtime_ns))

    def mark_unchanged(self) -> None:
        """Record the present size and modification time. Until they change again, the file counts as unchanged."""
        self._is_changed = False
        self._known_state = self._state()

    def _state(self) -> tuple[int, int]:
        state = os.fstat(self.fd)
        return state.st_size, state.st_mtime_ns

    def write_at(self, offset: int, data: memoryview) -> None:
        """See ``SavedBytes.write_at``; blocks of zeros become holes, as in :func:`write_sparse`."""
        fd = self.fd
        is_changed = self.is_changed
        try:
            write_sparse(fd, offset, data)
        except OSError as error:
            raise storage_error("write", self.path, error) from None
        finally:
            self.mark_unchanged()
            self._is_changed = is_changed

    def read_at(self, offset: int, length: int) -> bytes:
        """See ``SavedBytes.read_at``.

        A memory mapping would save one copy. But then a bad sector or a truncated file would end the process (SIGBUS).
        """
        try:
            return os.pread(self.fd, length, offset)
        except OSError as error:
            raise storage_error("read", self.path, error) from None


def write_sparse(fd: int, offset: int, data: memoryview) -> None:
    """Write all of ``data``, but write blocks of zeros only where the file has no hole.

    The file's size and content are the same as after a plain write.

    Args:
        fd: the descriptor of a file that is open for reading and writing.
        offset: the position in the file, in bytes.
        data: the bytes.

    Raises:
        OSError: the data cannot be written.
    """
    at = 0
    ends_in_hole = False
    for start, stop in zero_runs(offset, data):
        _write_fully(fd, offset + at, data[at:start])
        for written, end in _data_ranges(fd, offset + start, offset + stop):
            _write_fully(fd, written, data[written - offset : end - offset])
        ends_in_hole = stop == len(data)
        at = stop
    _write_fully(fd, offset + at, data[at:])
    if ends_in_hole and os.fstat(fd).st_size < offset + len(data):
        os.ftruncate(fd, offset + len(data))


def zero_runs(offset: int, data: memoryview) -> list[tuple[int, int]]:
    """Return the runs ``[start, stop)`` of ``data`` that have only zeros.

    The runs end at boundaries between blocks of the file, or at the ends of ``data``.

    Args:
        offset: the position of ``data`` in the file, in bytes.
        data: contiguous bytes.
    """
    if not data:
        return []
    lead = min(-offset % BLOCK_BYTES, len(data))  # the bytes in a block that begins before ``offset``
    firsts = bytes(data[lead::BLOCK_BYTES])
    if not any(firsts) and len(data) <= len(_ZEROS) and _is_zeros(data, 0, len(data)):
        return [(0, len(data))]
    runs = [(0, lead)] if lead and _is_zeros(data, 0, lead) else []
    index = firsts.find(0)  # a block whose first byte is not zero is not compared
    while index >= 0:
        start = lead + index * BLOCK_BYTES
        stop = min(start + BLOCK_BYTES, len(data))
        if _is_zeros(data, start, stop):
            runs.append((runs.pop()[0] if runs and runs[-1][1] == start else start, stop))
        index = firsts.find(0, index + 1)
    return runs


def _is_zeros(data: memoryview, start: int, stop: int) -> bool:
    """Return whether all bytes of a run are zeros. The run must not be empty or longer than ``_ZEROS``."""
    return data[start] == data[stop - 1] == 0 and bytes(data[start:stop]) == _ZEROS[: stop - start]


def _data_ranges(fd: int, offset: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the parts ``[start, stop)`` between two offsets of a file that the system does not report as holes."""
    while offset < end:
        try:
            offset = os.lseek(fd, offset, os.SEEK_DATA)
            hole = os.lseek(fd, offset, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # the file ends here, or only a hole follows
                return
            hole = end
        if offset < end:
            yield offset, min(hole, end)
        offset = hole


def _write_fully(fd: int, offset: int, data: memoryview) -> None:
    """Write all of ``data``. One ``pwrite`` may write fewer bytes, for example when the disk fills up."""
    while data:
        count = os.pwrite(fd, data, offset)
        data = data[count:]
        offset += count
