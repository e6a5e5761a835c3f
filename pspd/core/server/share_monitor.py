"""Finds the owners of shares that make no progress while a file is seeded, so that they do not delay the others."""

from __future__ import annotations

from typing import NamedTuple

from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import FileId
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.demand import Demand
from pspd.core.server.files import Files
from pspd.core.server.pending import Pending
from pspd.core.server.sessions import Sessions
from pspd.core.server.shared_file import SharedFile
from pspd.core.timing.timers import Timers


class Progress(NamedTuple):
    """How far the owner of a share is, to be compared later.

    Attributes:
        session: the owner's.
        request: its newest request.
        delivery: the oldest that it has not acknowledged; 0 if there is none.
        delivery_since: since when that is so, as far as was looked; in nanoseconds.
    """

    session: int
    request: int
    delivery: int
    delivery_since: int


class ShareMonitor:
    """Looks from time to time at the owners whose shares are not held.

    Args:
        files: the files.
        sessions: who is connected.
        demand: what the owners have asked for.
        pending: the sizes of frames.
        tuning: how long an owner has time.
    """

    def __init__(
        self, files: Files, sessions: Sessions, demand: Demand, pending: Pending, tuning: ServerTuning
    ) -> None:
        self._files = files
        self._sessions = sessions
        self._demand = demand
        self._pending = pending
        self._tuning = tuning
        self._timers: Timers[FileId] = Timers()
        self._progress: dict[FileId, dict[str, Progress]] = {}

    def next_timeout(self) -> int | None:
        """Return when :meth:`idle_owners` is due."""
        return self._timers.next_deadline()

    def watch(self, file: SharedFile, now: int) -> None:
        """Look at a file from now on.

        Args:
            file: a file that is being seeded.
            now: the time, in nanoseconds.
        """
        self._compare(file, {}, now)

    def idle_owners(self, now: int) -> list[tuple[SharedFile, list[str]]]:
        """Return the owners that make no progress, by file; none if this is called late: the server was busy."""
        late_ns = now - (self._timers.next_deadline() or now)
        found = []
        for file_id in self._timers.expired(now):
            before = self._progress.pop(file_id)
            file = self._files.get(file_id)
            if file is not None and file.phase is Phase.SEEDING:
                idle = self._compare(file, before, now)
                if late_ns < self._tuning.loop_lag_ns:
                    found.append((file, idle))
        return found

    def _compare(self, file: SharedFile, before: dict[str, Progress], now: int) -> list[str]:
        """Note how far every owner is. Return those that made no progress since before."""
        tuning = self._tuning
        share_chunks = -(-file.manifest.chunk_count // max(1, file.manifest.share_count))
        delivery_ns = tuning.share_ns + tuning.share_ns_per_chunk * min(share_chunks, self._pending.frame_chunks)
        idle: list[str] = []
        noted = self._progress[file.file_id] = {}
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
