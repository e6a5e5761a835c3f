"""What lies between the server and a client: bandwidth, delay, and what becomes of datagrams on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS

BITS_PER_BYTE = 8
REORDER_DELAYS = 3
"""A datagram that is overtaken takes so many times the usual delay."""


class Pipe:
    """One direction of one machine's connection: bytes pass one after the other, at its rate.

    Attributes:
        rate: bytes per second; 0 for one that takes no time.
        free_at: when the last byte that was given to it has passed, in nanoseconds.
        byte_count: how many bytes passed.
    """

    __slots__ = ("byte_count", "free_at", "rate")

    def __init__(self, rate: int = 0) -> None:
        self.rate = rate
        self.free_at = 0
        self.byte_count = 0

    def duration_ns(self, byte_count: int) -> int:
        """How long so many bytes take to pass."""
        return byte_count * SECOND_NS // self.rate if self.rate else 0

    def take(self, byte_count: int, start: int, finish: int = 0) -> tuple[int, int]:
        """Lets bytes pass that come to it from ``start`` to ``finish``; others may pass between them.

        Returns:
            When the first and the last of them are through, in nanoseconds.
        """
        begins = max(start, self.free_at)
        self.free_at = begins + self.duration_ns(byte_count)
        self.byte_count += byte_count
        return begins, max(self.free_at, finish)

    def squeeze_in(self, byte_count: int, now: int) -> None:
        """Lets a datagram pass: it waits for nothing, and what comes after it waits a little longer."""
        self.free_at = max(now, self.free_at) + self.duration_ns(byte_count)
        self.byte_count += byte_count


@dataclass(frozen=True, slots=True)
class Weather:
    """What becomes of datagrams between one client and the server, each way.

    Attributes:
        delay_ns: how long a byte is on its way, one way.
        jitter_ns: by how much longer at most; also of TCP, which keeps the order.
        loss: how many datagrams are lost, of 1.
        burst: how many are lost in a row on average; 1 for losses that know nothing of each other.
        duplicate: how many come twice, of 1.
        reorder: how many are overtaken by later ones, of 1.
    """

    delay_ns: int = MILLISECOND_NS // 2
    jitter_ns: int = 0
    loss: float = 0.0
    burst: float = 1.0
    duplicate: float = 0.0
    reorder: float = 0.0

    def delay(self, random: Random) -> int:
        """The delay of one message, in nanoseconds."""
        return self.delay_ns + (int(self.jitter_ns * random.random()) if self.jitter_ns else 0)


class Air:
    """One direction of the datagrams' way; remembers whether it is in a burst of loss (Gilbert's model)."""

    __slots__ = ("_is_lossy", "_random", "weather")

    def __init__(self, weather: Weather, random: Random) -> None:
        self.weather = weather
        self._random = random
        self._is_lossy = False

    def copies(self) -> Iterator[int]:
        """The delays of the copies of one datagram that arrive; none if it is lost."""
        weather, random = self.weather, self._random
        for _ in range(2 if weather.duplicate and random.random() < weather.duplicate else 1):
            if not self._loses():
                overtaken = weather.reorder and random.random() < weather.reorder
                yield weather.delay(random) * (REORDER_DELAYS if overtaken else 1)

    def _loses(self) -> bool:
        weather, random = self.weather, self._random
        if not weather.loss:
            return False
        if weather.burst <= 1:
            return random.random() < weather.loss
        # Of a burst's length follows how it ends, of the share of time in bursts how it begins.
        ends = 1 / weather.burst
        begins = min(1.0, ends * weather.loss / max(1e-9, 1 - weather.loss))
        self._is_lossy = random.random() >= ends if self._is_lossy else random.random() < begins
        return self._is_lossy
