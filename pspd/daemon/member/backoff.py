"""How long a member waits before it joins again."""

from __future__ import annotations

from random import Random

REJOIN_SECONDS_MIN = 0.1
REJOIN_SECONDS_MAX = 2.0
STEADY_SECONDS = 30.0
"""A session that lasted so long was a success. One that ends sooner did not help: the next wait is longer still."""


class Backoff:
    """Waits that double from try to try, with jitter, until a session lasts."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self._seconds = REJOIN_SECONDS_MIN

    def next_seconds(self) -> float:
        """How long to wait before the next try."""
        seconds = self._seconds * (0.5 + self._dice.random())
        self._seconds = min(2 * self._seconds, REJOIN_SECONDS_MAX)
        return seconds

    def session_lasted(self, seconds: float) -> None:
        """A session has ended after so many seconds."""
        if seconds >= STEADY_SECONDS:
            self._seconds = REJOIN_SECONDS_MIN
