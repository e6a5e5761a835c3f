"""The server's cache: chunks of files in an arena of limited size, evicted in LRU order (R4).

The server stores file bytes only here. The range of a fetch is *reserved*: a contribution is received directly into
its slots. The range of a delivery is *pinned*: it is sent directly from its slots. Reserved and pinned chunks are not
evicted. An *extent* groups chunks that were last read at the same time, so that operations work on ranges instead of
single chunks. A part of an extent can be evicted. Pins are recorded apart from extents, because the pins of thousands
of deliveries overlap, and would split the extents into small parts.
"""

from __future__ import annotations

from collections.abc import Iterable

from pspd.core.cache.arena import Allocate, Arena, allocate_on_heap
from pspd.core.cache.lru import Extent, LruList
from pspd.core.cache.pins import Pins
from pspd.core.model.manifest import CHUNK_BYTES, FileId
from pspd.core.model.ranges import Range, RangeMap, RangeSet

FileRange = tuple[FileId, int, int]
"""Chunks ``[start, stop)`` of one file."""


class Cache:
    """Reserved and cached chunks of all files.

    Args:
        capacity_chunks: the initial capacity.
        allocate: the function that allocates the memory.

    Attributes:
        capacity_chunks: the most chunks that may be in use. After it is lowered, more are in use until enough chunks
            are no longer pinned or reserved.
        high_water_chunks: the most chunks in use since the capacity was last lowered. Chunks beyond the lowered
            capacity count only while they are in use.
        hit_count: how many requested chunks were delivered from the cache.
        miss_count: how many chunks were reserved for fetches.
        join_count: how many requested chunks were aggregated: they waited for a fetch that had already started.
        eviction_count: how many chunks were evicted to make room.
    """

    def __init__(self, capacity_chunks: int, allocate: Allocate = allocate_on_heap) -> None:
        self.capacity_chunks = capacity_chunks
        self.high_water_chunks = 0
        self.hit_count = 0
        self.miss_count = 0
        self.join_count = 0
        self.eviction_count = 0
        self._used_chunks = 0
        self._reserved_chunks = 0
        self._pins = Pins()
        self._arena = Arena(capacity_chunks, allocate)
        self._files: dict[FileId, RangeMap[Extent]] = {}
        self._cached: dict[FileId, RangeSet] = {}
        self._lru = LruList()  # the cached extents

    @property
    def used_chunks(self) -> int:
        """The number of chunks in use: reserved or cached."""
        return self._used_chunks

    @property
    def reservable_chunks(self) -> int:
        """The number of chunks that can be reserved now: free chunks, and cached chunks that are not pinned."""
        return max(0, self.capacity_chunks - self._reserved_chunks - self._pins.chunk_count)

    def has_room(self, count: int) -> bool:
        """Return whether ``count`` chunks can be reserved now."""
        lower_bound = self.capacity_chunks - self._reserved_chunks - self._pins.pinned_upper_bound
        return count <= lower_bound or count <= self.reservable_chunks

    def chunks_of(self, file_id: FileId) -> int:
        """Return how many chunks of a file are in use."""
        return sum(extent.chunk_count for extent in self._files.get(file_id, ()))

    def ranges_to_evict(self, count: int) -> list[FileRange]:
        """Return the ranges that must be evicted before ``count`` chunks can be reserved, least recently read first.

        If the evictable ranges do not suffice, return all of them. Later searches skip extents whose chunks are all
        pinned, until one of their pins ends.
        """
        excess = self._used_chunks + count - self.capacity_chunks
        found: list[FileRange] = []
        if excess <= 0:
            return found
        for extent in self._lru:
            parts = self._unpinned(extent)
            if not parts:
                self._lru.skip(extent)
            for file_id, start, stop in parts:
                found.append((file_id, start, min(stop, start + excess)))
                excess -= stop - start
                if excess <= 0:
                    return found
        return found

    # -- receiving

    def reserve(self, file_id: FileId, start: int, stop: int) -> bool:
        """Reserve a range for a fetch, evict chunks if necessary, and count the range as missed.

        Args:
            file_id: the id of the file.
            start: the first chunk. No chunk of the range may be in use.
            stop: one past the last chunk.

        Returns:
            Whether the range is reserved; False, without any change, if too many chunks are reserved or pinned.
        """
        count = stop - start
        if not self.has_room(count):
            return False
        self._make_room(count)
        extents = self._files.setdefault(file_id, RangeMap())
        for run in self._arena.acquire(count):
            extents.insert(Extent(file_id, start, start + run.chunk_count, run.start))
            start += run.chunk_count
        self.miss_count += count
        self._used_chunks += count
        self._reserved_chunks += count
        self.high_water_chunks = max(self.high_water_chunks, self._used_chunks)
        return True

    def commit(self, file_id: FileId, start: int, stop: int) -> None:
        """Mark a reserved range as cached after it was received, and as the most recently read.

        Args:
            file_id: the id of the file.
            start: the first chunk.
            stop: one past the last chunk.
        """
        for extent in self._isolated(file_id, start, stop):
            extent.is_cached = True
            self._reserved_chunks -= extent.chunk_count
            self._lru.append(extent)
        self._cached.setdefault(file_id, RangeSet()).add(start, stop)

    def release(self, file_id: FileId, start: int, stop: int) -> None:
        """Free a reserved range that will not be received.

        Args:
            file_id: the id of the file.
            start: the first chunk.
            stop: one past the last chunk.
        """
        for extent in self._isolated(file_id, start, stop):
            self._reserved_chunks -= extent.chunk_count
            self._drop(extent)
        self._lower_high_water()

    def views(self, file_id: FileId, start: int, stop: int, length: int) -> list[memoryview]:
        """Return the memory of a range that is reserved or cached, in order.

        Args:
            file_id: the id of the file.
            start: the first chunk.
            stop: one past the last chunk.
            length: the size of the range in bytes. The last chunk of a file may be shorter than its slot.
        """
        views = []
        for extent in self._files[file_id].overlapping(start, stop):
            low, high = max(start, extent.start), min(stop, extent.stop)
            views.append(self._arena.view(extent.slot + low - extent.start, high - low))
        shortage = (stop - start) * CHUNK_BYTES - length
        if shortage:
            views[-1] = views[-1][:-shortage]
        return views

    # -- sending

    def cached(self, file_id: FileId, start: int, stop: int) -> list[Range]:
        """Return the parts of a range that are cached, ascending.

        Args:
            file_id: the id of the file.
            start: the first chunk of the range.
            stop: one past the last chunk of the range.
        """
        cached = self._cached.get(file_id)
        return cached.within(start, stop) if cached else []

    def cached_among(self, file_id: FileId, chunks: RangeSet) -> RangeSet:
        """Return which chunks of a set are cached.

        Args:
            file_id: the id of the file.
            chunks: the set.
        """
        cached = self._cached.get(file_id)
        return cached.intersection(chunks) if cached else RangeSet()

    def pin(self, file_id: FileId, start: int, stop: int) -> None:
        """Pin a cached range once more, and make it the most recently read.

        The range is not evicted until every pin of it has ended. Its extents are merged if their slots are adjacent.

        Args:
            file_id: the id of the file.
            start: the first chunk.
            stop: one past the last chunk.
        """
        extents = self._files[file_id]
        last: Extent | None = None
        for extent in self._isolated(file_id, start, stop):
            assert extent.is_cached, "a reserved range cannot be read"
            self._lru.remove(extent)
            if last is not None and self._arena.is_contiguous(last.slot + last.chunk_count, extent.slot):
                extents.remove(extent)
                last.stop = extent.stop
            else:
                self._lru.append(extent)
                last = extent
        self._pins.add(file_id, start, stop)

    def unpin(self, file_id: FileId, start: int, stop: int) -> None:
        """End one pin of a range, and evict chunks beyond the capacity.

        Args:
            file_id: the id of the file.
            start: the first chunk of the pinned range.
            stop: one past the last chunk of the pinned range.
        """
        self._pins.remove(file_id, start, stop)
        for extent in self._files[file_id].overlapping(start, stop):
            self._lru.unskip(extent)
        self.trim()

    def count_hits(self, count: int) -> None:
        """Count requested chunks that were delivered from the cache."""
        self.hit_count += count

    def count_aggregated(self, count: int) -> None:
        """Count requested chunks that were aggregated: they waited for a fetch that had already started."""
        self.join_count += count

    # -- dropping

    def clear(self) -> int:
        """Drop all cached chunks that are not pinned. Return the number of dropped chunks."""
        return self._drop_unpinned(self._lru)

    def forget(self, file_id: FileId) -> int:
        """Drop the cached chunks of a file, except pinned ones (R2).

        Returns:
            The number of the file's chunks that are still in use.
        """
        self._drop_unpinned([extent for extent in self._files.get(file_id, ()) if extent.is_cached])
        return self.chunks_of(file_id)

    def drop(self, file_id: FileId, start: int, stop: int) -> None:
        """Drop the cached chunks of a range, except pinned ones.

        Args:
            file_id: the id of the file.
            start: the first chunk.
            stop: one past the last chunk.
        """
        for part in self.cached(file_id, start, stop):
            self._drop_unpinned(self._isolated(file_id, *part))

    def resize(self, capacity_chunks: int) -> None:
        """Change the capacity, and evict chunks beyond it, except pinned and reserved ones.

        Pinned chunks beyond the capacity are evicted when their pins end.

        Raises:
            LimitReached: there is not enough memory.
        """
        shrinks = capacity_chunks < self.capacity_chunks
        self._arena.grow(capacity_chunks)
        self.capacity_chunks = capacity_chunks
        self.trim()
        if shrinks:
            self.high_water_chunks = self._used_chunks

    def trim(self) -> None:
        """Evict chunks beyond the capacity. There are some only after the capacity was lowered."""
        self._make_room(0)

    def check(self) -> None:
        """Assert the invariants."""
        extents = [extent for of_file in self._files.values() for extent in of_file]
        assert self._used_chunks == sum(extent.chunk_count for extent in extents), "used chunks are miscounted"
        reserved = sum(extent.chunk_count for extent in extents if not extent.is_cached)
        assert self._reserved_chunks == reserved, "reserved chunks are miscounted"
        for file_id, of_file in self._files.items():
            cached = RangeSet((extent.start, extent.stop) for extent in of_file if extent.is_cached)
            assert cached == self._cached.get(file_id, RangeSet()), "the cached chunks are not those of cached extents"
        assert self._cached.keys() <= self._files.keys(), "a file without extents has cached chunks"
        assert self._used_chunks <= max(self.capacity_chunks, self.high_water_chunks), "more is in use than fits"
        self._arena.check([Range(extent.slot, extent.slot + extent.chunk_count) for extent in extents])
        self._lru.check([extent for extent in extents if extent.is_cached])
        self._pins.check()

    # -- eviction

    def _drop_unpinned(self, extents: Iterable[Extent]) -> int:
        return self._drop_ranges([part for extent in extents for part in self._unpinned(extent)])

    def _make_room(self, count: int) -> None:
        """Evict the least recently read chunks until ``count`` chunks can be reserved, as far as pins allow."""
        self.eviction_count += self._drop_ranges(self.ranges_to_evict(count))

    def _unpinned(self, extent: Extent) -> list[FileRange]:
        unpinned = self._pins.unpinned(extent.file_id, extent.start, extent.stop)
        return [(extent.file_id, start, stop) for start, stop in unpinned]

    def _drop_ranges(self, ranges: list[FileRange]) -> int:
        """Drop ranges that are cached and not pinned. Return the number of dropped chunks."""
        for each in ranges:
            for extent in self._isolated(*each):
                self._drop(extent)
        self._lower_high_water()
        return sum(stop - start for _, start, stop in ranges)

    def _drop(self, extent: Extent) -> None:
        extents = self._files[extent.file_id]
        extents.remove(extent)
        if extent.is_cached:
            self._lru.remove(extent)
            self._cached[extent.file_id].discard(extent.start, extent.stop)
        self._arena.release(extent.slot, extent.slot + extent.chunk_count)
        self._used_chunks -= extent.chunk_count
        if not extents:
            del self._files[extent.file_id]
            self._cached.pop(extent.file_id, None)

    def _lower_high_water(self) -> None:
        """If the high-water mark is above the capacity, which was lowered, set it to the chunks in use."""
        if self.high_water_chunks > self.capacity_chunks:
            self.high_water_chunks = self._used_chunks

    def _isolated(self, file_id: FileId, start: int, stop: int) -> list[Extent]:
        """Split the extents that cross the ends of a range in use; return the extents that together are the range."""
        extents = self._files[file_id]
        for boundary in (start, stop):
            extent = extents.at(boundary)
            if extent is not None and extent.start < boundary:
                self._split(extent, boundary)
        found = extents.overlapping(start, stop)
        assert sum(extent.chunk_count for extent in found) == stop - start, "part of the range is not in the cache"
        return found

    def _split(self, extent: Extent, boundary: int) -> None:
        """Split an extent in two. Both parts keep the place of the extent in the LRU order."""
        extents = self._files[extent.file_id]
        extents.remove(extent)
        upper = Extent(extent.file_id, boundary, extent.stop, extent.slot + boundary - extent.start, extent.is_cached)
        extent.stop = boundary
        extents.insert(extent)
        extents.insert(upper)
        if extent.is_cached:
            self._lru.split(extent, upper)
