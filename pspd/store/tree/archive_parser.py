"""Parse the archive of a folder, and accept it only if a source would have written exactly the same bytes."""

from __future__ import annotations

import tarfile
from collections.abc import Callable

from pspd.store.tree.archive import END, padded
from pspd.store.tree.entries import ENTRIES_MAX, FILE, FOLDER, LINK, ArchiveError, Entry, validate_entries

HEADER_BYTES_MAX = 1 << 30
"""How large all headers of an archive may be together."""

_BLOCK_BYTES = tarfile.BLOCKSIZE
_KIND_AT = slice(156, 157)
_SIZE_AT = slice(124, 135)
_PAX_BYTES_MAX = 32 * 1024
_PAX_RECORDS_MAX = 4


def parse_entries(read_at: Callable[[int, int], bytes], size_bytes: int) -> list[tuple[Entry, int]]:
    """Return each entry of an archive, and the offset of its content.

    Args:
        read_at: returns bytes of the archive, given an offset and a length.
        size_bytes: the archive's size.

    Raises:
        ArchiveError: no source writes such an archive.
    """
    found: list[tuple[Entry, int]] = []
    offset, end = 0, size_bytes - len(END)
    header_bytes = 0
    while offset < end:
        try:
            entry, content_at = _entry_at(read_at, offset)
        except (ValueError, tarfile.TarError):
            raise ArchiveError(f"its entry at byte {offset} is malformed") from None
        header_bytes += content_at - offset
        offset = content_at + padded(entry.size_bytes)
        found.append((entry, content_at))
        if len(found) > ENTRIES_MAX or header_bytes > HEADER_BYTES_MAX:
            raise ArchiveError("it has too many entries")
    validate_entries([entry for entry, _ in found])
    if offset != end or read_at(end, len(END)) != END:
        raise ArchiveError("its end is malformed")
    return found


def _entry_at(read_at: Callable[[int, int], bytes], offset: int) -> tuple[Entry, int]:
    """Return the entry at an offset, and where its content begins; ValueError or TarError if it is malformed."""
    block, length, records = read_at(offset, _BLOCK_BYTES), _BLOCK_BYTES, {}
    if block[_KIND_AT] == tarfile.XHDTYPE:
        size = int(block[_SIZE_AT], 8)
        if not 0 < size <= _PAX_BYTES_MAX:
            raise ValueError("an endless pax header")
        records = _pax_records(read_at(offset + _BLOCK_BYTES, size))
        length += padded(size) + _BLOCK_BYTES
        block = read_at(offset + length - _BLOCK_BYTES, _BLOCK_BYTES)
    if block[_KIND_AT] not in (FILE, FOLDER, LINK):
        raise ValueError("not a file, folder or link")
    info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    name, target = records.get("path", info.name), records.get("linkpath", info.linkname)
    entry = Entry(
        name.removesuffix("/"), info.type, info.mode & 0o777, int(records.get("size", info.size)), target=target
    )
    if entry.size_bytes < 0 or entry.header() != read_at(offset, length) or (entry.size_bytes and entry.kind != FILE):
        raise ValueError("not as a source writes it")
    return entry, offset + length


def _pax_records(data: bytes) -> dict[str, str]:
    """Return the records of a pax header. Each is its length, a space, a key, ``=``, a value and a newline."""
    records: dict[str, str] = {}
    while data:
        if len(records) == _PAX_RECORDS_MAX:
            raise ValueError("too many pax records")
        length = int(data[: data.index(b" ")])
        key, _, value = data[data.index(b" ") + 1 : length - 1].partition(b"=")
        if length < len(b"3 =\n"):
            raise ValueError("an endless pax record")
        if key.decode("ascii") in records:
            raise ValueError("a repeated pax record")
        records[key.decode("ascii")] = value.decode("utf-8", "surrogateescape")
        data = data[length:]
    return records
