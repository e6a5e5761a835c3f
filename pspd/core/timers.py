"""Named deadlines, of which the earliest is known."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush
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
        self._deadlines: dict[K, int] = {}
        self._queued: dict[K, int] = {}
        self._heap: list[tuple[int, int, K]] = []
        self._order = count()

    def set(self, name: K, deadline: int) -> None:
        """Sets or moves the deadline of a name."""
        self._deadlines[name] = deadline
        queued = self._queued.get(name)
        if queued is None or deadline < queued:
            self._queue(name, deadline)
            if len(self._heap) > 64 + 4 * len(self._deadlines):
                self._rebuild()

    def _queue(self, name: K, deadline: int) -> None:
        self._queued[name] = deadline
        heappush(self._heap, (deadline, next(self._order), name))

    def _rebuild(self) -> None:
        """Leaves out what was cancelled or moved to an earlier time."""
        self._queued = self._deadlines.copy()
        self._heap = [(deadline, next(self._order), name) for name, deadline in self._deadlines.items()]
        heapify(self._heap)

    def cancel(self, name: K) -> None:
        """Forgets the deadline of a name, if it has one."""
        self._deadlines.pop(name, None)

    def next_deadline(self) -> int | None:
        """The earliest deadline; None if there is none."""
        heap = self._heap
        while heap:
            queued, _, name = heap[0]
            deadline = self._deadlines.get(name)
            if deadline == queued:
                return deadline
            heappop(heap)
            if self._queued.get(name) == queued:
                del self._queued[name]
                if deadline is not None:
                    self._queue(name, deadline)
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
