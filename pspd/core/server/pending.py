"""The pending table: which ranges are being fetched, of whom, and until when an answer is awaited (R7, R11)."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from pspd.core.cache.cache import Cache
from pspd.core.model.manifest import FileId
from pspd.core.model.parameters import Parameters
from pspd.core.model.ranges import Range
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.fetch import Fetch, FetchTable, Holder
from pspd.core.server.member import Member
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.work_set import WorkSet
from pspd.core.timing.rtt import RttEstimator
from pspd.core.timing.timers import Timers
from pspd.core.timing.window import frame_chunks_in
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason


class Pending:
    """Every fetch. It alone changes fetches, their tables, and what holders are asked for.

    Args:
        parameters: the profile.
        cache: where room is reserved for what is fetched.
        random: for the jitter of timeouts.
        work: where changes are marked.
        tuning: timeouts and the sizes of frames.

    Attributes:
        started_count: how many fetches were ever started.
        unasked: fetches that are to be broadcast, in order.
    """

    def __init__(
        self, parameters: Parameters, cache: Cache, random: Random, work: WorkSet, tuning: ServerTuning
    ) -> None:
        self.started_count = 0
        self.unasked: dict[Fetch, None] = {}
        self._parameters = parameters
        self._cache = cache
        self._random = random
        self._work = work
        self._tuning = tuning
        self._tables: dict[FileId, FetchTable] = {}
        self._holders: dict[int, Holder] = {}
        self._timers: Timers[Fetch] = Timers()
        self._rtt = RttEstimator()
        self._broadcast_number = 0

    # -- reading

    def table_of(self, file_id: FileId) -> FetchTable:
        """Return the fetches of a file."""
        table = self._tables.get(file_id)
        if table is None:
            table = self._tables[file_id] = FetchTable()
        return table

    def holder_of(self, member: Member) -> Holder:
        """Return what a member is asked for."""
        holder = self._holders.get(member.session)
        if holder is None:
            holder = Holder(member, self._parameters, self._tuning.fetch_rto_min_ns)
            self._holders[member.session] = holder
        return holder

    @property
    def is_active(self) -> bool:
        """Whether fetches go on: one of them will end."""
        return bool(self.unasked) or self._timers.next_deadline() is not None

    @property
    def frame_chunks(self) -> int:
        """The most chunks that one fetch brings: the profile's, or fewer if the cache is small."""
        tuning, capacity = self._tuning, self._cache.capacity_chunks
        small = min(tuning.small_frame_chunks, capacity // tuning.small_frame_cache_divisor)
        return min(self._parameters.frame_chunks, max(1, small, capacity // tuning.frame_cache_divisor))

    @property
    def joined_chunks_max(self) -> int:
        """The most chunks of a joined fetch: what the narrowest window takes as one frame."""
        return min(self.frame_chunks, frame_chunks_in(self._parameters.window_min_chunks))

    def timeout_ns(self, fetch: Fetch) -> int:
        """Return how long to wait for the answer to a broadcast, in nanoseconds."""
        rtt = fetch.holder.rtt if fetch.holder else self._rtt
        return rtt.timeout_ns(self._random, fetch.tries - 1)

    # -- the life of a fetch

    def start(self, file: SharedFile, span: Range, holder: Holder | None) -> Fetch:
        """Start to fetch a range for which room is reserved; it is to be broadcast.

        Args:
            file: the file.
            span: the range.
            holder: the member to name; None for every holder.
        """
        self.started_count += 1
        fetch = Fetch(file, span.start, span.stop, self.started_count)
        self.table_of(file.file_id).add(fetch)
        fetch.assign(holder)
        self.unasked[fetch] = None
        return fetch

    def join(self, fetch: Fetch, following: Fetch) -> None:
        """Make one fetch of two neighbours that one holder is asked for, and that are not broadcast yet.

        Args:
            fetch: the first, which stays.
            following: the second, which it takes over.
        """
        self._timers.cancel(following)
        self.table_of(fetch.file.file_id).join(fetch, following)

    def cut_into_units(self, fetch: Fetch) -> list[Fetch]:
        """Cut a fetch into units, and return those: every holder has a unit whole or not at all."""
        self._timers.cancel(fetch)
        self.unasked.pop(fetch, None)
        fetch.assign(None)
        pieces = []
        for unit, _ in fetch.file.manifest.units(fetch.start, fetch.stop):
            span = Range(max(unit.start, fetch.start), min(unit.stop, fetch.stop))
            pieces.append(Fetch(fetch.file, *span, fetch.order, fetch.tries))
        self.table_of(fetch.file.file_id).cut(fetch, pieces)
        return pieces

    def assign(self, fetch: Fetch, holders: list[Holder]) -> None:
        """Name the holder to answer a fetch: the one that is asked for least.

        Args:
            fetch: the fetch.
            holders: those who can; if there are none, every holder is asked.
        """
        fetch.assign(min(holders, key=lambda holder: holder.asked_chunks, default=None))

    def timed_out(self, fetch: Fetch) -> Holder | None:
        """Take a fetch from the holder that did not answer, and return that; None if every holder was asked."""
        silent = fetch.holder
        if silent is not None:
            silent.window.timed_out()
            fetch.assign(None)
        return silent

    def ask_again(self, fetches: list[Fetch]) -> None:
        """Have fetches broadcast again."""
        self.unasked.update(dict.fromkeys(fetches))

    def take_unasked(self) -> dict[SharedFile, list[Fetch]]:
        """Return the fetches to broadcast, by file, in order."""
        found: dict[SharedFile, list[Fetch]] = {}
        for fetch in self.unasked:
            found.setdefault(fetch.file, []).append(fetch)
        return found

    def asking(self, fetches: list[Fetch]) -> None:
        """Note that fetches are being broadcast now."""
        for fetch in fetches:
            del self.unasked[fetch]

    def asked(self, fetches: list[Fetch], now: int) -> int:
        """Note that one broadcast asks for fetches.

        Args:
            fetches: the fetches.
            now: the time, in nanoseconds.

        Returns:
            The broadcast's number.
        """
        self._broadcast_number += 1
        for fetch in fetches:
            fetch.asked(self._broadcast_number, now)
            self._timers.set(fetch, now + self.timeout_ns(fetch))
        return self._broadcast_number

    def give_up(self, fetch: Fetch) -> None:
        """End a fetch that brings nothing."""
        self._end(fetch)
        self._cache.release(fetch.file.file_id, fetch.start, fetch.stop)

    def give_up_all(self, file_id: FileId) -> None:
        """End every fetch of a file, except what is being received."""
        for fetch in list(self.table_of(file_id).ranges):
            if fetch.sender is None:
                self.give_up(fetch)

    def _end(self, fetch: Fetch) -> None:
        self._timers.cancel(fetch)
        self.unasked.pop(fetch, None)
        self.table_of(fetch.file.file_id).remove(fetch)
        fetch.assign(None)
        self._work.admit()
        if fetch.file.is_draining:
            self._work.file_changed(fetch.file.file_id)

    def forget(self, file_id: FileId) -> None:
        """Forget a file that is gone."""
        self._tables.pop(file_id, None)

    # -- contributions

    def accept(self, member: Member, file: SharedFile, frame: Frame, now: int) -> Fetch | DropReason:
        """Accept a contribution's head.

        Args:
            member: who sends it.
            file: the file.
            frame: the head.
            now: the time, in nanoseconds.

        Returns:
            The fetch that it answers, or why it is to be dropped.
        """
        fetch = self.table_of(file.file_id).ranges.at(frame.start)
        exact = fetch is not None and (fetch.start, fetch.stop) == (frame.start, frame.stop)
        if fetch is None or not exact or fetch.sender is not None or fetch.tries == 0:
            file.traffic.count_duplicate(frame.length)
            answers = 0 < frame.number <= self._broadcast_number
            return DropReason.DUPLICATE if answers else DropReason.UNSOLICITED
        holder = self.holder_of(member)
        if frame.number == fetch.number:
            rtt = holder.rtt if fetch.holder is holder else self._rtt
            rtt.sample(now - fetch.asked_at)
        self._note_reordering(holder, frame.number, now)
        fetch.receive_from(member.session)
        self.unasked.pop(fetch, None)
        self.await_rest(fetch, now)
        return fetch

    def _note_reordering(self, holder: Holder, number: int, now: int) -> None:
        """Find what was lost: a holder answers in the order in which it was asked (R11)."""
        holder.answers(now)
        for fetch in holder.asked:  # in the order of their numbers; those that have none yet come last
            if fetch.number >= number or fetch.tries == 0:
                break
            if fetch.sender is None and fetch not in self.unasked:
                fetch.lost()
                self._timers.set(fetch, now + max(self._tuning.reordering_ns_min, holder.rtt.srtt_ns // 2))

    def received(self, fetch: Fetch, member: Member | None, now: int) -> None:
        """End a fetch whose range has come.

        Args:
            fetch: the fetch.
            member: who sent it; None if its session has ended.
            now: the time, in nanoseconds.
        """
        self._end(fetch)
        if member is not None:
            self.holder_of(member).answered(fetch, now)

    def retry(self, fetch: Fetch, now: int) -> None:
        """Ask again for what did not come, or came wrong.

        Args:
            fetch: the fetch.
            now: the time, in nanoseconds.
        """
        fetch.receive_from(None)
        # At once the first time; a holder that goes on like this must not set the pace.
        self._timers.set(fetch, now if fetch.tries == 1 else now + self.timeout_ns(fetch))
        if fetch.file.is_draining:
            self._work.file_changed(fetch.file.file_id)

    # -- members

    def seed_rtt(self, member: Member, srtt_us: int) -> None:
        """Take the round-trip time that a member measured.

        Args:
            member: the member.
            srtt_us: the round-trip time, in microseconds; 0 if it does not know.
        """
        self.holder_of(member).note_first_rtt(srtt_us)

    def link_lost(self, member: Member) -> None:
        """Have what a member was asked for asked again: it will not come over the link that is gone."""
        for fetch in self.holder_of(member).asked:
            if fetch.sender is None:
                fetch.lost()
                self._timers.set(fetch, fetch.asked_at)

    def member_lost(self, member: Member) -> None:
        """Forget what a member that is gone is asked for."""
        self.link_lost(member)
        self._holders.pop(member.session, None)

    # -- time

    def next_timeout(self) -> int | None:
        """Return when the answer to a broadcast is overdue first; None if none is awaited."""
        return self._timers.next_deadline()

    def expired(self, now: int) -> Iterator[Fetch]:
        """Take out the fetches whose answers are overdue."""
        return self._timers.expired(now)

    def wait(self, fetch: Fetch, now: int) -> None:
        """Wait once more for the answer to a broadcast.

        Args:
            fetch: what is awaited.
            now: the time, in nanoseconds.
        """
        self._timers.set(fetch, now + self.timeout_ns(fetch))

    def await_rest(self, fetch: Fetch, now: int) -> None:
        """Wait for the rest of a contribution.

        Args:
            fetch: what is being received.
            now: the time, in nanoseconds.
        """
        receive_ns = self._tuning.receive_ns + self._tuning.receive_ns_per_chunk * fetch.chunk_count
        self._timers.set(fetch, now + receive_ns)

    def check(self) -> None:
        """Assert the invariants."""
        for table in self._tables.values():
            table.check()
            for fetch in table.ranges:
                waits = fetch in self.unasked or fetch in self._timers
                assert waits, f"nothing will come of the fetch of {fetch.span}"
        for holder in self._holders.values():
            assert holder.asked_chunks == sum(fetch.chunk_count for fetch in holder.asked), (
                "asked chunks are miscounted"
            )
            assert all(fetch.holder is holder for fetch in holder.asked), "a holder is asked for another's fetch"
