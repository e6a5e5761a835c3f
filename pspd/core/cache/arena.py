"""The memory of the cache: slots of one chunk each."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from pspd.core.model.manifest import CHUNK_BYTES
from pspd.core.model.ranges import Range, RangeSet
from pspd.errors import LimitReached
from pspd.text.sizes import size_text

Allocate = Callable[[int], memoryview]
"""A function that returns writable memory of a given size in bytes, filled with zeros.

It raises ``MemoryError`` or ``OverflowError`` if there is not enough memory.
"""

_ZEROS = bytes(256 * 1024)


def allocate_on_heap(size_bytes: int) -> memoryview:
    """Return memory from the heap, filled with zeros. The filling is slow for large sizes."""
    return memoryview(bytearray(size_bytes))


class Arena:
    """Memory for chunks: slots of one chunk each, in segments. The arena grows by segments and never shrinks.

    Free slots hold zeros, so that no byte of a removed file stays in memory (R2).

    Args:
        slot_count: the initial number of slots.
        allocate: the function that allocates the memory of a segment.

    Attributes:
        free_slots: the free slots.
        slot_count: the number of all slots, free or in use.
    """

    def __init__(self, slot_count: int, allocate: Allocate = allocate_on_heap) -> None:
        self._allocate = allocate
        self._segments: list[tuple[int, memoryview]] = []  # first slot, memory
        self.free_slots = RangeSet()
        self.slot_count = 0
        self.grow(slot_count)

    def grow(self, slot_count: int) -> None:
        """Add slots until there are ``slot_count``.

        Raises:
            LimitReached: there is not enough memory.
        """
        added = slot_count - self.slot_count
        if added > 0:
            try:
                memory = self._allocate(added * CHUNK_BYTES)
            except (MemoryError, OverflowError):
                wanted = size_text(slot_count * CHUNK_BYTES)
                raise LimitReached(f"there is no memory for a cache of {wanted}: name a smaller size") from None
            self._segments.append((self.slot_count, memory))
            self.free_slots.add(self.slot_count, slot_count)
            self.slot_count = slot_count

    def acquire(self, slot_count: int) -> list[Range]:
        """Take free slots. Return them as ranges, each within one segment.

        The slots come from the first run of free slots that is long enough. If there is none, they come from several.
        """
        runs = next(([run] for run in self.free_slots if run.chunk_count >= slot_count), None) or list(self.free_slots)
        acquired: list[Range] = []
        for start, stop in runs:
            acquired += self._split_at_segments(start, min(stop, start + slot_count))
            slot_count -= min(stop - start, slot_count)
            if slot_count == 0:
                break
        assert slot_count == 0, "more slots acquired than are free"
        self.free_slots.difference_update(acquired)
        return acquired

    def release(self, start: int, stop: int) -> None:
        """Overwrite slots with zeros and free them.

        Args:
            start: the first slot.
            stop: one past the last slot.
        """
        for run in self._split_at_segments(start, stop):
            view = self.view(run.start, run.chunk_count)
            for offset in range(0, len(view), len(_ZEROS)):
                part = view[offset : offset + len(_ZEROS)]
                part[:] = _ZEROS[: len(part)]
        self.free_slots.add(start, stop)

    def is_contiguous(self, stop: int, slot: int) -> bool:
        """Return whether two runs of slots are adjacent in one segment of the memory.

        Args:
            stop: one past the last slot of the first run.
            slot: the first slot of the second run.
        """
        return stop == slot and all(base != slot for base, _ in self._segments)

    def view(self, slot: int, slot_count: int) -> memoryview:
        """Return the memory of consecutive slots in one segment.

        Args:
            slot: the first slot.
            slot_count: the number of slots.
        """
        base, memory = next((base, memory) for base, memory in reversed(self._segments) if base <= slot)
        return memory[(slot - base) * CHUNK_BYTES : (slot - base + slot_count) * CHUNK_BYTES]

    def check(self, used: list[Range]) -> None:
        """Assert that each slot is either free or in exactly one of the ``used`` ranges."""
        slots = self.free_slots.copy()
        slots.update(used)
        used_count = sum(run.chunk_count for run in used)
        assert self.free_slots.chunk_count + used_count == slots.chunk_count == self.slot_count, "slots leak or overlap"
        assert slots.covers(0, self.slot_count), "a slot is beyond the arena"

    def _split_at_segments(self, start: int, stop: int) -> list[Range]:
        boundaries = [start, *(base for base, _ in self._segments if start < base < stop), stop]
        return [Range(low, high) for low, high in pairwise(boundaries)]
