"""How long fetches may be stalled for stragglers, before chunks that these still want are evicted.

Clients of equal speed drift apart by accidents of scheduling. Without a pause now and then, a client that falls behind
by more than the cache costs its holder another contribution. But a slow client must not slow down the fast ones. So
pauses are paid from a budget that grows by a fraction of the time that passes.
"""

from __future__ import annotations

from pspd.core.model.tuning import ServerTuning


class StragglerBudget:
    """The budget of one file."""

    __slots__ = ("_budget_ns", "_counted_until", "_is_waiting", "_tuning")

    def __init__(self, tuning: ServerTuning) -> None:
        self._tuning = tuning
        self._budget_ns = tuning.straggler_budget_ns_initial
        self._counted_until: int | None = None
        self._is_waiting = False

    def wait_until(self, is_wanted: bool, now: int) -> int | None:
        """Decide whether to defer the next fetch.

        Args:
            is_wanted: a client still wants what the fetch would evict.
            now: the time, in nanoseconds.

        Returns:
            Until when at the most; None to go on.
        """
        elapsed_ns = 0 if self._counted_until is None else now - self._counted_until
        self._counted_until = now
        if self._is_waiting:
            self._budget_ns = max(0, self._budget_ns - elapsed_ns)
        else:
            earned_ns = elapsed_ns // self._tuning.straggler_budget_divisor
            self._budget_ns = min(self._tuning.straggler_budget_ns_max, self._budget_ns + earned_ns)
        self._is_waiting = is_wanted and self._budget_ns >= self._tuning.straggler_budget_ns_min
        return now + self._budget_ns if self._is_waiting else None
