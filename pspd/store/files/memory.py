"""A client's store in memory, for tests and the simulator: :class:`pspd.store.files.disk.DiskStore` without a disk."""

from __future__ import annotations

from pspd.core.model.manifest import DigestFunction, FileId, Manifest
from pspd.core.model.ranges import RangeSet
from pspd.core.model.storage import HeldChunks, WriteResult
from pspd.errors import IntegrityError, StorageError
from pspd.store.errors import name_conflict, unknown_file
from pspd.store.files.verifier import FileVerifier


class Buffer:
    """The bytes of one file in memory; implements ``pspd.store.files.verifier.SavedBytes``.

    Attributes:
        data: the bytes; immutable once the file is finished.
        is_changed: whether :meth:`flip_byte` has changed the bytes since :meth:`mark_unchanged`.
    """

    __slots__ = ("data", "is_changed")

    def __init__(self, data: bytearray | bytes) -> None:
        self.data = data
        self.is_changed = False

    @property
    def is_finished(self) -> bool:
        """Whether the file is finished."""
        return isinstance(self.data, bytes)

    def write_at(self, offset: int, data: memoryview) -> None:
        """See ``SavedBytes.write_at``."""
        assert isinstance(self.data, bytearray), "a finished file is not written to"
        self.data[offset : offset + len(data)] = data

    def read_at(self, offset: int, length: int) -> memoryview:
        """See ``SavedBytes.read_at``."""
        return memoryview(self.data)[offset : offset + length]

    def finish(self) -> bytes:
        """Make the bytes immutable and return them."""
        self.data = bytes(self.data)
        return self.data

    def flip_byte(self, offset: int) -> None:
        """Change one byte of an unfinished file, as another program might; ``offset`` is taken modulo the size."""
        if isinstance(self.data, bytearray) and self.data:
            self.data[offset % len(self.data)] ^= 0xFF
            self.is_changed = True

    def mark_unchanged(self) -> None:
        """Let the bytes count as unchanged."""
        self.is_changed = False


class MemoryStore:
    """Implements ``pspd.core.model.storage.Storage`` without a disk.

    Attributes:
        finished: the bytes of each finished file, by name.
        modes: the permission bits of each file that this store finished, by name.
        instance_id: 16 bytes that identify this store.
        is_full: whether the store has no space, and so refuses to write chunks and to begin new files.
    """

    def __init__(self, digest: DigestFunction, instance_id: bytes = bytes(16)) -> None:
        """Create an empty store.

        Args:
            digest: the digest function of manifests.
            instance_id: 16 bytes that identify the store.
        """
        self.finished: dict[str, bytes] = {}
        self.modes: dict[str, int] = {}
        self.instance_id = instance_id
        self.is_full = False
        self._digest = digest
        self._files: dict[FileId, tuple[FileVerifier, Buffer]] = {}

    def known(self) -> dict[FileId, HeldChunks]:
        """See ``Storage.known``."""
        return {file_id: self._held(file_id).copy() for file_id in self._files}

    def manifest(self, file_id: FileId) -> Manifest:
        """Return the manifest of the latest ``begin`` of a file."""
        return self._file(file_id)[0].manifest

    def begin(self, manifest: Manifest) -> HeldChunks:
        """See ``Storage.begin``. A finished file with the same name and bytes is adopted."""
        known = self._files.get(manifest.file_id)
        if known is not None and known[0].manifest != manifest:
            known[0].redivide(manifest)
        if known is None or not known[1].is_finished:
            if manifest.name in self.finished:
                self._adopt(manifest)
            elif known is None:
                self._require_space()
                buffer = Buffer(bytearray(manifest.size_bytes))
                self._files[manifest.file_id] = FileVerifier(manifest, buffer, self._digest), buffer
        return self._held(manifest.file_id)

    def write(self, file_id: FileId, start: int, stop: int, data: memoryview) -> WriteResult:
        """See ``Storage.write``."""
        self._require_space()
        return self._file(file_id)[0].write(start, stop, data)

    def payload(self, file_id: FileId, start: int, stop: int) -> memoryview:
        """See ``Storage.payload``; a view of the store's own memory."""
        verifier, buffer = self._file(file_id)
        if buffer.is_changed:
            raise StorageError(f"{verifier.manifest.name!r} was changed by another program")
        return buffer.read_at(*verifier.payload_span(start, stop)).toreadonly()

    def missing(self, file_id: FileId) -> RangeSet:
        """See ``Storage.missing``."""
        return self._file(file_id)[0].missing()

    def finish(self, file_id: FileId) -> None:
        """See ``Storage.finish``."""
        verifier, buffer = self._file(file_id)
        manifest = verifier.manifest
        if buffer.is_finished:
            return
        if buffer.is_changed:
            raise IntegrityError(f"{manifest.name!r} was changed by another program: verify it")
        verifier.require_complete()
        if manifest.name in self.finished:
            raise name_conflict(manifest.name, "memory")
        self.finished[manifest.name] = buffer.finish()
        self.modes[manifest.name] = manifest.mode

    def alter(self, file_id: FileId, offset: int) -> None:
        """Change one byte of a file, as another program might.

        Do nothing if the file is finished, empty or not known.

        Args:
            file_id: the file's id.
            offset: the offset of the byte, taken modulo the file's size.
        """
        if file_id in self._files:
            self._files[file_id][1].flip_byte(offset)

    def verify(self, file_id: FileId) -> None:
        """See ``Storage.verify``."""
        verifier, buffer = self._file(file_id)
        buffer.mark_unchanged()
        verifier.verify_all()

    def discard(self, file_id: FileId) -> None:
        """See ``Storage.discard``."""
        self._files.pop(file_id, None)

    def require_usable(self) -> None:
        """See ``Storage.require_usable``: a store in memory is always usable."""

    def close(self) -> None:
        """Do nothing: a store in memory has nothing open."""

    def _require_space(self) -> None:
        if self.is_full:
            raise StorageError("there is no space")

    def _adopt(self, manifest: Manifest) -> None:
        buffer = Buffer(self.finished[manifest.name])
        verifier = FileVerifier(manifest, buffer, self._digest)
        verifier.verify_all()
        if len(buffer.data) != manifest.size_bytes or not verifier.is_complete:
            raise name_conflict(manifest.name, "memory")
        self._files[manifest.file_id] = verifier, buffer

    def _held(self, file_id: FileId) -> HeldChunks:
        verifier, buffer = self._file(file_id)
        return HeldChunks(verifier.verified, buffer.is_finished)

    def _file(self, file_id: FileId) -> tuple[FileVerifier, Buffer]:
        try:
            return self._files[file_id]
        except KeyError:
            raise unknown_file(file_id) from None
