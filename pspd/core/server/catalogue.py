"""The files of the network: commands about them, and what members report of them."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from pspd.core.effects.server import FileDeclined, FileDivided, FileRemoved, RemoveFile, SaveFile
from pspd.core.effects.shared import Milestone
from pspd.core.model.file_record import FileRecord, Phase
from pspd.core.model.manifest import SHARE_COUNT_MAX, FileId, Manifest
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.terms import ONE_COPY, Terms
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.assignment import Assignment
from pspd.core.server.demand import Demand
from pspd.core.server.files import Files
from pspd.core.server.lifecycle import Lifecycle
from pspd.core.server.member import Member
from pspd.core.server.sessions import Sessions
from pspd.core.server.share_monitor import ShareMonitor
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.work_set import WorkSet
from pspd.errors import LimitReached, NameTaken, NotFound, SessionUnknown, WrongState
from pspd.text.sizes import size_text

REFUSAL_CHARACTERS_MAX = 300


class Catalogue:
    """Every file of the network. Commands raise ``PspError`` when refused.

    Args:
        files: the files.
        sessions: who is connected.
        demand: the requests.
        assignment: who takes a file.
        lifecycle: deletes files.
        monitor: watches the owners of shares.
        work: takes the effects and the marks.
        tuning: bounds of what is kept.
    """

    def __init__(
        self,
        files: Files,
        sessions: Sessions,
        demand: Demand,
        assignment: Assignment,
        lifecycle: Lifecycle,
        monitor: ShareMonitor,
        work: WorkSet,
        tuning: ServerTuning,
    ) -> None:
        self._files = files
        self._sessions = sessions
        self._demand = demand
        self._assignment = assignment
        self._lifecycle = lifecycle
        self._monitor = monitor
        self._work = work
        self._tuning = tuning

    # -- reading

    @property
    def files(self) -> Mapping[FileId, SharedFile]:
        """Every file, by id."""
        return self._files.by_id

    def client_names(self) -> list[str]:
        """Return the names of the reachable clients, in the order in which they joined."""
        return self._sessions.client_names()

    def heard_names(self) -> list[str]:
        """Return the names of reachable clients that sent a datagram in this session: only these get shares."""
        return self._sessions.heard_names()

    def takers_of(self, file: SharedFile) -> list[str]:
        """Return the names of the reachable clients that want or have a file: all that did not decline it."""
        return self._assignment.takers_of(file)

    @property
    def awaits_members(self) -> bool:
        """Whether clients that were connected before a restart still have time to come back."""
        return self._assignment.awaits_members

    @property
    def awaits_holders(self) -> bool:
        """Whether it is not known yet, after a restart, who holds what of some file."""
        return any(self._assignment.awaits_holders(file) for file in self._files.all())

    def lost_without(self, names: Collection[str]) -> list[tuple[SharedFile, RangeSet]]:
        """Return what a client lacks, or has declined, and could not get any more without these clients, by file."""
        found = []
        for file in self._files.all():
            rest = [name for name in self.takers_of(file) if name not in names]
            is_with_rest = bool(rest) and file.recipients.all_complete(rest)
            is_wanted = not file.is_complete or not file.recipients.declined.keys() <= set(names)
            if file.is_divided and is_wanted and not is_with_rest:
                found.append((file, file.availability.lost_without(names)))
        return [(file, lost) for file, lost in found if lost]

    # -- after a restart

    def restore(self, records: Iterable[FileRecord], awaited: Iterable[str], now: int) -> None:
        """Take over the files that were saved before the server was restarted.

        Args:
            records: what was saved, oldest first.
            awaited: clients that were connected: until they are back, or late, nobody else gets their shares, and a
                file is neither stalled nor complete without them.
            now: the time, in nanoseconds.
        """
        self._assignment.await_members(awaited)
        for record in records:
            file = SharedFile.restored(record, self._files.new_division(), self._work, self._tuning, now)
            self._files.add(file)
            self._assignment.restore(file, now)
            if file.phase is Phase.SEEDING:
                self._monitor.watch(file, now)

    # -- seeding

    def announce(self, manifest: Manifest, session: int, terms: Terms = ONE_COPY) -> SharedFile:
        """Take note of a source's file. A file that is known already goes on where it stands.

        Args:
            manifest: the file's.
            session: the source's.
            terms: how it wants the file seeded.

        Raises:
            LimitReached: the network has too many files, or their manifests are too large.
            NameTaken: another file has the name.
            WrongState: another source is seeding it right now, or the session is not a source's.
        """
        source = self._source_of(session)
        file = self._files.get(manifest.file_id)
        if file is None:
            self._require_place_for(manifest)
            file = SharedFile(manifest, source.name, self._files.new_division(), self._work, self._tuning)
            self._files.add(file)
            for member in self._sessions.members.values():
                self._assignment.note_told(file, member)
        elif self._is_seeded_by_another(file, source):
            raise WrongState(
                f"{manifest.name!r} is being seeded already: wait for it with `pspctl wait {manifest.name}`"
            )
        if file.phase is Phase.REMOVED:
            raise WrongState(f"{manifest.name!r} is still being removed: try again in a moment")
        file.announced(source.name, terms)
        return file

    def _require_place_for(self, manifest: Manifest) -> None:
        others = [file.manifest for file in self._files.all()]
        for other in others:
            if other.name == manifest.name:
                raise NameTaken(_name_taken(manifest, other))
        if len(others) >= self._tuning.files_max:
            raise LimitReached(f"the network has its most files ({self._tuning.files_max}) already")
        manifests_bytes = sum(len(other.block_digests) for other in others)
        if manifests_bytes + len(manifest.block_digests) > self._tuning.manifests_bytes_max:
            raise LimitReached(
                f"the manifest of {manifest.name!r} and those of the network's files would take more than"
                f" {size_text(self._tuning.manifests_bytes_max)}: take files out with `pspctl rm`"
            )

    def _is_seeded_by_another(self, file: SharedFile, source: Member) -> bool:
        if file.phase not in (Phase.ANNOUNCED, Phase.SEEDING):
            return False
        seeding = self._sessions.members.get(file.source)
        return seeding is not None and seeding.reachable and seeding is not source

    def _source_of(self, session: int) -> Member:
        member = self._sessions.get(session)
        if not member.source:
            raise WrongState(f"{member.name!r} joined as a client: join as a source to bring in a file")
        return member

    def source_returned(self, file: SharedFile, session: int, now: int) -> None:
        """Note that a source offers every chunk of a divided file again: repair.

        Args:
            file: the file.
            session: the source's.
            now: the time, in nanoseconds.
        """
        self._work.started(now)
        source = self._sessions.get(session)
        file.source_returned(source.name, now)
        file.availability.add_source(source.name)

    def withdraw(self, file: SharedFile, source: str) -> None:
        """Delete a file that a source announced and nobody divided.

        Args:
            file: the file.
            source: the source's name.
        """
        if file.phase is Phase.ANNOUNCED and file.source == source:
            self._lifecycle.delete(file)

    def member_left(self, member: Member) -> None:
        """Withdraw what a member that is gone announced."""
        for file in self._files.all():
            self.withdraw(file, member.name)

    def divide(self, manifest: Manifest, session: int, now: int, *, hold_back: bool = False) -> SharedFile:
        """Divide an announced file among the clients, and begin to give out the shares (R1).

        Args:
            manifest: the file's, with its share count.
            session: the source's.
            now: the time, in nanoseconds.
            hold_back: whether the exchange waits for a release.

        Raises:
            NotFound: it was not announced.
            WrongState: it is divided already, there are too few clients, or the session is not a source's.
            LimitReached: there would be too many shares with all replicas.
        """
        self._work.started(now)
        source = self._source_of(session)
        file = self._files.get(manifest.file_id)
        if file is None:
            raise NotFound(f"{manifest.name!r} was not announced")
        names = self.heard_names()
        _require_divisible(file, manifest, names)
        file.hold_back(source.name, hold_back)
        order = itertools.product(range(file.terms.replica_count), range(manifest.share_count))
        file.divide(manifest, [names[(replica + index) % len(names)] for replica, index in order], now)
        file.recipients.expect(names)
        file.availability.add_source(source.name)
        self._monitor.watch(file, now)
        shares = tuple((share.owner, Range(share.start, share.stop)) for share in file.shares.all)
        self._work.emit(SaveFile(file.record))
        self._work.emit(FileDivided(file.file_id, manifest.name, shares, file.terms.replica_count))
        for member in self._sessions.members.values():
            self._assignment.tell(file, member)
        return file

    # -- what members report

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
        """Note that a client holds its whole share, or has finished the file. A repeated report does no harm.

        Args:
            session: the client's.
            file_id: the file.
            milestone: what it reached.
            now: the time, in nanoseconds.
            share_chunk_count: chunks of the share that it reports. If it was given more meanwhile, it will report
                again. None: not said, and not looked at.
            division: the division that it reports on. None: not said, and not looked at.
            request_number: its newest request when it reported. Older ones say less, and are dropped.

        Raises:
            NotFound: there is no such file, or it is not divided, or was divided anew.
            WrongState: a source reports.
            SessionUnknown: there is no such session, or it ends here, as the request number is impossible.
        """
        self._work.started(now)
        member, file = self._reporter(session), self._file_of(file_id, division)
        fault = self._sessions.take_request_number(member, request_number)
        if fault is not None:
            raise SessionUnknown(f"session {session:016x} has ended: {fault}")
        state = self._demand.state(member, file)
        self._demand.note_number(state, request_number)
        shares = file.shares.ranges_of(member.name)
        if file.recipients.accept_after_all(member.name) and shares:
            self._work.takers_changed(file_id, member.name)
        if milestone is Milestone.COMPLETE:
            file.recipients.mark_complete(member.name)
            file.availability.hold_whole(member.name)
            self._demand.satisfied(state)
        elif share_chunk_count in (None, sum(share.chunk_count for share in shares)):
            file.availability.hold(member.name, shares)
        else:
            return
        if member.reachable:  # what is unreachable does not count as held (R2): it reports again when it is back
            file.shares.acknowledge(member.name)

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
        """Note that a client cannot take a file: its share goes to another, and nobody waits for it (R12).

        Args:
            session: the client's session.
            file_id: the file.
            reason: why, in a line.
            now: the time, in nanoseconds.
            division: the division that it reports on. None: not said, and not looked at.
            still_holds: the client goes on to send what it holds of the file.

        Raises:
            NotFound, WrongState: see :meth:`milestone_reached`.
        """
        self._work.started(now)
        member, file = self._reporter(session), self._file_of(file_id, division)
        reason = "".join(char if char.isprintable() else " " for char in reason[:REFUSAL_CHARACTERS_MAX])
        file.recipients.decline(member.name, reason)
        if not still_holds:
            file.availability.retract_all(member.name)
        file.shares.clear_acks(member.name)
        self._demand.declined(self._demand.state(member, file))
        self._work.emit(FileDeclined(file.file_id, file.manifest.name, member.name, reason))
        self._work.takers_changed(file_id)

    def _reporter(self, session: int) -> Member:
        member = self._sessions.get(session)
        if member.source:
            raise WrongState(f"{member.name!r} is a source: only clients report what they reached with a file")
        return member

    def _file_of(self, file_id: FileId, division: int | None) -> SharedFile:
        """Return the file of a report. A report may cross a removal, and even the next announcement."""
        file = self._files.get(file_id)
        if file is None or not file.is_divided:
            raise NotFound(f"file {file_id.hex()[:12]} is not divided among the clients")
        if division not in (None, file.division):
            raise NotFound(f"{file.manifest.name!r} was removed and divided anew")
        return file

    # -- commands

    def release(self, file: SharedFile, now: int) -> None:
        """Start an exchange that is held back at the seeded moment, or will be.

        Args:
            file: the file.
            now: the time, in nanoseconds.

        Raises:
            WrongState: it is not held back.
        """
        self._work.started(now)
        if not file.held_back:
            raise WrongState(
                f"{file.manifest.name!r} is not held back: only what was seeded with --hold can be released"
            )
        file.release()
        self._work.emit(SaveFile(file.record))

    def remove(self, file: SharedFile, now: int, *, force: bool = False) -> None:
        """Take a file out of the network. Clients drop what is unfinished of it; finished copies stay theirs.

        It is unknown to everyone from now on, and gone when the last of its bytes has left the server.

        Args:
            file: the file.
            now: the time, in nanoseconds.
            force: also if not every client has it.

        Raises:
            WrongState: a source is seeding it; or not every client has it, and it is not forced.
        """
        self._work.started(now)
        name = file.manifest.name
        if file.source in self._sessions.members or file.availability.sources:
            raise WrongState(f"{name!r} is being seeded: end that `pspctl seed` first")
        if not file.is_complete and not force:
            raise WrongState(f"not every client has {name!r}: wait until it is complete, or remove it with --force")
        file.removed()
        self._sessions.drop_told(file.file_id)
        self._work.emit(FileRemoved(file.file_id, name))
        for member in self._sessions.members.values():
            if not member.source:
                self._work.emit(RemoveFile(member.session, file.file_id))


def _require_divisible(file: SharedFile, manifest: Manifest, names: list[str]) -> None:
    """Raise if a file cannot be divided among some clients now."""
    if file.phase is not Phase.ANNOUNCED or not names or manifest.share_count == 0:
        raise WrongState(f"{manifest.name!r} cannot be divided now: {len(names)} clients, {file.phase.value}")
    if len(names) < file.terms.replica_count:
        raise WrongState(f"{file.terms.replica_count} replicas of {manifest.name!r} need as many clients")
    if file.terms.replica_count * manifest.share_count > SHARE_COUNT_MAX:
        raise LimitReached(
            f"{file.terms.replica_count} replicas of {manifest.share_count} shares are too many:"
            f" {SHARE_COUNT_MAX} together at most: name fewer with --replicas"
        )


def _name_taken(manifest: Manifest, other: Manifest) -> str:
    """Return why a file's name is taken: by other bytes, or by the same bytes with another mode."""
    if replace(manifest, mode=other.mode, file_id=other.file_id) == replace(other, share_count=0, cut_digests=b""):
        difference, advice = f"mode {other.mode:03o}, not {manifest.mode:03o}", "change it with chmod"
    else:
        difference, advice = "other bytes", "give another name with --name"
    return f"{manifest.name!r} is in the network with {difference}: {advice}, or take that one out with `pspctl rm`"
