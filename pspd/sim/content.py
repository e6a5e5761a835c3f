"""The contents of files: real bytes for finding faults, none for forecasts."""

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
"""As long as the longest frame of the fast profile."""


def _zeros(length: int) -> memoryview:
    return _ZEROS[:length] if length <= len(_ZEROS) else memoryview(bytes(length))


class Content(Protocol):
    """How files' bytes are made, hashed and stored.

    Attributes:
        copied: whether deliveries and contributions copy bytes.
    """

    copied: bool

    @property
    def digest(self) -> Digest:
        """The digest of manifests and blocks."""

    def bytes_of(self, size_bytes: int, seed: int) -> bytes:
        """Return the bytes of a file; empty for blank content.

        Args:
            size_bytes: their number.
            seed: the same bytes for the same seed.
        """

    def read(self, data: bytes, offset: int, length: int) -> bytes | memoryview:
        """Return a part of a file.

        Args:
            data: the file's bytes.
            offset: of the part, in bytes.
            length: of the part, in bytes.
        """

    def store(self, instance_id: bytes) -> Storage:
        """Return an empty store for a client."""


class RealContent:
    """Random bytes, BLAKE3, and stores in memory: a wrong byte is detected."""

    copied = True

    @property
    def digest(self) -> Digest:
        """BLAKE3."""
        return blake3_digest

    def bytes_of(self, size_bytes: int, seed: int) -> bytes:
        """See ``Content.bytes_of``; no two chunks are equal."""
        return Random(seed).randbytes(size_bytes)

    def read(self, data: bytes, offset: int, length: int) -> bytes:
        """See ``Content.read``."""
        return data[offset : offset + length]

    def store(self, instance_id: bytes) -> MemoryStore:
        """See ``Content.store``; the store keeps the bytes."""
        return MemoryStore(blake3_digest, instance_id)


class BlankContent:
    """Zeros that are never stored, so that many clients and large files fit into memory."""

    copied = False

    def __init__(self) -> None:
        self._digests: dict[int, bytes] = {}

    @property
    def digest(self) -> Digest:
        """BLAKE3; digests of zeros are cached by length."""
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
        """See ``Content.bytes_of``; empty."""
        return b""

    def read(self, data: bytes, offset: int, length: int) -> memoryview:
        """See ``Content.read``."""
        return _zeros(length)

    def store(self, instance_id: bytes) -> BlankStore:
        """See ``Content.store``; the store keeps ranges and no bytes."""
        return BlankStore()


class _Entry:
    """The state of one file in a blank store."""

    __slots__ = ("arrived", "finished", "manifest", "verified")

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.arrived = RangeSet()
        self.verified = RangeSet()
        self.finished = False

    def divide(self, manifest: Manifest) -> None:
        """Continue with another division of the file, which changes the verified units."""
        self.manifest = manifest
        self.verified = manifest.whole_units_of(self.arrived)


class BlankStore:
    """Implements ``pspd.core.model.storage.Storage`` for zeros: it keeps only ranges, as the bytes are always right."""

    def __init__(self) -> None:
        self._entries: dict[FileId, _Entry] = {}

    def known(self) -> dict[FileId, Held]:
        """See ``Storage.known``."""
        return {file_id: self._held(file_id).copy() for file_id in self._entries}

    def begin(self, manifest: Manifest) -> Held:
        """See ``Storage.begin``."""
        entry = self._entries.setdefault(manifest.file_id, _Entry(manifest))
        if entry.manifest != manifest:
            entry.divide(manifest)
        return self._held(manifest.file_id)

    def write(self, file_id: FileId, start: int, stop: int, data: memoryview) -> Written:
        """See ``Storage.write``."""
        entry = self._entries[file_id]
        entry.arrived.add(start, stop)
        whole = entry.manifest.whole_units(*entry.arrived.around(start, stop))
        verified = entry.verified.gaps(*whole)
        entry.verified.add(*whole)
        return Written(RangeSet(verified))

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
        """See ``Storage.verify``; zeros do not change."""

    def discard(self, file_id: FileId) -> None:
        """See ``Storage.discard``."""
        self._entries.pop(file_id, None)

    def require_usable(self) -> None:
        """See ``Storage.require_usable``."""

    def close(self) -> None:
        """See ``Storage.close``; nothing is open."""

    def _held(self, file_id: FileId) -> Held:
        entry = self._entries[file_id]
        return Held(entry.verified, entry.finished)
