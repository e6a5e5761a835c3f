"""Hellos: they announce the client's datagram address, and their answers show whether the server's datagrams arrive."""

from __future__ import annotations

from random import Random

from pspd.core.model.parameters import MILLISECOND_NS
from pspd.core.model.tuning import ClientTuning
from pspd.core.timing.rtt import RttEstimator
from pspd.core.wire.datagrams import HELLO_NUMBER_MAX, Hello, HelloAck

_SRTT_US_MAX = 2**32 - 1


class Hellos:
    """The hellos of one client, and the state of its downlink: the path of datagrams from the server.

    Args:
        tuning: the client's tunables.
        random: the source of jitter.

    Attributes:
        rtt: the round trips of hellos, which do not include the server's fetches.
        downlink_ok: whether a datagram has arrived from the server recently, in this session.
        interval_ns: the time between hellos that the server asks for, within bounds, in nanoseconds; 0 if unknown.
    """

    def __init__(self, tuning: ClientTuning, random: Random) -> None:
        self.rtt = RttEstimator()
        self.downlink_ok = False
        self.interval_ns = 0
        self._tuning = tuning
        self._random = random
        self._number = 0
        self._sent_at: int | None = None  # of the last hello, until it is answered
        self._received_at = 0
        self._reported_ok = False  # whether the last hello reported that the downlink works
        self._is_lost = False  # whether the downlink is marked as lost

    @property
    def is_downlink_confirmed(self) -> bool:
        """Whether the server knows that the downlink works, so that the next hello can wait for its interval."""
        return self._reported_ok and self._sent_at is None

    def start_session(self, now: int) -> None:
        """Begin a session. Until a datagram of this session arrives, the downlink does not count as working."""
        self._sent_at = None
        self._received_at = now
        self.downlink_ok = False

    def next_hello(self, session: int, now: int) -> Hello:
        """Return the next hello, and start waiting for the answer. Record a timeout if the last hello is unanswered.

        Args:
            session: the number of the client's session.
            now: the time, in nanoseconds.
        """
        if self._sent_at is not None:
            self.rtt.note_timeout()
        self._number = self._number % HELLO_NUMBER_MAX + 1
        self._sent_at = now
        self._reported_ok = self.downlink_ok
        srtt_us = min(max(1, self.rtt.srtt_ns // 1000), _SRTT_US_MAX) if self.downlink_ok else 0
        return Hello(session, self._number, srtt_us)

    def timeout_ns(self) -> int:
        """Return how long to wait for the answer to the last hello, in nanoseconds.

        Before the first answer, the first ``hellos_without_backoff`` timeouts have no backoff.
        """
        is_early = self.rtt.srtt_ns == 0 and self.rtt.timeout_count < self._tuning.hellos_without_backoff
        return self.rtt.timeout_ns(self._random, 0 if is_early else None)

    def detect_downlink_loss(self, now: int) -> bool:
        """Mark the downlink as lost if no datagram has arrived for too long; return whether this call marked it."""
        tuning = self._tuning
        limit_ns = max(tuning.downlink_timeout_ns, tuning.hellos_per_downlink_timeout * self.interval_ns)
        if now - self._received_at < limit_ns:
            return False
        self.downlink_ok = False
        was_lost, self._is_lost = self._is_lost, True
        return not was_lost

    def note_datagram(self, now: int) -> bool:
        """Record a datagram from the server; return whether the downlink was marked as lost until now."""
        self._received_at, self.downlink_ok = now, True
        was_lost, self._is_lost = self._is_lost, False
        return was_lost

    def note_ack(self, ack: HelloAck, now: int) -> bool:
        """Record the answer to a hello.

        Args:
            ack: the answer.
            now: the time, in nanoseconds.

        Returns:
            Whether the answer is valid. False if it does not answer the last hello, or answers it again.
        """
        if ack.number != self._number or self._sent_at is None:
            return False
        self.rtt.sample(now - self._sent_at)
        self.rtt.note_answer()
        self._sent_at = None
        wanted_ns = min(ack.hello_interval_ms * MILLISECOND_NS, self._tuning.retry_after_ns_max)
        self.interval_ns = max(self._tuning.hello_interval_ns_min, wanted_ns)
        return True
