"""How bytes of one file are taken in: verified, saved, held. What every store has in common.

Where the bytes lie is the business of :class:`SavedBytes`; which are proven is that of
:class:`pspd.core.model.holdings.Holdings`. Here the two meet, so that no store can get the order wrong.
Nothing is held before it is saved. A unit that comes whole is verified where it was received, and what
is wrong is never saved; one that comes in pieces is verified from what was saved, once it is whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from pspd.core.model.holdings import Holdings
from pspd.core.model.manifest import CHUNK_BYTES, Digest, Manifest
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import Written
from pspd.errors import ContradictoryDigests, InternalError


class SavedBytes(Protocol):
    """The bytes of one file, wherever they lie."""

    def write_at(self, offset: int, data: memoryview) -> None:
        """Saves all of ``data`` at a byte offset; raises ``StorageError`` if that fails."""

    def read_at(self, offset: int, length: int) -> bytes | memoryview:
        """The saved bytes; shorter than ``length`` where nothing was ever saved."""


class BlockVerifier:
    """One file on its way in: its manifest, its saved bytes, and the books on them."""

    __slots__ = ("_digest", "_holdings", "_saved", "manifest")

    def __init__(self, manifest: Manifest, saved: SavedBytes, digest: Digest) -> None:
        self.manifest = manifest
        self._saved = saved
        self._digest = digest
        self._holdings = Holdings(manifest)

    @property
    def verified(self) -> RangeSet:
        """Chunks that are proven; a live view, not to be changed."""
        return self._holdings.verified

    @property
    def complete(self) -> bool:
        """Whether every chunk of the file is proven."""
        return self._holdings.complete

    def missing(self) -> RangeSet:
        """Chunks to ask for (R5): neither proven nor waiting for the rest of their unit."""
        return self._holdings.missing()

    def write(self, start: int, stop: int, data: memoryview) -> Written:
        """Saves the bytes of the chunks ``[start, stop)`` and verifies every unit that is whole by it (R10).

        Chunks that are proven already are left alone: a later copy can only be the same or wrong.

        Raises:
            ContradictoryDigests: every piece of a block has its digest, and the whole block has not.
        """
        offset, length = self._byte_span(start, stop)
        data = data.cast("B")
        if data.nbytes != length:
            raise InternalError(f"chunks [{start}, {stop}) take {length} bytes, not {data.nbytes}")
        written = Written()
        for gap in self._holdings.verified.gaps(start, stop):
            gap_offset, gap_length = self.manifest.byte_span(*gap)
            self._take_in(gap, data[gap_offset - offset :][:gap_length], written)
        for block in written.corrupt:
            self._refuse_contradiction(block)
        return written

    def _refuse_contradiction(self, block: Range) -> None:
        """Raises if what is saved of a refuted cut block proves that its digests contradict each other.

        The pieces are verified again, in the same bytes as the block: the saved bytes may have changed since each was
        verified, and only a proof may lead to declining a file.
        """
        if (block, self.manifest.block_at(block.start)[1]) not in self.manifest.cut_blocks_in(*block):
            return
        data = self._saved.read_at(*self.manifest.byte_span(*block))
        if len(data) != self.manifest.byte_span(*block)[1]:
            return
        if self.manifest.wrong_units(*block, [memoryview(data)], self._digest) or self._is_block(block, data):
            return
        raise ContradictoryDigests(
            f"the digests of chunks {block} of {self.manifest.name!r} contradict each other: every piece is right and"
            " the whole block is wrong: take the file out with `pspctl rm` and seed the original anew"
        )

    def _is_block(self, block: Range, data: bytes | memoryview) -> bool:
        return self._digest((data,)) == self.manifest.block_at(block.start)[1]

    def _take_in(self, chunks: Range, data: memoryview, written: Written) -> None:
        """Verifies the units that are whole by themselves, saves whatever is not wrong, and only then holds them."""
        manifest, offset = self.manifest, chunks.start * CHUNK_BYTES
        whole = manifest.whole_units(*chunks)
        inside = data[whole.start * CHUNK_BYTES - offset :][: manifest.byte_span(*whole)[1]]
        corrupt = manifest.wrong_units(*whole, [inside], self._digest)
        for span in _without(corrupt, chunks):
            span_offset, span_length = manifest.byte_span(*span)
            self._saved.write_at(span_offset, data[span_offset - offset :][:span_length])
        for unit in corrupt:
            self._holdings.refute(unit)
        written.corrupt.extend(corrupt)
        for run in _without(corrupt, whole):
            self._hold(run, written)
        self._settle(Range(chunks.start, whole.start), written)
        self._settle(Range(whole.stop, chunks.stop), written)

    def take_up(self, proven: RangeSet, saved: Iterable[Range]) -> None:
        """Starts from bytes of before: ``proven`` are trusted, ``saved`` are verified where units are whole.

        Proven chunks whose unit is not whole without others are kept, like any that came early.
        """
        self._holdings = Holdings(self.manifest, proven)
        self._take_up_saved(proven)
        self._take_up_saved(saved)

    def redivide(self, manifest: Manifest) -> None:
        """Goes on under another division of the same file: other cuts make other units (R1)."""
        verified = self._holdings.verified
        saved = self._holdings.missing().gaps(0, manifest.chunk_count)
        self.manifest = manifest
        self.take_up(verified, saved)

    def verify_all(self) -> None:
        """Takes every unit's digest anew from the saved bytes."""
        self.take_up(RangeSet(), [Range(0, self.manifest.chunk_count)])

    def payload_span(self, start: int, stop: int) -> tuple[int, int]:
        """Offset and length in bytes of chunks that may be sent (R8).

        Raises:
            InternalError: they are not all proven.
        """
        span = self._byte_span(start, stop)
        if not self._holdings.verified.covers(start, stop):
            raise InternalError(f"chunks [{start}, {stop}) of {self.manifest.name!r} are not verified")
        return span

    def _byte_span(self, start: int, stop: int) -> tuple[int, int]:
        if not 0 <= start < stop <= self.manifest.chunk_count:
            raise InternalError(f"no chunks [{start}, {stop}) in a file of {self.manifest.chunk_count} chunks")
        return self.manifest.byte_span(start, stop)

    def _take_up_saved(self, saved: Iterable[Range]) -> None:
        for span in saved:
            for gap in self._holdings.verified.gaps(*span):
                self._settle(gap, Written())

    def _settle(self, chunks: Range, written: Written) -> None:
        """Verifies the units that are whole now that ``chunks`` are saved, from what was saved."""
        if chunks.start == chunks.stop:
            return
        for unit, expected in self._holdings.keep(*chunks):
            if self._digest((self._saved.read_at(*self.manifest.byte_span(*unit)),)) == expected:
                self._hold(unit, written)
            else:
                self._holdings.refute(unit)
                written.corrupt.append(unit)

    def _hold(self, units: Range, written: Written) -> None:
        """A run of units is saved, and each has its digest."""
        self._holdings.confirm(units)
        written.verified.add(*units)
        for block, _ in self.manifest.cut_blocks_in(*units):
            self._verify_cut(block, written)

    def _verify_cut(self, block: Range, written: Written) -> None:
        """Verifies a cut block as a whole once all its pieces are there.

        The file's id vouches for the digests of blocks alone: pieces that are right each by the digest that
        came with the division, but not together, are none of this file.
        """
        if not self._holdings.verified.covers(*block):
            return
        if self._is_block(block, self._saved.read_at(*self.manifest.byte_span(*block))):
            return
        self._holdings.refute(block)
        written.verified.discard(*block)
        written.corrupt.append(block)


def _without(corrupt: list[Range], chunks: Range) -> Iterable[Range]:
    """What is left of a range; nearly always all of it."""
    if corrupt:
        return RangeSet([chunks]).minus(RangeSet(corrupt))
    return [chunks] if chunks.start < chunks.stop else []
