"""The rate of each file and its remaining time, from counters that are sampled periodically."""

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
"""The window of a rate: 5 s. A shorter one would make it jump with each frame; a longer one would show a stall late."""
SPAN_NS_MIN = 200 * MILLISECOND_NS
"""The shortest time from which a rate is computed, as deliveries are counted in frames of up to 8 MiB."""


class Sample(NamedTuple):
    """The value of a counter at one moment.

    Attributes:
        at: the time in nanoseconds.
        delivered_bytes: how many bytes of the file had been delivered.
    """

    at: int
    delivered_bytes: int


class DeliveryRates:
    """Samples the delivered bytes of each file that is being seeded or exchanged."""

    def __init__(self) -> None:
        self._samples: dict[tuple[FileId, Phase], deque[Sample]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self, files: Callable[[], Iterable[SharedFile]], now_ns: Callable[[], int]) -> None:
        """Sample every `SAMPLE_SECONDS` from now on.

        Args:
            files: returns every file.
            now_ns: the clock.
        """
        self.sample(files(), now_ns())
        self._timer = asyncio.get_running_loop().call_later(SAMPLE_SECONDS, self.start, files, now_ns)

    def stop(self) -> None:
        """Stop sampling."""
        if self._timer is not None:
            self._timer.cancel()

    def sample(self, files: Iterable[SharedFile], now: int) -> None:
        """Sample all files that are being seeded or exchanged; each phase has its own samples.

        Args:
            files: every file.
            now: the current time in nanoseconds.
        """
        samples: dict[tuple[FileId, Phase], deque[Sample]] = {}
        for file in files:
            if _is_moving(file):
                key = file.file_id, file.phase
                samples[key] = self._samples.get(key) or deque(maxlen=SAMPLES_MAX)
                samples[key].append(Sample(now, file.traffic.delivered_bytes))
        self._samples = samples

    def rate(self, file: SharedFile, now: int) -> float | None:
        """Return a file's rate in bytes per second; None if it is unknown or the file is not being delivered.

        Args:
            file: the file.
            now: the current time in nanoseconds.
        """
        samples = self._samples.get((file.file_id, file.phase))
        if not samples or not _is_moving(file) or now - samples[0].at < SPAN_NS_MIN:
            return None
        return (file.traffic.delivered_bytes - samples[0].delivered_bytes) * SECOND_NS / (now - samples[0].at)


def _is_moving(file: SharedFile) -> bool:
    return file.phase is Phase.SEEDING or (file.phase is Phase.EXCHANGING and not file.is_complete)


def seconds_left(file: SharedFile, recipients: Collection[str], rate: float | None) -> float | None:
    """Return the seconds until a file is seeded, or until its clients have it.

    Args:
        file: the file.
        recipients: the names of the clients that need or have the file.
        rate: bytes delivered per second; None if it is unknown.

    Returns:
        The seconds; None if they are unknown because nothing is delivered or some chunks have no holder.
    """
    if not rate or (file.stalled and file.phase is not Phase.SEEDING):
        return None
    chunks = 0
    for name in recipients:
        held = file.availability.held.get(name) or RangeSet()
        if file.phase is Phase.SEEDING:
            share = RangeSet(file.shares.ranges_of(name))
            chunks += share.chunk_count - share.common(held).chunk_count
        else:
            chunks += file.manifest.chunk_count - held.chunk_count
    return chunks * CHUNK_BYTES / rate
