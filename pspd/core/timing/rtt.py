"""Retransmission timeouts: RFC 6298 with a finer clock, shorter limits, a later backoff, and jitter (R11)."""

from __future__ import annotations

from random import Random

from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS

RTO_INITIAL_NS = 500 * MILLISECOND_NS
RTO_MIN_NS = 50 * MILLISECOND_NS
RTO_MAX_NS = 2 * SECOND_NS
"""The longest timeout before jitter is added, even with backoff, so that one slow round trip does not delay all later
retransmissions."""

_GRANULARITY_NS = MILLISECOND_NS
_JITTER = 0.25

LINEAR_TIMEOUTS = 4
"""After this many expired timeouts in a row, the next one is still not longer, as with Linux's thin streams: five have
the same length. Requests and broadcasts are small datagrams; TCP carries the data, with its own congestion control."""


class RttEstimator:
    """The smoothed round-trip time, its variation, and the retransmission timeout that follows from them.

    Each transmission has a different number, which the answer repeats, so no sample is ambiguous (Karn's rule).

    Args:
        rto_min_ns: the shortest timeout, in nanoseconds.

    Attributes:
        srtt_ns: the smoothed round-trip time, in nanoseconds; 0 before the first sample.
        min_ns: the shortest measured round trip, in nanoseconds; 0 before the first sample.
        timeout_count: the number of timeouts since the last answer.
    """

    __slots__ = ("_rto_min_ns", "_rttvar_ns", "min_ns", "srtt_ns", "timeout_count")

    def __init__(self, rto_min_ns: int = RTO_MIN_NS) -> None:
        self._rto_min_ns = rto_min_ns
        self.srtt_ns = 0
        self.min_ns = 0
        self._rttvar_ns = 0
        self.timeout_count = 0

    def sample(self, rtt_ns: int) -> None:
        """Record a measured round trip, in nanoseconds (RFC 6298, section 2)."""
        if self.srtt_ns == 0:
            self.srtt_ns, self._rttvar_ns, self.min_ns = max(1, rtt_ns), rtt_ns // 2, rtt_ns
            return
        self.min_ns = min(self.min_ns, rtt_ns)
        self._rttvar_ns += (abs(self.srtt_ns - rtt_ns) - self._rttvar_ns) // 4
        self.srtt_ns = max(1, self.srtt_ns + (rtt_ns - self.srtt_ns) // 8)

    def note_timeout(self) -> None:
        """Record that no answer came in time, which may lengthen the next timeout (RFC 6298, rule 5.5)."""
        self.timeout_count += 1

    def note_answer(self) -> None:
        """Record an answer, which ends the backoff (RFC 6298, end of section 5)."""
        self.timeout_count = 0

    @property
    def rto_ns(self) -> int:
        """The timeout without backoff and jitter, in nanoseconds."""
        if self.srtt_ns == 0:
            return RTO_INITIAL_NS
        rto_ns = max(self._rto_min_ns, self.srtt_ns + max(_GRANULARITY_NS, 4 * self._rttvar_ns))
        return min(rto_ns, RTO_MAX_NS)

    def timeout_ns(self, random: Random, timeout_count: int | None = None) -> int:
        """Return how long to wait for the next answer, in nanoseconds.

        The first five timeouts in a row have the same length. Each further one is twice as long as the last, up to
        ``RTO_MAX_NS``. Jitter adds up to a quarter, so that clients that lose datagrams together do not retransmit
        together.

        Args:
            random: the source of jitter.
            timeout_count: the number of timeouts in a row, if the caller counts them; None for the recorded number.
        """
        count = self.timeout_count if timeout_count is None else timeout_count
        backed_off_ns = min(self.rto_ns << min(max(0, count - LINEAR_TIMEOUTS), 16), RTO_MAX_NS)
        return int(backed_off_ns * (1 + _JITTER * random.random()))
