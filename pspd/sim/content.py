"""The files that are distributed: real bytes where faults are to be found, none where only figures are wanted."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Protocol

from pspd.core.model.manifest import Digest, FileId, Manifest
from pspd.core.model.ranges import RangeSet
from pspd.core.model.storage import Held, Storage, Written
from pspd.store.digests import blake3_digest
from pspd.store.files.memory import MemoryStore

_ZEROS = memoryview(bytes(8 * 1024 * 1024))
"""As long as any frame of the fast profile."""


def _zeros(length: int) -> memoryview:
    return _ZEROS[:length] if length <= len(_ZEROS) else memoryview(bytes(length))


class Content(Protocol):
    """What bytes are in a world: how they are made, proved and kept."""

    copied: bool

    @property
    def digest(self) -> Digest:
        """The digest of manifests and blocks."""

    def bytes_of(self, size_bytes: int, seed: int) -> bytes:
        """The bytes of a file; empty where bytes are not looked at."""

    def read(self, data: bytes, offset: int, length: int) -> bytes | memoryview:
        """A part of them."""

    def store(self, instance_id: bytes) -> Storage:
        """An empty store of a client."""


class RealContent:
    """Random bytes, BLAKE3, and stores in memory: whatever goes wrong with a byte is seen."""

    copied = True

    @property
    def digest(self) -> Digest:
        """BLAKE3."""
        return blake3_digest

    def bytes_of(self, size_bytes: int, seed: int) -> bytes:
        """Bytes of which no two chunks are alike."""
        return Random(seed).randbytes(size_bytes)

    def read(self, data: bytes, offset: int, length: int) -> bytes:
        """A part of a file."""
        return data[offset : offset + length]

    def store(self, instance_id: bytes) -> MemoryStore:
        """A store that keeps the bytes."""
        return MemoryStore(blake3_digest, instance_id)


class BlankContent:
    """Zeros that are nowhere: only lengths count, so a world of many clients and large files fits into memory."""

    copied = False

    def __init__(self) -> None:
        self._digests: dict[int, bytes] = {}

    @property
    def digest(self) -> Digest:
        """BLAKE3 where it matters; that of zeros is looked up by their number."""
        return self._digest

    def _digest(self, parts: Iterable[bytes | bytearray | memoryview]) -> bytes:
        parts = tuple(parts)
        if len(parts) > 1 and isinstance(parts[0], bytes):
            return blake3_digest(parts)
        length = sum(map(len, parts))
        known = self._digests.get(length)
        if known is None:
            known = self._digests[length] = blake3_digest((bytes(length),))
        return known

    def bytes_of(self, size_bytes: int, seed: int) -> bytes:
        """Nothing."""
        return b""

    def read(self, data: bytes, offset: int, length: int) -> memoryview:
        """So many zeros."""
        return _zeros(length)

    def store(self, instance_id: bytes) -> BlankStore:
        """A store that keeps the books, and no bytes."""
        return BlankStore()


class _Book:
    """What a blank store knows of one file."""

    __slots__ = ("arrived", "finished", "manifest", "verified")

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.arrived = RangeSet()
        self.verified = RangeSet()
        self.finished = False

    def divide(self, manifest: Manifest) -> None:
        """The file goes on under another division: what is whole may change."""
        self.manifest = manifest
        self.verified = manifest.whole_units_of(self.arrived)


class BlankStore:
    """Implements ``pspd.core.model.storage.Storage`` for zeros: they are always right, so only ranges are kept."""

    def __init__(self) -> None:
        self._books: dict[FileId, _Book] = {}

    def known(self) -> dict[FileId, Held]:
        """See ``Storage.known``."""
        return {file_id: self._held(file_id) for file_id in self._books}

    def begin(self, manifest: Manifest) -> Held:
        """See ``Storage.begin``."""
        book = self._books.get(manifest.file_id)
        if book is None:
            self._books[manifest.file_id] = _Book(manifest)
        elif book.manifest != manifest:
            book.divide(manifest)
        return self._held(manifest.file_id)

    def write(self, file_id: FileId, start: int, stop: int, data: memoryview) -> Written:
        """See ``Storage.write``."""
        book = self._books[file_id]
        book.arrived.add(start, stop)
        whole = book.manifest.whole_units(*book.arrived.around(start, stop))
        verified = book.verified.gaps(*whole)
        book.verified.add(*whole)
        return Written(RangeSet(verified))

    def payload(self, file_id: FileId, start: int, stop: int) -> memoryview:
        """See ``Storage.payload``."""
        return _zeros(self._books[file_id].manifest.byte_span(start, stop)[1])

    def missing(self, file_id: FileId) -> RangeSet:
        """See ``Storage.missing``."""
        book = self._books[file_id]
        return RangeSet(book.arrived.gaps(0, book.manifest.chunk_count))

    def finish(self, file_id: FileId) -> None:
        """See ``Storage.finish``."""
        self._books[file_id].finished = True

    def verify(self, file_id: FileId) -> None:
        """See ``Storage.verify``: zeros do not change."""

    def discard(self, file_id: FileId) -> None:
        """See ``Storage.discard``."""
        self._books.pop(file_id, None)

    def require_usable(self) -> None:
        """See ``Storage.require_usable``."""

    def close(self) -> None:
        """There is nothing to let go of."""

    def _held(self, file_id: FileId) -> Held:
        book = self._books[file_id]
        return Held(book.verified.copy(), book.finished)
