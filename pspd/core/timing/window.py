"""Windows: limits on the chunks that are in flight to one client, or asked of one holder, at a time."""

from __future__ import annotations

from collections import deque

from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS

QUEUE_TIME_NS = 200 * MILLISECOND_NS
"""How long a chunk may wait in queues. A window is the measured rate times the sum of this time and a round trip."""
EPOCHS = 8
"""The number of epochs (measuring intervals) whose highest rate counts as the rate of the path, so that a short stall
does not lower the rate."""
TIMEOUTS_BEFORE_SHRINKING = 3
"""The number of timeouts in a row that halve the window. A single timeout means only a lost datagram, because TCP
carries the data."""

_EPOCH_NS_MIN = 10 * MILLISECOND_NS


def frame_chunks_max(window_chunks: int) -> int:
    """Return the most chunks of one frame: half of a window, so that two frames can be in flight, but at least 1."""
    return max(1, window_chunks // 2)


class Window:
    """A window that adapts: the measured rate times the sum of round trip and queue time, as in libtorrent.

    While the window limits the rate, this product is larger than the window, so the window grows. When the
    path is fully used, the rate and the window stay constant. At the end of an epoch, the window at most doubles or
    halves.

    Args:
        min_chunks: the smallest window, which is also the initial one.
        max_chunks: the largest window.

    Attributes:
        chunks: the size of the window, in chunks.
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

    def note_delivery(self, chunk_count: int, min_rtt_ns: int, now: int) -> None:
        """Record chunks that arrived; at the end of an epoch, resize the window.

        The first call of all, and the first after an idle time or a timeout, only begins an epoch: its chunks are not
        measured.

        Args:
            chunk_count: the number of chunks.
            min_rtt_ns: the shortest measured round trip, in nanoseconds.
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

    def note_timeout(self) -> None:
        """Record a timeout, and discard the current epoch.

        :data:`TIMEOUTS_BEFORE_SHRINKING` timeouts in a row halve the window, and discard all measured rates.
        """
        self.discard_epoch()
        self._timeouts += 1
        if self._timeouts >= TIMEOUTS_BEFORE_SHRINKING:
            self._timeouts = 0
            self._rates.clear()
            self._resize(self.chunks // 2)

    def discard_epoch(self) -> None:
        """Discard the current epoch. The next one begins at the next delivery, so idle time does not lower the rate."""
        self._epoch_start_ns = None
        self._delivered_chunks = 0

    def _resize(self, chunks: int) -> None:
        self.chunks = min(max(chunks, self._min_chunks), self._max_chunks)
