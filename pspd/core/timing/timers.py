"""Timers: at most one deadline per name, and the earliest of all deadlines."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

STALE_ENTRIES_MIN, ENTRIES_PER_TIMER = 64, 4
"""The heap is rebuilt when it has more entries than the first number plus, for each timer, the second number."""


def earliest(*deadlines: int | None) -> int | None:
    """Return the earliest of some deadlines; None if there is none."""
    found: int | None = None
    for deadline in deadlines:
        if deadline is not None and (found is None or deadline < found):
            found = deadline
    return found


class Timers(Generic[K]):
    """At most one deadline per name, in nanoseconds. Setting, moving and cancelling are cheap.

    Most deadlines are postponed many times before they expire, so postponing does not change the heap. A name's entry
    in the heap is never later than the name's deadline. An earlier entry is corrected when it reaches the top.
    """

    __slots__ = ("_deadlines", "_heap", "_order", "_queued")

    def __init__(self) -> None:
        self._deadlines: dict[K, tuple[int, int]] = {}  # time, order of setting
        self._queued: dict[K, int] = {}  # time of the name's valid entry in the heap
        self._heap: list[tuple[int, int, K]] = []
        self._order = count()

    def set(self, name: K, deadline: int) -> None:
        """Set or move the deadline of a name. Equal deadlines expire in the order in which they were set.

        Args:
            name: the name.
            deadline: the time of the deadline, in nanoseconds.
        """
        order = next(self._order)
        self._deadlines[name] = (deadline, order)
        queued = self._queued.get(name)
        if queued is None or deadline < queued:
            self._queued[name] = deadline
            heappush(self._heap, (deadline, order, name))
            if len(self._heap) > STALE_ENTRIES_MIN + ENTRIES_PER_TIMER * len(self._deadlines):
                self._rebuild()

    def postpone(self, name: K, deadline: int) -> None:
        """Set the deadline of a name if it has none or an earlier one.

        Args:
            name: the name.
            deadline: the time of the deadline, in nanoseconds.
        """
        current = self._deadlines.get(name)
        if current is None or current[0] < deadline:
            self.set(name, deadline)

    def cancel(self, name: K) -> None:
        """Remove the deadline of a name, if there is one."""
        self._deadlines.pop(name, None)

    def next_deadline(self) -> int | None:
        """Return the earliest deadline; None if there is none. Remove or correct stale entries at the heap's top."""
        heap = self._heap
        while heap:
            queued, order, name = heap[0]
            current = self._deadlines.get(name)
            if current is not None and current[1] == order:
                return queued
            if self._queued.get(name) != queued:
                heappop(heap)
            elif current is None:
                heappop(heap)
                del self._queued[name]
            else:
                heapreplace(heap, (*current, name))
                self._queued[name] = current[0]
        return None

    def expired(self, now: int) -> Iterator[K]:
        """Remove the deadlines that have passed, and yield their names, earliest first.

        This includes deadlines that are set during the iteration and have passed.
        """
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            name = heappop(self._heap)[2]
            del self._deadlines[name]
            self._queued.pop(name, None)
            yield name

    def check(self) -> None:
        """Assert that each deadline has an entry in the heap, which is not later than the deadline."""
        entries = {(queued, name) for queued, _, name in self._heap}
        for name, (deadline, _) in self._deadlines.items():
            assert self._queued[name] <= deadline, "a deadline expires too late"
            assert (self._queued[name], name) in entries, "a deadline is not in the heap"

    def _rebuild(self) -> None:
        """Rebuild the heap without stale entries."""
        self._queued = {name: deadline for name, (deadline, _) in self._deadlines.items()}
        self._heap = [(deadline, order, name) for name, (deadline, order) in self._deadlines.items()]
        heapify(self._heap)

    def __contains__(self, name: K) -> bool:
        """Return whether a name has a deadline."""
        return name in self._deadlines
