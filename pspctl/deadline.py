"""The deadline of a command."""

from __future__ import annotations

import time


class Deadline:
    """The time at which a command gives up, or no such time."""

    def __init__(self, timeout_seconds: float | None) -> None:
        """Set the deadline `timeout_seconds` from now; None for no deadline."""
        self.timeout_seconds = timeout_seconds
        self._at = None if timeout_seconds is None else time.monotonic() + timeout_seconds

    @property
    def remaining_seconds(self) -> float | None:
        """The time left, at least 0; None if there is no deadline."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    @property
    def timeout_text(self) -> str:
        """The timeout with its unit, such as ``0.2 s``; empty if there is no deadline."""
        return "" if self.timeout_seconds is None else f"{self.timeout_seconds:.15g} s"

    @property
    def has_passed(self) -> bool:
        """Whether no time is left."""
        return self.remaining_seconds == 0

    def limited_to(self, seconds: float) -> Deadline:
        """Return the earlier of this deadline and a new deadline `seconds` from now."""
        remaining = self.remaining_seconds
        return self if remaining is not None and remaining <= seconds else Deadline(seconds)

    def capped(self, seconds: float) -> float:
        """Return `seconds`, or the time left if that is less."""
        remaining = self.remaining_seconds
        return seconds if remaining is None else min(seconds, remaining)


NEVER = Deadline(None)
"""A deadline that never passes."""
