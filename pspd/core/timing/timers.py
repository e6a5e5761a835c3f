"""Named deadlines, of which the earliest is known."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


def earliest(*deadlines: int | None) -> int | None:
    """The earliest of some deadlines; None if there is none."""
    found: int | None = None
    for deadline in deadlines:
        if deadline is not None and (found is None or deadline < found):
            found = deadline
    return found


class Timers(Generic[K]):
    """At most one deadline per name, in nanoseconds. Setting, moving and cancelling are cheap.

    Most deadlines are moved on, again and again, before they come. So the heap is not told of that: what is in it for
    a name is never later than the name's deadline, and is put right when it has come to the top.
    """

    __slots__ = ("_deadlines", "_heap", "_order", "_queued")

    def __init__(self) -> None:
        self._deadlines: dict[K, tuple[int, int]] = {}  # when, and in which order they were set
        self._queued: dict[K, int] = {}
        self._heap: list[tuple[int, int, K]] = []
        self._order = count()

    def set(self, name: K, deadline: int) -> None:
        """Sets or moves the deadline of a name; of those of one time the one that was set first comes first."""
        order = next(self._order)
        self._deadlines[name] = (deadline, order)
        queued = self._queued.get(name)
        if queued is None or deadline < queued:
            self._queue(name, deadline, order)
            if len(self._heap) > 64 + 4 * len(self._deadlines):
                self._rebuild()

    def postpone(self, name: K, deadline: int) -> None:
        """Sets the deadline of a name, or moves it to a later time, never to an earlier one."""
        current = self._deadlines.get(name)
        if current is None or current[0] < deadline:
            self.set(name, deadline)

    def _queue(self, name: K, deadline: int, order: int) -> None:
        self._queued[name] = deadline
        heappush(self._heap, (deadline, order, name))

    def _rebuild(self) -> None:
        """Leaves out what was cancelled or moved to an earlier time."""
        self._queued = {name: deadline for name, (deadline, _) in self._deadlines.items()}
        self._heap = [(deadline, order, name) for name, (deadline, order) in self._deadlines.items()]
        heapify(self._heap)

    def cancel(self, name: K) -> None:
        """Forgets the deadline of a name, if it has one."""
        self._deadlines.pop(name, None)

    def next_deadline(self) -> int | None:
        """The earliest deadline; None if there is none."""
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
        """Takes out every name whose deadline has come, earliest first; names set meanwhile included."""
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            name = heappop(self._heap)[2]
            del self._deadlines[name]
            self._queued.pop(name, None)
            yield name

    def __contains__(self, name: K) -> bool:
        return name in self._deadlines
