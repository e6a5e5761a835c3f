"""How long a command may take."""

from __future__ import annotations

import time


class Deadline:
    """A point in time that ends a wait; with None as the timeout, the wait never ends."""

    def __init__(self, timeout_seconds: float | None) -> None:
        """Start the timeout now."""
        self.timeout_seconds = timeout_seconds
        self._at = None if timeout_seconds is None else time.monotonic() + timeout_seconds

    @property
    def remaining_seconds(self) -> float | None:
        """The time left, at least 0; None if there is no deadline."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    @property
    def text(self) -> str:
        """The timeout as it was typed: ``0.2 s``."""
        return "" if self.timeout_seconds is None else f"{self.timeout_seconds:.15g} s"

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.remaining_seconds == 0

    def at_most(self, seconds: float) -> Deadline:
        """Return this deadline, or a new one in `seconds` if that is earlier."""
        remaining = self.remaining_seconds
        return self if remaining is not None and remaining <= seconds else Deadline(seconds)

    def within(self, seconds: float) -> float:
        """Return `seconds`, or the time left if that is less."""
        remaining = self.remaining_seconds
        return seconds if remaining is None else min(seconds, remaining)


NEVER = Deadline(None)
