"""The archive of a folder, which is distributed like a file.

It is a POSIX tar (pax): the folder itself, then its content in path order, with modes and symbolic links, without
owners and times. Equal folders have equal archives. A source never stores the archive; it reads it from the folder.
"""

from __future__ import annotations

import errno
import os
import tarfile
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

from pspd.core.model.manifest import STORE_FOLDER, USUAL_MODE
from pspd.errors import BadArgument
from pspd.store.filesystem.descriptors import OpenFiles
from pspd.store.filesystem.failures import storage_error
from pspd.store.layout import INSTANCE
from pspd.store.messages import changed_while_read
from pspd.store.tree.entries import TOP, ArchiveError, Entry, validate_entries, validate_path_length
from pspd.store.tree.traverse import raise_error, walk

END = bytes(2 * tarfile.BLOCKSIZE)
"""The bytes at the end of an archive."""

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


class FolderArchive:
    """The archive of a folder that does not change, read from the folder on demand.

    Implements ``pspd.store.source.content.SourceContent``.

    Attributes:
        size_bytes: the archive's size.
        mode: the default mode, because an archive contains the modes.
    """

    mode = USUAL_MODE

    def __init__(self, folder: Path) -> None:
        """List the folder.

        Args:
            folder: the folder.

        Raises:
            BadArgument: something in it cannot be distributed.
            StorageError: it cannot be read.
        """
        self._folder = folder
        self._open_files = OpenFiles()
        self._entries = _entries_in(folder)
        self._starts: list[int] = []
        offset = 0
        for entry in self._entries:
            self._starts.append(offset)
            offset += len(entry.header()) + padded(entry.size_bytes)
        self._end = offset
        self.size_bytes = offset + len(END)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return bytes of the archive.

        Args:
            offset: where in the archive, in bytes.
            length: how many bytes.

        Raises:
            StorageError: the folder was changed since it was listed, or cannot be read.
        """
        pieces = []
        end = offset + length
        index = bisect_right(self._starts, offset) - 1
        while offset < end:
            piece = self._piece(index, offset, end)
            pieces.append(piece)
            offset += len(piece)
            if index + 1 < len(self._starts) and offset >= self._starts[index + 1]:
                index += 1
        return b"".join(pieces)

    def payload(self, offset: int, length: int) -> memoryview:
        """See ``SourceContent.payload``."""
        return memoryview(self.read_at(offset, length))

    def require_unwritten(self) -> None:
        """See ``SourceContent.require_unwritten``. :meth:`read_at` checks each file that it reads."""

    def require_unchanged(self) -> None:
        """See ``SourceContent.require_unchanged``."""
        if _entries_in(self._folder) != self._entries:
            raise changed_while_read(self._folder)

    def close(self) -> None:
        """See ``SourceContent.close``."""
        self._open_files.close_all()

    def _piece(self, index: int, offset: int, end: int) -> bytes:
        """Return bytes of entry ``index`` from ``offset`` up to ``end``: of its header, its content or its padding."""
        if offset >= self._end:
            return bytes(end - offset)
        entry = self._entries[index]
        header = entry.header()
        at = offset - self._starts[index]
        wanted = end - offset
        if at < len(header):
            return header[at : at + wanted]
        at -= len(header)
        if at < entry.size_bytes:
            return self._content(entry, at, min(wanted, entry.size_bytes - at))
        return bytes(min(wanted, padded(entry.size_bytes) - at))

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


def padded(size_bytes: int) -> int:
    """Return how many bytes an archive takes for content of a size: whole tar blocks."""
    return -(-size_bytes // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _entries_in(folder: Path) -> list[Entry]:
    """Return the entries for a folder and its content, in archive order."""
    try:
        entries = [Entry.of_path(folder, name) for name in [TOP, *sorted(_paths_in(folder))]]
        validate_entries(entries)
    except OSError as error:
        raise storage_error("read", Path(error.filename or folder), error) from None
    except ArchiveError as invalid:
        raise BadArgument(f"cannot seed {folder}: {invalid}: change or remove that") from None
    return entries


def _paths_in(folder: Path) -> Iterator[str]:
    for place, folders, files in walk(folder, raise_error):
        if _is_client_folder(place):
            raise BadArgument(f"cannot seed {place}: it is a client's folder: seed the files in it one by one")
        for name in [*folders, *files]:
            path = os.path.relpath(os.path.join(place, name), folder)
            validate_path_length(path)
            yield path


def _is_client_folder(folder: str) -> bool:
    """Return whether a folder is a client's. Another user's hidden folder cannot be read, and counts."""
    try:
        os.lstat(os.path.join(folder, STORE_FOLDER, INSTANCE))
    except OSError as error:
        return error.errno == errno.EACCES
    return True
