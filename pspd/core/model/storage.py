"""The protocol's requirements on the store of a client. :mod:`pspd.store` implements them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.ranges import Range, RangeSet


class FileSlice(NamedTuple):
    """Bytes of an open file, which the kernel sends without copying them to Python.

    Attributes:
        fd: the file's descriptor.
        offset: the offset of the first byte.
        length: the number of bytes.
    """

    fd: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Written:
    """The result of a write.

    Attributes:
        verified: the chunks of units that the write completed and that match their digests.
        corrupt: the completed units that do not match their digests.
    """

    verified: RangeSet = field(default_factory=RangeSet)
    corrupt: list[Range] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Held:
    """The chunks of one file in a store.

    Attributes:
        verified: the verified chunks.
        complete: whether the file is finished and visible.
    """

    verified: RangeSet
    complete: bool

    @property
    def stop(self) -> int:
        """One past the last verified chunk; 0 if there is none."""
        return max((span.stop for span in self.verified), default=0)

    def copy(self) -> Held:
        """Return a snapshot, with a copy of ``verified``."""
        return Held(self.verified.copy(), self.complete)


class Storage(Protocol):
    """The files of one client. Every method may raise ``StorageError`` with a message for users."""

    def known(self) -> dict[FileId, Held]:
        """Return a snapshot of all files, by id."""

    def begin(self, manifest: Manifest) -> Held:
        """Prepare to write a file, or resume it; idempotent.

        The result's verified chunks are a live view of the store's record.
        """

    def write(self, file_id: FileId, start: int, stop: int, data: memoryview) -> Written:
        """Write chunks, and verify the units that they complete.

        Args:
            file_id: the file.
            start: the first chunk.
            stop: one past the last.
            data: their bytes.

        Raises:
            ContradictoryDigests: every piece of a block matches its digest, but the whole block does not.
        """

    def payload(self, file_id: FileId, start: int, stop: int) -> FileSlice | memoryview:
        """Return the bytes of verified chunks, for sending.

        Args:
            file_id: the file.
            start: the first chunk.
            stop: one past the last.
        """

    def missing(self, file_id: FileId) -> RangeSet:
        """Return the chunks that are not saved, verified or not."""

    def finish(self, file_id: FileId) -> None:
        """Make the verified file visible under its own name in one atomic step (R10); idempotent."""

    def verify(self, file_id: FileId) -> None:
        """Verify all saved bytes of a file again. Wrong chunks are missing afterwards."""

    def discard(self, file_id: FileId) -> None:
        """Forget a file and delete its unfinished data; a finished file stays. Idempotent."""

    def require_usable(self) -> None:
        """Raise ``StoreFailed`` if the store as a whole does not work any more."""

    def close(self) -> None:
        """Close everything."""
