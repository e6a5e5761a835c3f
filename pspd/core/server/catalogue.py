"""The files of the network, and the way of each: announced, divided, seeded, exchanged, complete (R1, R2, R10)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from pspd.core.cache.cache import Cache
from pspd.core.effects.server import (
    Assign,
    ClientHeard,
    ClientLost,
    EndCause,
    FileCompleted,
    FileDeclined,
    FileDivided,
    FileRemoved,
    FileResumed,
    FileSeeded,
    FileStalled,
    RemoveFile,
    SaveFile,
    ServerEffect,
    ShareReassigned,
    StartExchange,
)
from pspd.core.effects.shared import Milestone
from pspd.core.model.manifest import CHUNK_BYTES, SHARE_COUNT_MAX, FileId, Manifest
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.terms import ONE_COPY, Terms
from pspd.core.server.file_record import FileRecord, Phase
from pspd.core.server.forwarder import Relay
from pspd.core.server.members import Member
from pspd.core.server.share_monitor import IdleOwners
from pspd.core.server.shared_file import SharedFile
from pspd.errors import LimitReached, NameTaken, NotFound, SessionUnknown, WrongState
from pspd.text.sizes import size_text

FILES_MAX = 10_000
MANIFESTS_BYTES_MAX = 2 * 1024**3
"""The block digests of all files together, in bytes: the server keeps every manifest in memory."""
REFUSAL_CHARACTERS_MAX = 300


class Catalogue:
    """Every file of the network, by id. Commands raise ``PspError`` when refused.

    Args:
        files: where they are kept; empty at first.
        members: who is connected, by name.
        member_of: finds the member of a session, or raises ``SessionUnknown``.
        end_session: ends a member's session, for a reason and a cause, at a time: a source's when it is not needed.
    """

    def __init__(
        self,
        files: dict[FileId, SharedFile],
        members: dict[str, Member],
        member_of: Callable[[int], Member],
        cache: Cache,
        relay: Relay,
        emit: Callable[[ServerEffect], None],
        end_session: Callable[[Member, str, EndCause, int], None],
    ) -> None:
        self.files = files
        self._members = members
        self._member_of = member_of
        self._cache = cache
        self._relay = relay
        self._emit = emit
        self._end_session = end_session
        self._client_names: list[str] | None = None
        self._heard_names: list[str] | None = None
        self._awaited: set[str] = set()
        self._divisions = itertools.count(1)
        self._idle_owners = IdleOwners(files, members, relay)

    # -- time

    def next_timeout(self) -> int | None:
        """When :meth:`handle_timeout` is due."""
        return self._idle_owners.next_timeout()

    def handle_timeout(self, now: int) -> None:
        """Passes over those who take nothing of their shares."""
        for file, idle in self._idle_owners.found(now):
            if not self._awaited:
                self._pass_over(file, idle, now)

    def _pass_over(self, file: SharedFile, idle: list[str], now: int) -> None:
        """Gives what some do not take to those others that there are; nobody waits for them then."""
        takers = [name for name in self.takers_of(file) if name not in idle]
        preferred = [name for name in self._heard_takers_of(file) if name not in idle]
        if not idle or not preferred:
            return
        given = file.reassign(takers, preferred)
        self._emit(SaveFile(file.record))
        for name in idle:
            self._emit(ShareReassigned(file.file_id, file.manifest.name, name))
        for name in dict.fromkeys([*given, *idle]):
            if name in self._members:
                self._assign(self._members[name], file)
        self.review(file, now)
        self._relay.serve_soon(now)

    # -- after a restart

    def restore(self, records: Iterable[FileRecord], awaited: Iterable[str], now: int) -> None:
        """Takes up what was written down before the server was restarted.

        Until :meth:`stop_awaiting`, or until all who were connected then are back, nobody else gets their shares, and
        a file is neither stalled nor complete without them.
        """
        self._awaited = set(awaited)
        for record in records:
            file = self.files[record.file_id] = SharedFile.restored(record, next(self._divisions), now)
            # A client that was away before the restart may have completed a file that was seeded.
            is_seeding = file.phase is Phase.SEEDING
            file.recipients.expect(filter(None, record.owners), now)
            for name in record.owners:
                if not (is_seeding or name in self._awaited):
                    file.recipients.served(name)
            if file.phase is Phase.SEEDING:
                self._idle_owners.watch(file, now)

    @property
    def awaits_members(self) -> bool:
        """Whether some who were connected before a restart are given time to come back."""
        return bool(self._awaited)

    @property
    def awaits_holders(self) -> bool:
        """Whether it is not known yet, after a restart, who holds what of some file."""
        return any(map(self._awaits_holders, self.files.values()))

    def _awaits_holders(self, file: SharedFile) -> bool:
        return file.was_restored and bool(self._awaited)

    def stop_awaiting(self, now: int) -> None:
        """Who has not come back by now counts as lost (R12)."""
        for name in sorted(self._awaited):
            self._emit(ClientLost(name, "it has not come back since the server was restarted"))
        self._awaited.clear()
        for file in list(self.files.values()):
            self._assign_again(file)
            self.review(file, now)
        self._relay.serve_soon(now)

    # -- members come and go

    def member_joined(self, member: Member, now: int) -> None:
        """Learns what a new member holds, and tells it of every file."""
        self._forget_names()
        self._awaited.discard(member.name)
        # What it has already comes first: that is not to find its room promised to another.
        for file in sorted(self.files.values(), key=lambda file: file.file_id not in member.told):
            self._take_in(file, member)
            for name in dict.fromkeys([*self._reassign_shares(file), member.name]):
                self._assign(self._members[name], file)
            self.review(file, now)
            self._relay.wake(file)
        self._relay.serve_soon(now)

    def member_heard(self, member: Member, now: int) -> None:
        """Gives shares without an owner to a client whose first datagram arrived (R1)."""
        self._forget_names()
        if member.source:
            return
        self._emit(ClientHeard(member.name))
        for file in list(self.files.values()):
            if file.phase is Phase.SEEDING:
                self._assign_again(file)
                self.review(file, now)
        self._relay.serve_soon(now)

    def reach_changed(self, member: Member, now: int) -> None:
        """What a member out of reach holds cannot be had, its share goes to another, and nobody waits for it (R12)."""
        self._forget_names()
        for file in list(self.files.values()):
            if member.in_reach:
                file.come_back(member.name)
                file.recipients.is_here(member.name)
                self._relay.wake(file)
            else:
                file.go_away(member.name)
                file.recipients.is_away(member.name, now)
            names = dict.fromkeys([*self._reassign_shares(file), member.name])
            for taker in filter(None, map(self._members.get, names)):
                self._assign(taker, file)
            self.review(file, now)
        self._relay.serve_soon(now)

    def _take_in(self, file: SharedFile, member: Member) -> None:
        """Counts what a member said at joining that it holds of a file."""
        known = member.told.get(file.file_id)
        chunk_count = file.manifest.chunk_count
        if known is not None and known.stop > chunk_count:  # the holding is of some other file
            known = None
        file.hold(member.name, known.verified if known else ())
        file.recipients.is_here(member.name)
        if known and known.complete and known.verified.chunk_count == chunk_count:
            file.complete.add(member.name)
            file.recipients.served(member.name)
        if not member.in_reach:
            file.go_away(member.name)

    def member_left(self, member: Member, now: int) -> None:
        """What a member held is out of reach; a share that it had not got goes to another (R12)."""
        self._forget_names()
        for file in list(self.files.values()):
            self.withdraw(file, member.name)
            file.depart(member.name)
            file.recipients.is_away(member.name, now)
            file.complete.discard(member.name)
            file.declined.pop(member.name, None)
            self._assign_again(file)
            self.review(file, now)

    # -- a file's way

    def announce(self, manifest: Manifest, session: int, terms: Terms = ONE_COPY) -> SharedFile:
        """A source tells of its file. A file that is known already is taken up where it stands.

        Raises:
            LimitReached: the network has too many files, or their manifests are too large.
            NameTaken: another file has the name.
            WrongState: another source is seeding it right now, or the session is not a source's.
        """
        source = self._source_of(session)
        file = self.files.get(manifest.file_id)
        if file is None:
            for other in self.files.values():
                if other.manifest.name == manifest.name:
                    raise NameTaken(_name_taken(manifest, other.manifest))
            if len(self.files) >= FILES_MAX:
                raise LimitReached(f"the network has its most files ({FILES_MAX}) already")
            manifests_bytes = sum(len(other.manifest.block_digests) for other in self.files.values())
            if manifests_bytes + len(manifest.block_digests) > MANIFESTS_BYTES_MAX:
                raise LimitReached(
                    f"the manifest of {manifest.name!r} and those of the network's files would take more than"
                    f" {size_text(MANIFESTS_BYTES_MAX)}: take files out with `pspctl rm`"
                )
            file = self.files[manifest.file_id] = SharedFile(manifest, source.name, next(self._divisions))
            for member in self._members.values():
                self._take_in(file, member)
        elif (
            file.phase in (Phase.ANNOUNCED, Phase.SEEDING)
            and (seeding := self._members.get(file.source)) is not None
            and seeding.in_reach
            and seeding is not source
        ):
            raise WrongState(
                f"{manifest.name!r} is being seeded already: wait for it with `pspctl wait {manifest.name}`"
            )
        if file.phase is Phase.REMOVED:
            raise WrongState(f"{manifest.name!r} is still being removed: try again in a moment")
        if file.phase is Phase.ANNOUNCED:
            file.source = source.name
        file.terms = terms if file.phase is Phase.ANNOUNCED else replace(file.terms, stays=terms.stays)
        return file

    def _source_of(self, session: int) -> Member:
        member = self._member_of(session)
        if not member.source:
            raise WrongState(f"{member.name!r} joined as a client: join as a source to bring in a file")
        return member

    def source_returned(self, file: SharedFile, session: int, now: int) -> None:
        """A source of a file that was divided already offers every chunk again: repair."""
        source = self._member_of(session)
        if file.phase is Phase.SEEDING:
            if file.source != source.name:
                file.seeding_at = now  # another attempt: the time since the last one is no part of it
            file.source = source.name
        file.lend(source.name)
        self._relay.wake(file)
        self.review(file, now)
        self._relay.serve_soon(now)

    def withdraw(self, file: SharedFile, source: str) -> None:
        """A file that this source announced, and nobody divided, is as if it had never been."""
        if file.phase is Phase.ANNOUNCED and file.source == source:
            self._delete(file)

    def _delete(self, file: SharedFile) -> None:
        """Forgets a file and all requests for it, because requests belong to one division."""
        self.files.pop(file.file_id, None)
        for member in self._members.values():
            member.interests.pop(file.file_id, None)

    def client_names(self) -> list[str]:
        """Names of the connected clients that are in reach, in the order in which they joined."""
        if self._client_names is None:
            self._client_names = [m.name for m in self._members.values() if m.in_reach and not m.source]
        return self._client_names

    def heard_names(self) -> list[str]:
        """Returns the names of clients in reach that sent a datagram in this session: only these get shares."""
        if self._heard_names is None:
            self._heard_names = [name for name in self.client_names() if self._members[name].address is not None]
        return self._heard_names

    def _forget_names(self) -> None:
        self._client_names = self._heard_names = None

    def _heard_takers_of(self, file: SharedFile) -> list[str]:
        return [name for name in self.heard_names() if name not in file.declined]

    def takers_of(self, file: SharedFile) -> list[str]:
        """Names of the connected clients that want or have a file: all that did not decline it."""
        names = self.client_names()
        return [name for name in names if name not in file.declined] if file.declined else names

    def divide(self, manifest: Manifest, session: int, now: int, *, hold_back: bool = False) -> SharedFile:
        """Divides an announced file among the connected clients and begins to give out the shares (R1).

        Raises:
            NotFound: it was not announced.
            WrongState: it is divided already, there are too few clients, or the session is not a source's.
            LimitReached: there would be too many shares with all replicas.
        """
        source = self._source_of(session)
        file = self.files.get(manifest.file_id)
        if file is None:
            raise NotFound(f"{manifest.name!r} was not announced")
        names = self.heard_names()
        if file.phase is not Phase.ANNOUNCED or not names or manifest.share_count == 0:
            raise WrongState(f"{manifest.name!r} cannot be divided now: {len(names)} clients, {file.phase.value}")
        if len(names) < file.terms.replica_count:
            raise WrongState(f"{file.terms.replica_count} replicas of {manifest.name!r} need as many clients")
        if file.terms.replica_count * manifest.share_count > SHARE_COUNT_MAX:
            raise LimitReached(
                f"{file.terms.replica_count} replicas of {manifest.share_count} shares are too many:"
                f" {SHARE_COUNT_MAX} together at most: name fewer with --replicas"
            )
        file.source, file.held_back = source.name, hold_back
        places = itertools.product(range(file.terms.replica_count), range(manifest.share_count))
        file.divide(manifest, [names[(replica + index) % len(names)] for replica, index in places], now)
        file.recipients.expect(names)
        file.lend(source.name)
        self._idle_owners.watch(file, now)
        shares = tuple((share.owner, Range(share.start, share.stop)) for share in file.shares)
        self._emit(SaveFile(file.record))
        self._emit(FileDivided(file.file_id, manifest.name, shares, file.terms.replica_count))
        for member in list(self._members.values()):
            self._assign(member, file)
        self.review(file, now)  # a file of no chunks is seeded at once
        return file

    def lost_without(self, names: Collection[str]) -> list[tuple[SharedFile, RangeSet]]:
        """What somebody lacks, or has declined, and nobody could get any more without these clients, by file."""
        found = []
        for file in self.files.values():
            rest = [name for name in self.takers_of(file) if name not in names]
            is_with_rest = bool(rest) and file.is_with_all(rest)
            is_wanted = not file.is_complete or not file.declined.keys() <= set(names)
            if file.is_divided and is_wanted and not is_with_rest:
                found.append((file, file.lost_without(names)))
        return [(file, lost) for file, lost in found if lost]

    def _assign(self, member: Member, file: SharedFile) -> None:
        if not member.source and file.is_divided:
            shares = file.shares_of(member.name) if file.phase is Phase.SEEDING else ()
            self._emit(Assign(member.session, file.manifest, shares, file.phase is Phase.EXCHANGING, file.division))

    def _reassign_shares(self, file: SharedFile) -> list[str]:
        if file.phase is not Phase.SEEDING:
            return []
        takers = self.takers_of(file)
        preferred = self._heard_takers_of(file)
        given = file.reassign({*takers, *self._awaited} if self._awaited else takers, preferred)
        if given:
            self._emit(SaveFile(file.record))
        return given

    def _assign_again(self, file: SharedFile) -> None:
        """Gives shares whose owners are gone to others, and tells those."""
        for name in self._reassign_shares(file):
            self._assign(self._members[name], file)

    def milestone_reached(
        self,
        session: int,
        file_id: FileId,
        milestone: Milestone,
        now: int,
        share_chunk_count: int | None = None,
        *,
        division: int | None = None,
        request_number: int = 0,
    ) -> None:
        """A client holds its whole share, or has finished the file. Saying it twice does no harm.

        Args:
            session: the client's.
            file_id: the file.
            milestone: what it reached.
            now: the time, in nanoseconds.
            share_chunk_count: chunks of the share that it speaks of. If it was given more meanwhile, it
                will speak again. None: not said, and not looked at.
            division: the division that it speaks of. None: not said, and not looked at.
            request_number: its newest request when it spoke. Those that this has overtaken say less, and are dropped.

        Raises:
            NotFound: there is no such file, or it is not divided, or was divided anew.
            WrongState: a source reports.
            SessionUnknown: there is no such session, or it ends here, as the request number is impossible.
        """
        member, file = self._reporter(session), self._file_of(file_id, division)
        fault = member.take_request_number(request_number)
        if fault is not None:
            self._end_session(member, fault, EndCause.PROTOCOL_ERROR, now)
            raise SessionUnknown(f"session {session:016x} has ended: {fault}")
        interest = member.interest_in(file)
        interest.number = max(interest.number, request_number)
        if file.declined.pop(member.name, None) is not None:
            self._takes_after_all(member, file)
        is_news = False
        if milestone is Milestone.COMPLETE:
            file.complete.add(member.name)
            file.recipients.served(member.name)
            is_news = file.hold(member.name, [(0, file.manifest.chunk_count)])
            self._shares_held(file, member)
            self._relay.satisfied(interest)
        elif share_chunk_count in (None, sum(share.chunk_count for share in file.shares_of(member.name))):
            is_news = file.hold(member.name, file.shares_of(member.name))
            self._shares_held(file, member)
        if is_news:
            self._relay.wake(file)
        self.review(file, now)
        self._relay.serve_soon(now)

    def _takes_after_all(self, member: Member, file: SharedFile) -> None:
        """Who declined a file has room for it by now; where nobody else could take its share, that is still its own."""
        self._assign_again(file)
        if file.phase is Phase.SEEDING and file.shares_of(member.name):
            self._assign(member, file)

    def _shares_held(self, file: SharedFile, member: Member) -> None:
        """What is out of reach does not count as held (R2): the member will say it again when it is back."""
        if member.in_reach:
            file.shares_held(member.name)

    def file_declined(
        self,
        session: int,
        file_id: FileId,
        reason: str,
        now: int,
        *,
        division: int | None = None,
        still_holds: bool = False,
    ) -> None:
        """A client cannot take a file: its share goes to another, and nobody waits for it (R12).

        Args:
            session: the client's session.
            file_id: the file.
            reason: why, in a line.
            now: the time, in nanoseconds.
            division: the division that it speaks of. None: not said, and not looked at.
            still_holds: the client goes on to send what it holds of the file.

        Raises:
            NotFound, WrongState: see :meth:`milestone_reached`.
        """
        member, file = self._reporter(session), self._file_of(file_id, division)
        reason = "".join(char if char.isprintable() else " " for char in reason[:REFUSAL_CHARACTERS_MAX])
        file.declined[member.name] = reason
        if not still_holds:
            file.lack(member.name, [(0, file.manifest.chunk_count)])
        file.complete.discard(member.name)
        file.loosen_shares(member.name)
        self._relay.declined(member.interest_in(file))
        self._emit(FileDeclined(file.file_id, file.manifest.name, member.name, reason))
        self._assign_again(file)
        self.review(file, now)
        self._relay.serve_soon(now)

    def _reporter(self, session: int) -> Member:
        member = self._member_of(session)
        if member.source:
            raise WrongState(f"{member.name!r} is a source: only clients report what they reached with a file")
        return member

    def _file_of(self, file_id: FileId, division: int | None) -> SharedFile:
        """The file that a report is about. A report may cross a removal, and even the next announcement."""
        file = self.files.get(file_id)
        if file is None or not file.is_divided:
            raise NotFound(f"file {file_id.hex()[:12]} is not divided among the clients")
        if division not in (None, file.division):
            raise NotFound(f"{file.manifest.name!r} was removed and divided anew")
        return file

    def release(self, file: SharedFile, now: int) -> None:
        """Starts an exchange that was held back at the seeded moment, or will not hold it back.

        Raises:
            WrongState: it is not held back.
        """
        if not file.held_back:
            raise WrongState(
                f"{file.manifest.name!r} is not held back: only what was seeded with --hold can be released"
            )
        file.held_back = False
        self._emit(SaveFile(file.record))
        self.review(file, now)

    def remove(self, file: SharedFile, now: int, *, force: bool = False) -> None:
        """Takes a file out of the network. Clients drop what is unfinished of it; finished copies are theirs.

        It is gone when the last of its bytes has left the server, and unknown to everyone from now on.

        Raises:
            WrongState: a source is at it; or not every client has it, and it is not forced.
        """
        name = file.manifest.name
        if file.source in self._members or file.lenders:
            raise WrongState(f"{name!r} is being seeded: end that `pspctl seed` first")
        if not file.is_complete and not force:
            raise WrongState(f"not every client has {name!r}: wait until it is complete, or remove it with --force")
        file.phase = Phase.REMOVED
        self._emit(FileRemoved(file.file_id, name))
        for member in self._members.values():
            member.told.pop(file.file_id, None)  # it drops that: seeded anew, the file begins with nothing there
            if not member.source:
                self._emit(RemoveFile(member.session, file.file_id))
        self.review(file, now)
        self._relay.serve_soon(now)

    def review(self, file: SharedFile, now: int) -> None:
        """Takes a file to the phase that its holdings allow, and tells what changed."""
        if file.phase is Phase.REMOVED and not self._relay.forget(file, now):
            self._delete(file)
        if not file.is_divided:
            return
        if file.phase is Phase.SEEDING and file.shares_are_held:
            self._try_to_forget(file, now)
        if file.phase is Phase.SEEDED and not file.held_back:
            file.phase, file.exchanging_at = Phase.EXCHANGING, now
            self._emit(SaveFile(file.record))
            for member in self._members.values():
                if not member.source:
                    self._emit(StartExchange(member.session, file.file_id))
        self._review_coverage(file)
        takers = self.takers_of(file)
        is_complete = file.phase is Phase.EXCHANGING and bool(takers) and file.is_with_all(takers)
        is_complete = is_complete and not self._awaits_holders(file)
        if is_complete and not file.is_complete:
            file.completed_at = file.completed_at or now
            self._emit(FileCompleted(file.file_id, file.manifest.name, len(takers)))
        file.is_complete = is_complete
        while is_complete and file.lenders:  # one that goes may take others with it
            lender = self._members[next(iter(file.lenders))]
            self._end_session(lender, "every client has the file", EndCause.SOURCE_DONE, now)

    def _try_to_forget(self, file: SharedFile, now: int) -> None:
        """The seeded moment (R2): every share is held, and no byte is left here."""
        if self._relay.forget(file, now):
            return
        source = self._members.get(file.source)
        file.phase, file.seeded_at = Phase.SEEDED, now
        self._emit(SaveFile(file.record))
        file.cached_bytes_when_seeded = self._cache.chunks_of(file.file_id) * CHUNK_BYTES
        file.traffic.seeding_contributed_bytes = file.traffic.contributed_bytes
        file.traffic.seeding_delivered_bytes = file.traffic.delivered_bytes
        self._emit(
            FileSeeded(
                file.file_id,
                file.manifest.name,
                file.manifest.share_count,
                file.manifest.chunk_count,
                file.cached_bytes_when_seeded,
            )
        )
        if source is not None and source.source and not file.terms.stays:
            self._end_session(source, "the file is seeded", EndCause.SOURCE_DONE, now)

    def _review_coverage(self, file: SharedFile) -> None:
        lacks = file.available.chunk_count < file.manifest.chunk_count
        stalled = lacks and not self._awaits_holders(file)
        if stalled != file.stalled:
            file.stalled = stalled
            if stalled:
                self._emit(FileStalled(file.file_id, file.manifest.name, tuple(file.missing())))
            else:
                self._emit(FileResumed(file.file_id, file.manifest.name))


def _name_taken(manifest: Manifest, other: Manifest) -> str:
    """Says why a file's name is taken: by other bytes, or by the same bytes with another mode."""
    if replace(manifest, mode=other.mode, file_id=other.file_id) == replace(other, share_count=0, cut_digests=b""):
        difference, advice = f"mode {other.mode:03o}, not {manifest.mode:03o}", "change it with chmod"
    else:
        difference, advice = "other bytes", "give another name with --name"
    return f"{manifest.name!r} is in the network with {difference}: {advice}, or take that one out with `pspctl rm`"
