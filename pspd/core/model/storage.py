"""The interface of a client's store. :mod:`pspd.store` implements this interface."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.ranges import Range, RangeSet


class FileSlice(NamedTuple):
    """A part of an open file, which the kernel can send without copying the bytes to Python.

    Attributes:
        fd: the descriptor of the open file.
        offset: the offset of the part's first byte in the file.
        length: the number of bytes in the part.
    """

    fd: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class WriteResult:
    """The verified and the corrupt units that a write completed.

    Attributes:
        verified: the chunks of the completed units that are verified now.
        corrupt: the completed units whose bytes do not match their digests. Also each cut block that does not match
            its own digest, although every piece of it was verified.
    """

    verified: RangeSet = field(default_factory=RangeSet)
    corrupt: list[Range] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class HeldChunks:
    """The chunks of one file in a store.

    Attributes:
        verified: the verified chunks.
        complete: whether the file is complete and visible under its own name.
    """

    verified: RangeSet
    complete: bool

    @property
    def stop(self) -> int:
        """One past the last verified chunk; 0 if there is none."""
        return max((span.stop for span in self.verified), default=0)

    def copy(self) -> HeldChunks:
        """Return a snapshot, with a copy of ``verified``."""
        return HeldChunks(self.verified.copy(), self.complete)


class Storage(Protocol):
    """The stored files of one client or source. Every method may raise ``StorageError`` with a message for users."""

    def known(self) -> dict[FileId, HeldChunks]:
        """Return a snapshot of the chunks of every file, by file id."""

    def begin(self, manifest: Manifest) -> HeldChunks:
        """Prepare to write a new file, or reopen a saved one; return the chunks that the store has. Idempotent.

        In the result, ``verified`` is a live view of the store's record.
        """

    def write(self, file_id: FileId, start: int, stop: int, data: memoryview) -> WriteResult:
        """Write chunks, verify the units that they complete, and return the result.

        Args:
            file_id: the id of the file.
            start: the first chunk.
            stop: one past the last chunk.
            data: the bytes of the chunks.

        Raises:
            ContradictoryDigests: every piece of a block matches its digest, but the whole block does not.
        """

    def payload(self, file_id: FileId, start: int, stop: int) -> FileSlice | memoryview:
        """Return the bytes of verified chunks, for sending: a part of an open file, or a view of memory.

        Args:
            file_id: the id of the file.
            start: the first chunk.
            stop: one past the last chunk.
        """

    def missing(self, file_id: FileId) -> RangeSet:
        """Return the chunks that are not saved. A saved chunk is not missing, even if it is not verified yet."""

    def finish(self, file_id: FileId) -> None:
        """Make a completely verified file visible under its own name in one atomic step (R10); idempotent.

        Raises:
            IntegrityError: a chunk is not verified, or another program has changed the file.
        """

    def verify(self, file_id: FileId) -> None:
        """Verify all saved bytes of a file again. The chunks of corrupt units then count as missing."""

    def discard(self, file_id: FileId) -> None:
        """Forget a file, and delete its data if it is unfinished; a finished file stays visible. Idempotent."""

    def require_usable(self) -> None:
        """Raise ``StoreFailed`` if the whole store has failed."""

    def close(self) -> None:
        """Close all open files."""
