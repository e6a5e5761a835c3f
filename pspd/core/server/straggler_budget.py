"""How long fetches may be stalled for stragglers, before chunks that these still want are evicted.

Clients of equal speed drift apart, because their machines schedule them differently. If a client falls behind by more
than the cache holds, its chunks must be fetched twice; a pause now and then avoids that. But a slow client must not
slow down the fast ones. So pauses use up a budget, which grows by a fraction of the time that passes.
"""

from __future__ import annotations

from dataclasses import dataclass

from pspd.core.model.tuning import ServerTuning


@dataclass(eq=False, slots=True)
class StragglerBudget:
    """The budget of one file."""

    _tuning: ServerTuning
    _budget_ns: int
    _counted_until: int | None = None
    _is_waiting: bool = False

    def wait_until(self, is_wanted: bool, now: int) -> int | None:
        """Decide whether to defer the next fetch.

        Args:
            is_wanted: whether a client that is no straggler wants chunks that the fetch would evict.
            now: the time, in nanoseconds.

        Returns:
            The latest time at which to fetch, in nanoseconds; None to fetch now.
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
