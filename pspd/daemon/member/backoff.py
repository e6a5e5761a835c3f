"""The delay before a member joins again."""

from __future__ import annotations

from random import Random

from pspd.net.backoff import Backoff

REJOIN_SECONDS_MIN = 0.1
REJOIN_SECONDS_MAX = 2.0
STEADY_SECONDS = 30.0
"""A session that lasts this long is a success. A shorter one did not help, so the next delay is longer."""


class RejoinBackoff(Backoff):
    """Delays that double from attempt to attempt, until a session lasts.

    Args:
        random: the source of jitter.
    """

    def __init__(self, random: Random) -> None:
        super().__init__(REJOIN_SECONDS_MIN, REJOIN_SECONDS_MAX, random)

    def session_ended(self, seconds: float) -> None:
        """Begin again with the first delay if the session that ended has lasted."""
        if seconds >= STEADY_SECONDS:
            self.reset()
