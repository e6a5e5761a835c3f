"""How bytes of one file are taken in: written, read back, verified. What every store has in common.

Where the bytes lie is the business of :class:`SavedBytes`; which are proven is that of
:class:`pspd.core.holdings.Holdings`. Here the two meet, so that no store can get the order wrong:
bytes are saved first, then the digest is taken from what was saved, and only then are they held.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from pspd.core.holdings import Holdings
from pspd.core.manifest import CHUNK_BYTES, Digest, Manifest
from pspd.core.ranges import Range, RangeSet
from pspd.core.storage import Written
from pspd.errors import InternalError


class SavedBytes(Protocol):
    """The bytes of one file, wherever they lie."""

    def write_at(self, offset: int, data: memoryview) -> None:
        """Saves all of ``data`` at a byte offset; raises ``StorageError`` if that fails."""

    def read_at(self, offset: int, length: int) -> bytes | memoryview:
        """The saved bytes; shorter than ``length`` where nothing was ever saved."""


class Intake:
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
        """
        offset, length = self._byte_span(start, stop)
        data = data.cast("B")
        if data.nbytes != length:
            raise InternalError(f"chunks [{start}, {stop}) take {length} bytes, not {data.nbytes}")
        written = Written()
        for gap in self._holdings.verified.gaps(start, stop):
            gap_offset, gap_length = self.manifest.byte_span(*gap)
            part_start = gap_offset - offset
            self._saved.write_at(gap_offset, data[part_start : part_start + gap_length])
            self._settle(gap, written)
        return written

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
        """Verifies the units that are whole now that ``chunks`` are saved."""
        holdings, digest, read_at = self._holdings, self._digest, self._saved.read_at
        size_bytes = self.manifest.size_bytes
        for unit, expected in holdings.keep(*chunks):
            offset = unit.start * CHUNK_BYTES
            length = min(unit.stop * CHUNK_BYTES, size_bytes) - offset
            if digest((read_at(offset, length),)) == expected:
                holdings.confirm(unit)
                written.verified.append(unit)
                self._verify_block_of(unit, written)
            else:
                holdings.refute(unit)
                written.corrupt.append(unit)

    def _verify_block_of(self, unit: Range, written: Written) -> None:
        """Verifies a cut block as a whole once all its pieces are there.

        The file's id vouches for the digests of blocks alone: pieces that are right each by the digest that
        came with the division, but not together, are none of this file.
        """
        block, expected = self.manifest.block_at(unit.start)
        if block == unit or not self._holdings.verified.covers(*block):
            return
        offset, length = self.manifest.byte_span(*block)
        if self._digest((self._saved.read_at(offset, length),)) == expected:
            return
        for piece, _ in self.manifest.units(*block):
            self._holdings.refute(piece)
        written.verified[:] = [span for span in written.verified if not block.start <= span.start < block.stop]
        written.corrupt.append(block)
