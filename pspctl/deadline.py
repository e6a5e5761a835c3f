"""How long a command may take."""

from __future__ import annotations

import time


class Deadline:
    """A moment by which something must have happened; or never, for a timeout of None."""

    def __init__(self, timeout_seconds: float | None) -> None:
        self.timeout_seconds = timeout_seconds
        self._at = None if timeout_seconds is None else time.monotonic() + timeout_seconds

    @property
    def remaining_seconds(self) -> float | None:
        """The time left; None for ever."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    @property
    def text(self) -> str:
        """The timeout as it was typed: ``0.2 s``."""
        return "" if self.timeout_seconds is None else f"{self.timeout_seconds:.15g} s"

    def at_most(self, seconds: float) -> Deadline:
        """This deadline, or one that comes before it."""
        remaining = self.remaining_seconds
        return self if remaining is not None and remaining <= seconds else Deadline(seconds)

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.remaining_seconds == 0

    def within(self, seconds: float) -> float:
        """A while, cut short by the deadline."""
        remaining = self.remaining_seconds
        return seconds if remaining is None else min(seconds, remaining)


NEVER = Deadline(None)
