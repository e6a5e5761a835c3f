"""Virtual time and the queue of scheduled actions."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Clock:
    """Runs actions in the order of their times; actions of the same time in the order of scheduling.

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
        """Schedule an action.

        Args:
            when: its time, in nanoseconds; a past time means as soon as this call has returned.
            action: the function to call.
            *arguments: its arguments.
        """
        self._order += 1
        heappush(self._queue, (max(when, self.now), self._order, action, arguments))

    def after(self, delay_ns: int, action: Callable[..., object], *arguments: Any) -> None:
        """Schedule an action relative to now.

        Args:
            delay_ns: how long from now, in nanoseconds.
            action: the function to call.
            *arguments: its arguments.
        """
        self.at(self.now + delay_ns, action, *arguments)

    def step(self, end: int) -> bool:
        """Run the next action; return False, with the time set to ``end``, if none is due by then."""
        if not self._queue or self._queue[0][0] > end:
            self.now = max(self.now, end)
            return False
        self.now, _, action, arguments = heappop(self._queue)
        self.action_count += 1
        action(*arguments)
        return True
