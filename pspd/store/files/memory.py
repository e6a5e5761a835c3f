"""A client's files in memory: the twin of :class:`pspd.store.files.disk.DiskStore`, for tests and the simulator."""

from __future__ import annotations

from pspd.core.model.manifest import Digest, FileId, Manifest
from pspd.core.model.ranges import RangeSet
from pspd.core.model.storage import Held, Written
from pspd.errors import IntegrityError, StorageError
from pspd.store.files.verifier import BlockVerifier
from pspd.store.messages import name_conflict, not_begun, not_verified


class Buffer:
    """The bytes of one file."""

    __slots__ = ("altered", "saved")

    def __init__(self, saved: bytearray | bytes) -> None:
        self.saved = saved
        self.altered = False

    def write_at(self, offset: int, data: memoryview) -> None:
        assert isinstance(self.saved, bytearray), "a finished file is not written to"
        self.saved[offset : offset + len(data)] = data

    def read_at(self, offset: int, length: int) -> memoryview:
        return memoryview(self.saved)[offset : offset + length]


class MemoryStore:
    """Implements ``pspd.core.model.storage.Storage`` without a disk.

    Attributes:
        finished: the bytes of each visible file, by name.
        modes: the permission bits of each visible file that this store made so, by name.
        instance_id: 16 bytes that name this store.
        full: nothing more can be written to it.
    """

    def __init__(self, digest: Digest, instance_id: bytes = bytes(16)) -> None:
        self.finished: dict[str, bytes] = {}
        self.modes: dict[str, int] = {}
        self.instance_id = instance_id
        self.full = False
        self._digest = digest
        self._files: dict[FileId, tuple[BlockVerifier, Buffer]] = {}

    def known(self) -> dict[FileId, Held]:
        """What was begun, by file."""
        return {file_id: self._held(file_id) for file_id in self._files}

    def manifest(self, file_id: FileId) -> Manifest:
        """The manifest that a file was last begun with."""
        return self._intake(file_id).manifest

    def begin(self, manifest: Manifest) -> Held:
        """See ``Storage.begin``; adopts a file of the same name if its bytes are the same."""
        known = self._files.get(manifest.file_id)
        if known is not None and known[0].manifest != manifest:
            known[0].redivide(manifest)
        if not self._is_visible(manifest.file_id):
            if manifest.name in self.finished:
                self._adopt(manifest)
            elif known is None:
                self._refuse_if_full()
                self._start(manifest, bytearray(manifest.size_bytes))
        return self._held(manifest.file_id)

    def write(self, file_id: FileId, start: int, stop: int, data: memoryview) -> Written:
        """See ``Storage.write``."""
        self._refuse_if_full()
        return self._intake(file_id).write(start, stop, data)

    def payload(self, file_id: FileId, start: int, stop: int) -> memoryview:
        """See ``Storage.payload``; a view of the store's own memory."""
        intake, buffer = self._file(file_id)
        if buffer.altered:
            raise StorageError(f"{intake.manifest.name!r} was changed by somebody")
        return buffer.read_at(*intake.payload_span(start, stop)).toreadonly()

    def missing(self, file_id: FileId) -> RangeSet:
        """See ``Storage.missing``."""
        return self._intake(file_id).missing()

    def finish(self, file_id: FileId) -> None:
        """See ``Storage.finish``."""
        intake, buffer = self._file(file_id)
        manifest = intake.manifest
        if self._is_visible(file_id):
            return
        if buffer.altered:
            raise IntegrityError(f"{manifest.name!r} was changed by somebody: verify it")
        if not intake.complete:
            raise IntegrityError(not_verified(manifest, intake.verified))
        if manifest.name in self.finished:
            raise StorageError(name_conflict(manifest.name, "memory"))
        buffer.saved = self.finished[manifest.name] = bytes(buffer.saved)
        self.modes[manifest.name] = manifest.mode

    def alter(self, file_id: FileId, offset: int) -> None:
        """Somebody changes a byte of an unfinished file behind the store's back; which one, modulo its size."""
        known = self._files.get(file_id)
        if known is not None and isinstance(known[1].saved, bytearray) and known[1].saved:
            known[1].saved[offset % len(known[1].saved)] ^= 0xFF
            known[1].altered = True

    def verify(self, file_id: FileId) -> None:
        """See ``Storage.verify``."""
        intake, buffer = self._file(file_id)
        buffer.altered = False
        intake.verify_all()

    def discard(self, file_id: FileId) -> None:
        """See ``Storage.discard``."""
        self._files.pop(file_id, None)

    def require_usable(self) -> None:
        """See ``Storage.require_usable``. Memory is."""

    def close(self) -> None:
        """There is nothing to let go of."""

    def _refuse_if_full(self) -> None:
        if self.full:
            raise StorageError("there is no room")

    def _start(self, manifest: Manifest, saved: bytearray | bytes) -> BlockVerifier:
        buffer = Buffer(saved)
        intake = BlockVerifier(manifest, buffer, self._digest)
        self._files[manifest.file_id] = intake, buffer
        return intake

    def _adopt(self, manifest: Manifest) -> None:
        saved = self.finished[manifest.name]
        intake = BlockVerifier(manifest, Buffer(saved), self._digest)
        intake.verify_all()
        if len(saved) != manifest.size_bytes or not intake.complete:
            raise StorageError(name_conflict(manifest.name, "memory"))
        self._start(manifest, saved).take_up(intake.verified, ())

    def _is_visible(self, file_id: FileId) -> bool:
        known = self._files.get(file_id)
        return known is not None and isinstance(known[1].saved, bytes)

    def _held(self, file_id: FileId) -> Held:
        return Held(self._intake(file_id).verified.copy(), self._is_visible(file_id))

    def _intake(self, file_id: FileId) -> BlockVerifier:
        return self._file(file_id)[0]

    def _file(self, file_id: FileId) -> tuple[BlockVerifier, Buffer]:
        try:
            return self._files[file_id]
        except KeyError:
            raise not_begun(file_id) from None
