"""The LRU list: extents of the cache in the order in which they were last read."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from heapq import heappop, heappush

from pspd.core.model.manifest import FileId


class LruState(Enum):
    """The state of an extent in an LRU list.

    An ABSENT extent is not in the list. LINKED, SKIPPED and RETURNING extents are in the list, but only LINKED ones are
    in its ring.
    """

    ABSENT = 0
    LINKED = 1
    SKIPPED = 2
    RETURNING = 3


class Extent:
    """Consecutive chunks of one file in consecutive slots of the arena.

    The chunks of a cached extent were last read at the same time.

    Attributes:
        file_id: the id of the file.
        start: the first chunk.
        stop: one past the last chunk.
        slot: the slot of the first chunk.
        is_cached: whether the chunks have been received. If not, their slots are reserved for a fetch.
        lru_state: the state of the extent in the LRU list.
        read_number: the position of the extent in the order of reads; 0 until the extent is added to the list.
        older: the next older extent in the ring; valid only while the extent is LINKED.
        newer: the next newer extent in the ring; valid only while the extent is LINKED.
    """

    __slots__ = ("file_id", "is_cached", "lru_state", "newer", "older", "read_number", "slot", "start", "stop")

    older: Extent
    newer: Extent

    def __init__(self, file_id: FileId, start: int, stop: int, slot: int, is_cached: bool = False) -> None:
        self.file_id = file_id
        self.start = start
        self.stop = stop
        self.slot = slot
        self.is_cached = is_cached
        self.lru_state = LruState.ABSENT
        self.read_number = 0

    @property
    def chunk_count(self) -> int:
        """The number of chunks."""
        return self.stop - self.start


class LruList:
    """Extents, iterated from the least to the most recently read.

    The list is a doubly linked ring. The chunks of a delivery are pinned, so that they are not evicted. If the client
    is slow, the extents of these chunks become the oldest, and each search for chunks to evict would visit them first.
    So the search skips extents whose chunks are all pinned, and removes them from the ring. When a pin of a skipped
    extent ends, the next iteration that passes the extent's position links the extent into the ring again.
    """

    def __init__(self) -> None:
        self._sentinel = Extent(b"", 0, 0, 0)  # closes the ring: its ``newer`` is the oldest extent
        self._sentinel.older = self._sentinel.newer = self._sentinel
        self._read_count = 0
        # A heap of returning extents. Entries of removed extents stay until an iteration reaches them.
        self._returning: list[tuple[int, int, Extent]] = []

    def append(self, extent: Extent) -> None:
        """Add an extent as the most recently read."""
        self._read_count += 1
        extent.read_number = self._read_count
        self._link(self._sentinel, extent)

    def remove(self, extent: Extent) -> None:
        """Remove an extent in any state."""
        if extent.lru_state is LruState.LINKED:
            extent.older.newer = extent.newer
            extent.newer.older = extent.older
        extent.lru_state = LruState.ABSENT

    def split(self, lower: Extent, upper: Extent) -> None:
        """Add the upper part of a split extent, with the read number and the state of the lower part.

        Args:
            lower: the extent, already shortened to its lower part.
            upper: the new extent.
        """
        upper.read_number = lower.read_number
        match lower.lru_state:
            case LruState.LINKED:
                self._link(lower.newer, upper)
            case LruState.RETURNING:
                self._return(upper)
            case _:
                upper.lru_state = lower.lru_state

    def skip(self, extent: Extent) -> None:
        """Exclude an extent from iterations until :meth:`unskip`."""
        self.remove(extent)
        extent.lru_state = LruState.SKIPPED

    def unskip(self, extent: Extent) -> None:
        """Include an extent in iterations again if it was skipped; otherwise do nothing."""
        if extent.lru_state is LruState.SKIPPED:
            self._return(extent)

    def __iter__(self) -> Iterator[Extent]:
        """Iterate over the extents that are not skipped, and link returning extents into the ring.

        The extent of the current step may be removed or skipped.
        """
        extent = self._sentinel.newer
        while True:
            while self._returning and (
                extent is self._sentinel or self._returning[0][0:2] < (extent.read_number, extent.start)
            ):
                read_number, _, returned = heappop(self._returning)
                if returned.lru_state is LruState.RETURNING and returned.read_number == read_number:
                    self._link(extent, returned)
                    extent = returned
            if extent is self._sentinel:
                return
            following = extent.newer
            yield extent
            extent = following

    def check(self, extents: list[Extent]) -> None:
        """Assert that the list has exactly these extents, and that the ring is in the order of reads."""
        linked = 0
        extent = self._sentinel
        while extent.newer is not self._sentinel:
            older, extent = extent, extent.newer
            assert extent.older is older, "the ring is broken"
            assert extent.lru_state is LruState.LINKED, "a linked extent has another state"
            assert (older.read_number, older.start) < (extent.read_number, extent.start), "the order is wrong"
            linked += 1
        returning = {(number, start) for number, start, _ in self._returning}
        for extent in extents:
            assert extent.lru_state is not LruState.ABSENT, "an extent is not in the list"
            assert extent.lru_state is not LruState.RETURNING or (extent.read_number, extent.start) in returning, (
                "a returning extent is not in the heap"
            )
        assert linked == sum(extent.lru_state is LruState.LINKED for extent in extents), "the list has other extents"

    def _return(self, extent: Extent) -> None:
        extent.lru_state = LruState.RETURNING
        heappush(self._returning, (extent.read_number, extent.start, extent))

    def _link(self, newer: Extent, extent: Extent) -> None:
        """Insert an extent into the ring, as the direct predecessor of ``newer``."""
        extent.lru_state = LruState.LINKED
        extent.older, extent.newer = newer.older, newer
        newer.older.newer = extent
        newer.older = extent
