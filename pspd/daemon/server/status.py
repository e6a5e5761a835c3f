"""Provides the state of the network for the control API, with the rate and the remaining time of each file."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Collection, Iterable
from typing import NamedTuple

from pspd import __version__
from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import CHUNK_BYTES, FileId
from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS
from pspd.core.model.ranges import RangeSet
from pspd.core.server.machine import ServerMachine
from pspd.core.server.shared_file import SharedFile
from pspd.errors import NotFound
from pspd.net.driver import now_ns
from pspd.rpc.server import status_messages
from pspd.v1 import network_pb2, status_service_pb2

ID_DIGITS_MIN = 4
"""The fewest digits of an id by which a file is found."""
SHOWN_CHARACTERS_MAX = 300
"""The most characters of an unknown name that an error message repeats."""

SAMPLE_SECONDS = 0.5
SAMPLES_MAX = 11
"""The most samples of a file. A rate is the average over the last 5 s: over less time it would change with each frame,
and over more it would hide stalls."""
RATE_SPAN_NS_MIN = 200 * MILLISECOND_NS
"""The shortest time over which a rate is computed: deliveries are counted in whole frames of up to 8 MiB."""


class Sample(NamedTuple):
    """The number of delivered bytes of a file at one time.

    Attributes:
        at: the time in nanoseconds.
        delivered_bytes: how many bytes of the file had been delivered.
    """

    at: int
    delivered_bytes: int


class DeliveryRates:
    """Samples the delivered bytes of each file that is being seeded or exchanged, and computes rates."""

    def __init__(self) -> None:
        self._samples: dict[tuple[FileId, Phase], deque[Sample]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self, files: Collection[SharedFile]) -> None:
        """Sample every `SAMPLE_SECONDS` from now on; `files` is a live view of all files."""
        self.sample(files, now_ns())
        self._timer = asyncio.get_running_loop().call_later(SAMPLE_SECONDS, self.start, files)

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
            if _is_transferring(file):
                key = file.file_id, file.phase
                samples[key] = self._samples.get(key) or deque(maxlen=SAMPLES_MAX)
                samples[key].append(Sample(now, file.traffic.delivered_bytes))
        self._samples = samples

    def rate(self, file: SharedFile, now: int) -> float | None:
        """Return a file's rate in bytes per second; None if the rate is unknown or the file is not being delivered.

        Args:
            file: the file.
            now: the current time in nanoseconds.
        """
        samples = self._samples.get((file.file_id, file.phase))
        if not samples or not _is_transferring(file) or now - samples[0].at < RATE_SPAN_NS_MIN:
            return None
        return (file.traffic.delivered_bytes - samples[0].delivered_bytes) * SECOND_NS / (now - samples[0].at)


def _is_transferring(file: SharedFile) -> bool:
    return file.phase is Phase.SEEDING or (file.phase is Phase.EXCHANGING and not file.is_complete)


def seconds_left(file: SharedFile, names: Collection[str], rate: float | None) -> float | None:
    """Estimate the time until a file is seeded, or until its clients have it.

    Args:
        file: the file.
        names: the clients that accept the file.
        rate: the bytes delivered per second; None if this is unknown.

    Returns:
        The time in seconds. None if the rate is 0 or unknown, or if some chunks have no reachable holder after seeding.
    """
    if not rate or (file.is_stalled and file.phase is not Phase.SEEDING):
        return None
    chunks = 0
    for name in names:
        held = file.availability.held.get(name) or RangeSet()
        if file.phase is Phase.SEEDING:
            share = RangeSet(file.shares.ranges_of(name))
            chunks += share.chunk_count - share.intersection(held).chunk_count
        else:
            chunks += file.manifest.chunk_count - held.chunk_count
    return chunks * CHUNK_BYTES / rate


class StatusMessages:
    """Provides messages about the server, its cache, its clients and its files. The server's uptime begins at creation.

    Args:
        machine: the server's state machine.
        data_port: the UDP and TCP port for data.
    """

    def __init__(self, machine: ServerMachine, data_port: int) -> None:
        self._machine = machine
        self._data_port = data_port
        self._started_at = time.monotonic()
        self._rates = DeliveryRates()
        self._rates.start(machine.catalogue.files.values())

    def close(self) -> None:
        """Stop sampling rates."""
        self._rates.stop()

    @property
    def _shown_files(self) -> list[SharedFile]:
        return [file for file in self._machine.catalogue.files.values() if file.phase is not Phase.REMOVED]

    def find(self, wanted: str) -> SharedFile:
        """Return a file by its name, its id, or a unique beginning of its id, in this order.

        Raises:
            NotFound: no file matches, or several do.
        """
        files = self._shown_files
        found = [file for file in files if file.manifest.name == wanted]
        if not found and len(wanted) >= ID_DIGITS_MIN:
            found = [file for file in files if file.file_id.hex().startswith(wanted.lower())]
        if len(found) != 1:
            raise NotFound(
                f"{'no' if not found else 'more than one'} file {wanted[:SHOWN_CHARACTERS_MAX]!r} in the network:"
                " see `pspctl files`"
            )
        return found[0]

    def cache(self) -> network_pb2.Cache:
        """Return the message for the cache."""
        return status_messages.cache_to_pb(self._machine.cache)

    def clients(self) -> list[network_pb2.Client]:
        """Return the messages for all members, and for clients whose session has ended, sorted by name."""
        return status_messages.clients_to_pb(self._machine)

    def files(self, *, with_clients: bool) -> list[network_pb2.File]:
        """Return the messages for all files, oldest first."""
        return [self.file(file, with_clients=with_clients) for file in self._shown_files]

    def file(self, file: SharedFile, *, with_clients: bool = True) -> network_pb2.File:
        """Return the message for one file.

        Args:
            file: the file.
            with_clients: whether to list the file's clients.
        """
        now = now_ns()
        message = status_messages.file_to_pb(self._machine, file, now, with_clients=with_clients)
        rate = self._rates.rate(file, now)
        eta = seconds_left(file, self._machine.lifecycle.accepting_clients(file), rate)
        if rate is not None:
            message.rate_bytes_per_second = rate
        if eta is not None:
            message.eta_seconds = eta
        return message

    def network(self, address: str, file: str, *, with_clients: bool) -> status_service_pb2.GetStatusResponse:
        """Return the message for the network with all its files, or with one of them.

        Args:
            address: the address of the control API.
            file: the id or name of the only file to show; empty for all files.
            with_clients: whether each file lists its clients.
        """
        files = [self.find(file)] if file else self._shown_files
        server = network_pb2.Server(
            address=address,
            version=__version__,
            profile=self._machine.parameters.profile,
            uptime_seconds=time.monotonic() - self._started_at,
            data_port=self._data_port,
            dropped_counts={reason.value: count for reason, count in self._machine.drop_counts.items()},
        )
        return status_service_pb2.GetStatusResponse(
            server=server,
            cache=self.cache(),
            clients=self.clients(),
            files=[self.file(each, with_clients=with_clients) for each in files],
        )
