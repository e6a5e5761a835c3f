"""A folder as one file: its archive, as a source reads it out of the folder, and as a client understands it.

The archive is a POSIX tar (pax), and the same for the same folder, wherever it is: the folder itself, then what is in
it in the order of the paths, with modes and symbolic links, without owners and times. No source writes it anywhere. Who
gets one takes it only if it is just what a source makes: each header, read and written again, is the same bytes;
each thing lies in a folder of the archive; and no link leads out, by whatever ways. All that is decided before anything
is unpacked, and without looking at a disk.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import tarfile
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pspd.core.model.manifest import STORE_FOLDER, USUAL_MODE
from pspd.errors import BadArgument
from pspd.store.files.descriptors import OpenFiles
from pspd.store.files.failures import failed
from pspd.store.messages import changed
from pspd.store.tree.walk import fail, walk

ENTRIES_MAX = 1_000_000
HEADER_BYTES_MAX = 1 << 30
DEPTH_MAX = 200
PATH_CHARACTERS_MAX = 4096
LINKS_FOLLOWED_MAX = 40
"""As many as Linux follows on one path."""
STEPS_MAX = 5_000_000
"""How many steps all links of one archive may take together, to see where they lead."""

FILE, FOLDER, LINK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE
TOP = "."

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_LINK_MODE = 0o777
_BLOCK_BYTES = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK_BYTES)
_KIND_AT = slice(156, 157)
_SIZE_AT = slice(124, 135)
_PAX_BYTES_MAX = 32 * 1024
_PAX_RECORDS_MAX = 4


class ArchiveError(Exception):
    """What keeps a folder from being distributed, or an archive from being unpacked."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, folder or link of an archive; ``mtime_ns`` is that of a file where it was found."""

    name: str
    kind: bytes
    mode: int
    size_bytes: int = 0
    mtime_ns: int = 0
    target: str = ""

    @staticmethod
    def found(folder: Path, name: str) -> Entry:
        """What is there under a path in a folder. Its owner may read it wherever it comes to."""
        path = folder / name
        state = os.stat(path) if name == TOP else os.lstat(path)  # it may be reached through a link itself
        mode = stat.S_IMODE(state.st_mode) & 0o777
        match stat.S_IFMT(state.st_mode):
            case stat.S_IFREG:
                return Entry(name, FILE, mode | stat.S_IRUSR, state.st_size, state.st_mtime_ns)
            case stat.S_IFDIR if name == TOP:
                return Entry(name, FOLDER, mode | stat.S_IRWXU)  # or nobody could give it its name
            case stat.S_IFDIR:
                return Entry(name, FOLDER, mode | stat.S_IRUSR | stat.S_IXUSR)
            case stat.S_IFLNK:
                return Entry(name, LINK, _LINK_MODE, target=os.readlink(path))
        raise BadArgument(f"cannot seed {path}: it is neither a file, a folder nor a link: take it away")

    def header(self) -> bytes:
        """What stands before its bytes in the archive."""
        info = tarfile.TarInfo(self.name)
        info.type, info.mode, info.size, info.linkname = self.kind, self.mode, self.size_bytes, self.target
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


class FolderArchive:
    """The archive of a folder that is at rest: its bytes, read from the folder when they are asked for.

    Attributes:
        size_bytes: the archive's size.
        mode: that of a manifest that names none: modes are in the archive.
    """

    mode = USUAL_MODE

    def __init__(self, folder: Path) -> None:
        """Looks through the folder.

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
        self.size_bytes = offset + len(_END)

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes of the archive.

        Raises:
            StorageError: the folder was changed since it was looked through, or cannot be read.
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
        """See ``pspd.store.source.source_store.Original.payload``."""
        return memoryview(self.read_at(offset, length))

    def require_untouched(self) -> None:
        """See ``Original.require_untouched``. Every file is looked at when it is read."""

    def require_unchanged(self) -> None:
        """See ``Original.require_unchanged``."""
        if _entries_in(self._folder) != self._entries:
            raise changed(self._folder)

    def close(self) -> None:
        """See ``Original.close``."""
        self._open_files.close_all()

    def _piece(self, index: int, offset: int, end: int) -> bytes:
        """The archive from ``offset`` on, up to where something else begins, and no further than ``end``."""
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
            raise changed(self._folder)
        fd = self._open_files.fd(path, _READ_FLAGS)
        try:
            state = os.fstat(fd)
            data = os.pread(fd, length, offset)
        except OSError as error:
            raise failed("read", path, error) from None
        if (state.st_size, state.st_mtime_ns) != (entry.size_bytes, entry.mtime_ns) or len(data) != length:
            raise changed(self._folder)
        return data


def entries_of(read_at: Callable[[int, int], bytes], size_bytes: int) -> list[tuple[Entry, int]]:
    """What is in an archive: each thing, and where its bytes begin.

    Raises:
        ArchiveError: it is not one that a source makes.
    """
    found: list[tuple[Entry, int]] = []
    offset, end = 0, size_bytes - len(_END)
    header_bytes = 0
    while offset < end:
        try:
            entry, content_at = _entry_at(read_at, offset)
        except (ValueError, tarfile.TarError):
            raise ArchiveError(f"there is nonsense at its byte {offset}") from None
        header_bytes += content_at - offset
        offset = content_at + padded(entry.size_bytes)
        found.append((entry, content_at))
        if len(found) > ENTRIES_MAX or header_bytes > HEADER_BYTES_MAX:
            raise ArchiveError("more is in it than can be kept in mind")
    require_sound([entry for entry, _ in found])
    if offset != end or read_at(end, len(_END)) != _END:
        raise ArchiveError("it does not end as it should")
    return found


def require_sound(entries: list[Entry]) -> None:
    """Makes sure that everything lies in a folder of the same archive, each under one path, and no link leads out.

    Raises:
        ArchiveError: it is not so.
    """
    if not entries or (entries[0].name, entries[0].kind) != (TOP, FOLDER):
        raise ArchiveError("it does not begin with a folder")
    if len(entries) > ENTRIES_MAX:
        raise ArchiveError(f"more than {ENTRIES_MAX} things are in it")
    for entry in entries:
        _require_usual(entry)
    by_name: dict[str, Entry] = {TOP: entries[0]}
    previous = ""
    for entry in entries[1:]:
        parent = by_name.get(posixpath.dirname(entry.name) or TOP)
        is_path = entry.name == posixpath.normpath(entry.name) != TOP and entry.name.split("/")[0] != ".."
        if not is_path or previous >= entry.name or parent is None or parent.kind != FOLDER:
            raise ArchiveError(f"{entry.name!r} has no place in it")
        previous = entry.name
        by_name[entry.name] = entry
    steps = iter(range(STEPS_MAX))
    for entry in entries:
        if entry.kind == LINK and _leads_out(entry, by_name, steps):
            raise ArchiveError(f"its link {entry.name!r} is absolute, leads out of it, or round in circles")


def _require_usual(entry: Entry) -> None:
    """Makes sure that a thing could have been found in a folder, and that its owner may read it."""
    needed = {FILE: stat.S_IRUSR, FOLDER: stat.S_IRUSR | stat.S_IXUSR, LINK: _LINK_MODE}[entry.kind]
    needed |= stat.S_IRWXU if entry.name == TOP else 0
    if entry.mode & needed != needed or bool(entry.target) != (entry.kind == LINK) or "\0" in entry.name + entry.target:
        raise ArchiveError(f"{entry.name[:40]!r} is nothing that is found in a folder")
    _require_short(entry.name, entry.target)


def _require_short(name: str, target: str = "") -> None:
    if max(len(name), len(target)) > PATH_CHARACTERS_MAX or name.count("/") >= DEPTH_MAX:
        limits = f"{PATH_CHARACTERS_MAX} characters or {DEPTH_MAX} levels"
        raise ArchiveError(f"the path {name[:40]!r}... is too long, with more than {limits}")


def padded(size_bytes: int) -> int:
    """How much of an archive so many bytes take."""
    return -(-size_bytes // _BLOCK_BYTES) * _BLOCK_BYTES


def _leads_out(link: Entry, by_name: dict[str, Entry], steps: Iterator[int]) -> bool:
    ahead = [*reversed(link.name.split("/"))]
    place: list[str] = []
    followed = 0
    while ahead:
        if next(steps, None) is None:
            raise ArchiveError("its links are too many, and too long")
        part = ahead.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not place:
                return True
            place.pop()
            continue
        if len(place) == DEPTH_MAX:
            return True
        place.append(part)
        there = by_name.get("/".join(place))
        if there is not None and there.kind == LINK:
            followed += 1
            if there.target.startswith("/") or not there.target or followed > LINKS_FOLLOWED_MAX:
                return True
            place.pop()
            ahead.extend(reversed(there.target.split("/")))
    return False


def _entry_at(read_at: Callable[[int, int], bytes], offset: int) -> tuple[Entry, int]:
    """What begins at an offset, and where its bytes do; ValueError or TarError if a source would not write it so."""
    block, length, records = read_at(offset, _BLOCK_BYTES), _BLOCK_BYTES, {}
    if block[_KIND_AT] == tarfile.XHDTYPE:
        size = int(block[_SIZE_AT], 8)
        if not 0 < size <= _PAX_BYTES_MAX:
            raise ValueError("a header without an end")
        records = _pax_records(read_at(offset + _BLOCK_BYTES, size))
        length += padded(size) + _BLOCK_BYTES
        block = read_at(offset + length - _BLOCK_BYTES, _BLOCK_BYTES)
    if block[_KIND_AT] not in (FILE, FOLDER, LINK):
        raise ValueError("neither a file, a folder nor a link")
    info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    name, target = records.get("path", info.name), records.get("linkpath", info.linkname)
    entry = Entry(
        name.removesuffix("/"), info.type, info.mode & 0o777, int(records.get("size", info.size)), target=target
    )
    if entry.size_bytes < 0 or entry.header() != read_at(offset, length) or (entry.size_bytes and entry.kind != FILE):
        raise ValueError("no source writes it so")
    return entry, offset + length


def _pax_records(data: bytes) -> dict[str, str]:
    """The records of a pax header: each its length, a space, a key, ``=``, a value and a newline."""
    records: dict[str, str] = {}
    while data:
        if len(records) == _PAX_RECORDS_MAX:
            raise ValueError("a header of too many records")
        length = int(data[: data.index(b" ")])
        key, _, value = data[data.index(b" ") + 1 : length - 1].partition(b"=")
        if length < len(b"3 =\n"):
            raise ValueError("a record without an end")
        if key.decode("ascii") in records:
            raise ValueError("a record that comes twice")
        records[key.decode("ascii")] = value.decode("utf-8", "surrogateescape")
        data = data[length:]
    return records


def _entries_in(folder: Path) -> list[Entry]:
    """A folder and all that is in it, in the order of its archive."""
    try:
        entries = [Entry.found(folder, name) for name in [TOP, *sorted(_names_in(folder))]]
        require_sound(entries)
    except OSError as error:
        raise failed("read", Path(error.filename or folder), error) from None
    except ArchiveError as flaw:
        raise BadArgument(f"cannot seed {folder}: {flaw}: take that away") from None
    return entries


def _names_in(folder: Path) -> Iterator[str]:
    for place, folders, files in walk(folder, fail):
        if _is_clients(place):
            raise BadArgument(f"cannot seed {place}: it is a client's folder: seed what it has got, one by one")
        for name in [*folders, *files]:
            path = os.path.relpath(os.path.join(place, name), folder)
            _require_short(path)
            yield path


def _is_clients(folder: str) -> bool:
    """Whether a folder is a client's; also of another user, who alone may look into its hidden folder."""
    try:
        os.lstat(os.path.join(folder, STORE_FOLDER, "instance"))
    except OSError as error:
        return error.errno == errno.EACCES
    return True
