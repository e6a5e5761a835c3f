"""What a client holds of one file: verified units, and chunks that wait for the rest of their unit."""

from __future__ import annotations

from pspd.core.model.manifest import Manifest
from pspd.core.model.ranges import Range, RangeSet


class Holdings:
    """Keeps the books of one file; whoever keeps its bytes asks here what must be verified.

    Only verified chunks are served and counted. A chunk that came before its unit is whole is *kept*:
    it need not be asked for again, but nobody may rely on it yet.
    """

    __slots__ = ("_kept", "_manifest", "_verified")

    def __init__(self, manifest: Manifest, verified: RangeSet | None = None) -> None:
        self._manifest = manifest
        self._verified = manifest.whole_units_of(verified) if verified else RangeSet()
        self._kept = RangeSet()

    @property
    def verified(self) -> RangeSet:
        """Chunks whose units are verified; a live view, not to be changed."""
        return self._verified

    @property
    def complete(self) -> bool:
        """Whether every chunk of the file is verified."""
        return self._verified.chunk_count == self._manifest.chunk_count

    def missing(self) -> RangeSet:
        """Chunks that are neither verified nor kept: those to ask for (R5)."""
        return RangeSet(self._verified.gaps(0, self._manifest.chunk_count)).minus(self._kept)

    def keep(self, start: int, stop: int) -> list[tuple[Range, bytes]]:
        """Notes that the bytes of ``[start, stop)`` are there.

        Returns:
            The units that are whole now and not yet verified, each with the digest that its bytes must
            have. The caller compares, and calls :meth:`confirm` or :meth:`refute` for each.
        """
        self._kept.update(self._verified.gaps(start, stop))
        return [
            (unit, expected)
            for unit, expected in self._manifest.units(start, stop)
            if unit.start not in self._verified and self._kept.covers(*unit)
        ]

    def confirm(self, unit: Range) -> None:
        """The unit's bytes have their digest: from now on it is held."""
        self._kept.discard(*unit)
        self._verified.add(*unit)

    def refute(self, unit: Range) -> None:
        """The unit's bytes are not what their digest says: as if they had never come."""
        self._kept.discard(*unit)
        self._verified.discard(*unit)
