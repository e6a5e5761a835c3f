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
        request: the number of the owner's latest request for the file; 0 if there is none.
        delivery: the number of the oldest delivery in flight to the owner; 0 if there is none.
        delivery_since: the time of the first snapshot with this delivery, in nanoseconds.
    """

    session: int
    request: int
    delivery: int
    delivery_since: int


@dataclass(slots=True, eq=False)
class ShareMonitor:
    """Takes snapshots of the owners whose shares are not held yet, and compares each with the previous one.

    Args:
        _sessions: the members.
        _demand: the requests of the owners.
        _pending: the pending table, which limits the size of frames.
        _tuning: the interval of the snapshots, and the limit for an unacknowledged delivery.
    """

    _sessions: Sessions
    _demand: Demand
    _pending: Pending
    _tuning: ServerTuning
    _timers: Timers[FileId] = field(default_factory=Timers)
    _watched: dict[FileId, tuple[SharedFile, dict[str, Progress]]] = field(default_factory=dict)

    def next_timeout(self) -> int | None:
        """Return when :meth:`idle_owners` is due, in nanoseconds; None if no file is watched."""
        return self._timers.next_deadline()

    def watch(self, file: SharedFile, now: int) -> None:
        """Watch the owners of a file's shares until the file is no longer in seeding.

        Args:
            file: the file, which is in seeding.
            now: the time, in nanoseconds.
        """
        self._compare(file, {}, now)

    def idle_owners(self, now: int) -> list[tuple[SharedFile, list[str]]]:
        """Take the snapshots that are due. Return the names of the owners that made no progress, by file.

        The result is empty if the call comes late: then the server was busy, and the owners are not to blame.
        """
        late_ns = now - (self._timers.next_deadline() or now)
        found = []
        for file_id in self._timers.expired(now):
            file, before = self._watched.pop(file_id)
            if file.phase is Phase.SEEDING:
                idle = self._compare(file, before, now)
                if late_ns < self._tuning.loop_lag_ns:
                    found.append((file, idle))
        return found

    def _compare(self, file: SharedFile, before: dict[str, Progress], now: int) -> list[str]:
        """Take a snapshot of each connected owner whose shares are not held yet, and set the timer of the next ones.

        An owner has made no progress if it sent no request since the previous snapshot of the same session, or if the
        same delivery has been the oldest one in flight to it for too long.

        Args:
            file: the file.
            before: the previous snapshots, by name of the owner.
            now: the time, in nanoseconds.

        Returns:
            The names of the owners that made no progress.
        """
        tuning = self._tuning
        share_chunks = -(-file.manifest.chunk_count // max(1, file.manifest.share_count))
        delivery_ns = tuning.share_ns + tuning.share_ns_per_chunk * min(share_chunks, self._pending.fetch_chunks_max)
        idle: list[str] = []
        noted: dict[str, Progress] = {}
        self._watched[file.file_id] = file, noted
        for member in filter(None, map(self._sessions.members.get, file.shares.unheld_owners())):
            state, seen = self._demand.state(member, file), before.get(member.name)
            progress = Progress(member.session, state.number, next(iter(state.in_flight), 0), now)
            if seen is not None and seen.session == progress.session:
                if seen.delivery == progress.delivery:
                    progress = progress._replace(delivery_since=seen.delivery_since)
                takes_nothing = progress.delivery != 0 and now - progress.delivery_since >= delivery_ns
                if seen.request == progress.request or takes_nothing:
                    idle.append(member.name)
            noted[member.name] = progress
        self._timers.set(file.file_id, now + tuning.share_ns + tuning.share_ns_per_member * len(self._sessions.members))
        return idle
