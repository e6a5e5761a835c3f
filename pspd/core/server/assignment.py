"""Assignment: which clients take a file, which shares they get, and what they are told of it (R1, R12)."""

from __future__ import annotations

from collections.abc import Iterable

from pspd.core.effects.server import Assign, ClientLost, SaveFile, ShareReassigned
from pspd.core.model.file_record import Phase
from pspd.core.server.files import Files
from pspd.core.server.member import Member
from pspd.core.server.sessions import Sessions
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.work_set import WorkSet


class Assignment:
    """Keeps the shares of every file with clients that are there.

    Args:
        files: the files.
        sessions: who is connected.
        work: takes the effects and the marks.
    """

    def __init__(self, files: Files, sessions: Sessions, work: WorkSet) -> None:
        self._files = files
        self._sessions = sessions
        self._work = work
        self._awaited: set[str] = set()

    # -- reading

    def takers_of(self, file: SharedFile) -> list[str]:
        """Return the names of the reachable clients that want or have a file: all that did not decline it."""
        return self._without_declined(self._sessions.client_names(), file)

    def _heard_takers_of(self, file: SharedFile) -> list[str]:
        return self._without_declined(self._sessions.heard_names(), file)

    def _without_declined(self, names: list[str], file: SharedFile) -> list[str]:
        declined = file.recipients.declined
        return [name for name in names if name not in declined] if declined else names

    # -- after a restart

    @property
    def awaits_members(self) -> bool:
        """Whether clients that were connected before a restart still have time to come back."""
        return bool(self._awaited)

    def awaits_holders(self, file: SharedFile) -> bool:
        """Whether it is not known yet, after a restart, who holds what of a file."""
        return file.was_restored and bool(self._awaited)

    def restore(self, file: SharedFile, now: int) -> None:
        """Expect the owners of a file that was saved before a restart.

        Args:
            file: the file.
            now: the time, in nanoseconds.
        """
        # A client that was away before the restart may have completed a file that was seeded.
        is_seeding = file.phase is Phase.SEEDING
        owners = [owner for owner in file.shares.owners if owner]
        file.recipients.expect(owners, now)
        for name in owners:
            if not (is_seeding or name in self._awaited):
                file.recipients.served(name)

    def await_members(self, names: Iterable[str]) -> None:
        """Give clients that were connected before a restart time to come back: nobody else gets their shares."""
        self._awaited = set(names)

    def stop_awaiting(self) -> None:
        """Take those who have not come back for lost (R12)."""
        for name in sorted(self._awaited):
            self._work.emit(ClientLost(name, "it has not come back since the server was restarted"))
        self._awaited.clear()
        for file in self._files.all():
            self._work.takers_changed(file.file_id)

    # -- members come and go

    def member_joined(self, member: Member) -> None:
        """Take note of what a new member holds, and have it told of every file."""
        self._awaited.discard(member.name)
        # What it has already comes first: its room must not be promised to another file.
        for file in sorted(self._files.all(), key=lambda file: file.file_id not in member.told):
            self.note_told(file, member)
            self._work.takers_changed(file.file_id, member.name)
            self._work.serve_waiters(file.file_id)

    def note_told(self, file: SharedFile, member: Member) -> None:
        """Take note of what a member said at joining that it holds of a file.

        Args:
            file: the file.
            member: the member.
        """
        known = member.told.get(file.file_id)
        chunk_count = file.manifest.chunk_count
        if known is not None and known.stop > chunk_count:  # the holding is of some other file
            known = None
        file.availability.hold(member.name, known.verified if known else ())
        file.recipients.mark_present(member.name)
        if known and known.complete and known.verified.chunk_count == chunk_count:
            file.recipients.mark_complete(member.name)
        if not member.reachable:
            file.shares.clear_acks(member.name)
            file.availability.mark_unreachable(member.name)

    def member_heard(self) -> None:
        """Give shares without an owner to a client whose first datagram came (R1)."""
        for file in self._files.all():
            if file.phase is Phase.SEEDING:
                self._work.takers_changed(file.file_id)

    def reach_changed(self, member: Member) -> None:
        """Note that a member became reachable, or that what it holds is not available until it is (R12)."""
        name = member.name
        for file in self._files.all():
            if member.reachable:
                file.availability.mark_reachable(name)
                file.recipients.mark_present(name)
            else:
                file.shares.clear_acks(name)
                file.availability.mark_unreachable(name)
                file.recipients.mark_away(name, self._work.now)
            self._work.takers_changed(file.file_id, name)

    def member_left(self, member: Member) -> None:
        """Note that a member is gone: a share that it had not got goes to another (R12)."""
        name = member.name
        for file in self._files.all():
            file.shares.clear_acks(name)
            file.availability.depart(name)
            file.recipients.mark_away(name, self._work.now)
            file.recipients.forget(name)
            self._work.takers_changed(file.file_id)

    # -- shares

    def review(self, file: SharedFile, to_tell: Iterable[str]) -> None:
        """Give the shares of clients that are gone to others, and tell those.

        Args:
            file: the file.
            to_tell: names of clients to tell of their shares in any case.
        """
        given: list[str] = []
        if file.phase is Phase.SEEDING:
            takers = self.takers_of(file)
            keep = {*takers, *self._awaited} if self._awaited else takers
            given = file.shares.reassign(keep, self._heard_takers_of(file))
            if given:
                self._work.emit(SaveFile(file.record))
        self._tell(file, [*given, *to_tell])

    def reassign_from(self, file: SharedFile, idle: list[str]) -> None:
        """Give the shares of clients that make no progress to others, if there are others.

        Args:
            file: the file.
            idle: the clients' names.
        """
        takers = [name for name in self.takers_of(file) if name not in idle]
        preferred = [name for name in self._heard_takers_of(file) if name not in idle]
        if not idle or not preferred or self._awaited:
            return
        given = file.shares.reassign(takers, preferred)
        self._work.emit(SaveFile(file.record))
        for name in idle:
            self._work.emit(ShareReassigned(file.file_id, file.manifest.name, name))
        self._tell(file, [*given, *idle])

    def _tell(self, file: SharedFile, names: Iterable[str]) -> None:
        for name in dict.fromkeys(names):
            member = self._sessions.members.get(name)
            if member is not None:
                self.tell(file, member)

    def tell(self, file: SharedFile, member: Member) -> None:
        """Tell a member of a file and of its share.

        Args:
            file: the file.
            member: the member.
        """
        if not member.source and file.is_divided:
            shares = file.shares.ranges_of(member.name) if file.phase is Phase.SEEDING else ()
            is_exchanging = file.phase is Phase.EXCHANGING
            self._work.emit(Assign(member.session, file.manifest, shares, is_exchanging, file.division))
