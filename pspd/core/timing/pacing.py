"""Pacing: a limit on the rate of work that also costs other parties time."""

from __future__ import annotations


class Pacer:
    """Allows work at intervals in proportion to the amount of the last work.

    Work that becomes due earlier accumulates, and is done in larger batches. If a unit of work takes as long as its
    pause, work takes at most half of the time.

    Args:
        unit_ns: the pause for each unit of work, in nanoseconds; 0 for no pacing.

    Attributes:
        next_at: when the next work is allowed, in nanoseconds.
    """

    __slots__ = ("_unit_ns", "next_at")

    def __init__(self, unit_ns: int) -> None:
        self._unit_ns = unit_ns
        self.next_at = 0

    def is_allowed(self, now: int) -> bool:
        """Return whether work is allowed at a time in nanoseconds."""
        return now >= self.next_at

    def spend(self, units: int, now: int) -> None:
        """Record work, and delay the next in proportion.

        Args:
            units: the amount of work.
            now: the time, in nanoseconds.
        """
        self.next_at = now + units * self._unit_ns
