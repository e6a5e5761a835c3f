"""Windows: limits on the chunks in flight to one peer."""

from __future__ import annotations

from collections import deque

from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS

QUEUE_TIME_NS = 200 * MILLISECOND_NS
"""How long a chunk may wait in queues. A window is the number of chunks that arrive in a round trip plus this time."""
EPOCHS = 8
"""Epochs whose best rate is taken as the rate of the path, so that a short stall does not lower it."""
TIMEOUTS_BEFORE_SHRINKING = 3
"""Timeouts in a row that halve the window. A single timeout means a lost datagram, as TCP carries the data."""

_EPOCH_NS_MIN = 10 * MILLISECOND_NS


def frame_chunks_in(window_chunks: int) -> int:
    """Return the most chunks of one frame: half of the window, so that two frames can be in flight."""
    return max(1, window_chunks // 2)


class Window:
    """A window of the measured rate times the round trip and queue time, as in libtorrent's request queue.

    While the window limits the rate, the product is larger than the window, which then doubles. Once the path is full,
    the rate and the window stay constant.

    Args:
        min_chunks: the smallest window, and the first.
        max_chunks: the largest window.

    Attributes:
        chunks: the size of the window.
    """

    __slots__ = ("_delivered_chunks", "_epoch_start_ns", "_max_chunks", "_min_chunks", "_rates", "_timeouts", "chunks")

    def __init__(self, min_chunks: int, max_chunks: int) -> None:
        self._min_chunks = min_chunks
        self._max_chunks = max_chunks
        self._epoch_start_ns: int | None = None
        self._delivered_chunks = 0
        self._rates: deque[int] = deque(maxlen=EPOCHS)  # chunks per second
        self._timeouts = 0
        self.chunks = min_chunks

    def delivered(self, chunk_count: int, min_rtt_ns: int, now: int) -> None:
        """Record chunks that arrived.

        Args:
            chunk_count: the number of chunks.
            min_rtt_ns: the shortest round trip measured, in nanoseconds.
            now: the time, in nanoseconds.
        """
        self._timeouts = 0
        if self._epoch_start_ns is None:
            self._epoch_start_ns = now
            return
        self._delivered_chunks += chunk_count
        elapsed_ns = now - self._epoch_start_ns
        if elapsed_ns < max(_EPOCH_NS_MIN, min_rtt_ns):
            return
        self._rates.append(self._delivered_chunks * SECOND_NS // elapsed_ns)
        target_chunks = max(self._rates) * (min_rtt_ns + QUEUE_TIME_NS) // SECOND_NS
        self._resize(min(max(target_chunks, self.chunks // 2), self.chunks * 2))
        self._epoch_start_ns = now
        self._delivered_chunks = 0

    def timed_out(self) -> None:
        """Record a timeout. Several in a row halve the window."""
        self.idle()
        self._timeouts += 1
        if self._timeouts >= TIMEOUTS_BEFORE_SHRINKING:
            self._timeouts = 0
            self._rates.clear()
            self._resize(self.chunks // 2)

    def idle(self) -> None:
        """Exclude the time until the next delivery from the rate, because no requests are open."""
        self._epoch_start_ns = None
        self._delivered_chunks = 0

    def _resize(self, chunks: int) -> None:
        self.chunks = min(max(chunks, self._min_chunks), self._max_chunks)
