"""Pacing: pauses that limit the rate of work."""

from __future__ import annotations


class Pacer:
    """A limit on the rate of work: a pause after each batch, in proportion to the size of the batch.

    Args:
        unit_ns: the pause for each unit of work, in nanoseconds; 0 for no pacing.

    Attributes:
        allowed_at: the time at which the current pause ends, in nanoseconds.
    """

    __slots__ = ("_unit_ns", "allowed_at")

    def __init__(self, unit_ns: int) -> None:
        self._unit_ns = unit_ns
        self.allowed_at = 0

    def is_allowed(self, now: int) -> bool:
        """Return whether work is allowed at the time ``now`` (nanoseconds)."""
        return now >= self.allowed_at

    def start_pause(self, units: int, now: int) -> None:
        """Begin the pause after a batch of work. The pause replaces the current one, if any.

        Args:
            units: the size of the batch, in units of work.
            now: the time, in nanoseconds.
        """
        self.allowed_at = now + units * self._unit_ns
