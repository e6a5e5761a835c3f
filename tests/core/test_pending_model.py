"""The pending table, compared with a plain dictionary of fetches."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pspd.core.cache.cache import Cache
from pspd.core.model.manifest import CHUNK_BYTES, Manifest
from pspd.core.model.parameters import FAST, MILLISECOND_NS
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.tuning import SERVER_TUNING
from pspd.core.server.pending import Fetch, Pending
from pspd.core.server.sessions import Member
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.work_set import WorkSet
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason, Kind
from pspd.store.digests import blake3_digest
from tests.core.samples import sample_bytes

FILE_CHUNKS = 12
CACHE_CHUNKS = 16
SESSIONS = (1, 2, 3)

files = st.integers(0, 1)
sessions = st.sampled_from(SESSIONS)
picks = st.integers(0, 999)

T = TypeVar("T")


@dataclass
class Entry:
    """The model of a fetch.

    Attributes:
        file: the index of the file.
        span: the range.
        session: the session number of the named holder; None if every holder is asked.
        number: the number of the latest broadcast; 0 before the first.
        was_asked: whether the fetch, or the fetch from which it was cut, was broadcast.
        is_queued: whether the fetch waits to be broadcast.
        sender: the session number of the member that is sending the range; None if no member is.
    """

    file: int
    span: Range
    session: int | None
    number: int = 0
    was_asked: bool = False
    is_queued: bool = True
    sender: int | None = None


def pick(items: list[T], number: int) -> T:
    return items[number % len(items)]


def shared_file(seed: int) -> SharedFile:
    data = sample_bytes(FILE_CHUNKS * CHUNK_BYTES, seed)

    def read_at(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    return SharedFile(Manifest.build(f"f{seed}", len(data), read_at, blake3_digest), "source")


class PendingMachine(RuleBasedStateMachine):
    """Applies the same operations to the pending table and to a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.cache = Cache(CACHE_CHUNKS)
        self.work = WorkSet()
        self.pending = Pending(FAST, self.cache, Random(1), self.work, SERVER_TUNING)
        self.files = [shared_file(seed) for seed in range(2)]
        self.members = {session: Member(session, f"c{session}", False, b"", 1, True) for session in SESSIONS}
        self.model: dict[Fetch, Entry] = {}

    @property
    def waiting(self) -> list[Fetch]:
        return [fetch for fetch, entry in self.model.items() if entry.sender is None]

    @property
    def receiving(self) -> list[Fetch]:
        return [fetch for fetch, entry in self.model.items() if entry.sender is not None]

    @property
    def neighbours(self) -> list[tuple[Fetch, Fetch]]:
        """Pairs of adjacent fetches that may be merged: they were not broadcast yet, and name the same holder."""
        new = [
            (fetch, entry)
            for fetch, entry in self.model.items()
            if entry.number == 0 and entry.is_queued and entry.session is not None
        ]
        return [
            (first, second)
            for first, one in new
            for second, other in new
            if (one.file, one.session, one.span.stop) == (other.file, other.session, other.span.start)
        ]

    # -- starting and asking

    @rule(file=files, number=picks, length=st.integers(1, 4), session=st.none() | sessions)
    def start(self, file: int, number: int, length: int, session: int | None) -> None:
        gaps = RangeSet(entry.span for entry in self.model.values() if entry.file == file).gaps(0, FILE_CHUNKS)
        if not gaps:
            return
        gap = pick(gaps, number)
        span = Range(gap.start, min(gap.start + length, gap.stop))
        fetching = sum(entry.span.chunk_count for entry in self.model.values())
        is_reserved = self.cache.reserve(self.files[file].file_id, *span)
        assert is_reserved == (fetching + span.chunk_count <= CACHE_CHUNKS)
        if is_reserved:
            holder = self.pending.holder_of(self.members[session]) if session else None
            fetch = self.pending.start(self.files[file], span, holder)
            self.model[fetch] = Entry(file, span, session)

    @rule()
    def broadcast(self) -> None:
        queued = [fetch for fetch, entry in self.model.items() if entry.is_queued]
        found = self.pending.queued_by_file()
        assert {fetch for fetches in found.values() for fetch in fetches} == set(queued)
        for fetches in found.values():
            number = self.pending.record_broadcast(fetches, self.now)
            for fetch in fetches:
                entry = self.model[fetch]
                entry.is_queued, entry.was_asked, entry.number = False, True, number

    @precondition(lambda self: self.neighbours)
    @rule(number=picks)
    def merge_neighbours(self, number: int) -> None:
        first, second = pick(self.neighbours, number)
        self.pending.merge(first, second)
        one, other = self.model[first], self.model.pop(second)
        one.span = Range(one.span.start, other.span.stop)

    @precondition(lambda self: self.waiting)
    @rule(number=picks)
    def cut_into_units(self, number: int) -> None:
        fetch = pick(self.waiting, number)
        entry = self.model.pop(fetch)
        units = self.pending.cut_into_units(fetch)
        assert [unit.span for unit in units] == [Range(at, at + 1) for at in range(*entry.span)]
        self.pending.requeue(units)
        for unit in units:
            self.model[unit] = Entry(entry.file, unit.span, None, was_asked=entry.was_asked)

    # -- timeouts

    @rule(duration_ms=st.sampled_from([1, 300, 5000, 60_000]))
    def pass_time(self, duration_ms: int) -> None:
        self.now += duration_ms * MILLISECOND_NS
        for fetch in self.pending.expired(self.now):
            entry = self.model[fetch]
            if entry.sender is not None:
                self.pending.set_receive_timer(fetch, self.now)
            else:
                silent = self.pending.record_timeout(fetch)
                assert (silent.member.session if silent else None) == entry.session
                self.pending.requeue([fetch])
                entry.session, entry.is_queued = None, True

    @precondition(lambda self: self.waiting)
    @rule(number=picks, among=st.lists(sessions, unique=True))
    def choose_holder(self, number: int, among: list[int]) -> None:
        fetch = pick(self.waiting, number)
        holders = [self.pending.holder_of(self.members[session]) for session in among]
        asked = {holder.member.session: holder.asked_chunks for holder in holders}
        self.pending.choose_holder(fetch, holders)
        self.model[fetch].session = min(among, key=asked.__getitem__, default=None)

    # -- contributions

    @precondition(lambda self: self.waiting)
    @rule(number=picks, session=sessions)
    def accept(self, number: int, session: int) -> None:
        fetch = pick(self.waiting, number)
        entry = self.model[fetch]
        frame = self.frame(entry, session, entry.number)
        found = self.pending.accept(self.members[session], self.files[entry.file], frame, self.now)
        if not entry.was_asked:
            assert found is DropReason.UNSOLICITED
            return
        assert found is fetch
        entry.sender, entry.is_queued = session, False

    @rule(file=files, start=st.integers(0, FILE_CHUNKS - 1), length=st.integers(1, 4), number=st.integers(0, 5))
    def drop_other_ranges(self, file: int, start: int, length: int, number: int) -> None:
        """Drop a contribution whose range is not exactly the range of a fetch."""
        span = Range(start, min(start + length, FILE_CHUNKS))
        if any((entry.file, entry.span) == (file, span) for entry in self.model.values()):
            return
        frame = self.frame(Entry(file, span, None), 1, number)
        found = self.pending.accept(self.members[1], self.files[file], frame, self.now)
        assert isinstance(found, DropReason)

    @precondition(lambda self: self.receiving)
    @rule(number=picks)
    def receive(self, number: int) -> None:
        fetch = pick(self.receiving, number)
        entry = self.model.pop(fetch)
        assert entry.sender is not None
        self.pending.finish(fetch, self.members[entry.sender], self.now)
        file_id = self.files[entry.file].file_id
        self.cache.commit(file_id, *entry.span)
        self.cache.drop(file_id, *entry.span)

    @precondition(lambda self: self.receiving)
    @rule(number=picks)
    def abort(self, number: int) -> None:
        fetch = pick(self.receiving, number)
        self.pending.schedule_retry(fetch, self.now)
        self.model[fetch].sender = None

    def frame(self, entry: Entry, session: int, number: int) -> Frame:
        file_id, length = self.files[entry.file].file_id, entry.span.chunk_count * CHUNK_BYTES
        return Frame(Kind.CONTRIBUTION, session, file_id, entry.span.start, entry.span.stop, length, number)

    # -- ends

    @precondition(lambda self: self.waiting)
    @rule(number=picks)
    def abandon(self, number: int) -> None:
        fetch = pick(self.waiting, number)
        del self.model[fetch]
        self.pending.abandon(fetch)

    @rule(file=files)
    def abandon_all(self, file: int) -> None:
        self.pending.abandon_all(self.files[file].file_id)
        for fetch, entry in list(self.model.items()):
            if entry.file == file and entry.sender is None:
                del self.model[fetch]

    @rule(session=sessions)
    def lose_link(self, session: int) -> None:
        self.pending.link_lost(self.members[session])

    @rule()
    def forget_files_without_fetches(self) -> None:
        unused = {0, 1} - {entry.file for entry in self.model.values()}
        for file in unused:
            self.pending.forget(self.files[file].file_id)

    # -- comparison

    @invariant()
    def agrees_with_the_model(self) -> None:
        self.pending.check()
        self.cache.check()
        assert set(self.pending.broadcast_queue) == {fetch for fetch, entry in self.model.items() if entry.is_queued}
        for index, file in enumerate(self.files):
            table = self.pending.table_of(file.file_id)
            entries = {fetch: entry for fetch, entry in self.model.items() if entry.file == index}
            assert set(table.fetches) == set(entries)
            assert table.chunks == RangeSet(entry.span for entry in entries.values())
        for fetch, entry in self.model.items():
            assert (fetch.span, fetch.sender_session) == (entry.span, entry.sender)
            assert (fetch.holder.member.session if fetch.holder else None) == entry.session
        assert self.cache.used_chunks == sum(entry.span.chunk_count for entry in self.model.values())

    @invariant()
    def asked_chunks_are_counted(self) -> None:
        for session, member in self.members.items():
            named = [entry.span.chunk_count for entry in self.model.values() if entry.session == session]
            assert self.pending.holder_of(member).asked_chunks == sum(named)


TestPendingAgainstModel = PendingMachine.TestCase
TestPendingAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
