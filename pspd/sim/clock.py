"""Virtual time, and what is to happen in it."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Clock:
    """Runs actions in the order of their times; actions of the same time in the order in which they were set.

    Attributes:
        now: the time, in nanoseconds.
        action_count: how many actions ran.
    """

    __slots__ = ("_order", "_queue", "action_count", "now")

    def __init__(self) -> None:
        self.now = 0
        self.action_count = 0
        self._order = 0
        self._queue: list[tuple[int, int, Callable[..., object], tuple[Any, ...]]] = []

    def at(self, when: int, action: Callable[..., object], *arguments: Any) -> None:
        """Has an action run at a time; at once, but not before this call returns, if that time is past."""
        self._order += 1
        heappush(self._queue, (max(when, self.now), self._order, action, arguments))

    def after(self, delay_ns: int, action: Callable[..., object], *arguments: Any) -> None:
        """Has an action run when so much time has passed."""
        self.at(self.now + delay_ns, action, *arguments)

    def step(self, end: int) -> bool:
        """Runs the next action. Returns False, the time being ``end``, if none is due until then."""
        if not self._queue or self._queue[0][0] > end:
            self.now = max(self.now, end)
            return False
        self.now, _, action, arguments = heappop(self._queue)
        self.action_count += 1
        action(*arguments)
        return True
