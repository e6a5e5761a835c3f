"""The share monitor: finds the owners that make no progress during seeding, so that they do not delay others (R12)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import FileId
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.demand import Demand
from pspd.core.server.pending import Pending
from pspd.core.server.sessions import Sessions
from pspd.core.server.shared_file import SharedFile
from pspd.core.timing.timers import Timers


class Progress(NamedTuple):
    """A snapshot of an owner's progress with a file.

    Attributes:
        session: the number of the owner's session.
        request_number: the highest number of a request for the file that the owner has sent, or named in a report as
            its newest; 0 if there is none.
        delivery_number: the number of the oldest delivery in flight to the owner; 0 if there is none.
        delivery_since: the time since which every snapshot of this session has shown this delivery, in nanoseconds.
    """

    session: int
    request_number: int
    delivery_number: int
    delivery_since: int


@dataclass(slots=True, eq=False)
class ShareMonitor:
    """Takes snapshots of the progress of owners that do not hold all their shares, and compares successive ones.

    Args:
        _sessions: the connected members.
        _demand: the requests of the owners.
        _pending: the pending table, which limits the size of fetches.
        _tuning: the interval of the snapshots, and the longest time for which a delivery may be in flight.
    """

    _sessions: Sessions
    _demand: Demand
    _pending: Pending
    _tuning: ServerTuning
    _timers: Timers[FileId] = field(default_factory=Timers)
    _watched: dict[FileId, tuple[SharedFile, dict[str, Progress]]] = field(default_factory=dict)

    def next_timeout(self) -> int | None:
        """Return when :meth:`find_owners_without_progress` is due, in nanoseconds; None if no file is watched."""
        return self._timers.next_deadline()

    def watch(self, file: SharedFile, now: int) -> None:
        """Watch the owners of a file's shares until the file is no longer in seeding.

        Args:
            file: the file, which is in seeding.
            now: the time, in nanoseconds.
        """
        self._take_snapshots(file, {}, now)

    def find_owners_without_progress(self, now: int) -> list[tuple[SharedFile, list[str]]]:
        """Take the snapshots that are due. Return the names of the owners that made no progress, by file.

        If the call comes late, return no owners, because then the server itself may have delayed them.
        """
        late_ns = now - (self._timers.next_deadline() or now)
        found = []
        for file_id in self._timers.expired(now):
            file, previous = self._watched.pop(file_id)
            if file.phase is Phase.SEEDING:
                without_progress = self._take_snapshots(file, previous, now)
                if late_ns < self._tuning.loop_lag_ns:
                    found.append((file, without_progress))
        return found

    def _take_snapshots(self, file: SharedFile, previous: dict[str, Progress], now: int) -> list[str]:
        """Take a snapshot of each connected owner that does not hold all its shares, and set the timer of the next.

        An owner has made no progress if its request number has not grown since the previous snapshot of the same
        session, or if the same delivery has been the oldest one in flight to it for too long.

        Args:
            file: the file.
            previous: the previous snapshots, by the owner's name.
            now: the time, in nanoseconds.

        Returns:
            The names of the owners that made no progress.
        """
        tuning = self._tuning
        share_chunks = -(-file.manifest.chunk_count // max(1, file.manifest.share_count))
        frame_chunks_max = min(share_chunks, self._pending.fetch_chunks_max)
        delivery_ns = tuning.share_delivery_ns + tuning.share_delivery_ns_per_chunk * frame_chunks_max
        without_progress: list[str] = []
        snapshots: dict[str, Progress] = {}
        self._watched[file.file_id] = file, snapshots
        for member in filter(None, map(self._sessions.members.get, file.shares.unheld_owners())):
            state, last = self._demand.state(member, file), previous.get(member.name)
            progress = Progress(member.session, state.number, next(iter(state.in_flight), 0), now)
            if last is not None and last.session == progress.session:
                if last.delivery_number == progress.delivery_number:
                    progress = progress._replace(delivery_since=last.delivery_since)
                is_stuck = progress.delivery_number != 0 and now - progress.delivery_since >= delivery_ns
                if last.request_number == progress.request_number or is_stuck:
                    without_progress.append(member.name)
            snapshots[member.name] = progress
        interval_ns = tuning.share_check_ns + tuning.share_check_ns_per_member * len(self._sessions.members)
        self._timers.set(file.file_id, now + interval_ns)
        return without_progress
