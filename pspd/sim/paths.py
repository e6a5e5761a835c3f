"""The path between the server and a client: bandwidth, delay, and impairments of datagrams (as in netem)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS

REORDER_DELAYS = 3
"""The delay of a reordered datagram, as a multiple of the usual delay."""


@dataclass(slots=True, eq=False)
class Pipe:
    """One direction of a host's network access, or a disk. It passes bytes at its rate, and queues the rest.

    Attributes:
        rate: the rate in bytes per second; 0 for unlimited.
        free_at: the time at which the queue is empty, in nanoseconds.
        byte_count: the number of bytes accepted so far.
    """

    rate: int = 0
    free_at: int = 0
    byte_count: int = 0

    def transmit(self, byte_count: int, start: int, finish: int = 0) -> tuple[int, int]:
        """Transmit bytes of a TCP connection.

        A slow sender occupies the pipe only for the transmission time of the bytes.

        Args:
            byte_count: the number of bytes, headers included.
            start: the time at which the first byte arrives at the pipe, in nanoseconds.
            finish: the time at which the last byte arrives at the pipe, in nanoseconds; 0 if the same as ``start``.

        Returns:
            The times at which the transmission begins and ends, in nanoseconds.
        """
        begins = max(start, self.free_at)
        self.transmit_datagram(byte_count, start)
        return begins, max(self.free_at, finish)

    def transmit_datagram(self, byte_count: int, now: int) -> None:
        """Transmit a datagram ahead of the queue, and delay the queue by the transmission time of the datagram.

        Args:
            byte_count: the datagram's length, headers included.
            now: the time, in nanoseconds.
        """
        self.free_at = max(now, self.free_at) + (byte_count * SECOND_NS // self.rate if self.rate else 0)
        self.byte_count += byte_count


@dataclass(frozen=True, slots=True)
class Impairments:
    """The delay of a path, and the loss, duplication and reordering of datagrams; equal in both directions.

    Attributes:
        delay_ns: the one-way propagation delay.
        jitter_ns: the upper bound of the random additional delay of each message.
        loss: the fraction of datagrams that are lost.
        burst: the mean length of a burst of losses, in datagrams; 1 for independent losses.
        duplicate: the fraction of datagrams that are duplicated.
        reorder: the fraction of datagrams that take REORDER_DELAYS times the usual delay, so that later datagrams can
            arrive first.
    """

    delay_ns: int = MILLISECOND_NS // 2
    jitter_ns: int = 0
    loss: float = 0.0
    burst: float = 1.0
    duplicate: float = 0.0
    reorder: float = 0.0

    def draw_delay(self, random: Random) -> int:
        """Draw the delay of one message, in nanoseconds."""
        return self.delay_ns + (int(self.jitter_ns * random.random()) if self.jitter_ns else 0)


@dataclass(slots=True, eq=False)
class DatagramPath:
    """One direction of a path. Losses come in bursts, by Gilbert's model.

    Attributes:
        impairments: the impairments of the path.
        random: the source of randomness.
        is_lossy: whether a burst of losses is in progress.
    """

    impairments: Impairments
    random: Random
    is_lossy: bool = False

    def delays(self) -> Iterator[int]:
        """Yield the delay of each copy of a datagram that arrives, in nanoseconds; nothing if all copies are lost."""
        impairments, random = self.impairments, self.random
        for _ in range(2 if impairments.duplicate and random.random() < impairments.duplicate else 1):
            if not self._draw_loss():
                is_late = impairments.reorder and random.random() < impairments.reorder
                yield impairments.draw_delay(random) * (REORDER_DELAYS if is_late else 1)

    def _draw_loss(self) -> bool:
        impairments, random = self.impairments, self.random
        if not impairments.loss:
            return False
        if impairments.burst <= 1:
            return random.random() < impairments.loss
        # The mean burst length gives the probability that a burst ends. The loss rate gives the probability that one
        # begins.
        ends = 1 / impairments.burst
        begins = min(1.0, ends * impairments.loss / max(1e-9, 1 - impairments.loss))
        self.is_lossy = random.random() >= ends if self.is_lossy else random.random() < begins
        return self.is_lossy
