"""The archive of a folder, which the network distributes like a file: make archives from folders, and parse archives.

An archive is a POSIX tar (pax): the folder itself, then its content in path order. It contains modes and symbolic
links, but no owners or times. Equal folders have equal archives. A source never stores an archive; it makes the bytes
from the folder on demand. The parser accepts an archive only if a source could have made every byte of it.
"""

from __future__ import annotations

import errno
import os
import tarfile
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path

from pspd.core.model.manifest import DEFAULT_MODE, MODE_BITS, STORE_FOLDER
from pspd.errors import BadArgument
from pspd.store.errors import changed_while_read
from pspd.store.filesystem.failures import storage_error
from pspd.store.filesystem.file_bytes import OpenFiles
from pspd.store.layout import INSTANCE
from pspd.store.tree import entries
from pspd.store.tree.entries import FILE, FOLDER, LINK, TOP, ArchiveError, Entry
from pspd.store.tree.traverse import raise_error, walk

HEADER_BYTES_MAX = 1 << 30
"""The maximum size of all headers of an archive together, in bytes, because a client parses them all in memory."""
ARCHIVE_END = bytes(2 * tarfile.BLOCKSIZE)
"""The bytes at the end of an archive."""

_TYPE_FIELD = slice(156, 157)
"""The position of an entry's type in its tar header."""
_SIZE_FIELD = slice(124, 135)
"""The position of an entry's size in its tar header: octal digits."""
_PAX_BYTES_MAX = 32 * 1024
"""The maximum size of a pax header's records, in bytes: ample, since Linux limits paths and targets to 4096 bytes."""
_PAX_RECORDS_MAX = 4

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


class FolderArchive:
    """The archive of a folder. Its bytes are made from the folder when they are read.

    The folder must not change after it is listed. :class:`pspd.store.source.source_store.FileContent` has the same
    interface.

    Attributes:
        size_bytes: the archive's size.
        mode: the mode in the folder's manifest: always the usual one, because the archive contains the real modes.
    """

    mode = DEFAULT_MODE

    def __init__(self, folder: Path) -> None:
        """List the folder.

        Args:
            folder: the folder.

        Raises:
            BadArgument: something in the folder cannot be distributed, or its paths are too many or too long.
            StorageError: something in the folder cannot be read.
        """
        self._folder = folder
        self._open_files = OpenFiles()
        self._entries = _entries_in(folder)
        self._starts: list[int] = []
        offset = 0
        for entry in self._entries:
            self._starts.append(offset)
            offset += len(entry.header()) + padded_size(entry.size_bytes)
        if offset - sum(padded_size(entry.size_bytes) for entry in self._entries) > HEADER_BYTES_MAX:
            raise BadArgument(f"cannot seed {folder}: its paths are too many or too long: seed its parts one by one")
        self.size_bytes = offset + len(ARCHIVE_END)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return bytes of the archive.

        Args:
            offset: the position in the archive, in bytes.
            length: the number of bytes.

        Raises:
            StorageError: a file in the folder was changed since the folder was listed, or cannot be read.
        """
        parts = []
        end = offset + length
        index = bisect_right(self._starts, offset) - 1
        while offset < end:
            part = self._part(index, offset, end)
            parts.append(part)
            offset += len(part)
            if index + 1 < len(self._starts) and offset >= self._starts[index + 1]:
                index += 1
        return b"".join(parts)

    def payload(self, offset: int, length: int) -> memoryview:
        """Return bytes of the archive for sending; see :meth:`read_at`.

        Args:
            offset: the position in the archive, in bytes.
            length: the number of bytes.
        """
        return memoryview(self.read_at(offset, length))

    def require_unwritten(self) -> None:
        """Do nothing: :meth:`read_at` checks each file that it reads."""

    def require_unchanged(self) -> None:
        """Check that the folder was not changed since it was listed.

        Raises:
            BadArgument: something in the folder cannot be distributed.
            StorageError: the folder was changed, or cannot be read.
        """
        if _entries_in(self._folder) != self._entries:
            raise changed_while_read(self._folder)

    def close(self) -> None:
        """Close all open files; idempotent."""
        self._open_files.close_all()

    def _part(self, index: int, offset: int, end: int) -> bytes:
        """Return bytes from ``offset``, in entry ``index``, up to ``end`` at most.

        The bytes are all from the entry's header, from its content, from its padding, or from the archive's end.
        """
        if offset >= self.size_bytes - len(ARCHIVE_END):
            return bytes(end - offset)
        entry = self._entries[index]
        header = entry.header()
        position = offset - self._starts[index]
        wanted_bytes = end - offset
        if position < len(header):
            return header[position : position + wanted_bytes]
        position -= len(header)
        if position < entry.size_bytes:
            return self._content(entry, position, min(wanted_bytes, entry.size_bytes - position))
        return bytes(min(wanted_bytes, padded_size(entry.size_bytes) - position))

    def _content(self, entry: Entry, offset: int, length: int) -> bytes:
        path = self._folder / entry.name
        if not os.path.lexists(path):
            raise changed_while_read(self._folder)
        fd = self._open_files.fd(path, _READ_FLAGS)
        try:
            state = os.fstat(fd)
            data = os.pread(fd, length, offset)
        except OSError as error:
            raise storage_error("read", path, error) from None
        if (state.st_size, state.st_mtime_ns) != (entry.size_bytes, entry.mtime_ns) or len(data) != length:
            raise changed_while_read(self._folder)
        return data


def padded_size(size_bytes: int) -> int:
    """Return a file's size in an archive, in bytes: its size rounded up to whole tar blocks."""
    return -(-size_bytes // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _entries_in(folder: Path) -> list[Entry]:
    """Return the entries of a folder and its content, in archive order."""
    try:
        found = [Entry.of_path(folder, name) for name in [TOP, *sorted(_paths_in(folder))]]
        entries.validate_entries(found)
    except OSError as error:
        raise storage_error("read", Path(error.filename or folder), error) from None
    except ArchiveError as error:
        raise BadArgument(f"cannot seed {folder}: {error}: change the folder first") from None
    return found


def _paths_in(folder: Path) -> Iterator[str]:
    for path, folders, files in walk(folder, raise_error):
        if _is_client_folder(path):
            raise BadArgument(f"cannot seed {path}: it is a client's folder: seed the files in it one by one")
        for name in [*folders, *files]:
            found = os.path.relpath(os.path.join(path, name), folder)
            entries.validate_path_limits(found)
            yield found


def _is_client_folder(folder: str) -> bool:
    """Return whether a folder is a client's; also True if this user has no access to its hidden folder."""
    try:
        os.lstat(os.path.join(folder, STORE_FOLDER, INSTANCE))
    except OSError as error:
        return error.errno == errno.EACCES
    return True


def parse_entries(read_at: Callable[[int, int], bytes], size_bytes: int) -> list[tuple[Entry, int]]:
    """Return the entries of an archive, each with the offset of its content in the archive.

    Args:
        read_at: a function that returns bytes of the archive, given an offset and a length in bytes.
        size_bytes: the archive's size.

    Raises:
        ArchiveError: no source makes such an archive, or its headers are too large.
    """
    found: list[tuple[Entry, int]] = []
    offset, end = 0, size_bytes - len(ARCHIVE_END)
    header_bytes = 0
    while offset < end:
        try:
            entry, content_offset = _entry_at(read_at, offset)
        except (ValueError, tarfile.TarError):
            raise ArchiveError(f"its entry at byte {offset} is malformed") from None
        header_bytes += content_offset - offset
        content_end, offset = content_offset + entry.size_bytes, content_offset + padded_size(entry.size_bytes)
        if offset > end or any(read_at(content_end, offset - content_end)):
            raise ArchiveError(f"its content before byte {offset} is cut off, or its padding is not zero")
        found.append((entry, content_offset))
        if len(found) > entries.ENTRIES_MAX or header_bytes > HEADER_BYTES_MAX:
            raise ArchiveError("its entries are too many or too long")
    entries.validate_entries([entry for entry, _ in found])
    if offset != end or read_at(end, len(ARCHIVE_END)) != ARCHIVE_END:
        raise ArchiveError("its end is malformed")
    return found


def _entry_at(read_at: Callable[[int, int], bytes], offset: int) -> tuple[Entry, int]:
    """Return the entry at an offset, and the offset of the entry's content.

    Raises:
        ValueError, tarfile.TarError: the entry is malformed.
    """
    block, length, records = read_at(offset, tarfile.BLOCKSIZE), tarfile.BLOCKSIZE, {}
    if block[_TYPE_FIELD] == tarfile.XHDTYPE:
        size = int(block[_SIZE_FIELD], 8)
        if not 0 < size <= _PAX_BYTES_MAX:
            raise ValueError("a pax header of a wrong size")
        records = _pax_records(read_at(offset + tarfile.BLOCKSIZE, size))
        length += padded_size(size) + tarfile.BLOCKSIZE
        block = read_at(offset + length - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE)
    if block[_TYPE_FIELD] not in (FILE, FOLDER, LINK):
        raise ValueError("not a file, folder or link")
    info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    name, target = records.get("path", info.name), records.get("linkpath", info.linkname)
    size = int(records.get("size", info.size))
    entry = Entry(name.removesuffix("/"), info.type, info.mode & MODE_BITS, size, target=target)
    if entry.size_bytes < 0 or entry.header() != read_at(offset, length) or (entry.size_bytes and entry.kind != FILE):
        raise ValueError("not as a source writes it")
    return entry, offset + length


def _pax_records(data: bytes) -> dict[str, str]:
    """Return the records of a pax header. Each has its own length, a space, a key, ``=``, a value and a newline."""
    records: dict[str, str] = {}
    while data:
        if len(records) == _PAX_RECORDS_MAX:
            raise ValueError("too many pax records")
        length = int(data[: data.index(b" ")])
        key, _, value = data[data.index(b" ") + 1 : length - 1].partition(b"=")
        if length < len(b"3 =\n"):
            raise ValueError("a pax record that is too short")
        if key.decode("ascii") in records:
            raise ValueError("a repeated pax record")
        records[key.decode("ascii")] = value.decode("utf-8", "surrogateescape")
        data = data[length:]
    return records
