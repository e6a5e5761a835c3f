"""Decides whether and when to call a server again after a failure."""

from __future__ import annotations

import time
from collections.abc import Callable

from pspd.errors import PspError


class RetryPolicy:
    """Decides after each failure whether to call a server again, and after which pause.

    An outage begins with a failure (or with `note_lost`) and ends with `note_answer`.

    Args:
        next_pause: returns the pause before the next attempt, in seconds.
        outage_seconds_max: how long an outage may last; None for no limit.
    """

    def __init__(self, next_pause: Callable[[], float], outage_seconds_max: float | None = None) -> None:
        self._outage_seconds_max = outage_seconds_max
        self._next_pause = next_pause
        self._lost_at: float | None = None

    @property
    def is_down(self) -> bool:
        """Whether an outage is under way."""
        return self._lost_at is not None

    @property
    def outage_seconds(self) -> float:
        """How long the outage has lasted; 0 if there is none."""
        return 0.0 if self._lost_at is None else time.monotonic() - self._lost_at

    def note_lost(self) -> None:
        """Record that the server does not answer. An outage begins, unless one is under way."""
        if self._lost_at is None:
            self._lost_at = time.monotonic()

    def note_answer(self) -> None:
        """Record that the server has answered, which ends an outage."""
        self._lost_at = None

    def pause_after(self, error: PspError) -> float:
        """Record a failure; return the seconds to wait before the next attempt.

        Args:
            error: the error of the last attempt.

        Raises:
            PspError: `error`, if the next attempt would come later than `outage_seconds_max` after the outage began.
        """
        self.note_lost()
        pause = self._next_pause()
        if self._outage_seconds_max is not None and self.outage_seconds + pause > self._outage_seconds_max:
            raise error
        return pause
