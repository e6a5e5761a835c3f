"""Deliveries: from the cache to the clients that want it (R4, R6, R9).

What is cached when a client asks leaves at once. What arrives is delivered to all who want it before it can be evicted:
at once or, where many clients wait, in a batch with what arrives soon after.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from pspd.core.cache.cache import Cache
from pspd.core.effects.server import Deliver
from pspd.core.model.parameters import Parameters
from pspd.core.model.ranges import Range, RangeMap, RangeSet
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.demand import Demand
from pspd.core.server.fetch import Fetch
from pspd.core.server.member import Member
from pspd.core.server.pending import Pending
from pspd.core.server.request_state import Requester, RequestState
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.work_set import WorkSet
from pspd.core.timing.pacing import Pacer
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import Kind


class OutgoingDelivery(NamedTuple):
    """A delivery that is to leave.

    Attributes:
        state: the request that it answers.
        span: what it carries.
        number: its number.
        echo: the request whose round trip it measures; 0 for none.
    """

    state: RequestState
    span: Range
    number: int
    echo: int


@dataclass(slots=True)
class FanOut:
    """Deliveries out of one cached frame: what they carry is pinned once, until the last one's buffers are released.

    Attributes:
        start, stop: the frame.
        outgoing: the deliveries, until they leave.
        pinned: what they carry, together.
        unreleased_count: how many have left whose buffers are not released.
    """

    start: int
    stop: int
    outgoing: list[OutgoingDelivery] = field(default_factory=list)
    pinned: list[Range] = field(default_factory=list)
    unreleased_count: int = 0


class Deliveries:
    """Moves chunks from the cache to clients.

    Args:
        parameters: the profile.
        cache: the bytes.
        pending: the sizes of frames.
        demand: who wants what.
        work: takes the effects and the marks.
        tuning: quota, pace and size of batches.
    """

    def __init__(
        self,
        parameters: Parameters,
        cache: Cache,
        pending: Pending,
        demand: Demand,
        work: WorkSet,
        tuning: ServerTuning,
    ) -> None:
        self._parameters = parameters
        self._cache = cache
        self._pending = pending
        self._demand = demand
        self._work = work
        self._tuning = tuning
        self._batches: dict[SharedFile, list[Fetch]] = {}  # in turn
        self._pacer = Pacer(tuning.delivery_pacing_ns)
        self._unreleased: dict[tuple[int, int], tuple[RequestState, Range, FanOut]] = {}
        self._number = 0

    # -- time

    def next_timeout(self) -> int | None:
        """Return when :meth:`handle_timeout` is due."""
        return self._pacer.next_at if self._batches else None

    def handle_timeout(self, now: int) -> None:
        """Flush batches, the files in turn, as far as it is time."""
        while self._batches and self._pacer.is_allowed(now):
            self._flush_paced(next(iter(self._batches)), now)

    def _flush_paced(self, file: SharedFile, now: int) -> None:
        self._pacer.spend(self.flush(file), now)

    # -- quota

    def quota_left_chunks(self, requester: Requester) -> int:
        """Return how many more chunks of the cache deliveries to one member may pin."""
        capacity = self._cache.capacity_chunks
        two_frames = min(2 * self._pending.frame_chunks, max(1, capacity // 2))
        return max(capacity // self._tuning.quota_cache_divisor, two_frames) - requester.quota_used_chunks

    def _credit_chunks(self, state: RequestState) -> int:
        """Return how many more chunks the client takes now, within its quota."""
        return min(state.window_left_chunks, self.quota_left_chunks(state.requester))

    # -- what leaves

    def deliver_cached(self, state: RequestState) -> None:
        """Deliver what a client wants and is cached."""
        credit_chunks = self._credit_chunks(state)
        for cached in self._cache.cached_among(state.file.file_id, state.wanted) if credit_chunks > 0 else ():
            for outgoing in self._depart(state, cached, state.newest_echo, credit_chunks):
                chunk_count = outgoing.span.chunk_count
                credit_chunks -= chunk_count
                self._cache.count_hits(chunk_count)
                self._send(state.file, FanOut(*outgoing.span, [outgoing]))
            if credit_chunks <= 0:
                break

    def fetched(self, fetch: Fetch, now: int) -> None:
        """Deliver what was fetched to all who want it (R9), at once or in a batch.

        Args:
            fetch: what has come.
            now: the time, in nanoseconds.
        """
        file = fetch.file
        batch = self._batches.setdefault(file, [])
        batch.append(fetch)
        is_full = sum(each.chunk_count for each in batch) >= self._batch_chunks_max
        if not self._parameters.gathers or (is_full and len(self._batches) > 1):
            self.flush(file)  # which does not delay the other files
        elif is_full:
            self._flush_paced(file, now)
        else:
            self.handle_timeout(now)

    @property
    def _batch_chunks_max(self) -> int:
        return min(self._parameters.frame_chunks, self._cache.capacity_chunks // self._tuning.batch_cache_divisor)

    def flush(self, file: SharedFile) -> int:
        """Deliver a file's batch to all who want it. Return how many deliveries that are."""
        fetches = self._batches.pop(file, [])
        # A chunk that was asked for twice says nothing of how long an answer takes (Karn's rule).
        is_measured = all(fetch.tries == 1 for fetch in fetches)
        order = min((fetch.order for fetch in fetches), default=0)
        runs = RangeSet(fetch.span for fetch in fetches)
        cached = self._cache.cached_among(file.file_id, runs)
        fan_outs: RangeMap[FanOut] = RangeMap()
        for run in cached:
            for frame in _cut(run, self._parameters.frame_chunks):
                fan_outs.insert(FanOut(*frame))
        delivered_chunks = 0
        for state in list(self._demand.of_file(file.file_id).waiting):
            try:
                delivered_chunks += self._fan_out(state, cached, fan_outs, order if is_measured else 0)
            except Exception as error:  # the others get theirs
                self._work.member_failed(state.member.session, error)
        delivery_count = 0
        for fan_out in fan_outs:
            delivery_count += len(fan_out.outgoing)
            self._send(file, fan_out)
        self._cache.count_joins(max(0, delivered_chunks - runs.chunk_count))
        self._cache.trim()
        return delivery_count

    def flush_all(self) -> None:
        """Flush every batch, before it can be evicted."""
        while self._batches:
            self.flush(next(iter(self._batches)))

    def unflushed(self, file: SharedFile) -> RangeSet:
        """Return what has come of a file and is not delivered yet."""
        return RangeSet(fetch.span for fetch in self._batches.get(file, ()))

    def _fan_out(self, state: RequestState, cached: RangeSet, fan_outs: RangeMap[FanOut], fetch_order: int) -> int:
        """Add what goes to one client; ``fetch_order`` is 0 if that measures nothing.

        Returns:
            How many chunks that are.
        """
        credit_chunks = granted_chunks = self._credit_chunks(state) if state.member.has_data_path else 0
        if credit_chunks <= 0:
            return 0
        echo = state.echo_of(fetch_order) if fetch_order else 0
        for wanted in state.wanted.common(cached):
            for fan_out in fan_outs.overlapping(*wanted):
                span = Range(max(wanted.start, fan_out.start), min(wanted.stop, fan_out.stop))
                for outgoing in self._depart(state, span, echo, credit_chunks):
                    credit_chunks -= outgoing.span.chunk_count
                    fan_out.outgoing.append(outgoing)
            if credit_chunks <= 0:
                break
        return granted_chunks - credit_chunks

    def _depart(self, state: RequestState, span: Range, echo: int, credit_chunks: int) -> Iterator[OutgoingDelivery]:
        """Put as much of a cached range in flight as the client has credit for, in frames."""
        frame_chunks = min(self._parameters.frame_chunks, state.frame_chunks)
        for part in _cut(Range(span.start, min(span.stop, span.start + credit_chunks)), frame_chunks):
            self._number += 1
            state.depart(self._number, part)
            yield OutgoingDelivery(state, part, self._number, echo)

    def _send(self, file: SharedFile, fan_out: FanOut) -> None:
        outgoing, fan_out.outgoing = fan_out.outgoing, []
        fan_out.pinned = list(RangeSet(each.span for each in outgoing))
        fan_out.unreleased_count = len(outgoing)
        for span in fan_out.pinned:
            self._cache.pin(file.file_id, *span)
        for state, span, number, echo in outgoing:
            session = state.member.session
            self._unreleased[session, number] = (state, span, fan_out)
            length = file.manifest.byte_span(*span)[1]
            frame = Frame(Kind.DELIVERY, session, file.file_id, *span, length, number, echo)
            self._work.emit(Deliver(session, number, frame, self._cache.views(file.file_id, *span, length)))

    # -- what has left

    def sent(self, session: int, number: int) -> None:
        """Note that the kernel has all of a delivery.

        Args:
            session: whose it is.
            number: its number.
        """
        released = self._buffers_released(session, number)
        if released is not None:
            file, span = released
            file.traffic.count_delivery(file.manifest.byte_span(*span)[1])

    def failed(self, member: Member | None, session: int, number: int) -> None:
        """Note that a delivery does not arrive.

        Args:
            member: whose it is; None if its session has ended.
            session: that session.
            number: the delivery's number.
        """
        self._buffers_released(session, number)
        if member is not None:
            self._demand.delivery_lost(member, number)

    def _buffers_released(self, session: int, number: int) -> tuple[SharedFile, Range] | None:
        """Note that the views of a delivery are not needed any more.

        If its quota was what stopped other deliveries to the member, they are looked at again.

        Returns:
            What it carried; None if its buffers were released before.
        """
        found = self._unreleased.pop((session, number), None)
        self._work.room_changed()
        if found is None:
            return None
        state, span, fan_out = found
        file, requester = state.file, state.requester
        fan_out.unreleased_count -= 1
        if fan_out.unreleased_count == 0:
            for pinned in fan_out.pinned:
                self._cache.unpin(file.file_id, *pinned)
            if file.is_draining:
                self._work.file_changed(file.file_id)
        quota_left_chunks = self.quota_left_chunks(requester)
        requester.release_quota(span.chunk_count)
        for other in requester.states.values():
            if other.wanted and other.window_left_chunks > quota_left_chunks:
                self._demand.mark_ready(other)
        return file, span

    def check(self) -> None:
        """Assert the invariants."""
        used: dict[Requester, int] = {}
        for state, span, _ in self._unreleased.values():
            used[state.requester] = used.get(state.requester, 0) + span.chunk_count
        for requester, chunk_count in used.items():
            assert requester.quota_used_chunks == chunk_count, f"{requester.member.name}'s quota is miscounted"
        assert all(self._batches.values()), "an empty batch"


def _cut(run: Range, size: int) -> list[Range]:
    return [Range(start, min(start + size, run.stop)) for start in range(run.start, run.stop, size)]
