"""The lifecycle of files: ends the seeding, starts the exchange, and reassigns shares (R1, R2, R10, R12)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pspd.core.cache.cache import Cache
from pspd.core.effects import server as effects
from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import CHUNK_BYTES, FileId
from pspd.core.server.demand import Demand
from pspd.core.server.forwarder import Forwarder
from pspd.core.server.pending import Pending
from pspd.core.server.sessions import Member, Sessions
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.work_set import WorkSet


@dataclass(slots=True, eq=False)
class Lifecycle:
    """Sends clients their shares, reassigns shares, and takes each divided file from phase to phase.

    Args:
        _sessions: the members.
        _forwarder: the forwarder, which ends the requests and fetches of a file, and drops the file from the cache.
        _demand: the requests.
        _pending: the pending table, with the fetches.
        _cache: the cache.
        _work: the work set, which collects the effects and the marks.

    Attributes:
        files: every file, by id, in the order in which the files were added.
        awaited: names of the clients that were connected before a restart, have not returned, and still have time to
            return.
    """

    _sessions: Sessions
    _forwarder: Forwarder
    _demand: Demand
    _pending: Pending
    _cache: Cache
    _work: WorkSet
    files: dict[FileId, SharedFile] = field(default_factory=dict)
    awaited: set[str] = field(default_factory=set)

    def add(self, file: SharedFile) -> None:
        """Add a file."""
        self.files[file.file_id] = file

    def delete(self, file: SharedFile) -> None:
        """Delete a file with its requests and fetches, so that they do not apply if the file is announced again."""
        self.files.pop(file.file_id, None)
        self._demand.forget(file.file_id)
        self._pending.forget(file.file_id)

    def accepting_clients(self, file: SharedFile, *, only_with_uplink: bool = False) -> list[str]:
        """Return the names of the reachable clients that have not declined a file.

        Args:
            file: the file.
            only_with_uplink: whether to leave out clients that have sent no datagram in their session. They get no
                shares.
        """
        names = self._sessions.clients_with_uplink() if only_with_uplink else self._sessions.reachable_clients()
        declined = file.recipients.decline_reasons
        return [name for name in names if name not in declined] if declined else names

    # -- after a restart

    @property
    def awaits_holders(self) -> bool:
        """Whether awaited clients may hold chunks of some restored file."""
        return any(self._awaits_holders_of(file) for file in self.files.values())

    def _awaits_holders_of(self, file: SharedFile) -> bool:
        return file.was_restored and bool(self.awaited)

    def stop_awaiting(self) -> None:
        """Report that the awaited clients have left. Mark all files, so that these clients lose their shares (R12)."""
        for name in sorted(self.awaited):
            self._work.emit(effects.MemberLeft(name, "it has not come back since the server was restarted"))
        self.awaited.clear()
        for file in self.files.values():
            self._work.mark_owners(file.file_id)

    def restore(self, files: Iterable[SharedFile], awaited: Iterable[str]) -> None:
        """Add the files that were saved before a restart. The owners of a file's shares become its recipients.

        Args:
            files: the files, oldest first.
            awaited: names of the clients that were connected before the restart. While a client is awaited, its shares
                are not reassigned.
        """
        self.awaited.update(awaited)
        for file in files:
            self.add(file)
            owners = [owner for owner in file.shares.owners if owner]
            file.recipients.set_names(owners, self._work.now)
            # An owner that left before the restart may have had the whole file, except during seeding.
            for name in owners if file.phase is not Phase.SEEDING else ():
                if name not in self.awaited:
                    file.recipients.mark_served(name)

    # -- members come and go

    def member_joined(self, member: Member) -> None:
        """Note the holdings of a new member, and mark every file, so that the member gets its assignments."""
        self.awaited.discard(member.name)
        # Files that the member has begun come first, because the space that they need must not go to others.
        for file in sorted(self.files.values(), key=lambda file: file.file_id not in member.held_at_join):
            self.note_held_at_join(file, member)
            self._work.mark_owners(file.file_id, member.name)
            self._work.mark_servable(file.file_id)

    def note_held_at_join(self, file: SharedFile, member: Member) -> None:
        """Note what a member reported about a file when it joined, and whether the member is reachable now.

        Args:
            file: the file.
            member: the member.
        """
        held = member.held_at_join.get(file.file_id)
        chunk_count = file.manifest.chunk_count
        if held is not None and held.stop > chunk_count:  # the report is wrong, because the file has fewer chunks
            held = None
        file.availability.add_arrived(member.name, held.verified if held else ())
        file.recipients.mark_present(member.name)
        if held and held.complete and held.verified.chunk_count == chunk_count:
            file.recipients.mark_complete(member.name)
        if not member.reachable:
            file.shares.clear_acks(member.name)
            file.availability.mark_unreachable(member.name)

    def uplink_confirmed(self) -> None:
        """Mark the files in seeding, because a client whose first datagram has arrived can own shares (R1)."""
        for file in self.files.values():
            if file.phase is Phase.SEEDING:
                self._work.mark_owners(file.file_id)

    def reachability_changed(self, member: Member) -> None:
        """Note in every file that a member became reachable or unreachable, and mark the files for review (R12)."""
        name = member.name
        for file in self.files.values():
            if member.reachable:
                file.availability.mark_reachable(name)
                file.recipients.mark_present(name)
            else:
                file.shares.clear_acks(name)
                file.availability.mark_unreachable(name)
                file.recipients.mark_away(name, self._work.now)
            self._work.mark_owners(file.file_id, name)

    def member_left(self, member: Member) -> None:
        """Note in every file that a member has left. Delete files that it announced, if they are not divided (R12)."""
        name = member.name
        for file in list(self.files.values()):
            self.withdraw(file, name)
        for file in self.files.values():
            file.shares.clear_acks(name)
            file.availability.remove_member(name)
            file.recipients.mark_away(name, self._work.now)
            file.recipients.forget(name)
            self._work.mark_owners(file.file_id)

    def withdraw(self, file: SharedFile, source: str) -> None:
        """Delete a file if it is not divided yet, and this source announced it.

        Args:
            file: the file.
            source: the source's name.
        """
        if file.phase is Phase.ANNOUNCED and file.source == source:
            self.delete(file)

    # -- shares

    def reassign_shares_of(self, file: SharedFile, owners: list[str]) -> None:
        """Reassign the unheld shares of owners that make no progress.

        Do nothing if no other client can get shares, or while clients are awaited.

        Args:
            file: the file.
            owners: the names of the owners that make no progress; the list may be empty.
        """
        keep = [name for name in self.accepting_clients(file) if name not in owners]
        preferred = [name for name in self.accepting_clients(file, only_with_uplink=True) if name not in owners]
        if not owners or not preferred or self.awaited:
            return
        given = file.shares.reassign(keep, preferred)
        self._work.emit(effects.SaveFile(file.record))
        for name in owners:
            self._work.emit(effects.ShareReassigned(file.file_id, file.manifest.name, name))
        self._send_assignments(file, [*given, *owners])

    def _reassign_orphaned(self, file: SharedFile) -> list[str]:
        """During seeding, reassign unheld shares whose owner has left, is unreachable or declined the file.

        Shares without an owner are reassigned too. Awaited clients keep their shares.

        Returns:
            The names of the new owners.
        """
        if file.phase is not Phase.SEEDING:
            return []
        keep = {*self.accepting_clients(file), *self.awaited}
        given = file.shares.reassign(keep, self.accepting_clients(file, only_with_uplink=True))
        if given:
            self._work.emit(effects.SaveFile(file.record))
        return given

    def _send_assignments(self, file: SharedFile, names: Iterable[str]) -> None:
        for name in dict.fromkeys(names):
            member = self._sessions.members.get(name)
            if member is not None:
                self.send_assignment(file, member)

    def send_assignment(self, file: SharedFile, member: Member) -> None:
        """Send a client the manifest of a divided file and, during seeding, the client's shares.

        Args:
            file: the file.
            member: the client; a source is sent nothing.
        """
        if not member.is_source and file.is_divided:
            shares = file.shares.ranges_of(member.name) if file.phase is Phase.SEEDING else ()
            is_exchanging = file.phase is Phase.EXCHANGING
            self._work.emit(effects.Assign(member.session, file.manifest, shares, is_exchanging, file.division))

    # -- phases

    def review(self, file: SharedFile) -> None:
        """Reassign shares of a file if necessary, begin its next phase if it is due, and report stalls and completion.

        A file is seeded when its shares are held and the server has no byte of it. A removed file is deleted when the
        server has no byte of it. Only ``ServerMachine`` calls this, in its ``poll``.
        """
        to_assign = self._work.take_clients_to_assign(file.file_id)
        if to_assign is not None:
            self._send_assignments(file, [*self._reassign_orphaned(file), *to_assign])
        if file.phase is Phase.REMOVED and not self._forwarder.drain(file):
            self.delete(file)
        if not file.is_divided:
            return
        if file.phase is Phase.SEEDING and file.shares.all_held and not self._forwarder.drain(file):
            # ``_end_seeding`` marks the file for another review, before which the source's session ends if it must.
            self._end_seeding(file)
            return
        if file.phase is Phase.SEEDED and not file.held_back:
            self._start_exchange(file)
        self._review_stall(file)
        self._review_completion(file)

    def _end_seeding(self, file: SharedFile) -> None:
        """Note and report that a file is seeded (R2). Mark the source's session to end, unless the source stays."""
        cached_bytes = self._cache.chunks_of(file.file_id) * CHUNK_BYTES
        file.end_seeding(cached_bytes, self._work.now)
        self._work.emit(effects.SaveFile(file.record))
        name, share_count, chunk_count = file.manifest.name, file.manifest.share_count, file.manifest.chunk_count
        self._work.emit(effects.FileSeeded(file.file_id, name, share_count, chunk_count, cached_bytes))
        source = self._sessions.members.get(file.source)
        if source is not None and source.is_source and not file.terms.source_stays:
            self._work.mark_ending(source.session, "the file is seeded", effects.EndCause.SOURCE_DONE)

    def _start_exchange(self, file: SharedFile) -> None:
        file.begin_exchange(self._work.now)
        self._work.emit(effects.SaveFile(file.record))
        for member in self._sessions.members.values():
            if not member.is_source:
                self._work.emit(effects.StartExchange(member.session, file.file_id))

    def _review_stall(self, file: SharedFile) -> None:
        is_stalled = not file.availability.covers_file and not self._awaits_holders_of(file)
        if is_stalled and not file.is_stalled:
            missing = tuple(file.availability.missing_ranges())
            self._work.emit(effects.FileStalled(file.file_id, file.manifest.name, missing))
        if file.is_stalled and not is_stalled:
            self._work.emit(effects.FileResumed(file.file_id, file.manifest.name))
        file.set_stalled(is_stalled)

    def _review_completion(self, file: SharedFile) -> None:
        accepting = self.accepting_clients(file)
        may_complete = file.phase is Phase.EXCHANGING and bool(accepting) and not self._awaits_holders_of(file)
        is_complete = may_complete and file.recipients.all_complete(accepting)
        if is_complete and not file.is_complete:
            self._work.emit(effects.FileCompleted(file.file_id, file.manifest.name, len(accepting)))
        file.set_complete(is_complete, self._work.now)
        for name in file.availability.sources if is_complete else ():
            session = self._sessions.members[name].session
            self._work.mark_ending(session, "every client has the file", effects.EndCause.SOURCE_DONE)
