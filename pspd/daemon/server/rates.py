"""How fast each file moves, and when it is done at that rate: from counters that are sampled every so often."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import CHUNK_BYTES, FileId
from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS
from pspd.core.model.ranges import RangeSet
from pspd.core.server.shared_file import SharedFile

SAMPLE_SECONDS = 0.5
SAMPLES_MAX = 11
"""The window of a rate: 5 s. Shorter ones follow each frame, longer ones keep a rate after a stall."""
SPAN_NS_MIN = 200 * MILLISECOND_NS
"""A shorter span says nothing of a rate: deliveries are counted by frames of up to 8 MiB."""


class Sample(NamedTuple):
    """The bytes of a file that were delivered at a time, in nanoseconds."""

    at: int
    delivered_bytes: int


class DeliveryRates:
    """Samples how much of each moving file was delivered, for as long as it is started."""

    def __init__(self) -> None:
        self._samples: dict[tuple[FileId, Phase], deque[Sample]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self, files: Callable[[], Iterable[SharedFile]], now_ns: Callable[[], int]) -> None:
        """Samples every `SAMPLE_SECONDS` from now on.

        Args:
            files: gives every file.
            now_ns: the clock.
        """
        self.sample(files(), now_ns())
        self._timer = asyncio.get_running_loop().call_later(SAMPLE_SECONDS, self.start, files, now_ns)

    def stop(self) -> None:
        """Samples no more."""
        if self._timer is not None:
            self._timer.cancel()

    def sample(self, files: Iterable[SharedFile], now: int) -> None:
        """Notes the counters of all files that move; the two phases of a file have nothing to do with each other."""
        samples: dict[tuple[FileId, Phase], deque[Sample]] = {}
        for file in files:
            if _is_moving(file):
                key = file.file_id, file.phase
                samples[key] = self._samples.get(key) or deque(maxlen=SAMPLES_MAX)
                samples[key].append(Sample(now, file.traffic.delivered_bytes))
        self._samples = samples

    def rate(self, file: SharedFile, now: int) -> float | None:
        """Bytes per second that are delivered of a file now; None if it does not move, or not for long enough."""
        samples = self._samples.get((file.file_id, file.phase))
        if not samples or not _is_moving(file) or now - samples[0].at < SPAN_NS_MIN:
            return None
        return (file.traffic.delivered_bytes - samples[0].delivered_bytes) * SECOND_NS / (now - samples[0].at)


def _is_moving(file: SharedFile) -> bool:
    return file.phase is Phase.SEEDING or (file.phase is Phase.EXCHANGING and not file.is_complete)


def seconds_left(file: SharedFile, takers: Collection[str], rate: float | None) -> float | None:
    """Seconds until the file's present phase is over at this rate: its shares are held, or its clients have it.

    Args:
        file: the file.
        takers: names of the clients that want or have it.
        rate: bytes delivered per second; None if it is not known.

    Returns:
        None if that cannot be told: nothing moves, or chunks have no holder.
    """
    if not rate or (file.stalled and file.phase is not Phase.SEEDING):
        return None
    chunks = 0
    for name in takers:
        held = file.availability.held.get(name) or RangeSet()
        if file.phase is Phase.SEEDING:
            share = RangeSet(file.shares.ranges_of(name))
            chunks += share.chunk_count - share.common(held).chunk_count
        else:
            chunks += file.manifest.chunk_count - held.chunk_count
    return chunks * CHUNK_BYTES / rate
