"""The entries of a folder's archive, and the rules that they must obey.

A valid archive stays within its folder: every entry is in a folder of the archive, and no symbolic link leads out of
the folder, not even through other links. The rules are checked without the disk.
"""

from __future__ import annotations

import os
import posixpath
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pspd.core.model.manifest import MODE_BITS
from pspd.errors import BadArgument

ENTRIES_MAX = 1_000_000
DEPTH_MAX = 200
"""The maximum number of components in a path."""
PATH_CHARACTERS_MAX = 4096
LINKS_FOLLOWED_MAX = 40
"""The maximum number of symbolic links that Linux follows on one path."""
LINK_STEPS_MAX = 5_000_000
"""The maximum number of path components that are visited to resolve all links of one archive."""

FILE, FOLDER, LINK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE
TOP = "."


class ArchiveError(Exception):
    """A folder cannot be distributed, or an archive cannot be unpacked."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, folder or symbolic link of an archive.

    Attributes:
        name: the entry's path in the folder; ``TOP`` for the folder itself.
        kind: ``FILE``, ``FOLDER`` or ``LINK``.
        mode: the permission bits.
        size_bytes: the size of a file; 0 for a folder or link.
        mtime_ns: the modification time of a file, in nanoseconds; 0 for a folder or link, and for every entry that was
            parsed from an archive, because archives contain no times.
        target: the target of a link; empty for a file or folder.
    """

    name: str
    kind: bytes
    mode: int
    size_bytes: int = 0
    mtime_ns: int = 0
    target: str = ""

    @staticmethod
    def of_path(folder: Path, name: str) -> Entry:
        """Return the entry for a path in a folder. Its mode always lets the owner read the copy.

        Args:
            folder: the folder.
            name: the path in the folder; ``TOP`` for the folder itself.

        Raises:
            BadArgument: the path is not a file, folder or symbolic link.
            OSError: the path cannot be read.
        """
        path = folder / name
        state = os.stat(path) if name == TOP else os.lstat(path)  # the user may name the folder through a link
        mode = state.st_mode & MODE_BITS
        match stat.S_IFMT(state.st_mode):
            case stat.S_IFREG:
                return Entry(name, FILE, mode | stat.S_IRUSR, state.st_size, state.st_mtime_ns)
            case stat.S_IFDIR if name == TOP:
                return Entry(name, FOLDER, mode | stat.S_IRWXU)  # a copy must be writable to be renamed
            case stat.S_IFDIR:
                return Entry(name, FOLDER, mode | stat.S_IRUSR | stat.S_IXUSR)
            case stat.S_IFLNK:
                return Entry(name, LINK, MODE_BITS, target=os.readlink(path))
        raise BadArgument(f"cannot seed {path}: it is not a file, folder or symbolic link: remove it from the folder")

    def header(self) -> bytes:
        """Return the entry's header in the archive. A file's content follows the header."""
        info = tarfile.TarInfo(self.name)
        info.type, info.mode, info.size, info.linkname = self.kind, self.mode, self.size_bytes, self.target
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def validate_entries(entries: list[Entry]) -> None:
    """Check that the entries form a valid archive.

    The first entry is the folder itself; every other entry is in a folder of the archive. Paths are unique, sorted and
    within the limits. Each mode lets the owner read the copy; a link has all mode bits. No link is absolute, leads out
    of the folder, or loops.

    Raises:
        ArchiveError: an entry is invalid.
    """
    if not entries or (entries[0].name, entries[0].kind) != (TOP, FOLDER):
        raise ArchiveError("its first entry is not the folder itself")
    if len(entries) > ENTRIES_MAX:
        raise ArchiveError(f"it has more than {ENTRIES_MAX} entries")
    for entry in entries:
        needed = {FILE: stat.S_IRUSR, FOLDER: stat.S_IRUSR | stat.S_IXUSR, LINK: MODE_BITS}[entry.kind]
        needed |= stat.S_IRWXU if entry.name == TOP else 0
        has_null = "\0" in entry.name + entry.target
        if entry.mode & needed != needed or bool(entry.target) != (entry.kind == LINK) or has_null:
            raise ArchiveError(f"{entry.name[:40]!r} has an invalid name, mode or link target")
        validate_path_limits(entry.name, entry.target)
    by_name: dict[str, Entry] = {TOP: entries[0]}
    previous = ""
    for entry in entries[1:]:
        parent = by_name.get(posixpath.dirname(entry.name) or TOP)
        is_path = entry.name == posixpath.normpath(entry.name) != TOP and entry.name.split("/")[0] != ".."
        if not is_path or previous >= entry.name or parent is None or parent.kind != FOLDER:
            raise ArchiveError(f"{entry.name!r} is not in one of its folders, or out of order")
        previous = entry.name
        by_name[entry.name] = entry
    steps = iter(range(LINK_STEPS_MAX))
    for entry in entries:
        if entry.kind == LINK and _is_unsafe_link(entry, by_name, steps):
            raise ArchiveError(f"its link {entry.name!r} is absolute, leads out of it, or loops")


def validate_path_limits(name: str, target: str = "") -> None:
    """Check that a path, and the target of a link, are within the limits.

    Args:
        name: the path of an entry.
        target: the target of a link; empty for a file or folder.

    Raises:
        ArchiveError: the path or target is too long, or the path has too many components.
    """
    if max(len(name), len(target)) > PATH_CHARACTERS_MAX or name.count("/") >= DEPTH_MAX:
        raise ArchiveError(
            f"the path {name[:40]!r}... has more than {PATH_CHARACTERS_MAX} characters or {DEPTH_MAX} levels"
        )


def _is_unsafe_link(link: Entry, by_name: dict[str, Entry], steps: Iterator[int]) -> bool:
    """Return whether a link is absolute, leads out of the folder, is too deep, or passes through too many links.

    A loop passes through too many links. Each visited path component takes one of ``steps``, the budget of the archive.

    Raises:
        ArchiveError: no steps are left.
    """
    components = [*reversed(link.name.split("/"))]
    current: list[str] = []
    links_followed = 0
    while components:
        if next(steps, None) is None:
            raise ArchiveError("its links are too many or too long")
        component = components.pop()
        if component in ("", "."):
            continue
        if component == "..":
            if not current:
                return True
            current.pop()
            continue
        if len(current) == DEPTH_MAX:
            return True
        current.append(component)
        reached = by_name.get("/".join(current))
        if reached is not None and reached.kind == LINK:
            links_followed += 1
            if reached.target.startswith("/") or not reached.target or links_followed > LINKS_FOLLOWED_MAX:
                return True
            current.pop()
            components.extend(reversed(reached.target.split("/")))
    return False
