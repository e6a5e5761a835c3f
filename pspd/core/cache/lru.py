"""In what order the cache's chunks were read last, and how the oldest that may go is found at once."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from heapq import heappop, heappush

from pspd.core.model.manifest import FileId


class Place(Enum):
    """Where an extent stands."""

    NOWHERE = 0
    RING = 1
    ASIDE = 2
    COMING_BACK = 3


class Extent:
    """Consecutive chunks of one file in consecutive slots of the arena, equally recent."""

    __slots__ = ("file_id", "newer", "older", "place", "read_number", "ready", "slot", "start", "stop")

    older: Extent
    newer: Extent

    def __init__(self, file_id: FileId, start: int, stop: int, slot: int, ready: bool = False) -> None:
        self.file_id = file_id
        self.start = start
        self.stop = stop
        self.slot = slot
        self.ready = ready
        self.place = Place.NOWHERE
        self.read_number = 0

    @property
    def chunk_count(self) -> int:
        """How many chunks the extent holds."""
        return self.stop - self.start


class Recency:
    """Extents, iterated in the order in which they were read last, the oldest first.

    They are a doubly linked ring. What slow clients are being sent is the oldest soon, and may not go: whoever looks
    for something that may would pass over all of it, each time. So it is set aside when it is met, and taken back when
    less of it is pinned: the next who comes by its place in the ring puts it there again.
    """

    def __init__(self) -> None:
        self._ends = Extent(b"", 0, 0, 0)
        self._ends.older = self._ends.newer = self._ends
        self._read_count = 0
        self._coming_back: list[tuple[int, int, Extent]] = []  # a heap; parts of one extent in their order

    def append(self, extent: Extent) -> None:
        """Puts an extent at the recent end."""
        self._read_count += 1
        extent.read_number = self._read_count
        self._link(self._ends, extent)

    def remove(self, extent: Extent) -> None:
        """Takes an extent out, wherever it stands."""
        if extent.place is Place.RING:
            extent.older.newer = extent.newer
            extent.newer.older = extent.older
        extent.place = Place.NOWHERE

    def split(self, lower: Extent, upper: Extent) -> None:
        """Takes in the upper part of an extent that is the lower part from now on."""
        upper.read_number = lower.read_number
        match lower.place:
            case Place.RING:
                self._link(lower.newer, upper)
            case Place.COMING_BACK:
                self._call_back(upper)
            case _:
                upper.place = lower.place

    def set_aside(self, extent: Extent) -> None:
        """Passes over an extent until it is taken back."""
        self.remove(extent)
        extent.place = Place.ASIDE

    def take_back(self, extent: Extent) -> None:
        """An extent, if it was set aside, is no longer to be passed over."""
        if extent.place is Place.ASIDE:
            self._call_back(extent)

    def __iter__(self) -> Iterator[Extent]:
        extent = self._ends.newer
        while True:
            while self._coming_back and (
                extent is self._ends or self._coming_back[0][0:2] < (extent.read_number, extent.start)
            ):
                read_number, _, back = heappop(self._coming_back)
                if back.place is Place.COMING_BACK and back.read_number == read_number:
                    self._link(extent, back)
                    extent = back
            if extent is self._ends:
                return
            following = extent.newer
            yield extent
            extent = following

    def _call_back(self, extent: Extent) -> None:
        extent.place = Place.COMING_BACK
        heappush(self._coming_back, (extent.read_number, extent.start, extent))

    def _link(self, newer: Extent, extent: Extent) -> None:
        """Puts an extent into the ring, next to another, on its older side."""
        extent.place = Place.RING
        extent.older, extent.newer = newer.older, newer
        newer.older.newer = extent
        newer.older = extent
