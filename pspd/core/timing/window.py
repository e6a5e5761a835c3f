"""How many chunks may be on their way to someone at a time."""

from __future__ import annotations

from collections import deque

from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS

QUEUE_TIME_NS = 200 * MILLISECOND_NS
"""How long a chunk may wait in queues: a window holds what arrives in a round trip and this time."""
EPOCHS = 8
"""The path's rate is the best of so many epochs: a stall for a lost datagram does not make it narrower."""
TIMEOUTS_BEFORE_SHRINKING = 3
"""Data comes by TCP, so one timeout tells of a lost datagram, not of a full path; several in a row may."""

_EPOCH_NS_MIN = 10 * MILLISECOND_NS


def frame_chunks_in(window_chunks: int) -> int:
    """The most chunks of one frame in a window: while one is on its way the next is fetched."""
    return max(1, window_chunks // 2)


class Window:
    """A cap of rate times queue time, as in libtorrent's request queue.

    While the window is what limits the rate, the cap lies above it and it doubles; once the path is
    full, the rate stands still and so does the window.
    """

    __slots__ = (
        "_delivered_chunks",
        "_epoch_start_ns",
        "_max_chunks",
        "_min_chunks",
        "_rates",
        "_timeouts",
        "chunks",
    )

    def __init__(self, min_chunks: int, max_chunks: int) -> None:
        self._min_chunks = min_chunks
        self._max_chunks = max_chunks
        self._epoch_start_ns: int | None = None
        self._delivered_chunks = 0
        self._rates: deque[int] = deque(maxlen=EPOCHS)  # chunks per second
        self._timeouts = 0
        self.chunks = min_chunks

    def delivered(self, chunk_count: int, min_rtt_ns: int, now: int) -> None:
        """Chunks arrived; ``min_rtt_ns`` is the shortest round trip seen."""
        self._timeouts = 0
        if self._epoch_start_ns is None:
            self._epoch_start_ns = now
            return
        self._delivered_chunks += chunk_count
        elapsed_ns = now - self._epoch_start_ns
        if elapsed_ns < max(_EPOCH_NS_MIN, min_rtt_ns):
            return
        self._rates.append(self._delivered_chunks * SECOND_NS // elapsed_ns)
        cap_chunks = max(self._rates) * (min_rtt_ns + QUEUE_TIME_NS) // SECOND_NS
        self._resize(min(max(cap_chunks, self.chunks // 2), self.chunks * 2))
        self._epoch_start_ns = now
        self._delivered_chunks = 0

    def timed_out(self) -> None:
        """Nothing arrived in time: the wait is no measure of the rate; several in a row halve the window."""
        self.idle()
        self._timeouts += 1
        if self._timeouts >= TIMEOUTS_BEFORE_SHRINKING:
            self._timeouts = 0
            self._rates.clear()
            self._resize(self.chunks // 2)

    def idle(self) -> None:
        """Nothing is wanted for a while: the time until the next delivery says nothing of the rate."""
        self._epoch_start_ns = None
        self._delivered_chunks = 0

    def _resize(self, chunks: int) -> None:
        self.chunks = min(max(chunks, self._min_chunks), self._max_chunks)
