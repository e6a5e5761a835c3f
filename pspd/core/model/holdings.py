"""The saved chunks of one file at one client: verified and unverified ones."""

from __future__ import annotations

from pspd.core.model.manifest import Manifest
from pspd.core.model.ranges import Range, RangeSet


class Holdings:
    """The record of the saved chunks of one file. It tells the store which units to verify.

    A saved chunk is *unverified* until its whole unit is saved and verified. Unverified chunks are neither requested
    again nor contributed.

    Args:
        manifest: the manifest of the file.
        verified: the chunks that are already verified; chunks of incomplete units are ignored. None means no chunks.
    """

    __slots__ = ("_manifest", "_unverified", "_verified")

    def __init__(self, manifest: Manifest, verified: RangeSet | None = None) -> None:
        self._manifest = manifest
        self._verified = manifest.whole_units_of(verified) if verified else RangeSet()
        self._unverified = RangeSet()

    @property
    def verified(self) -> RangeSet:
        """The chunks of verified units; a live view that the caller must not change."""
        return self._verified

    @property
    def is_whole(self) -> bool:
        """Whether every chunk of the file is verified."""
        return self._verified.chunk_count == self._manifest.chunk_count

    def missing(self) -> RangeSet:
        """Return the chunks that are not saved, which the client requests (R5)."""
        return RangeSet(self._verified.gaps(0, self._manifest.chunk_count)).difference(self._unverified)

    def add_saved(self, start: int, stop: int) -> list[tuple[Range, bytes]]:
        """Record that chunks are saved; return the units that can be verified now.

        Args:
            start: the first chunk.
            stop: one past the last chunk.

        Returns:
            The completely saved units that overlap the range and are not yet verified, each with its digest. The
            caller compares the digest with the saved bytes, and calls :meth:`mark_verified` or :meth:`mark_corrupt`
            for each unit.
        """
        self._unverified.update(self._verified.gaps(start, stop))
        return [
            (unit, expected)
            for unit, expected in self._manifest.units(start, stop)
            if unit.start not in self._verified and self._unverified.covers(*unit)
        ]

    def mark_verified(self, units: Range) -> None:
        """Record that the saved bytes of whole units match their digests."""
        self._unverified.discard(*units)
        self._verified.add(*units)

    def mark_corrupt(self, units: Range) -> None:
        """Record that the saved bytes of whole units do not match their digests. The chunks are missing again."""
        self._unverified.discard(*units)
        self._verified.discard(*units)

    def check(self) -> None:
        """Assert that only whole units are verified, and that each chunk is either verified, unverified or missing."""
        assert self._manifest.whole_units_of(self._verified) == self._verified, "part of a unit is verified"
        assert not self._verified.intersection(self._unverified), "verified chunks are unverified"
        count = self._verified.chunk_count + self._unverified.chunk_count + self.missing().chunk_count
        assert count == self._manifest.chunk_count, "chunks are beyond the end"
