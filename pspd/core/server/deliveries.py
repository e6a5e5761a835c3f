"""Deliveries: send cached chunks to the clients that want them (R4, R6, R9).

Chunks that are cached when a request arrives are delivered at once. Fetched chunks are delivered to every client that
wants them, before they can be evicted: at once or, if frames may have several chunks, in a batch with other fetched
chunks. All this is limited by each client's window and quota.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pspd.core.cache.cache import Cache
from pspd.core.effects.server import Deliver
from pspd.core.model.parameters import Parameters
from pspd.core.model.ranges import Range, RangeMap, RangeSet
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.demand import Demand
from pspd.core.server.pending import Fetch, Pending
from pspd.core.server.request_state import Requester, RequestState
from pspd.core.server.sessions import Member
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.work_set import WorkSet
from pspd.core.timing.pacing import Pacer
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import Kind


@dataclass(slots=True)
class FanOut:
    """The deliveries from one cached range. Their chunks are pinned together, until all their buffers are released.

    Attributes:
        start: the first chunk of the cached range.
        stop: one past the last chunk of the cached range.
        outgoing: the request and the head of each delivery that the driver does not have yet.
        pinned: the ranges of the deliveries that the driver has, merged.
        unreleased_count: the number of these deliveries whose buffers are not released.
    """

    start: int
    stop: int
    outgoing: list[tuple[RequestState, Frame]] = field(default_factory=list)
    pinned: list[Range] = field(default_factory=list)
    unreleased_count: int = 0


@dataclass(eq=False)
class Deliveries:
    """Delivers cached chunks to clients.

    Args:
        _parameters: the profile.
        _cache: the cached chunks.
        _pending: the pending table, which limits the size of frames.
        _demand: the requests.
        _work: the work set, which notes what must be done next.
        _tuning: the sizes of the quota and of batches.
        _pacer: the pauses between batches.

    Attributes:
        batches: for each file, the ended fetches whose ranges are not delivered yet.
    """

    _parameters: Parameters
    _cache: Cache
    _pending: Pending
    _demand: Demand
    _work: WorkSet
    _tuning: ServerTuning
    _pacer: Pacer
    batches: dict[SharedFile, list[Fetch]] = field(default_factory=dict)
    _unreleased: dict[tuple[int, int], tuple[RequestState, Frame, FanOut]] = field(default_factory=dict)
    _last_number: int = 0

    # -- time

    def next_timeout(self) -> int | None:
        """Return when :meth:`handle_timeout` is due, in nanoseconds; None if there is no batch."""
        return self._pacer.allowed_at if self.batches else None

    def handle_timeout(self, now: int) -> None:
        """Deliver batches, one file after the other, as far as pacing allows."""
        while self.batches and self._pacer.is_allowed(now):
            self._pacer.start_pause(self.flush(next(iter(self.batches))), now)

    # -- quota

    def quota_left_chunks(self, requester: Requester) -> int:
        """Return how many more chunks the deliveries to one member may pin; negative if the cache was reduced."""
        capacity = self._cache.capacity_chunks
        two_frames = min(2 * self._pending.fetch_chunks_max, max(1, capacity // 2))
        return max(capacity // self._tuning.quota_cache_divisor, two_frames) - requester.quota_used_chunks

    def _sendable_chunks(self, state: RequestState) -> int:
        """Return how many more chunks window and quota allow to be sent to a client now."""
        return min(state.window_left_chunks, self.quota_left_chunks(state.requester))

    # -- sending

    def deliver_cached(self, state: RequestState) -> None:
        """Deliver the cached chunks that a client wants, as far as window and quota allow. Count them as hits."""
        sendable_chunks = self._sendable_chunks(state)
        for cached in self._cache.cached_among(state.file.file_id, state.wanted) if sendable_chunks > 0 else ():
            for frame in self._put_in_flight(state, cached, state.newest_echo, sendable_chunks):
                sendable_chunks -= frame.stop - frame.start
                self._cache.count_hits(frame.stop - frame.start)
                self._send(state.file, FanOut(frame.start, frame.stop, [(state, frame)]))
            if sendable_chunks <= 0:
                break

    def deliver_fetched(self, fetch: Fetch, now: int) -> None:
        """Deliver a fetched range to every client that wants it (R9), at once or in a batch.

        Args:
            fetch: the fetch that has ended.
            now: the time, in nanoseconds.
        """
        file = fetch.file
        batch = self.batches.setdefault(file, [])
        batch.append(fetch)
        chunks_max = min(self._parameters.frame_chunks, self._cache.capacity_chunks // self._tuning.batch_cache_divisor)
        is_full = sum(each.chunk_count for each in batch) >= chunks_max
        if not self._parameters.uses_batches or (is_full and len(self.batches) > 1):
            self.flush(file)  # without pacing, which would delay the other files
        elif is_full:
            self._pacer.start_pause(self.flush(file), now)
        else:
            self.handle_timeout(now)

    def flush(self, file: SharedFile) -> int:
        """Deliver a file's batch to every client that wants chunks of it. Return the number of deliveries."""
        fetches = self.batches.pop(file, [])
        # If a fetch was broadcast more than once, the whole batch measures no round trip (Karn's rule).
        is_measured = all(fetch.tries == 1 for fetch in fetches)
        serial = min((fetch.serial for fetch in fetches), default=0)
        runs = RangeSet(fetch.span for fetch in fetches)
        cached = self._cache.cached_among(file.file_id, runs)
        fan_outs: RangeMap[FanOut] = RangeMap()
        for run in cached:
            for frame in _cut_into_frames(run, self._parameters.frame_chunks):
                fan_outs.insert(FanOut(*frame))
        delivered_chunks = 0
        for state in list(self._demand.of_file(file.file_id).wanting):
            try:
                delivered_chunks += self._add_deliveries(state, cached, fan_outs, serial if is_measured else 0)
            except Exception as error:  # the error ends only this member's session
                self._work.mark_failed(state.member.session, error)
        delivery_count = 0
        for fan_out in fan_outs:
            delivery_count += len(fan_out.outgoing)
            self._send(file, fan_out)
        self._cache.count_aggregated(max(0, delivered_chunks - runs.chunk_count))
        self._cache.trim()
        return delivery_count

    def flush_all(self) -> None:
        """Deliver every batch. Call this before chunks are evicted."""
        while self.batches:
            self.flush(next(iter(self.batches)))

    def _add_deliveries(self, state: RequestState, cached: RangeSet, fan_outs: RangeMap[FanOut], serial: int) -> int:
        """Add the deliveries to one client to the fan-outs, as far as window and quota allow.

        ``serial`` is the lowest serial number of the batch's fetches, or 0 if the deliveries measure no round trip.

        Returns:
            The number of chunks in these deliveries.
        """
        sendable_chunks = limit_chunks = self._sendable_chunks(state) if state.member.has_data_path else 0
        if sendable_chunks <= 0:
            return 0
        echo = state.echo_of(serial) if serial else 0
        for wanted in state.wanted.intersection(cached):
            for fan_out in fan_outs.overlapping(*wanted):
                span = Range(max(wanted.start, fan_out.start), min(wanted.stop, fan_out.stop))
                for frame in self._put_in_flight(state, span, echo, sendable_chunks):
                    sendable_chunks -= frame.stop - frame.start
                    fan_out.outgoing.append((state, frame))
            if sendable_chunks <= 0:
                break
        return limit_chunks - sendable_chunks

    def _put_in_flight(self, state: RequestState, span: Range, echo: int, sendable_chunks: int) -> Iterator[Frame]:
        """Put at most ``sendable_chunks`` chunks of a cached range in flight. Yield the heads of the deliveries."""
        file, session = state.file, state.member.session
        frame_chunks = min(self._parameters.frame_chunks, state.delivery_chunks_max)
        for part in _cut_into_frames(Range(span.start, min(span.stop, span.start + sendable_chunks)), frame_chunks):
            self._last_number += 1
            state.add_in_flight(self._last_number, part)
            length = file.manifest.byte_span(*part)[1]
            yield Frame(Kind.DELIVERY, session, file.file_id, part.start, part.stop, length, self._last_number, echo)

    def _send(self, file: SharedFile, fan_out: FanOut) -> None:
        outgoing, fan_out.outgoing = fan_out.outgoing, []
        fan_out.pinned = list(RangeSet((frame.start, frame.stop) for _, frame in outgoing))
        fan_out.unreleased_count = len(outgoing)
        for span in fan_out.pinned:
            self._cache.pin(file.file_id, *span)
        for state, frame in outgoing:
            self._unreleased[frame.session, frame.number] = (state, frame, fan_out)
            views = self._cache.views(file.file_id, frame.start, frame.stop, frame.length)
            self._work.emit(Deliver(frame.session, frame.number, frame, views))

    # -- the end of a delivery

    def delivery_sent(self, session: int, number: int) -> None:
        """Release the buffers of a delivery that the kernel has taken completely, and count its bytes.

        Args:
            session: the client's session number.
            number: the delivery's number.
        """
        released = self._release_buffers(session, number)
        if released is not None:
            file, byte_count = released
            file.traffic.count_delivery(byte_count)

    def delivery_failed(self, member: Member | None, session: int, number: int) -> None:
        """Release the buffers of a delivery that will not arrive, and note that it is no longer in flight.

        Args:
            member: the client; None if the session has ended.
            session: the client's session number.
            number: the delivery's number.
        """
        self._release_buffers(session, number)
        if member is not None:
            self._demand.delivery_lost(member, number)

    def _release_buffers(self, session: int, number: int) -> tuple[SharedFile, int] | None:
        """Return the chunks of a delivery to the quota, and mark requests as ready that the quota limited.

        After the last delivery of a fan-out, unpin the chunks of the fan-out.

        Returns:
            The file and the delivery's size in bytes; None if the buffers were released before.
        """
        found = self._unreleased.pop((session, number), None)
        self._work.mark_serving_due()
        if found is None:
            return None
        state, frame, fan_out = found
        file, requester = state.file, state.requester
        fan_out.unreleased_count -= 1
        if fan_out.unreleased_count == 0:
            for pinned in fan_out.pinned:
                self._cache.unpin(file.file_id, *pinned)
            if file.is_draining:
                self._work.mark_changed(file.file_id)
        quota_left_chunks = self.quota_left_chunks(requester)
        requester.release_quota(frame.stop - frame.start)
        for each in requester.states.values():
            if each.wanted and each.window_left_chunks > quota_left_chunks:
                self._demand.mark_ready(each)
        return file, frame.length

    def check(self) -> None:
        """Assert the invariants."""
        used: dict[Requester, int] = {}
        for state, frame, _ in self._unreleased.values():
            used[state.requester] = used.get(state.requester, 0) + frame.stop - frame.start
        for requester, chunk_count in used.items():
            assert requester.quota_used_chunks == chunk_count, f"{requester.member.name}'s quota is miscounted"
        assert all(self.batches.values()), "an empty batch"


def _cut_into_frames(run: Range, size: int) -> list[Range]:
    return [Range(start, min(start + size, run.stop)) for start in range(run.start, run.stop, size)]
