"""Verify and save the bytes of one file, for the stores on disk and in memory.

A ``SavedBytes`` stores the bytes. :class:`pspd.core.model.holdings.Holdings` records which chunks are verified. A unit
that arrives whole is verified in memory, saved, and only then recorded as verified; if it is corrupt, it is not saved.
A unit that arrives in several ranges is verified from the saved bytes once it is complete.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from pspd.core.model.holdings import Holdings
from pspd.core.model.manifest import CHUNK_BYTES, DigestFunction, Manifest
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import WriteResult
from pspd.errors import ContradictoryDigests, IntegrityError, InternalError


class SavedBytes(Protocol):
    """The bytes of one file, on disk or in memory."""

    def write_at(self, offset: int, data: memoryview) -> None:
        """Save bytes.

        Args:
            offset: the position in the file, in bytes.
            data: the bytes.

        Raises:
            StorageError: not all bytes are saved.
        """

    def read_at(self, offset: int, length: int) -> bytes | memoryview:
        """Return saved bytes.

        Args:
            offset: the position in the file, in bytes.
            length: the number of bytes; fewer are returned at the end of the saved bytes.

        Raises:
            StorageError: the bytes cannot be read.
        """


class FileVerifier:
    """Verifies and saves the chunks of one file.

    Args:
        manifest: the file's manifest.
        saved: the file's saved bytes.
        digest: the digest function of manifests.
    """

    __slots__ = ("_digest", "_holdings", "_saved", "manifest")

    def __init__(self, manifest: Manifest, saved: SavedBytes, digest: DigestFunction) -> None:
        self.manifest = manifest
        self._saved = saved
        self._digest = digest
        self._holdings = Holdings(manifest)

    @property
    def verified(self) -> RangeSet:
        """The verified chunks; a live view that the caller must not change."""
        return self._holdings.verified

    @property
    def is_complete(self) -> bool:
        """Whether every chunk of the file is verified."""
        return self._holdings.is_whole

    def require_complete(self) -> None:
        """Check that every chunk of the file is verified, so that it can be finished (R10).

        Raises:
            IntegrityError: a chunk is not verified.
        """
        if not self.is_complete:
            raise IntegrityError(
                f"{self.manifest.name!r} cannot be finished: {self.verified.chunk_count} of its"
                f" {self.manifest.chunk_count} chunks are verified: fetch the others first"
            )

    def missing(self) -> RangeSet:
        """Return the chunks that are not saved, which the client requests (R5)."""
        return self._holdings.missing()

    def write(self, start: int, stop: int, data: memoryview) -> WriteResult:
        """Save chunks, verify every unit that they complete (R10), and return the result.

        Verified chunks are not written again: a second copy is either equal or wrong.

        Args:
            start: the first chunk.
            stop: one past the last chunk.
            data: the bytes of the chunks.

        Raises:
            ContradictoryDigests: every piece of a cut block matches its digest, but the whole block does not.
            InternalError: the chunks are not in the file, or ``data`` has the wrong length.
            StorageError: the chunks cannot be saved, or saved bytes cannot be read.
        """
        offset, length = self._byte_span(start, stop)
        data = data.cast("B")
        if data.nbytes != length:
            raise InternalError(f"chunks [{start}, {stop}) take {length} bytes, not {data.nbytes}")
        written = WriteResult()
        for gap in self._holdings.verified.gaps(start, stop):
            gap_offset, gap_length = self.manifest.byte_span(*gap)
            self._write_gap(gap, data[gap_offset - offset :][:gap_length], written)
        for corrupt in written.corrupt:
            self._raise_if_contradictory(corrupt)
        return written

    def _raise_if_contradictory(self, block: Range) -> None:
        """Raise ``ContradictoryDigests`` if the saved bytes of a corrupt cut block prove a contradiction.

        Do nothing for a corrupt unit. The pieces and the block are verified again in one copy of the saved bytes,
        because another program may have changed these bytes. Without the proof, the file must not be declined.
        """
        if (block, self.manifest.block_at(block.start)[1]) not in self.manifest.cut_blocks_in(*block):
            return
        data = self._saved.read_at(*self.manifest.byte_span(*block))
        if len(data) != self.manifest.byte_span(*block)[1]:
            return
        if self.manifest.corrupt_units(*block, [memoryview(data)], self._digest) or self._matches_block(block, data):
            return
        raise ContradictoryDigests(
            f"the digests of chunks {block} of {self.manifest.name!r} contradict each other: every piece is right and"
            " the whole block is wrong: remove the file with `pspctl rm` and seed the original again"
        )

    def _matches_block(self, block: Range, data: bytes | memoryview) -> bool:
        return self._digest((data,)) == self.manifest.block_at(block.start)[1]

    def _write_gap(self, chunks: Range, data: memoryview, written: WriteResult) -> None:
        """Verify the units that arrived whole, save all chunks outside corrupt units, then record the verified units.

        Units that arrived in part are verified from the saved bytes if they are complete now.
        """
        manifest, offset = self.manifest, chunks.start * CHUNK_BYTES
        whole = manifest.whole_units(*chunks)
        inside = data[whole.start * CHUNK_BYTES - offset :][: manifest.byte_span(*whole)[1]]
        corrupt = manifest.corrupt_units(*whole, [inside], self._digest)
        for span in _without(corrupt, chunks):
            span_offset, span_length = manifest.byte_span(*span)
            self._saved.write_at(span_offset, data[span_offset - offset :][:span_length])
        for unit in corrupt:
            self._holdings.mark_corrupt(unit)
        written.corrupt.extend(corrupt)
        for run in _without(corrupt, whole):
            self._mark_verified(run, written)
        self._verify_saved(Range(chunks.start, whole.start), written)
        self._verify_saved(Range(whole.stop, chunks.stop), written)

    def resume(self, trusted: RangeSet, saved: Iterable[Range]) -> None:
        """Replace the record of saved and verified chunks by a record of chunks that were saved earlier.

        Args:
            trusted: saved chunks. Chunks of complete units are recorded as verified without being read.
            saved: other saved chunks. Each unit that is complete with these chunks is verified.
        """
        self._holdings = Holdings(self.manifest, trusted)
        self._resume_saved(trusted)
        self._resume_saved(saved)

    def redivide(self, manifest: Manifest) -> None:
        """Continue with another division of the same file (R1), which may have other units.

        A unit of the new division stays verified if all its chunks were verified. Other completely saved units are
        verified from the saved bytes.
        """
        verified = self._holdings.verified
        saved = self._holdings.missing().gaps(0, manifest.chunk_count)
        self.manifest = manifest
        self.resume(verified, saved)

    def verify_all(self) -> None:
        """Verify every unit again from the saved bytes."""
        self.resume(RangeSet(), [Range(0, self.manifest.chunk_count)])

    def payload_span(self, start: int, stop: int) -> tuple[int, int]:
        """Return the offset and length, in bytes, of verified chunks (R8).

        Args:
            start: the first chunk.
            stop: one past the last chunk.

        Raises:
            InternalError: a chunk is not verified, or is not in the file.
        """
        span = self._byte_span(start, stop)
        if not self._holdings.verified.covers(start, stop):
            raise InternalError(f"chunks [{start}, {stop}) of {self.manifest.name!r} are not verified")
        return span

    def _byte_span(self, start: int, stop: int) -> tuple[int, int]:
        if not 0 <= start < stop <= self.manifest.chunk_count:
            raise InternalError(f"no chunks [{start}, {stop}) in a file of {self.manifest.chunk_count} chunks")
        return self.manifest.byte_span(start, stop)

    def _resume_saved(self, saved: Iterable[Range]) -> None:
        for span in saved:
            for gap in self._holdings.verified.gaps(*span):
                self._verify_saved(gap, WriteResult())

    def _verify_saved(self, chunks: Range, written: WriteResult) -> None:
        """Record that ``chunks`` are saved, and verify the units that are complete now from the saved bytes."""
        if chunks.start == chunks.stop:
            return
        for unit, expected in self._holdings.add_saved(*chunks):
            if self._digest((self._saved.read_at(*self.manifest.byte_span(*unit)),)) == expected:
                self._mark_verified(unit, written)
            else:
                self._holdings.mark_corrupt(unit)
                written.corrupt.append(unit)

    def _mark_verified(self, units: Range, written: WriteResult) -> None:
        """Record a run of units as verified, then verify the cut blocks whose pieces are all verified now."""
        self._holdings.mark_verified(units)
        written.verified.add(*units)
        for block, _ in self.manifest.cut_blocks_in(*units):
            self._verify_cut_block(block, written)

    def _verify_cut_block(self, block: Range, written: WriteResult) -> None:
        """Verify a cut block as a whole once all its pieces are verified.

        The file's id depends on the digests of blocks, not of pieces. If all pieces match their digests, but the block
        does not match its digest, the digests of the pieces do not belong to this file.
        """
        if not self._holdings.verified.covers(*block):
            return
        if self._matches_block(block, self._saved.read_at(*self.manifest.byte_span(*block))):
            return
        self._holdings.mark_corrupt(block)
        written.verified.discard(*block)
        written.corrupt.append(block)


def _without(corrupt: list[Range], chunks: Range) -> Iterable[Range]:
    """Return the parts of a range that are outside corrupt units; usually the whole range."""
    if corrupt:
        return RangeSet([chunks]).difference(RangeSet(corrupt))
    return [chunks] if chunks.start < chunks.stop else []
