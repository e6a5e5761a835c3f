"""The pending table: the fetches, their timers, and the holders that are asked to answer them (R7, R11).

One fetch serves all clients that want its range: the range is delivered to each of them, as far as window and quota
allow, before it can be evicted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from pspd.core.cache.cache import Cache
from pspd.core.model.manifest import FileId
from pspd.core.model.parameters import Parameters
from pspd.core.model.ranges import Range, RangeMap, RangeSet
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.sessions import Member
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.work_set import WorkSet
from pspd.core.timing.rtt import RttEstimator
from pspd.core.timing.timers import Timers
from pspd.core.timing.window import Window
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason


@dataclass(eq=False, repr=False, slots=True)
class HolderRecord:
    """The holder record of a member: the fetches that the member is named to answer, and how fast it answers.

    Attributes:
        member: the member.
        rtt: the estimator of the time from a broadcast to the head of the contribution that answers it. The first
            sample is the round-trip time that the member measured, if known.
        window: the limit on the chunks that the member is asked for at the same time.
        fetches: the fetches that the member is named to answer, in the order in which the member was named.
        asked_chunks: the number of chunks in ``fetches``.
        heard_at: when the server last accepted the head, or the correct payload, of a contribution from the member, in
            nanoseconds; 0 before the first.
    """

    member: Member
    rtt: RttEstimator
    window: Window
    fetches: dict[Fetch, None] = field(default_factory=dict)
    asked_chunks: int = 0
    heard_at: int = 0

    @property
    def has_room(self) -> bool:
        """Whether the window allows another fetch."""
        return self.asked_chunks < self.window.chunks


@dataclass(eq=False, repr=False, slots=True)
class Fetch:
    """A range that is being fetched. A fetch ends when its range arrives, or when the server abandons it.

    Fetches can also be merged, and a fetch can be cut into units.

    Attributes:
        file: the file.
        start: the first chunk.
        stop: one past the last chunk.
        serial: the serial number of the fetch; fetches are counted from 1 as they start. A merged fetch has that of its
            second part, and the fetch of a unit has that of the fetch from which it was cut.
        tries: how often the fetch was broadcast, including broadcasts of the fetch from which it was cut.
        broadcast_number: the number of the latest broadcast; 0 if there was none since the fetch was started or cut.
        broadcast_at: when that broadcast was sent, in nanoseconds; 0 if there was none.
        holder: the record of the member that is named to answer; None if every holder is asked.
        sender_session: the session number of the member that is sending the range; None if no member is.
        is_presumed_lost: whether the latest broadcast or its answer is presumed lost (R11), because the holder has
            answered a later broadcast, or because the holder's link is lost.
    """

    file: SharedFile
    start: int
    stop: int
    serial: int
    tries: int = 0
    broadcast_number: int = 0
    broadcast_at: int = 0
    holder: HolderRecord | None = None
    sender_session: int | None = None
    is_presumed_lost: bool = False

    @property
    def chunk_count(self) -> int:
        """The number of chunks in the range."""
        return self.stop - self.start

    @property
    def span(self) -> Range:
        """The range that is being fetched."""
        return Range(self.start, self.stop)

    def assign_holder(self, holder: HolderRecord | None) -> None:
        """Name another holder to answer; None to ask every holder."""
        if self.holder is not None:
            del self.holder.fetches[self]
            self.holder.asked_chunks -= self.chunk_count
        self.holder = holder
        if holder is not None:
            holder.fetches[self] = None
            holder.asked_chunks += self.chunk_count


@dataclass(eq=False, repr=False, slots=True)
class FetchTable:
    """The fetches of one file.

    Attributes:
        fetches: the fetches, in the order of their chunks.
        chunks: the chunks of all fetches.
        change_count: how often ``chunks`` has changed.
    """

    fetches: RangeMap[Fetch] = field(default_factory=RangeMap)
    chunks: RangeSet = field(default_factory=RangeSet)
    change_count: int = 0

    def check(self) -> None:
        """Assert the invariants."""
        assert RangeSet(fetch.span for fetch in self.fetches) == self.chunks, "the chunks are not those of the fetches"
        for fetch in self.fetches:
            assert fetch.holder is None or fetch in fetch.holder.fetches, "a fetch is missing from its holder's record"


@dataclass(eq=False)
class Pending:
    """The pending table. Only this class changes ``Fetch``, ``FetchTable`` and ``HolderRecord`` records.

    Args:
        _parameters: the profile.
        _cache: the cache, which has reserved room for the fetches.
        _random: the source of jitter for timeouts.
        _work: the work set, which notes what must be done next.
        _tuning: the timeouts and the sizes of frames.

    Attributes:
        started_count: the number of fetches started so far.
        broadcast_queue: the fetches that wait to be broadcast, in order.
    """

    _parameters: Parameters
    _cache: Cache
    _random: Random
    _work: WorkSet
    _tuning: ServerTuning
    started_count: int = 0
    broadcast_queue: dict[Fetch, None] = field(default_factory=dict)
    _tables: dict[FileId, FetchTable] = field(default_factory=dict)
    _holders: dict[int, HolderRecord] = field(default_factory=dict)
    _timers: Timers[Fetch] = field(default_factory=Timers)
    _rtt: RttEstimator = field(default_factory=RttEstimator)
    _last_broadcast_number: int = 0

    # -- reading

    def table_of(self, file_id: FileId) -> FetchTable:
        """Return the fetch table of a file. Create it if there is none."""
        table = self._tables.get(file_id)
        if table is None:
            table = self._tables[file_id] = FetchTable()
        return table

    def holder_of(self, member: Member) -> HolderRecord:
        """Return the holder record of a member. Create it if there is none."""
        holder = self._holders.get(member.session)
        if holder is None:
            window = Window(self._parameters.window_min_chunks, self._parameters.window_max_chunks)
            holder = HolderRecord(member, RttEstimator(self._tuning.fetch_rto_min_ns), window)
            self._holders[member.session] = holder
        return holder

    @property
    def has_fetches(self) -> bool:
        """Whether there are fetches. Each fetch is queued to be broadcast, or has a timer."""
        return bool(self.broadcast_queue) or self._timers.next_deadline() is not None

    @property
    def fetch_chunks_max(self) -> int:
        """The most chunks in one fetch: the profile's limit, or less if the cache is small."""
        tuning, capacity = self._tuning, self._cache.capacity_chunks
        small = min(tuning.small_frame_chunks, capacity // tuning.small_frame_cache_divisor)
        return min(self._parameters.frame_chunks, max(1, small, capacity // tuning.frame_cache_divisor))

    def timeout_ns(self, fetch: Fetch) -> int:
        """Return how long to wait for the answer to the latest broadcast of a fetch, in nanoseconds."""
        rtt = fetch.holder.rtt if fetch.holder else self._rtt
        return rtt.timeout_ns(self._random, fetch.tries - 1)

    # -- the life of a fetch

    def start(self, file: SharedFile, span: Range, holder: HolderRecord | None) -> Fetch:
        """Add a fetch, queue it to be broadcast, and return it.

        Args:
            file: the file.
            span: the range, for which the cache has reserved room.
            holder: the record of the holder to name; None to ask every holder.
        """
        self.started_count += 1
        fetch = Fetch(file, span.start, span.stop, self.started_count)
        table = self.table_of(file.file_id)
        table.fetches.insert(fetch)
        table.chunks.add(fetch.start, fetch.stop)
        table.change_count += 1
        fetch.assign_holder(holder)
        self.broadcast_queue[fetch] = None
        return fetch

    def merge(self, fetch: Fetch, following: Fetch) -> None:
        """Merge two adjacent fetches that wait to be broadcast and name the same holder.

        Args:
            fetch: the first fetch. It becomes the merged fetch.
            following: the second fetch. It is removed.
        """
        self._timers.cancel(following)
        del self.broadcast_queue[following]
        self.table_of(fetch.file.file_id).fetches.remove(following)
        holder = fetch.holder
        following.assign_holder(None)
        fetch.assign_holder(None)
        fetch.stop, fetch.serial = following.stop, following.serial
        fetch.assign_holder(holder)

    def cut_into_units(self, fetch: Fetch) -> list[Fetch]:
        """Replace a fetch by one fetch for each unit that overlaps the range, and return the new fetches.

        The new fetches name no holder, and are not queued. Members hold whole units, so a member that does not hold
        the whole range may hold some of the units.
        """
        self._timers.cancel(fetch)
        self.broadcast_queue.pop(fetch, None)
        fetch.assign_holder(None)
        fetches = self.table_of(fetch.file.file_id).fetches
        fetches.remove(fetch)
        parts = []
        for unit, _ in fetch.file.manifest.units(fetch.start, fetch.stop):
            span = Range(max(unit.start, fetch.start), min(unit.stop, fetch.stop))
            part = Fetch(fetch.file, span.start, span.stop, fetch.serial, fetch.tries)
            fetches.insert(part)
            parts.append(part)
        return parts

    def choose_holder(self, fetch: Fetch, holders: list[HolderRecord]) -> None:
        """Choose the holder that has the fewest chunks to send, and name it to answer a fetch.

        Args:
            fetch: the fetch.
            holders: the records of the holders to choose from. If there are none, every holder is asked.
        """
        fetch.assign_holder(min(holders, key=lambda holder: holder.asked_chunks, default=None))

    def record_timeout(self, fetch: Fetch) -> HolderRecord | None:
        """Record a timeout of a fetch in the window of the named holder. The fetch then names no holder.

        Returns:
            The record of the holder that did not answer; None if every holder was asked.
        """
        silent = fetch.holder
        if silent is not None:
            silent.window.note_timeout()
            fetch.assign_holder(None)
        return silent

    def requeue(self, fetches: list[Fetch]) -> None:
        """Queue fetches to be broadcast again. Fetches that are queued already keep their places."""
        self.broadcast_queue.update(dict.fromkeys(fetches))

    def queued_by_file(self) -> dict[SharedFile, list[Fetch]]:
        """Return the fetches that wait to be broadcast, by file, in order."""
        found: dict[SharedFile, list[Fetch]] = {}
        for fetch in self.broadcast_queue:
            found.setdefault(fetch.file, []).append(fetch)
        return found

    def record_broadcast(self, fetches: list[Fetch], now: int) -> int:
        """Record a broadcast that asks for fetches, remove the fetches from the queue, and set their timers.

        Args:
            fetches: the fetches that the broadcast asks for.
            now: the time, in nanoseconds.

        Returns:
            The broadcast's number.
        """
        self._last_broadcast_number += 1
        for fetch in fetches:
            del self.broadcast_queue[fetch]
            fetch.broadcast_number, fetch.broadcast_at = self._last_broadcast_number, now
            fetch.tries += 1
            fetch.is_presumed_lost = False
            self._timers.set(fetch, now + self.timeout_ns(fetch))
        return self._last_broadcast_number

    def abandon(self, fetch: Fetch) -> None:
        """Abandon a fetch, and release the room that the cache has reserved for it."""
        self._end(fetch)
        self._cache.release(fetch.file.file_id, fetch.start, fetch.stop)

    def abandon_all(self, file_id: FileId) -> None:
        """Abandon every fetch of a file, except fetches whose contributions are being received."""
        for fetch in list(self.table_of(file_id).fetches):
            if fetch.sender_session is None:
                self.abandon(fetch)

    def _end(self, fetch: Fetch) -> None:
        self._timers.cancel(fetch)
        self.broadcast_queue.pop(fetch, None)
        table = self.table_of(fetch.file.file_id)
        table.fetches.remove(fetch)
        table.chunks.discard(fetch.start, fetch.stop)
        table.change_count += 1
        fetch.assign_holder(None)
        self._work.mark_retry_waiting()
        if fetch.file.is_draining:
            self._work.mark_changed(fetch.file.file_id)

    def forget(self, file_id: FileId) -> None:
        """Delete the table of a deleted file."""
        self._tables.pop(file_id, None)

    # -- contributions

    def accept(self, member: Member, file: SharedFile, frame: Frame, now: int) -> Fetch | DropReason:
        """Accept a contribution by its head. If it is refused, count its bytes as duplicate.

        An accepted contribution may measure a round trip, and may show that earlier broadcasts are lost.

        Args:
            member: the sender.
            file: the file.
            frame: the contribution's head.
            now: the time, in nanoseconds.

        Returns:
            The fetch that the contribution answers, or the reason to drop the contribution.
        """
        fetch = self.table_of(file.file_id).fetches.at(frame.start)
        exact = fetch is not None and (fetch.start, fetch.stop) == (frame.start, frame.stop)
        if fetch is None or not exact or fetch.sender_session is not None or fetch.tries == 0:
            file.traffic.count_duplicate(frame.length)
            answers = 0 < frame.number <= self._last_broadcast_number
            return DropReason.DUPLICATE if answers else DropReason.UNSOLICITED
        holder = self.holder_of(member)
        if frame.number == fetch.broadcast_number:
            rtt = holder.rtt if fetch.holder is holder else self._rtt
            rtt.sample(now - fetch.broadcast_at)
        self._detect_loss(holder, frame.number, now)
        fetch.sender_session = member.session
        self.broadcast_queue.pop(fetch, None)
        self.set_receive_timer(fetch, now)
        return fetch

    def _detect_loss(self, holder: HolderRecord, number: int, now: int) -> None:
        """Note that a holder answers a broadcast, and presume its unanswered earlier broadcasts lost (R11).

        A holder answers broadcasts in order. But the answer to an earlier broadcast may only be late. So the fetches of
        that broadcast are broadcast again only after half a round trip, but at least ``reordering_ns_min``.
        """
        holder.heard_at = now
        # ``fetches`` is in the order of assignment, which is nearly always the order of the numbers. Where it is not, a
        # lost broadcast may be noticed only when the timer of its fetch expires.
        for fetch in holder.fetches:
            if fetch.broadcast_number >= number or fetch.tries == 0:
                break
            if fetch.sender_session is None and fetch not in self.broadcast_queue:
                fetch.is_presumed_lost = True
                self._timers.set(fetch, now + max(self._tuning.reordering_ns_min, holder.rtt.srtt_ns // 2))

    def finish(self, fetch: Fetch, member: Member | None, now: int) -> None:
        """End a fetch whose range has arrived, and record the arrival in the sender's window.

        Args:
            fetch: the fetch.
            member: the sender of the range; None if its session has ended.
            now: the time, in nanoseconds.
        """
        self._end(fetch)
        if member is not None:
            holder = self.holder_of(member)
            holder.heard_at = now
            holder.window.note_delivery(fetch.chunk_count, holder.rtt.min_ns, now)

    def schedule_retry(self, fetch: Fetch, now: int) -> None:
        """Set the timer to broadcast a fetch again, because its contribution broke off or was corrupt.

        Args:
            fetch: the fetch.
            now: the time, in nanoseconds.
        """
        fetch.sender_session = None
        # After the first broadcast, retry at once; later with a pause, so that a faulty holder causes no busy loop.
        self._timers.set(fetch, now if fetch.tries == 1 else now + self.timeout_ns(fetch))
        if fetch.file.is_draining:
            self._work.mark_changed(fetch.file.file_id)

    # -- members

    def seed_rtt(self, member: Member) -> None:
        """Use the round-trip time that a member measured as the first sample. Do nothing after the first sample."""
        rtt = self.holder_of(member).rtt
        if member.srtt_us and not rtt.srtt_ns:
            rtt.sample(member.srtt_us * 1000)

    def link_lost(self, member: Member) -> None:
        """Presume lost the broadcasts of fetches that name a member whose link is lost. Let the fetches' timers expire.

        Fetches that are being received do not change.
        """
        for fetch in self.holder_of(member).fetches:
            if fetch.sender_session is None:
                fetch.is_presumed_lost = True
                self._timers.set(fetch, fetch.broadcast_at)

    def member_left(self, member: Member) -> None:
        """Do what :meth:`link_lost` does, and delete the holder record of a member whose session ends."""
        self.link_lost(member)
        self._holders.pop(member.session, None)

    # -- time

    def next_timeout(self) -> int | None:
        """Return when the next timer of a fetch expires, in nanoseconds; None if no timer runs."""
        return self._timers.next_deadline()

    def expired(self, now: int) -> Iterator[Fetch]:
        """Yield the fetches whose timers have expired, and remove these timers."""
        return self._timers.expired(now)

    def restart_timer(self, fetch: Fetch, now: int) -> None:
        """Restart the timer for the answer to the latest broadcast of a fetch.

        Args:
            fetch: the fetch.
            now: the time, in nanoseconds.
        """
        self._timers.set(fetch, now + self.timeout_ns(fetch))

    def set_receive_timer(self, fetch: Fetch, now: int) -> None:
        """Set the timer of a fetch to the longest time that the reception of its contribution may take.

        Args:
            fetch: the fetch that is being received.
            now: the time, in nanoseconds.
        """
        limit_ns = self._tuning.receive_timeout_ns + self._tuning.receive_timeout_ns_per_chunk * fetch.chunk_count
        self._timers.set(fetch, now + limit_ns)

    def check(self) -> None:
        """Assert the invariants."""
        for table in self._tables.values():
            table.check()
            for fetch in table.fetches:
                assert fetch in self.broadcast_queue or fetch in self._timers, f"{fetch.span} has no timer"
        for holder in self._holders.values():
            assert holder.asked_chunks == sum(fetch.chunk_count for fetch in holder.fetches), (
                "asked chunks are miscounted"
            )
            assert all(fetch.holder is holder for fetch in holder.fetches), "a holder is asked for another's fetch"
