"""The catalogue: carries out commands about files, and applies the reports of clients about files."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from pspd.core.effects.client import ReportMilestone
from pspd.core.effects.server import FileDeclined, FileDivided, FileRemoved, RemoveFile, SaveFile
from pspd.core.effects.shared import Milestone
from pspd.core.model.file_record import FileRecord, Phase
from pspd.core.model.manifest import SHARE_COUNT_MAX, FileId, Manifest
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.terms import ONE_COPY, Terms
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.demand import Demand
from pspd.core.server.lifecycle import Lifecycle
from pspd.core.server.sessions import Member, Sessions
from pspd.core.server.share_monitor import ShareMonitor
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.work_set import WorkSet
from pspd.errors import LimitReached, NameTaken, NotFound, SessionUnknown, WrongState
from pspd.text.sizes import size_text

REASON_CHARACTERS_MAX = 300
"""A longer reason for declining a file is cut to this length."""


@dataclass(slots=True, eq=False)
class Catalogue:
    """Carries out commands about files, and applies reports. A refused command or report raises ``PspError``.

    Args:
        _sessions: the members.
        _demand: the requests, which reports supersede or end.
        _lifecycle: the files, and their phases.
        _monitor: the share monitor, which watches the owners of a file in seeding.
        _work: the work set, which collects the effects and the marks.
        _tuning: the limits on the number of files and on the size of their manifests.
    """

    _sessions: Sessions
    _demand: Demand
    _lifecycle: Lifecycle
    _monitor: ShareMonitor
    _work: WorkSet
    _tuning: ServerTuning
    _division_numbers: Iterator[int] = field(default_factory=partial(itertools.count, 1))

    # -- reading

    @property
    def files(self) -> Mapping[FileId, SharedFile]:
        """Every file, by id, in the order in which the files were added."""
        return self._lifecycle.files

    def needed_from(self, names: Collection[str]) -> list[tuple[SharedFile, RangeSet]]:
        """Return, for each file, the available chunks that only these clients hold and that other clients may need.

        The result omits a file that is not divided, and a file without such chunks. It also omits a file that every
        other reachable client has, except clients that declined it. If no other reachable client accepts the file, the
        result omits the file only if it is complete and no other client has declined it.
        """
        found = []
        for file in self.files.values():
            rest = [name for name in self._lifecycle.accepting_clients(file) if name not in names]
            others_have_file = bool(rest) and file.recipients.all_complete(rest)
            may_be_needed = not file.is_complete or not file.recipients.decline_reasons.keys() <= set(names)
            if file.is_divided and may_be_needed and not others_have_file:
                found.append((file, file.availability.held_only_by(names)))
        return [(file, lost) for file, lost in found if lost]

    # -- after a restart

    def restore(self, records: Iterable[FileRecord], awaited: Iterable[str], now: int) -> None:
        """Restore the files that were saved before a restart, and watch the owners of files in seeding.

        Args:
            records: the records of the files, oldest first.
            awaited: names of the clients that were connected before the restart. While the server awaits them, it
                reassigns none of their shares, and no restored file becomes stalled or complete.
            now: the time, in nanoseconds.
        """
        self._work.set_time(now)
        numbers = self._division_numbers
        files = [SharedFile.from_record(record, next(numbers), self._work, self._tuning) for record in records]
        self._lifecycle.restore(files, awaited)
        for file in files:
            if file.phase is Phase.SEEDING:
                self._monitor.watch(file, now)

    # -- seeding

    def announce(self, manifest: Manifest, session: int, terms: Terms = ONE_COPY) -> SharedFile:
        """Add the file that a source announces, and return it. A file already in the network keeps its phase.

        Args:
            manifest: the manifest of the file.
            session: the source's session number.
            terms: the terms of the seeding.

        Raises:
            LimitReached: the network has too many files, or all manifests together are too large.
            NameTaken: another file has the name.
            SessionUnknown: the session is unknown.
            WrongState: another reachable source has announced the file or is seeding it, the file is being removed, or
                the session is a client's.
        """
        source = self._source_of(session)
        file = self.files.get(manifest.file_id)
        if file is None:
            self._require_room_for(manifest)
            file = SharedFile(manifest, source.name, next(self._division_numbers), self._work, self._tuning)
            self._lifecycle.add(file)
            for member in self._sessions.members.values():
                self._lifecycle.note_held_at_join(file, member)
        elif self._has_another_source(file, source):
            raise WrongState(
                f"{manifest.name!r} is being seeded already: wait for it with `pspctl wait {manifest.name}`"
            )
        if file.phase is Phase.REMOVED:
            raise WrongState(f"{manifest.name!r} is still being removed: try again in a moment")
        file.note_announcement(source.name, terms)
        return file

    def _require_room_for(self, manifest: Manifest) -> None:
        others = [file.manifest for file in self.files.values()]
        for other in others:
            if other.name == manifest.name:
                raise NameTaken(_name_taken_text(manifest, other))
        if len(others) >= self._tuning.files_max:
            raise LimitReached(f"the network already has {self._tuning.files_max} files, the most that are possible")
        manifests_bytes = sum(len(other.block_digests) for other in others)
        if manifests_bytes + len(manifest.block_digests) > self._tuning.manifests_bytes_max:
            raise LimitReached(
                f"the manifest of {manifest.name!r} and those of the network's files would take more than"
                f" {size_text(self._tuning.manifests_bytes_max)}: take files out with `pspctl rm`"
            )

    def _has_another_source(self, file: SharedFile, source: Member) -> bool:
        if file.phase not in (Phase.ANNOUNCED, Phase.SEEDING):
            return False
        present = self._sessions.members.get(file.source)
        return present is not None and present.reachable and present is not source

    def _source_of(self, session: int) -> Member:
        member = self._sessions.get(session)
        if not member.is_source:
            raise WrongState(f"{member.name!r} joined as a client: only a source can seed a file")
        return member

    def source_returned(self, file: SharedFile, session: int, now: int) -> None:
        """Note that a source announced a divided file again, and that the source holds every chunk of the file.

        Args:
            file: the file.
            session: the source's session number.
            now: the time, in nanoseconds.

        Raises:
            SessionUnknown: the session is unknown.
        """
        self._work.set_time(now)
        source = self._sessions.get(session)
        file.note_source(source.name, now)
        file.availability.add_source(source.name)

    def divide(self, manifest: Manifest, session: int, now: int, *, hold_back: bool = False) -> SharedFile:
        """Divide an announced file among the clients, and assign the shares (R1).

        Args:
            manifest: the manifest of the file, with its share count.
            session: the source's session number.
            now: the time, in nanoseconds.
            hold_back: whether the exchange waits for a release.

        Raises:
            NotFound: the file was not announced.
            SessionUnknown: the session is unknown.
            WrongState: the file is already divided or removed, the share count is 0, there are too few clients, or the
                session is a client's.
            LimitReached: the product of share count and replica count is too large.
        """
        self._work.set_time(now)
        source = self._source_of(session)
        file = self.files.get(manifest.file_id)
        if file is None:
            raise NotFound(f"{manifest.name!r} was not announced")
        names = self._sessions.clients_with_uplink()
        _require_divisible(file, manifest, names)
        order = itertools.product(range(file.terms.replica_count), range(manifest.share_count))
        owners = [names[(replica + index) % len(names)] for replica, index in order]
        file.divide(manifest, source.name, owners, held_back=hold_back)
        file.recipients.set_names(names)
        file.availability.add_source(source.name)
        self._monitor.watch(file, now)
        shares = tuple((share.owner, Range(share.start, share.stop)) for share in file.shares.all)
        self._work.emit(SaveFile(file.record))
        self._work.emit(FileDivided(file.file_id, manifest.name, shares, file.terms.replica_count))
        for member in self._sessions.members.values():
            self._lifecycle.send_assignment(file, member)
        return file

    # -- what members report

    def milestone_reached(self, session: int, report: ReportMilestone, now: int) -> None:
        """Note that a client holds its shares, or has the whole file. A client may repeat a report.

        A client that had declined the file accepts it by such a report.

        Args:
            session: the client's session number.
            report: the report. A report of held shares acknowledges nothing if it names another number of chunks than
                the client's shares have now.
            now: the time, in nanoseconds.

        Raises:
            NotFound: the file is unknown, removed or not yet divided, or the report is about an earlier division.
            WrongState: the session is a source's.
            SessionUnknown: the session is unknown, or must end because the report's request number is too high.
        """
        member, file = self._reporter_and_file(session, report.file_id, report.division, now)
        fault = self._sessions.note_request_number(member, report.request_number)
        if fault is not None:
            raise SessionUnknown(f"session {session:016x} has ended: {fault}")
        state = self._demand.supersede(member, file, report.request_number)
        shares = file.shares.ranges_of(member.name)
        if file.recipients.withdraw_decline(member.name) and shares:
            self._work.mark_owners(file.file_id, member.name)
        if report.milestone is Milestone.COMPLETE:
            file.recipients.mark_complete(member.name)
            file.availability.add_whole_file(member.name)
            self._demand.client_completed(state)
        elif report.share_chunk_count == sum(share.chunk_count for share in shares):
            file.availability.add_arrived(member.name, shares)
        else:
            return
        if member.reachable:  # an unreachable client's shares are not held (R2); once reachable, it reports again
            file.shares.acknowledge(member.name)

    def file_declined(
        self, session: int, file_id: FileId, reason: str, now: int, *, division: int = 0, still_holds: bool = False
    ) -> None:
        """Note that a client declines a file, so that nothing waits for the client (R12).

        During seeding, the client's shares are marked for reassignment.

        Args:
            session: the client's session number.
            file_id: the id of the file.
            reason: the client's reason. A long reason is cut, and unprintable characters become spaces.
            now: the time, in nanoseconds.
            division: the number of the division that the report is about; 0 if unknown.
            still_holds: whether the client still sends the chunks that it holds.

        Raises:
            NotFound: the file is unknown, removed or not yet divided, or the report is about an earlier division.
            WrongState: the session is a source's.
            SessionUnknown: the session is unknown.
        """
        member, file = self._reporter_and_file(session, file_id, division, now)
        reason = "".join(char if char.isprintable() else " " for char in reason[:REASON_CHARACTERS_MAX])
        file.recipients.decline(member.name, reason)
        if not still_holds:
            file.availability.remove_arrived(member.name, [(0, file.manifest.chunk_count)])
        file.shares.clear_acks(member.name)
        self._demand.client_declined(self._demand.state(member, file))
        self._work.emit(FileDeclined(file_id, file.manifest.name, member.name, reason))
        self._work.mark_owners(file_id)

    def _reporter_and_file(self, session: int, file_id: FileId, division: int, now: int) -> tuple[Member, SharedFile]:
        """Return the client and the file of a report, and note the time. Refuse a report that is not valid now."""
        self._work.set_time(now)
        member, file = self._sessions.get(session), self.files.get(file_id)
        if member.is_source:
            raise WrongState(f"{member.name!r} is a source: only clients report on files")
        if file is None or not file.is_divided:
            raise NotFound(f"file {file_id.hex()[:12]} is not divided among the clients")
        if division not in (0, file.division):
            raise NotFound(f"{file.manifest.name!r} was removed and divided again")
        return member, file

    # -- commands

    def release(self, file: SharedFile, now: int) -> None:
        """Release a file that is held back: its exchange starts now, or as soon as the file is seeded.

        Args:
            file: the file.
            now: the time, in nanoseconds.

        Raises:
            WrongState: the file is not held back.
        """
        self._work.set_time(now)
        if not file.held_back:
            raise WrongState(
                f"{file.manifest.name!r} is not held back: only a file that was seeded with --hold can be released"
            )
        file.release()
        self._work.emit(SaveFile(file.record))

    def remove(self, file: SharedFile, now: int, *, force: bool = False) -> None:
        """Remove a file from the network. Clients that have the whole file keep it; the others delete their part.

        From now on the server refuses reports about the file, and drops requests for it. The server deletes the file
        when the last byte of the file has left the cache.

        Args:
            file: the file.
            now: the time, in nanoseconds.
            force: whether to remove the file even if it is not complete.

        Raises:
            WrongState: a source of the file is connected; or the file is not complete, and ``force`` is not set.
        """
        self._work.set_time(now)
        name = file.manifest.name
        if file.source in self._sessions.members or file.availability.sources:
            raise WrongState(f"{name!r} is being seeded: end that `pspctl seed` first")
        if not file.is_complete and not force:
            raise WrongState(f"not every client has {name!r}: wait until it is complete, or remove it with --force")
        file.mark_removed()
        self._sessions.forget_held_at_join(file.file_id)
        self._work.emit(FileRemoved(file.file_id, name))
        for member in self._sessions.members.values():
            if not member.is_source:
                self._work.emit(RemoveFile(member.session, file.file_id))


def _require_divisible(file: SharedFile, manifest: Manifest, names: list[str]) -> None:
    """Raise ``WrongState`` or ``LimitReached`` if a file cannot be divided among these clients now."""
    if file.phase is not Phase.ANNOUNCED or not names or manifest.share_count == 0:
        raise WrongState(f"{manifest.name!r} cannot be divided now: {len(names)} clients, {file.phase.value}")
    if len(names) < file.terms.replica_count:
        raise WrongState(f"{file.terms.replica_count} replicas of {manifest.name!r} need as many clients")
    if file.terms.replica_count * manifest.share_count > SHARE_COUNT_MAX:
        raise LimitReached(
            f"{file.terms.replica_count} replicas of {manifest.share_count} shares are too many:"
            f" {SHARE_COUNT_MAX} together at most: name fewer with --replicas"
        )


def _name_taken_text(manifest: Manifest, other: Manifest) -> str:
    """Return the error message for a file whose name another file has. It names the difference."""
    if replace(manifest, mode=other.mode, file_id=other.file_id) == replace(other, share_count=0, cut_digests=b""):
        difference, advice = f"mode {other.mode:03o}, not {manifest.mode:03o}", "change it with chmod"
    else:
        difference, advice = "other bytes", "give another name with --name"
    return f"{manifest.name!r} is in the network with {difference}: {advice}, or take that one out with `pspctl rm`"
