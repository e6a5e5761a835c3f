"""One file of a client's folder: its status, its journal, and the disk space that it takes.

A journal lists the verified ranges of an unfinished file, so that a client need not verify them when it restarts within
one boot of the machine. A journal consists of records of 12 bytes, big-endian: start (u32), stop (u32), CRC-32 of these
eight bytes (u32). New records are appended. Reading stops at the first torn or bad record.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from pspd.core.model.manifest import CHUNK_BYTES, Manifest
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import HeldChunks
from pspd.errors import StorageError
from pspd.store.files.verifier import FileVerifier
from pspd.store.filesystem.failures import storage_error
from pspd.store.filesystem.file_bytes import FileBytes, OpenFiles
from pspd.store.filesystem.files import replace_file
from pspd.text.sizes import size_text

_SPAN = struct.Struct(">II")
_RECORD = struct.Struct(">III")
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def encode_ranges(ranges: Iterable[tuple[int, int]]) -> bytes:
    """Return the journal records for ranges."""
    return b"".join(_RECORD.pack(start, stop, zlib.crc32(_SPAN.pack(start, stop))) for start, stop in ranges)


def decode_ranges(data: bytes, chunk_count: int) -> tuple[RangeSet, bool]:
    """Return the ranges in a journal before its first bad record, and whether all records are good.

    Args:
        data: the content of the journal.
        chunk_count: the number of chunks in the file.
    """
    ranges = RangeSet()
    whole_bytes = len(data) - len(data) % _RECORD.size
    for start, stop, checksum in _RECORD.iter_unpack(data[:whole_bytes]):
        if checksum != zlib.crc32(_SPAN.pack(start, stop)) or not start < stop <= chunk_count:
            return ranges, False
        ranges.add(start, stop)
    return ranges, whole_bytes == len(data)


@dataclass(slots=True, eq=False)
class Journal:
    """One file's journal.

    Attributes:
        path: the journal's path.
        open_files: the store's open descriptors.
    """

    path: Path
    open_files: OpenFiles

    def read(self, chunk_count: int) -> tuple[RangeSet, bool]:
        """Return the journal's ranges, and whether all records are good. A missing journal has no records.

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

    def append(self, ranges: Iterable[Range]) -> None:
        """Add ranges whose bytes are saved and verified.

        Raises:
            StorageError: the ranges cannot be written. If a part was written, it is removed if possible.
        """
        records = encode_ranges(ranges)
        fd = self.open_files.fd(self.path, _FLAGS)
        try:
            count = os.write(fd, records)
        except OSError as error:
            raise storage_error("write", self.path, error) from None
        if count != len(records):
            # A torn record would hide all later records: remove it.
            with suppress(OSError):
                os.ftruncate(fd, os.fstat(fd).st_size - count)
            raise StorageError(f"cannot write {self.path}: No space left on device: free some space there")

    def rewrite(self, ranges: RangeSet) -> None:
        """Replace the journal atomically by a journal with exactly these ranges.

        Raises:
            StorageError: the new journal cannot be written; the old journal is unchanged.
        """
        self.open_files.close(self.path)
        replace_file(self.path, encode_ranges(ranges))


class FileStatus(Enum):
    """The status of a file, which also determines where its bytes are."""

    UNFINISHED = auto()  # in the hidden folder; the store writes to it
    FINISHED = auto()  # at ``FileRecovery.finished_path``; the store does not write to it
    CHANGED = auto()  # like FINISHED, but another program has changed it; its verified units can be sent


@dataclass(slots=True, eq=False)
class StoredFile:
    """A file's verified chunks, bytes, journal and status. Only the methods of this class set the fields.

    Attributes:
        verifier: the file's verifier, which records the verified chunks.
        content: the file's bytes.
        journal: the file's journal, which exists on the disk only while the file is unfinished.
        status: the file's status.
    """

    verifier: FileVerifier
    content: FileBytes
    journal: Journal
    status: FileStatus

    @property
    def held(self) -> HeldChunks:
        """The file's verified chunks, as a live view, and whether the file is finished."""
        return HeldChunks(self.verifier.verified, self.status is FileStatus.FINISHED)

    @property
    def unwritten_bytes(self) -> int:
        """The maximum disk space that the file may still need, in bytes."""
        if self.status is not FileStatus.UNFINISHED:
            return 0
        return max(0, disk_bytes(self.verifier.manifest) - self.verifier.verified.chunk_count * CHUNK_BYTES)

    def mark_finished(self, content: FileBytes) -> None:
        """Record that the file is finished; ``content`` has the bytes at their final path."""
        content.mark_unchanged()
        self.content = content
        self.status = FileStatus.FINISHED

    def mark_changed(self) -> None:
        """Record that another program has changed the finished file."""
        self.status = FileStatus.CHANGED


def disk_bytes(manifest: Manifest) -> int:
    """Return the disk space that a file takes, in bytes: its size, or twice the size of a folder's archive."""
    return manifest.size_bytes * (2 if manifest.is_folder else 1)


def require_space(
    manifest: Manifest, more_bytes: int, others: Collection[StoredFile], hidden_folder: Path, max_bytes: int | None
) -> None:
    """Check that a file stays within ``--max-bytes`` and fits on the disk, before it is begun.

    This does not reserve the space: other clients on the same disk, and other programs, can still fill the disk.

    Args:
        manifest: the file's manifest.
        more_bytes: the maximum disk space that the file may still need, in bytes.
        others: the other files that were begun since the client started.
        hidden_folder: the client's hidden folder.
        max_bytes: the maximum disk space of the file and the others together, in bytes; None for no limit.

    Raises:
        StorageError: the file exceeds the limit or the free space, or the disk cannot be examined.
    """
    used_bytes = sum(disk_bytes(file.verifier.manifest) for file in others)
    needed_bytes = disk_bytes(manifest)
    if max_bytes is not None and used_bytes + needed_bytes > max_bytes:
        excess_bytes = needed_bytes - max(0, max_bytes - used_bytes)
        advice = "raise it, or remove other files from the network" if used_bytes else "raise it"
        raise StorageError(
            f"{manifest.name!r} needs {size_text(needed_bytes)}, {size_text(excess_bytes)} more than are left of"
            f" --max-bytes {size_text(max_bytes)}: {advice}"
        )
    try:
        disk = os.statvfs(hidden_folder)
    except OSError as error:
        raise storage_error("use", hidden_folder, error) from None
    reserved_bytes = sum(file.unwritten_bytes for file in others)
    free_bytes = max(0, disk.f_bavail * disk.f_frsize - reserved_bytes)
    if more_bytes > free_bytes and disk.f_blocks > 0:  # some file systems report no size
        reserved = f" beside {size_text(reserved_bytes)} for other files that are being received"
        raise StorageError(
            f"{manifest.name!r} needs {size_text(more_bytes)}, {size_text(more_bytes - free_bytes)} more than are free"
            f" in {hidden_folder.parent}{reserved if reserved_bytes else ''}: free some space there"
        )
