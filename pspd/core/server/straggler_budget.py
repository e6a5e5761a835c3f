"""How long those who are ahead wait for those behind, before what the latter still want is evicted.

Clients of equal speed drift apart by accidents of scheduling; without a pause now and then, whoever falls
behind by more than the cache costs its holder another contribution. But a fast client is not to be slowed
for a slow one: so waiting is paid from a budget that grows by a fraction of the time that passes.
"""

from __future__ import annotations

from pspd.core.model.parameters import MILLISECOND_NS

COURTESY_FRACTION = 3
"""One third of the time may be spent waiting: no client is slowed by more. Measured with 256 MiB to 8 clients on two
cores: an eighth left holders sending 1.17 files in the exchange, a quarter 1.00 to 1.12, a half 1.00."""
BUDGET_MAX_NS = 1000 * MILLISECOND_NS
BUDGET_INITIAL_NS = 250 * MILLISECOND_NS
"""Drift comes in bursts: a busy machine may keep a client from its work for some tenths of a second."""
BUDGET_MIN_NS = MILLISECOND_NS
"""Less than this is not worth a pause."""


class StragglerBudget:
    """The budget of one file."""

    __slots__ = ("_budget_ns", "_counted_until", "_waiting")

    def __init__(self) -> None:
        self._budget_ns = BUDGET_INITIAL_NS
        self._counted_until: int | None = None
        self._waiting = False

    def wait_until(self, wanted: bool, now: int) -> int | None:
        """Whether to hold the next fetch back.

        Args:
            wanted: someone still wants what it would evict.
            now: the time, in nanoseconds.

        Returns:
            Until when at the most; None to go on.
        """
        elapsed_ns = 0 if self._counted_until is None else now - self._counted_until
        self._counted_until = now
        if self._waiting:
            self._budget_ns = max(0, self._budget_ns - elapsed_ns)
        else:
            self._budget_ns = min(BUDGET_MAX_NS, self._budget_ns + elapsed_ns // COURTESY_FRACTION)
        self._waiting = wanted and self._budget_ns >= BUDGET_MIN_NS
        return now + self._budget_ns if self._waiting else None
