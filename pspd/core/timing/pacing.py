"""Pacing: how often work may be done that costs other parties time too."""

from __future__ import annotations


class Pacer:
    """Allows work at once, and the next work after a time in proportion to what the last has cost.

    Work that becomes due sooner collects until then, so that it is done in larger batches. All of it together takes at
    most a fixed part of the time.

    Args:
        unit_ns: the time that one unit of work takes, in nanoseconds; 0 for no pacing.

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
        """Record work, and delay the next by its cost.

        Args:
            units: how much work was done.
            now: when, in nanoseconds.
        """
        self.next_at = now + units * self._unit_ns
