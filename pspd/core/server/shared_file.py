"""One file of the network: what the server knows about it, except its bytes, requests and fetches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from pspd.core.model.file_record import FileRecord, Phase
from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.ranges import RangeSet
from pspd.core.model.terms import ONE_COPY, Terms
from pspd.core.model.tuning import SERVER_TUNING, ServerTuning
from pspd.core.server.availability import Availability
from pspd.core.server.recipients import Recipients
from pspd.core.server.sessions import Member
from pspd.core.server.shares import Shares
from pspd.core.server.traffic import Traffic
from pspd.core.server.work_set import WorkSet


@dataclass(slots=True, eq=False)
class SharedFile:
    """A file, its phase, and the records of its shares, holders, recipients and traffic.

    Args:
        _work: the work set, which collects the marks.
        _tuning: the limit on remembered holdings.

    Attributes:
        manifest: the manifest; it has a share count after the division.
        source: the name of the source that announced the file, seeds it, or has seeded it.
        division: the number of the file's division, drawn when the file is added; it changes when the server restarts.
        phase: the phase of the file.
        terms: the terms of the seeding.
        held_back: whether the exchange waits for a release.
        was_restored: whether the file was divided before the last restart of the server.
        is_complete: whether every reachable client has the file, except clients that declined it. It is False before
            the exchange, while no reachable client accepts the file and, if it was restored, while clients are awaited.
        is_stalled: whether some chunk has no reachable holder; False before the division and, for a restored file,
            while clients are awaited.
        cached_bytes_when_seeded: how many bytes of the file were in the cache when the file became seeded.
        seeding_at: when the seeding began, or when another source last continued it, in nanoseconds; None if neither
            happened since the server started.
        seeded_at: when the file became seeded, or was restored after its seeding, in nanoseconds; None before.
        exchanging_at: when the exchange began, in nanoseconds; None if it did not begin since the server started.
        completed_at: when the file was first complete since the server started, in nanoseconds; None before.
        shares: the shares.
        availability: the holders, and the chunks that reachable members hold.
        recipients: the recipients, and the names of the clients that have the file or declined it.
        traffic: the counters of datagrams and bytes.
    """

    manifest: Manifest
    source: str
    division: int = 0
    _work: WorkSet = field(default_factory=WorkSet)
    _tuning: ServerTuning = SERVER_TUNING
    phase: Phase = Phase.ANNOUNCED
    terms: Terms = ONE_COPY
    held_back: bool = False
    was_restored: bool = False
    is_complete: bool = False
    is_stalled: bool = False
    cached_bytes_when_seeded: int = 0
    seeding_at: int | None = None
    seeded_at: int | None = None
    exchanging_at: int | None = None
    completed_at: int | None = None
    shares: Shares = field(init=False)
    availability: Availability = field(init=False)
    recipients: Recipients = field(init=False)
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        """Create the records of the file."""
        self.shares = Shares(self.manifest.file_id, self._work)
        self.availability = Availability(self.manifest, self._work, self._tuning.departed_clients_max)
        self.recipients = Recipients(self.manifest.file_id, self._work)

    @staticmethod
    def from_record(record: FileRecord, division: int, work: WorkSet, tuning: ServerTuning) -> SharedFile:
        """Return a file as it was saved before a restart. It has no holders until clients return.

        Args:
            record: the saved record.
            division: the new number of the file's division.
            work: the work set, which collects the marks.
            tuning: the limit on remembered holdings.
        """
        file = SharedFile(record.manifest, record.source, division, work, tuning, record.phase, was_restored=True)
        file.held_back = record.held_back
        file.terms = Terms(replica_count=len(record.owners) // max(1, record.manifest.share_count))
        file.shares.create(record.manifest, record.owners)
        if file.phase is not Phase.SEEDING:
            file.seeded_at = work.now
            for name in file.shares.unheld_owners():
                file.shares.acknowledge(name)
            file.shares.end_seeding()
            for share in file.shares.all:
                if share.owner:
                    file.availability.remember_departed(share.owner, share.start, share.stop)
        return file

    # -- reading

    @property
    def file_id(self) -> FileId:
        """The file's id."""
        return self.manifest.file_id

    @property
    def record(self) -> FileRecord:
        """The record that the server saves for a restart."""
        return FileRecord(self.manifest, self.source, self.phase, self.held_back, self.shares.owners)

    @property
    def is_divided(self) -> bool:
        """Whether the file is divided and not removed."""
        return self.phase not in (Phase.ANNOUNCED, Phase.REMOVED)

    @property
    def is_draining(self) -> bool:
        """Whether the current phase cannot end before the server has no byte of the file."""
        return self.phase in (Phase.SEEDING, Phase.REMOVED)

    def servable(self, name: str, ranges: Iterable[tuple[int, int]]) -> RangeSet:
        """Return the part of a request that may be served now (R2).

        Args:
            name: the client's name.
            ranges: the requested ranges.

        Returns:
            During seeding, the requested chunks in the client's shares; during the exchange, all requested chunks of
            the file; in other phases, no chunks.
        """
        inside = RangeSet((start, min(stop, self.manifest.chunk_count)) for start, stop in ranges)
        if self.phase is Phase.EXCHANGING:
            return inside
        if self.phase is Phase.SEEDING:
            return inside.intersection(RangeSet(self.shares.ranges_of(name)))
        return RangeSet()

    # -- phases

    def note_announcement(self, source: str, terms: Terms) -> None:
        """Note which source announced the file, with its terms. If it is divided, note only ``terms.source_stays``.

        Args:
            source: the source's name.
            terms: the terms of the source.
        """
        if self.phase is Phase.ANNOUNCED:
            self.source, self.terms = source, terms
        else:
            self.terms = replace(self.terms, source_stays=terms.source_stays)

    def divide(self, manifest: Manifest, source: str, owners: Iterable[str], *, held_back: bool = False) -> None:
        """Divide the file, and begin to seed it (R1).

        Args:
            manifest: the manifest, with the share count.
            source: the source's name.
            owners: the name of each share's owner, in the order of ``Shares.all``.
            held_back: whether the exchange waits for a release.
        """
        self.manifest, self.source, self.held_back = manifest, source, held_back
        self.phase, self.seeding_at = Phase.SEEDING, self._work.now
        self.shares.create(manifest, owners)
        self.availability.recompute_units(manifest)

    def release(self) -> None:
        """Let the exchange begin when the file is seeded."""
        self.held_back = False
        self._work.mark_changed(self.file_id)

    def note_source(self, source: str, now: int) -> None:
        """During seeding, make a source that announced the file again the source of the file.

        Args:
            source: the source's name.
            now: the time, in nanoseconds.
        """
        if self.phase is Phase.SEEDING:
            if self.source != source:
                self.seeding_at = now  # the duration of the seeding counts from here
            self.source = source

    def end_seeding(self, cached_bytes: int, now: int) -> None:
        """End the seeding: the file is seeded (R2).

        Args:
            cached_bytes: how many bytes of the file are in the cache.
            now: the time, in nanoseconds.
        """
        self.phase, self.seeded_at = Phase.SEEDED, now
        self.cached_bytes_when_seeded = cached_bytes
        self.shares.end_seeding()
        self.traffic.note_seeded()
        self._work.mark_changed(self.file_id)

    def begin_exchange(self, now: int) -> None:
        """Begin the exchange."""
        self.phase, self.exchanging_at = Phase.EXCHANGING, now

    def set_stalled(self, stalled: bool) -> None:
        """Set whether some chunk has no reachable holder."""
        self.is_stalled = stalled

    def set_complete(self, is_complete: bool, now: int) -> None:
        """Set whether the file is complete, and note when it was first complete.

        Args:
            is_complete: whether the file is complete.
            now: the time, in nanoseconds.
        """
        self.is_complete = is_complete
        if is_complete:
            self.completed_at = self.completed_at or now

    def mark_removed(self) -> None:
        """Note that the file is removed. ``Lifecycle`` deletes it when its last byte has left the cache."""
        self.phase = Phase.REMOVED
        self.is_complete = False
        self._work.mark_changed(self.file_id)

    def check(self, members: Mapping[str, Member]) -> None:
        """Assert the invariants.

        Args:
            members: the members, by name.
        """
        self.shares.check()
        self.availability.check()
        self.recipients.check()
        assert self.availability.held.keys() == members.keys(), "holdings and members differ"
        unreachable = {name for name, member in members.items() if not member.reachable}
        assert self.availability.unreachable == unreachable, "a member is reachable for one file and not for another"
        assert self.phase is Phase.EXCHANGING or not self.is_complete, "complete before the exchange"
