"""What the protocol asks of whoever keeps a client's bytes. Implemented by :mod:`pspd.store`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.ranges import Range, RangeSet


class FileSlice(NamedTuple):
    """Bytes of an open file, to be sent by the kernel without passing through Python."""

    fd: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Written:
    """What became of bytes that were written: the units verified by it, and those refuted by it."""

    verified: RangeSet = field(default_factory=RangeSet)
    corrupt: list[Range] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Held:
    """What a store holds of one file: verified chunks, and whether the file is finished and visible."""

    verified: RangeSet
    complete: bool

    @property
    def stop(self) -> int:
        """One past the last verified chunk; 0 if there is none."""
        return max((span.stop for span in self.verified), default=0)

    def copy(self) -> Held:
        """Return a snapshot, if ``verified`` is a live view."""
        return Held(self.verified.copy(), self.complete)


class Storage(Protocol):
    """One client's files. Every method may raise ``StorageError`` with a line for a person."""

    def known(self) -> dict[FileId, Held]:
        """What is there from before, by file."""

    def begin(self, manifest: Manifest) -> Held:
        """Prepare to write a file, or resume it; idempotent.

        The result's verified chunks are a live view of the store's record.
        """

    def write(self, file_id: FileId, start: int, stop: int, data: memoryview) -> Written:
        """Writes the bytes of the chunks ``[start, stop)`` and verifies the units that are whole by it.

        Raises:
            ContradictoryDigests: every piece of a block has its digest, and the whole block has not.
        """

    def payload(self, file_id: FileId, start: int, stop: int) -> FileSlice | memoryview:
        """The bytes of verified chunks, for sending."""

    def missing(self, file_id: FileId) -> RangeSet:
        """Chunks that are not there yet, whether or not they are verified."""

    def finish(self, file_id: FileId) -> None:
        """Makes the verified file visible under its own name in one atomic step (R10); idempotent."""

    def verify(self, file_id: FileId) -> None:
        """Takes every digest of a file anew from what is saved; what is wrong is held no longer."""

    def discard(self, file_id: FileId) -> None:
        """Knows a file no longer, and drops what is unfinished of it; a finished file stays. Idempotent."""

    def require_usable(self) -> None:
        """Raises ``StoreFailed`` if no file can be taken or given any more."""

    def close(self) -> None:
        """Lets go of everything that is open."""
