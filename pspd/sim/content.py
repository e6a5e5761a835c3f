"""The contents of files: random bytes, which reveal faults, and zeros that take no memory, for forecasts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.ranges import RangeSet
from pspd.core.model.storage import HeldChunks, Storage, WriteResult
from pspd.store.digests import blake3_digest
from pspd.store.files.memory import MemoryStore

_ZEROS = memoryview(bytes(8 * 1024 * 1024))
"""As many zeros as the longest payload in the fast profile has bytes."""


def _zeros(length: int) -> memoryview:
    return _ZEROS[:length] if length <= len(_ZEROS) else memoryview(bytes(length))


class Content:
    """Makes, hashes and stores the bytes of files. The bytes are random, so that wrong bytes are detected.

    Attributes:
        has_bytes: whether deliveries and contributions carry the bytes of files.
    """

    has_bytes: ClassVar[bool] = True

    def digest(self, parts: Iterable[bytes | bytearray | memoryview]) -> bytes:
        """Return the digest of concatenated parts: the bytes of a block or piece, or the fields of a file id."""
        return blake3_digest(parts)

    def bytes_of(self, size_bytes: int, seed: int) -> bytes:
        """Return the random bytes of a file.

        Args:
            size_bytes: the file's size.
            seed: the seed of the random bytes.
        """
        return Random(seed).randbytes(size_bytes)

    def read(self, data: bytes, offset: int, length: int) -> bytes | memoryview:
        """Return a part of a file.

        Args:
            data: the file's bytes, from :meth:`bytes_of`.
            offset: the offset of the part, in bytes.
            length: the length of the part, in bytes.
        """
        return data[offset : offset + length]

    def new_store(self, instance_id: bytes) -> Storage:
        """Return an empty store for a client."""
        return MemoryStore(blake3_digest, instance_id)


class BlankContent(Content):
    """Zeros that are never stored, so that many clients and large files fit into memory."""

    has_bytes: ClassVar[bool] = False

    def __init__(self) -> None:
        self._digests: dict[int, bytes] = {}  # the digests of zeros, by length

    def digest(self, parts: Iterable[bytes | bytearray | memoryview]) -> bytes:
        """See ``Content.digest``."""
        parts = tuple(parts)
        if len(parts) > 1 and isinstance(parts[0], bytes):  # the fields of a file id; any other input is zeros
            return blake3_digest(parts)
        length = sum(map(len, parts))
        known = self._digests.get(length)
        if known is None:
            known = self._digests[length] = blake3_digest((bytes(length),))
        return known

    def bytes_of(self, size_bytes: int, seed: int) -> bytes:
        """See ``Content.bytes_of``; always empty."""
        return b""

    def read(self, data: bytes, offset: int, length: int) -> memoryview:
        """See ``Content.read``; always zeros."""
        return _zeros(length)

    def new_store(self, instance_id: bytes) -> Storage:
        """See ``Content.new_store``; the store records ranges and stores no bytes."""
        return BlankStore()


@dataclass(slots=True, eq=False)
class _Entry:
    """The state of one file in a blank store.

    Attributes:
        manifest: the file's manifest.
        arrived: the chunks that were written.
        verified: the chunks of the units that were written completely.
        finished: whether the file is finished.
    """

    manifest: Manifest
    arrived: RangeSet = field(default_factory=RangeSet)
    verified: RangeSet = field(default_factory=RangeSet)
    finished: bool = False


class BlankStore:
    """Implements ``pspd.core.model.storage.Storage`` for zeros, which are always right. It records only ranges."""

    def __init__(self) -> None:
        self._entries: dict[FileId, _Entry] = {}

    def known(self) -> dict[FileId, HeldChunks]:
        """See ``Storage.known``."""
        return {file_id: self._held(file_id).copy() for file_id in self._entries}

    def begin(self, manifest: Manifest) -> HeldChunks:
        """See ``Storage.begin``."""
        entry = self._entries.setdefault(manifest.file_id, _Entry(manifest))
        if entry.manifest != manifest:  # another division has other units
            entry.manifest, entry.verified = manifest, manifest.whole_units_of(entry.arrived)
        return self._held(manifest.file_id)

    def write(self, file_id: FileId, start: int, stop: int, data: memoryview) -> WriteResult:
        """See ``Storage.write``."""
        entry = self._entries[file_id]
        entry.arrived.add(start, stop)
        whole = entry.manifest.whole_units(*entry.arrived.enclosing_range(start, stop))
        verified = entry.verified.gaps(*whole)
        entry.verified.add(*whole)
        return WriteResult(RangeSet(verified))

    def payload(self, file_id: FileId, start: int, stop: int) -> memoryview:
        """See ``Storage.payload``."""
        return _zeros(self._entries[file_id].manifest.byte_span(start, stop)[1])

    def missing(self, file_id: FileId) -> RangeSet:
        """See ``Storage.missing``."""
        entry = self._entries[file_id]
        return RangeSet(entry.arrived.gaps(0, entry.manifest.chunk_count))

    def finish(self, file_id: FileId) -> None:
        """See ``Storage.finish``."""
        self._entries[file_id].finished = True

    def verify(self, file_id: FileId) -> None:
        """See ``Storage.verify``; this does nothing, because zeros are always right."""

    def discard(self, file_id: FileId) -> None:
        """See ``Storage.discard``."""
        self._entries.pop(file_id, None)

    def require_usable(self) -> None:
        """See ``Storage.require_usable``; a store without a disk is always usable."""

    def close(self) -> None:
        """See ``Storage.close``; nothing is open."""

    def _held(self, file_id: FileId) -> HeldChunks:
        entry = self._entries[file_id]
        return HeldChunks(entry.verified, entry.finished)
