"""The journal of verified ranges: which chunks of an unfinished file a client can trust after a restart.

Records of 12 bytes, big-endian: start (u32), stop (u32), CRC-32 of these eight bytes (u32). Records are only appended.
Reading stops at the first torn or bad record.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pspd.core.model.ranges import Range, RangeSet
from pspd.errors import StorageError
from pspd.store.filesystem.failures import storage_error
from pspd.store.filesystem.file_bytes import OpenFiles
from pspd.store.filesystem.files import replace_file

_SPAN = struct.Struct(">II")
_RECORD = struct.Struct(">III")
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def encode_ranges(ranges: Iterable[tuple[int, int]]) -> bytes:
    """Return the journal records for ranges."""
    return b"".join(_RECORD.pack(start, stop, zlib.crc32(_SPAN.pack(start, stop))) for start, stop in ranges)


def decode_ranges(data: bytes, chunk_count: int) -> tuple[RangeSet, bool]:
    """Return the ranges in a journal, and whether all of it was good records.

    Args:
        data: the journal.
        chunk_count: the number of chunks in the file.
    """
    ranges = RangeSet()
    whole_bytes = len(data) - len(data) % _RECORD.size
    for start, stop, checksum in _RECORD.iter_unpack(data[:whole_bytes]):
        if checksum != zlib.crc32(_SPAN.pack(start, stop)) or not start < stop <= chunk_count:
            return ranges, False
        ranges.add(start, stop)
    return ranges, whole_bytes == len(data)


class Journal:
    """One file's journal.

    Args:
        path: the journal.
        open_files: where its descriptor is kept.
    """

    __slots__ = ("_open_files", "path")

    def __init__(self, path: Path, open_files: OpenFiles) -> None:
        self.path = path
        self._open_files = open_files

    def read(self, chunk_count: int) -> tuple[RangeSet, bool]:
        """Return the journal's ranges, and whether it is free of errors, as a missing journal is.

        Raises:
            StorageError: the journal cannot be read.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return RangeSet(), True
        except OSError as error:
            raise storage_error("read", self.path, error) from None
        return decode_ranges(data, chunk_count)

    @property
    def mtime_ns(self) -> int:
        """When the journal was last written to; 0 if there is none."""
        try:
            return self.path.stat().st_mtime_ns
        except OSError:
            return 0

    def append(self, ranges: Iterable[Range]) -> None:
        """Add ranges whose bytes are saved and verified.

        Raises:
            StorageError: the ranges cannot be written; the journal is unchanged.
        """
        records = encode_ranges(ranges)
        fd = self._open_files.fd(self.path, _FLAGS)
        try:
            count = os.write(fd, records)
        except OSError as error:
            raise storage_error("write", self.path, error) from None
        if count != len(records):
            # A torn record would hide all later ones: remove it.
            with suppress(OSError):
                os.ftruncate(fd, os.fstat(fd).st_size - count)
            raise StorageError(f"cannot write {self.path}: No space left on device: free some space there")

    def rewrite(self, ranges: RangeSet) -> None:
        """Replace the journal atomically by one with exactly these ranges.

        Raises:
            StorageError: it cannot be written; the journal is unchanged.
        """
        self._open_files.close(self.path)
        replace_file(self.path, encode_ranges(ranges))
