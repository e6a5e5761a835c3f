"""Computes the delays of an exponential backoff between attempts."""

from __future__ import annotations

from random import Random


class Backoff:
    """Delays that double from attempt to attempt, with jitter, up to a maximum.

    Args:
        first_seconds: the first delay, before jitter.
        max_seconds: the longest delay, before jitter.
        random: the source of jitter, which multiplies a delay by 0.5 to 1.5.
    """

    def __init__(self, first_seconds: float, max_seconds: float, random: Random) -> None:
        self._first_seconds = first_seconds
        self._max_seconds = max_seconds
        self._random = random
        self._seconds = first_seconds

    def next_seconds(self) -> float:
        """Return the delay before the next attempt, and double the following delay, up to the maximum."""
        seconds = self._seconds * (0.5 + self._random.random())
        self._seconds = min(2 * self._seconds, self._max_seconds)
        return seconds

    def reset(self) -> None:
        """Start again with the first delay, after a success."""
        self._seconds = self._first_seconds
