"""Who takes nothing of its share while a file is seeded: it is not to hold up the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pspd.core.model.manifest import FileId
from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS
from pspd.core.server.file_record import Phase
from pspd.core.server.forwarder import Relay
from pspd.core.server.members import Member
from pspd.core.server.shared_file import SharedFile
from pspd.core.timing.timers import Timers

SHARE_NS, SHARE_NS_PER_MEMBER = 120 * SECOND_NS, 48 * MILLISECOND_NS
"""How long an owner may not ask for the rest of its share: so much, and so much for each member, as clients ask less
often where there are many. Then others are given it."""
SHARE_NS_PER_CHUNK = 62 * MILLISECOND_NS
"""So much longer, for each chunk of a frame, it may not acknowledge what was sent to it, as at 16 KiB/s."""
SHARE_LATE_NS = SECOND_NS
"""A server that looks so late at who has done nothing has not read yet what they did."""


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


class IdleOwners:
    """Looks from time to time at those who lack some of their shares."""

    def __init__(self, files: Mapping[FileId, SharedFile], members: Mapping[str, Member], relay: Relay) -> None:
        self._files = files
        self._members = members
        self._relay = relay
        self._looks: Timers[FileId] = Timers()
        self._progress: dict[FileId, dict[str, Progress]] = {}

    def next_timeout(self) -> int | None:
        """When :meth:`found` is to be asked."""
        return self._looks.next_deadline()

    def watch(self, file: SharedFile, now: int) -> None:
        """A file is being seeded: look at it from now on."""
        self._look(file, {}, now)

    def found(self, now: int) -> list[tuple[SharedFile, list[str]]]:
        """The files at which it was time to look, and who takes nothing of its share; none where it was looked late."""
        late_ns = now - (self._looks.next_deadline() or now)
        found = []
        for file_id in self._looks.expired(now):
            before = self._progress.pop(file_id)
            file = self._files.get(file_id)
            if file is not None and file.phase is Phase.SEEDING:
                idle = self._look(file, before, now)
                found.append((file, idle if late_ns < SHARE_LATE_NS else []))
        return found

    def _look(self, file: SharedFile, before: dict[str, Progress], now: int) -> list[str]:
        """Notes how far everybody is. Returns those that did nothing since before."""
        share_chunks = -(-file.manifest.chunk_count // max(1, file.manifest.share_count))
        patience_ns = SHARE_NS + SHARE_NS_PER_CHUNK * min(share_chunks, self._relay.frame_chunks)
        idle: list[str] = []
        noted = self._progress[file.file_id] = {}
        for member in filter(None, map(self._members.get, file.owners_without())):
            interest, seen = member.interest_in(file), before.get(member.name)
            progress = Progress(member.session, interest.number, next(iter(interest.in_flight), 0), now)
            if seen is not None and seen.session == progress.session:
                if seen.delivery == progress.delivery:
                    progress = progress._replace(delivery_since=seen.delivery_since)
                takes_nothing = progress.delivery != 0 and now - progress.delivery_since >= patience_ns
                if seen.request == progress.request or takes_nothing:
                    idle.append(member.name)
            noted[member.name] = progress
        self._looks.set(file.file_id, now + SHARE_NS + SHARE_NS_PER_MEMBER * len(self._members))
        return idle
