"""Pacing: pauses that limit the rate of work."""

from __future__ import annotations


class Pacer:
    """A limit on the rate of work: a pause in proportion to the amount of the last work.

    The caller collects the work that becomes due during a pause, and does it in one batch after the pause.

    Args:
        unit_ns: the pause for each unit of work, in nanoseconds; 0 for no pacing.

    Attributes:
        next_at: the time from which work is allowed again, in nanoseconds.
    """

    __slots__ = ("_unit_ns", "next_at")

    def __init__(self, unit_ns: int) -> None:
        self._unit_ns = unit_ns
        self.next_at = 0

    def is_allowed(self, now: int) -> bool:
        """Return whether work is allowed at the time ``now``, in nanoseconds."""
        return now >= self.next_at

    def spend(self, units: int, now: int) -> None:
        """Record work, and begin a pause in proportion to the amount.

        Args:
            units: the amount of work.
            now: the time, in nanoseconds.
        """
        self.next_at = now + units * self._unit_ns
