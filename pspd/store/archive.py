"""A folder as one file: its archive, read by a source out of the folder itself, and unpacked by a client.

The archive is a POSIX tar, and the same for the same folder, wherever it is: entries in the order of their paths, with
modes and symbolic links, without owners and times. A source never writes it anywhere. Who unpacks one trusts nothing
in it: no path and no link leads out of the folder, and nothing is ever written through a link.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pspd.core.manifest import STORE_FOLDER, Digest, Manifest
from pspd.errors import BadArgument, PspError, StorageError
from pspd.store.messages import changed, failed
from pspd.store.open_files import OpenFiles

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_END_BYTES = 2 * tarfile.BLOCKSIZE
_LINK_MODE = 0o777
_TOP = "."


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file, folder or link of the folder, as it was found."""

    name: str
    kind: bytes
    mode: int
    size_bytes: int = 0
    mtime_ns: int = 0
    target: str = ""

    @staticmethod
    def found(folder: Path, name: str) -> _Entry:
        path = folder / name
        state = os.stat(path) if name == _TOP else os.lstat(path)  # it may be reached through a link itself
        mode = stat.S_IMODE(state.st_mode) & 0o777
        match stat.S_IFMT(state.st_mode):
            case stat.S_IFREG:
                return _Entry(name, tarfile.REGTYPE, mode, state.st_size, state.st_mtime_ns)
            case stat.S_IFDIR if name == _TOP:
                return _Entry(name, tarfile.DIRTYPE, mode | stat.S_IRWXU)  # or nobody could give it its name
            case stat.S_IFDIR:
                return _Entry(name, tarfile.DIRTYPE, mode)
            case stat.S_IFLNK:
                return _Entry(name, tarfile.SYMTYPE, _LINK_MODE, target=os.readlink(path))
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
    """

    def __init__(self, folder: Path) -> None:
        """Looks through the folder.

        Raises:
            BadArgument: something in it cannot be distributed.
            StorageError: it cannot be read.
        """
        self._folder = folder
        self._open_files = OpenFiles()
        self._entries = _entries(folder)
        self._starts: list[int] = []
        offset = 0
        for entry in self._entries:
            self._starts.append(offset)
            offset += len(entry.header()) + _padded(entry.size_bytes)
        self._end = offset
        self.size_bytes = offset + _END_BYTES

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
        """See ``pspd.store.original.Original.payload``."""
        return memoryview(self.read_at(offset, length))

    def require_untouched(self) -> None:
        """See ``Original.require_untouched``. Every file is looked at when it is read."""

    def require_unchanged(self) -> None:
        """See ``Original.require_unchanged``."""
        if _entries(self._folder) != self._entries:
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
        return bytes(min(wanted, _padded(entry.size_bytes) - at))

    def _content(self, entry: _Entry, offset: int, length: int) -> bytes:
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


def is_plain_folder(path: Path) -> bool:
    """Whether it is a folder itself, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def is_folder_of(manifest: Manifest, folder: Path, digest: Digest) -> bool:
    """Whether a folder is just the one of which a manifest tells."""
    if not is_plain_folder(folder):
        return False
    try:
        with closing(FolderArchive(folder)) as archive:
            if archive.size_bytes != manifest.size_bytes:
                return False
            found = Manifest.build(manifest.name, archive.size_bytes, archive.read_at, digest, is_folder=True)
            return found.file_id == manifest.file_id
    except PspError:
        return False


def unpack(archive: Path, place: Path) -> None:
    """Unpacks an archive into a new folder; what was there is removed.

    Raises:
        StorageError: it is not a folder's archive, something in it leads out of the folder, or the disk fails.
    """
    remove_tree(place)
    try:
        with tarfile.open(archive, "r:") as tar:
            members = tar.getmembers()
            _require_plain(members)
            # Links come last: then nothing can be written through one.
            members.sort(key=tarfile.TarInfo.issym)
            tar.extractall(place, members, filter=_as_it_was)
        stray = _link_that_leads_out(place, [member.name for member in members if member.issym()])
        if stray is not None:
            raise tarfile.TarError(f"the link {stray!r} leads out of the folder")
    except BaseException as error:
        remove_tree(place)
        if isinstance(error, tarfile.TarError):
            raise StorageError(f"a folder cannot be unpacked: {error}: do not trust who seeded it") from None
        if isinstance(error, OSError):
            raise failed("unpack into", place, error) from None
        raise


def _require_plain(members: list[tarfile.TarInfo]) -> None:
    if any(not (member.isreg() or member.isdir() or member.issym()) for member in members):
        raise tarfile.TarError("something in it is neither a file, a folder nor a link")
    if any(os.path.isabs(member.name) for member in members):
        raise tarfile.TarError("something in it has a path of its own")
    if len({os.path.normpath(member.name) for member in members}) < len(members):
        raise tarfile.TarError("two things in it have one path")


def remove_tree(place: Path) -> None:
    """Removes a folder of ours with all that is in it, if it is there.

    Raises:
        StorageError: it cannot be removed.
    """
    try:
        for folder, _, _ in os.walk(place):
            os.chmod(folder, stat.S_IRWXU)  # nothing can be removed from a folder that is read-only
        if os.path.lexists(place):
            shutil.rmtree(place)
    except OSError as error:
        raise failed("remove", place, error) from None


def flush_tree(place: Path) -> None:
    """Waits until a folder with all that is in it is on the disk.

    Raises:
        StorageError: the disk fails.
    """
    try:
        for folder, _, names in os.walk(place):
            for path in [*(os.path.join(folder, name) for name in names), folder]:
                if os.path.islink(path):
                    continue
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
    except OSError as error:
        raise failed("flush", place, error) from None


def _entries(folder: Path) -> list[_Entry]:
    """All that is in a folder, and it itself, in the order of the archive."""
    try:
        entries = [_Entry.found(folder, name) for name in sorted(_names(folder))]
        stray = _link_that_leads_out(folder, [entry.name for entry in entries if entry.kind == tarfile.SYMTYPE])
    except OSError as error:
        raise failed("read", Path(error.filename or folder), error) from None
    if stray is not None:
        raise BadArgument(f"cannot seed {folder}: its link {stray!r} is absolute or leads out of it: take that away")
    return entries


def _names(folder: Path) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise error

    yield _TOP
    for place, folders, files in os.walk(folder, onerror=fail):
        if os.path.lexists(os.path.join(place, STORE_FOLDER, "instance")):
            raise BadArgument(f"cannot seed {place}: it is a client's folder: seed what it has got, one by one")
        for name in [*folders, *files]:
            yield os.path.relpath(os.path.join(place, name), folder)


def _link_that_leads_out(folder: Path, links: list[str]) -> str | None:
    """The first link that is absolute or leads out of the folder, by whatever ways; None if none does."""
    root = os.path.realpath(folder)
    for link in links:
        path = os.path.join(folder, link)
        if os.path.isabs(os.readlink(path)) or os.path.commonpath([root, os.path.realpath(path)]) != root:
            return link
    return None


def _as_it_was(member: tarfile.TarInfo, place: str) -> tarfile.TarInfo | None:
    """What the data filter (PEP 706) allows, with the mode that it had, and the time at which it came."""
    allowed = tarfile.data_filter(member, place)
    # None means: leave it as it is. The stubs do not know that of the time.
    return allowed.replace(mode=member.mode & 0o777, mtime=None, deep=False)  # type: ignore[arg-type]


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
