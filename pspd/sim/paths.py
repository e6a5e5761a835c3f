"""The path between the server and a client: bandwidth, delay, and impairments of datagrams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS

REORDER_DELAYS = 3
"""A reordered datagram takes this many times the usual delay."""


class Pipe:
    """One direction of one machine's link: bytes pass in order, at the link's rate.

    Attributes:
        rate: bytes per second; 0 for unlimited.
        free_at: when the last accepted byte has passed, in nanoseconds.
        byte_count: how many bytes passed.
    """

    __slots__ = ("byte_count", "free_at", "rate")

    def __init__(self, rate: int = 0) -> None:
        self.rate = rate
        self.free_at = 0
        self.byte_count = 0

    def duration_ns(self, byte_count: int) -> int:
        """Return how long ``byte_count`` bytes take to pass."""
        return byte_count * SECOND_NS // self.rate if self.rate else 0

    def transmit(self, byte_count: int, start: int, finish: int = 0) -> tuple[int, int]:
        """Transmit bytes of a connection; other traffic may pass between them.

        Args:
            byte_count: how many bytes.
            start: when the first byte reaches the pipe, in nanoseconds.
            finish: when the last one does.

        Returns:
            When the first and the last byte have passed, in nanoseconds.
        """
        begins = max(start, self.free_at)
        self.free_at = begins + self.duration_ns(byte_count)
        self.byte_count += byte_count
        return begins, max(self.free_at, finish)

    def transmit_datagram(self, byte_count: int, now: int) -> None:
        """Transmit a datagram ahead of queued bytes, which it delays by its own duration.

        Args:
            byte_count: its length, headers included.
            now: the time, in nanoseconds.
        """
        self.free_at = max(now, self.free_at) + self.duration_ns(byte_count)
        self.byte_count += byte_count


@dataclass(frozen=True, slots=True)
class Impairments:
    """Delay of the path between one client and the server, and what happens to datagrams on it, each way.

    Attributes:
        delay_ns: one-way propagation delay.
        jitter_ns: maximum additional delay, drawn for each message; TCP keeps the order.
        loss: fraction of datagrams lost.
        burst: mean number of losses in a row; 1 for independent losses.
        duplicate: fraction of datagrams duplicated.
        reorder: fraction of datagrams overtaken by later ones.
    """

    delay_ns: int = MILLISECOND_NS // 2
    jitter_ns: int = 0
    loss: float = 0.0
    burst: float = 1.0
    duplicate: float = 0.0
    reorder: float = 0.0

    def delay(self, random: Random) -> int:
        """Return the delay of one message, in nanoseconds."""
        return self.delay_ns + (int(self.jitter_ns * random.random()) if self.jitter_ns else 0)


class DatagramPath:
    """One direction of a path; remembers whether it is in a burst of losses (Gilbert's model)."""

    __slots__ = ("_impairments", "_is_lossy", "_random")

    def __init__(self, impairments: Impairments, random: Random) -> None:
        self._impairments = impairments
        self._random = random
        self._is_lossy = False

    def delays(self) -> Iterator[int]:
        """Return the delay of each copy of one datagram that arrives; nothing if it is lost."""
        impairments, random = self._impairments, self._random
        for _ in range(2 if impairments.duplicate and random.random() < impairments.duplicate else 1):
            if not self._loses():
                is_late = impairments.reorder and random.random() < impairments.reorder
                yield impairments.delay(random) * (REORDER_DELAYS if is_late else 1)

    def _loses(self) -> bool:
        impairments, random = self._impairments, self._random
        if not impairments.loss:
            return False
        if impairments.burst <= 1:
            return random.random() < impairments.loss
        # The mean burst length gives the probability that a burst ends, the loss rate the one that it begins.
        ends = 1 / impairments.burst
        begins = min(1.0, ends * impairments.loss / max(1e-9, 1 - impairments.loss))
        self._is_lossy = random.random() >= ends if self._is_lossy else random.random() < begins
        return self._is_lossy
