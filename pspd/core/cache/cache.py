"""The server's cache: LRU over chunks in one arena of fixed size (R4).

No file byte is ever anywhere else in the server: what is being received is *reserved* here first and
received straight into its slots; what is being sent is *pinned* here and sent from them. Reserved and
pinned chunks are not evicted. Recency is that of chunks; an extent is merely a run of chunks that were
read at the same time, so that work is per range. Pins are kept apart from extents: what thousands of clients are
sent begins and ends everywhere, and would cut the extents into crumbs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from pspd.core.cache.lru import Extent, Recency
from pspd.core.cache.pins import Pins
from pspd.core.model.manifest import CHUNK_BYTES, FileId
from pspd.core.model.ranges import Range, RangeMap, RangeSet
from pspd.errors import LimitReached
from pspd.text.sizes import size_text

Part = tuple[FileId, int, int]
"""Chunks ``[start, stop)`` of one file."""

Allocate = Callable[[int], memoryview]
"""Takes a number of bytes and gives so many zero bytes of memory, which can be written.

It raises ``MemoryError`` or ``OverflowError`` where there is no such memory.
"""

_ZEROS = bytes(256 * 1024)


def allocate_at_once(size_bytes: int) -> memoryview:
    """Takes memory and writes zeros to all of it; that is slow for much of it."""
    return memoryview(bytearray(size_bytes))


class Arena:
    """Slots of one chunk each, in memory that is taken once; it grows by further pieces, never shrinks."""

    def __init__(self, slot_count: int, allocate: Allocate = allocate_at_once) -> None:
        self._allocate = allocate
        self._pieces: list[tuple[int, memoryview]] = []
        self.free = RangeSet()
        self.slot_count = 0
        self.grow(slot_count)

    def grow(self, slot_count: int) -> None:
        """Adds slots until there are ``slot_count``.

        Raises:
            LimitReached: the machine has no memory for them.
        """
        added = slot_count - self.slot_count
        if added > 0:
            try:
                memory = self._allocate(added * CHUNK_BYTES)
            except (MemoryError, OverflowError):
                wanted = size_text(slot_count * CHUNK_BYTES)
                raise LimitReached(f"there is no memory for a cache of {wanted}: name a smaller size") from None
            self._pieces.append((self.slot_count, memory))
            self.free.add(self.slot_count, slot_count)
            self.slot_count = slot_count

    def take(self, chunk_count: int) -> list[Range]:
        """Takes free slots, in one run if there is one, else in several."""
        runs = next(([run] for run in self.free if run.chunk_count >= chunk_count), None) or list(self.free)
        taken = []
        for start, stop in runs:
            for run in self._within_pieces(start, min(stop, start + chunk_count)):
                taken.append(run)
                chunk_count -= run.chunk_count
            if chunk_count == 0:
                break
        assert chunk_count == 0, "more slots taken than were free"
        self.free.difference_update(taken)
        return taken

    def give_back(self, start: int, stop: int) -> None:
        """Makes slots free again and overwrites them: a free slot holds zeros, so nothing lingers (R2)."""
        for run in self._within_pieces(start, stop):
            view = self.view(run.start, run.chunk_count)
            for offset in range(0, len(view), len(_ZEROS)):
                part = view[offset : offset + len(_ZEROS)]
                part[:] = _ZEROS[: len(part)]
        self.free.add(start, stop)

    def adjoins(self, stop: int, slot: int) -> bool:
        """Whether the memory of slots up to ``stop`` goes on with ``slot``."""
        return stop == slot and all(base != slot for base, _ in self._pieces)

    def view(self, slot: int, chunk_count: int) -> memoryview:
        """The memory of consecutive slots."""
        base, piece = next((base, piece) for base, piece in reversed(self._pieces) if base <= slot)
        return piece[(slot - base) * CHUNK_BYTES : (slot - base + chunk_count) * CHUNK_BYTES]

    def _within_pieces(self, start: int, stop: int) -> list[Range]:
        """The run cut where one piece of memory ends and the next begins."""
        borders = [start, *(base for base, _ in self._pieces if start < base < stop), stop]
        return [Range(low, high) for low, high in pairwise(borders)]


class Cache:
    """Chunks of any files, at most ``capacity_chunks`` of them.

    Args:
        capacity_chunks: the size.
        allocate: takes the memory for it.

    Attributes:
        capacity_chunks: the size.
        high_water_chunks: the most that were in use since the size was last lowered.
        hit_count: chunks asked for and found.
        miss_count: chunks asked for and not found.
        join_count: chunks asked for while they were being fetched.
        eviction_count: chunks dropped to make room.
    """

    def __init__(self, capacity_chunks: int, allocate: Allocate = allocate_at_once) -> None:
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
        self._ready: dict[FileId, RangeSet] = {}
        self._recency = Recency()  # of ready extents

    @property
    def used_chunks(self) -> int:
        """Chunks in use: cached, being received, being sent."""
        return self._used_chunks

    @property
    def reservable_chunks(self) -> int:
        """How many chunks could be reserved at most: what is free or may be evicted."""
        return max(0, self.capacity_chunks - self._reserved_chunks - self._pins.chunk_count)

    def has_room(self, count: int) -> bool:
        """Whether ``count`` chunks can be reserved."""
        surely_chunks = self.capacity_chunks - self._reserved_chunks - self._pins.bound_chunks
        return count <= surely_chunks or count <= self.reservable_chunks

    def chunks_of(self, file_id: FileId) -> int:
        """Chunks of one file that are in use."""
        return sum(extent.chunk_count for extent in self._files.get(file_id, ()))

    def victims(self, count: int) -> list[Part]:
        """What would be evicted to reserve ``count`` chunks, least recently read first; what is pinned is set aside."""
        return list(self._oldest_unpinned(self._used_chunks + count - self.capacity_chunks))

    def reserve(self, file_id: FileId, start: int, stop: int) -> bool:
        """Makes room to receive a range that is not in the cache, evicting as needed.

        Returns:
            False if there is no room: too much is reserved or pinned. Nothing has changed then.
        """
        count = stop - start
        if not self.has_room(count):
            return False
        self._evict(self._used_chunks + count - self.capacity_chunks)
        extents = self._files.setdefault(file_id, RangeMap())
        for run in self._arena.take(count):
            extents.insert(Extent(file_id, start, start + run.chunk_count, run.start))
            start += run.chunk_count
        self._used_chunks += count
        self._reserved_chunks += count
        self.high_water_chunks = max(self.high_water_chunks, self._used_chunks)
        return True

    def commit(self, file_id: FileId, start: int, stop: int) -> None:
        """A reserved range is received and good: it is cached, most recent."""
        for extent in self._exactly(file_id, start, stop):
            extent.ready = True
            self._reserved_chunks -= extent.chunk_count
            self._recency.append(extent)
        self._ready.setdefault(file_id, RangeSet()).add(start, stop)

    def release(self, file_id: FileId, start: int, stop: int) -> None:
        """A reserved range will not come, or was bad: its room is free again."""
        for extent in self._exactly(file_id, start, stop):
            self._reserved_chunks -= extent.chunk_count
            self._drop(extent)
        self._lower_high_water()

    def views(self, file_id: FileId, start: int, stop: int, length: int) -> list[memoryview]:
        """The memory of a range that is reserved or cached, ``length`` bytes in all, in order."""
        views = []
        for extent in self._files[file_id].overlapping(start, stop):
            low, high = max(start, extent.start), min(stop, extent.stop)
            views.append(self._arena.view(extent.slot + low - extent.start, high - low))
        shortage = (stop - start) * CHUNK_BYTES - length
        if shortage:
            views[-1] = views[-1][:-shortage]
        return views

    def cached(self, file_id: FileId, start: int, stop: int) -> list[Range]:
        """The parts of a range that are cached, ascending."""
        ready = self._ready.get(file_id)
        return ready.within(start, stop) if ready else []

    def cached_among(self, file_id: FileId, chunks: RangeSet) -> RangeSet:
        """Which of some chunks of a file are cached."""
        ready = self._ready.get(file_id)
        return ready.common(chunks) if ready else RangeSet()

    def pin(self, file_id: FileId, start: int, stop: int) -> None:
        """Reads a cached range: it becomes the most recent, and stays until it is unpinned."""
        extents = self._files[file_id]
        last: Extent | None = None
        for extent in self._exactly(file_id, start, stop):
            assert extent.ready, "only what is received can be read"
            self._recency.remove(extent)
            if last is not None and self._arena.adjoins(last.slot + last.chunk_count, extent.slot):
                extents.remove(extent)
                last.stop = extent.stop
            else:
                self._recency.append(extent)
                last = extent
        self._pins.add(file_id, start, stop)

    def unpin(self, file_id: FileId, start: int, stop: int) -> None:
        """Ends one pin of a range."""
        self._pins.remove(file_id, start, stop)
        for extent in self._files[file_id].overlapping(start, stop):
            self._recency.take_back(extent)
        self.trim()

    def clear(self) -> int:
        """Drops whatever is not reserved or pinned, and overwrites it. Returns how many chunks that were."""
        return self._drop_unpinned(self._recency)

    def forget(self, file_id: FileId) -> int:
        """Drops one file, as far as it is not reserved or pinned, and overwrites it (R2).

        Returns:
            How many of its chunks are left.
        """
        self._drop_unpinned([extent for extent in self._files.get(file_id, ()) if extent.ready])
        return self.chunks_of(file_id)

    def drop(self, file_id: FileId, start: int, stop: int) -> None:
        """Drops what is cached of a range, as far as it is not reserved or pinned, and overwrites it."""
        for part in self.cached(file_id, start, stop):
            self._drop_unpinned(self._exactly(file_id, *part))

    def resize(self, capacity_chunks: int) -> None:
        """Changes the size; what no longer fits goes, least recently read first, pins as they end."""
        shrinks = capacity_chunks < self.capacity_chunks
        self._arena.grow(capacity_chunks)
        self.capacity_chunks = capacity_chunks
        self.trim()
        if shrinks:
            self.high_water_chunks = self._used_chunks

    def trim(self) -> None:
        """Evicts what is beyond the size, as far as it may be; only after the size was lowered is there any."""
        self._evict(self._used_chunks - self.capacity_chunks)

    def _drop_unpinned(self, extents: Iterable[Extent]) -> int:
        unpinned = [part for extent in extents for part in self._unpinned(extent)]
        self._drop_parts(unpinned)
        self._lower_high_water()
        return sum(stop - start for _, start, stop in unpinned)

    def _evict(self, count: int) -> None:
        """Drops the ``count`` chunks read least recently; fewer if not so many may be dropped."""
        victims = list(self._oldest_unpinned(count))
        self.eviction_count += sum(stop - start for _, start, stop in victims)
        self._drop_parts(victims)
        self._lower_high_water()

    def _oldest_unpinned(self, count: int) -> Iterator[Part]:
        """The ``count`` chunks read least recently, of those that may be dropped."""
        if count <= 0:
            return
        for extent in self._recency:
            parts = self._unpinned(extent)
            if not parts:
                self._recency.set_aside(extent)
            for file_id, start, stop in parts:
                yield file_id, start, min(stop, start + count)
                count -= stop - start
                if count <= 0:
                    return

    def _unpinned(self, extent: Extent) -> list[Part]:
        unpinned = self._pins.unpinned(extent.file_id, extent.start, extent.stop)
        return [(extent.file_id, start, stop) for start, stop in unpinned]

    def _drop_parts(self, parts: Iterable[Part]) -> None:
        for part in parts:
            for extent in self._exactly(*part):
                self._drop(extent)

    def _drop(self, extent: Extent) -> None:
        extents = self._files[extent.file_id]
        extents.remove(extent)
        if extent.ready:
            self._recency.remove(extent)
            self._ready[extent.file_id].discard(extent.start, extent.stop)
        self._arena.give_back(extent.slot, extent.slot + extent.chunk_count)
        self._used_chunks -= extent.chunk_count
        if not extents:
            del self._files[extent.file_id]
            self._ready.pop(extent.file_id, None)

    def _lower_high_water(self) -> None:
        """After the size was lowered, what is beyond it goes by and by, and the mark with it."""
        if self.high_water_chunks > self.capacity_chunks:
            self.high_water_chunks = self._used_chunks

    def _exactly(self, file_id: FileId, start: int, stop: int) -> list[Extent]:
        """The extents that make up a range, split at its ends where need be."""
        extents = self._files[file_id]
        for border in (start, stop):
            extent = extents.at(border)
            if extent is not None and extent.start < border:
                self._split(extent, border)
        found = extents.overlapping(start, stop)
        assert sum(extent.chunk_count for extent in found) == stop - start, "part of the range is not in the cache"
        return found

    def _split(self, extent: Extent, border: int) -> None:
        """Cuts an extent in two that are as recent as it was."""
        extents = self._files[extent.file_id]
        extents.remove(extent)
        upper = Extent(extent.file_id, border, extent.stop, extent.slot + border - extent.start, extent.ready)
        extent.stop = border
        extents.insert(extent)
        extents.insert(upper)
        if extent.ready:
            self._recency.split(extent, upper)
