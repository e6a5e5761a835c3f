"""When to give up waiting for an answer: RFC 6298, with a finer clock and a jittered backoff (R11)."""

from __future__ import annotations

from random import Random

from pspd.core.parameters import MILLISECOND_NS, SECOND_NS

RTO_INITIAL_NS = 500 * MILLISECOND_NS
RTO_MIN_NS = 50 * MILLISECOND_NS
RTO_MAX_NS = 2 * SECOND_NS

_GRANULARITY_NS = MILLISECOND_NS
BACKOFF_EXPONENT_MAX = 4
"""A timeout doubles at most so often: a lost datagram of a few bytes is no sign of congestion worth more."""
_JITTER = 0.25


class RttEstimator:
    """Smoothed round-trip time, its variation, and the retransmission timeout made of them.

    Every message that may be sent again has a number of its own, which the answer repeats; so no sample
    is ambiguous, and Karn's rule is kept without leaving samples out.

    Attributes:
        srtt_ns: the smoothed round-trip time; 0 before the first sample.
        min_ns: the shortest round trip seen.
    """

    __slots__ = ("_backoff_exponent", "_rto_min_ns", "_rttvar_ns", "min_ns", "srtt_ns")

    def __init__(self, rto_min_ns: int = RTO_MIN_NS) -> None:
        self._rto_min_ns = rto_min_ns
        self.srtt_ns = 0
        self.min_ns = 0
        self._rttvar_ns = 0
        self._backoff_exponent = 0

    def sample(self, rtt_ns: int) -> None:
        """Takes in a measured round trip (RFC 6298, section 2)."""
        if self.srtt_ns == 0:
            self.srtt_ns, self._rttvar_ns, self.min_ns = max(1, rtt_ns), rtt_ns // 2, rtt_ns
            return
        self.min_ns = min(self.min_ns, rtt_ns)
        self._rttvar_ns += (abs(self.srtt_ns - rtt_ns) - self._rttvar_ns) // 4
        self.srtt_ns = max(1, self.srtt_ns + (rtt_ns - self.srtt_ns) // 8)

    def timed_out(self) -> None:
        """No answer came: wait longer the next time (section 5.5)."""
        self._backoff_exponent = min(self._backoff_exponent + 1, BACKOFF_EXPONENT_MAX)

    def answered(self) -> None:
        """An answer came: the backoff ends (section 5.7)."""
        self._backoff_exponent = 0

    @property
    def rto_ns(self) -> int:
        """The timeout without jitter."""
        if self.srtt_ns == 0:
            base = RTO_INITIAL_NS
        else:
            base = max(self._rto_min_ns, self.srtt_ns + max(_GRANULARITY_NS, 4 * self._rttvar_ns))
        return min(base << self._backoff_exponent, RTO_MAX_NS)

    def timeout_ns(self, random: Random) -> int:
        """The timeout with up to a quarter of jitter, so that those who lost together do not ask together."""
        return int(self.rto_ns * (1 + _JITTER * random.random()))
