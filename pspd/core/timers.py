"""Named deadlines, of which the earliest is known."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Timers(Generic[K]):
    """At most one deadline per name, in nanoseconds. Setting and cancelling are cheap."""

    __slots__ = ("_current", "_heap", "_order")

    def __init__(self) -> None:
        self._current: dict[K, tuple[int, int]] = {}
        self._heap: list[tuple[int, int, K]] = []
        self._order = count()

    def set(self, name: K, deadline: int) -> None:
        """Sets or moves the deadline of a name."""
        order = next(self._order)
        self._current[name] = (deadline, order)
        heappush(self._heap, (deadline, order, name))
        if len(self._heap) > 64 + 4 * len(self._current):
            self._heap = [(*when, name) for name, when in self._current.items()]
            heapify(self._heap)

    def cancel(self, name: K) -> None:
        """Forgets the deadline of a name, if it has one."""
        self._current.pop(name, None)

    def next_deadline(self) -> int | None:
        """The earliest deadline; None if there is none."""
        heap = self._heap
        while heap and self._current.get(heap[0][2]) != heap[0][:2]:
            heappop(heap)
        return heap[0][0] if heap else None

    def expired(self, now: int) -> Iterator[K]:
        """Takes out every name whose deadline has come, earliest first; names set meanwhile included."""
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            name = heappop(self._heap)[2]
            del self._current[name]
            yield name

    def __contains__(self, name: K) -> bool:
        return name in self._current
