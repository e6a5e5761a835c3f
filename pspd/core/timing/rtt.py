"""When to give up waiting for an answer: RFC 6298, with a finer clock and a jittered backoff (R11)."""

from __future__ import annotations

from random import Random

from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS

RTO_INITIAL_NS = 500 * MILLISECOND_NS
RTO_MIN_NS = 50 * MILLISECOND_NS
RTO_MAX_NS = 2 * SECOND_NS
"""The longest timeout, measured or made by backoff: one round trip of minutes, in a bad time, is not to make every lost
datagram cost minutes."""

_GRANULARITY_NS = MILLISECOND_NS
_JITTER = 0.25

LINEAR_TIMEOUTS = 4
"""So many timeouts in a row leave the timeout as it is, then each doubles it: as Linux does for thin streams.

A request or a broadcast is one small datagram with nothing behind it by which its loss could be seen
earlier, and the bulk of the data flows by TCP, which does its own congestion control."""


class RttEstimator:
    """Smoothed round-trip time, its variation, and the retransmission timeout made of them.

    Every message that may be sent again has a number of its own, which the answer repeats; so no sample
    is ambiguous, and Karn's rule is kept without leaving samples out.

    Attributes:
        srtt_ns: the smoothed round-trip time; 0 before the first sample.
        min_ns: the shortest round trip seen.
        timeout_count: timeouts since the last answer.
    """

    __slots__ = ("_rto_min_ns", "_rttvar_ns", "min_ns", "srtt_ns", "timeout_count")

    def __init__(self, rto_min_ns: int = RTO_MIN_NS) -> None:
        self._rto_min_ns = rto_min_ns
        self.srtt_ns = 0
        self.min_ns = 0
        self._rttvar_ns = 0
        self.timeout_count = 0

    def sample(self, rtt_ns: int) -> None:
        """Takes in a measured round trip (RFC 6298, section 2)."""
        if self.srtt_ns == 0:
            self.srtt_ns, self._rttvar_ns, self.min_ns = max(1, rtt_ns), rtt_ns // 2, rtt_ns
            return
        self.min_ns = min(self.min_ns, rtt_ns)
        self._rttvar_ns += (abs(self.srtt_ns - rtt_ns) - self._rttvar_ns) // 4
        self.srtt_ns = max(1, self.srtt_ns + (rtt_ns - self.srtt_ns) // 8)

    def timed_out(self) -> None:
        """No answer came: the backoff begins or goes on (section 5.5)."""
        self.timeout_count += 1

    def answered(self) -> None:
        """An answer came: the backoff ends (section 5.7)."""
        self.timeout_count = 0

    @property
    def rto_ns(self) -> int:
        """The timeout without backoff and jitter."""
        if self.srtt_ns == 0:
            return RTO_INITIAL_NS
        rto_ns = max(self._rto_min_ns, self.srtt_ns + max(_GRANULARITY_NS, 4 * self._rttvar_ns))
        return min(rto_ns, RTO_MAX_NS)

    def timeout_ns(self, random: Random, timeout_count: int | None = None) -> int:
        """How long to wait now.

        Args:
            random: for up to a quarter of jitter, so that those who lost together do not ask together.
            timeout_count: timeouts in a row, where the caller counts them by message; else those counted here.
        """
        count = self.timeout_count if timeout_count is None else timeout_count
        backed_off_ns = min(self.rto_ns << min(max(0, count - LINEAR_TIMEOUTS), 16), RTO_MAX_NS)
        return int(backed_off_ns * (1 + _JITTER * random.random()))
