"""One file of the network, as the server knows it: everything but its bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from pspd.core.model.file_record import FileRecord, Phase
from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.ranges import RangeSet
from pspd.core.model.terms import ONE_COPY, Terms
from pspd.core.model.tuning import SERVER_TUNING, ServerTuning
from pspd.core.server.availability import Availability
from pspd.core.server.member import Member
from pspd.core.server.recipients import Recipients
from pspd.core.server.shares import Shares
from pspd.core.server.traffic import Traffic
from pspd.core.server.work_set import WorkSet


class SharedFile:
    """A file on its way: announced, seeding, seeded, exchanging, complete, removed.

    Args:
        manifest: the file's.
        source: name of the member that seeds it.
        division: names its one division, for as long as it is in the network and the server runs.
        work: where changes are marked.
        tuning: bounds of what is remembered.

    Attributes:
        terms: how its source wants it seeded.
        held_back: the exchange waits until it is released.
        was_restored: it was there before the server was restarted.
        is_complete: every reachable client that wants it has it.
        stalled: some chunk has no reachable holder.
        shares: its division.
        availability: who holds what.
        recipients: the clients that are to get it.
        traffic: what moved for it.
        cached_bytes_when_seeded: bytes of it that the cache held at the seeded moment.
        seeding_at, seeded_at, exchanging_at, completed_at: when, in nanoseconds; None before.
    """

    def __init__(
        self,
        manifest: Manifest,
        source: str,
        division: int = 0,
        work: WorkSet | None = None,
        tuning: ServerTuning = SERVER_TUNING,
    ) -> None:
        work = work or WorkSet()
        self.manifest = manifest
        self.source = source
        self.division = division
        self.phase = Phase.ANNOUNCED
        self.terms = ONE_COPY
        self.held_back = False
        self.was_restored = False
        self.is_complete = False
        self.stalled = False
        self.cached_bytes_when_seeded = 0
        self.seeding_at: int | None = None
        self.seeded_at: int | None = None
        self.exchanging_at: int | None = None
        self.completed_at: int | None = None
        self.shares = Shares(work)
        self.availability = Availability(manifest, work, tuning.departed_max)
        self.recipients = Recipients(manifest.file_id, work)
        self.traffic = Traffic()
        self._work = work

    @staticmethod
    def restored(record: FileRecord, division: int, work: WorkSet, tuning: ServerTuning, now: int) -> SharedFile:
        """Return a file as it was saved before a restart; nobody has reported yet to hold any of it.

        Args:
            record: what was saved.
            division: names its division.
            work: where changes are marked.
            tuning: bounds of what is remembered.
            now: the time, in nanoseconds.
        """
        file = SharedFile(record.manifest, record.source, division, work, tuning)
        file.divide(record.manifest, record.owners, now)
        file._restore(record, now)
        return file

    def _restore(self, record: FileRecord, now: int) -> None:
        self.terms = Terms(replica_count=len(record.owners) // max(1, record.manifest.share_count))
        self.phase, self.held_back, self.was_restored = record.phase, record.held_back, True
        if self.phase is not Phase.SEEDING:
            self.seeded_at = now
            self.shares.restore_held()
            for share in self.shares.all:
                if share.owner:
                    self.availability.remember_departed(share.owner, share.start, share.stop)
        self.seeding_at = None  # how long the two phases took so far was not saved

    # -- reading

    @property
    def file_id(self) -> FileId:
        """The digest of the file's manifest."""
        return self.manifest.file_id

    @property
    def record(self) -> FileRecord:
        """What is saved of it."""
        return FileRecord(self.manifest, self.source, self.phase, self.held_back, self.shares.owners)

    @property
    def is_divided(self) -> bool:
        """Whether clients are to get it: it is divided, and not removed."""
        return self.phase not in (Phase.ANNOUNCED, Phase.REMOVED)

    @property
    def is_draining(self) -> bool:
        """Whether its phase waits for its last bytes to leave the server."""
        return self.phase in (Phase.SEEDING, Phase.REMOVED)

    def servable(self, name: str, ranges: Iterable[tuple[int, int]]) -> RangeSet:
        """Return the part of a request that may be served now (R2).

        Args:
            name: the client's name.
            ranges: what it asks for.

        Returns:
            Some of its share while the file is seeded, some of everything in the exchange.
        """
        inside = RangeSet((start, min(stop, self.manifest.chunk_count)) for start, stop in ranges)
        match self.phase:
            case Phase.EXCHANGING:
                return inside
            case Phase.SEEDING:
                return inside.common(RangeSet(self.shares.ranges_of(name)))
            case _:
                return RangeSet()

    # -- its way

    def announced(self, source: str, terms: Terms) -> None:
        """Note that a source offers the file.

        Args:
            source: the source's name.
            terms: how it wants the file seeded; of a divided file only whether it stays counts.
        """
        if self.phase is Phase.ANNOUNCED:
            self.source = source
        self.terms = terms if self.phase is Phase.ANNOUNCED else replace(self.terms, stays=terms.stays)

    def divide(self, manifest: Manifest, owners: Iterable[str], now: int) -> None:
        """Begin to seed it (R1).

        Args:
            manifest: the file's, with its share count.
            owners: to whom each share is given, in the order of the shares, once for every replica.
            now: the time, in nanoseconds.
        """
        self.manifest = manifest
        self.phase, self.seeding_at = Phase.SEEDING, now
        self.shares.give(manifest, owners)
        self.availability.divide(manifest)

    def hold_back(self, source: str, held_back: bool) -> None:
        """Note who divides it, and whether its exchange waits for a release.

        Args:
            source: the source's name.
            held_back: whether it waits.
        """
        self.source, self.held_back = source, held_back

    def release(self) -> None:
        """Let the exchange begin once the file is seeded."""
        self.held_back = False
        self._work.file_changed(self.file_id)

    def source_returned(self, source: str, now: int) -> None:
        """Note that a source offers a divided file again.

        Args:
            source: the source's name.
            now: the time, in nanoseconds.
        """
        if self.phase is Phase.SEEDING:
            if self.source != source:
                self.seeding_at = now  # another attempt: the time since the last one does not count
            self.source = source

    def seeded(self, cached_bytes: int, now: int) -> None:
        """Note the seeded moment (R2).

        Args:
            cached_bytes: bytes of it that the cache holds.
            now: the time, in nanoseconds.
        """
        self.phase, self.seeded_at = Phase.SEEDED, now
        self.cached_bytes_when_seeded = cached_bytes
        self.shares.seeded()
        self.traffic.note_seeded()
        self._work.file_changed(self.file_id)

    def exchange(self, now: int) -> None:
        """Note that the exchange begins."""
        self.phase, self.exchanging_at = Phase.EXCHANGING, now

    def set_stalled(self, stalled: bool) -> None:
        """Note whether some chunk has no reachable holder."""
        self.stalled = stalled

    def set_complete(self, is_complete: bool, now: int) -> None:
        """Note whether every reachable client that wants it has it.

        Args:
            is_complete: whether that is so.
            now: the time, in nanoseconds.
        """
        if is_complete:
            self.completed_at = self.completed_at or now
        self.is_complete = is_complete

    def removed(self) -> None:
        """Note that it is taken out of the network; it is gone once its last byte has left."""
        self.phase = Phase.REMOVED
        self._work.file_changed(self.file_id)

    def check(self, members: Mapping[str, Member]) -> None:
        """Assert the invariants.

        Args:
            members: who is connected, by name.
        """
        self.shares.check()
        self.availability.check()
        self.recipients.check()
        assert self.availability.held.keys() == members.keys(), "holdings of members that are not connected"
        unreachable = {name for name, member in members.items() if not member.reachable}
        assert self.availability.unreachable == unreachable, "a member is reachable for one file and not for another"
        assert self.phase is Phase.EXCHANGING or not self.is_complete, "complete before the exchange"
