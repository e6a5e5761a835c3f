"""Forwarding: a request is served from the cache, is aggregated with a fetch, or starts a fetch (R4, R6-R9).

Cached chunks are delivered, as far as the client's window and quota allow. The others are fetched. All clients of a
file share a cursor, at which the next fetch starts, so that one fetch serves many clients although the cache is small.
A request for chunks that are being fetched waits for that fetch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice

from pspd.core.cache.cache import Cache
from pspd.core.model.manifest import CHUNK_BYTES, FileId
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.broadcasts import Broadcasts
from pspd.core.server.deliveries import Deliveries
from pspd.core.server.demand import Demand
from pspd.core.server.holders import Holders
from pspd.core.server.pending import Pending
from pspd.core.server.request_state import RequestState
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.work_set import WorkSet
from pspd.core.timing.timers import Timers


@dataclass(eq=False)
class Forwarder:
    """Serves requests.

    Args:
        _cache: the cached chunks.
        _demand: the requests.
        _pending: the fetches.
        _holders: finds members that can send chunks that are not cached.
        _broadcasts: asks these members for the chunks.
        _deliveries: sends cached chunks.
        _work: collects the marks of what has changed.
        _tuning: bounds how many requests are tried at a time.
    """

    _cache: Cache
    _demand: Demand
    _pending: Pending
    _holders: Holders
    _broadcasts: Broadcasts
    _deliveries: Deliveries
    _work: WorkSet
    _tuning: ServerTuning
    _tried_admission: tuple[bool, int] | None = None
    _queues: dict[FileId, dict[RequestState, None]] = field(default_factory=dict)
    _untried_queues: int = 0
    _deferred: Timers[FileId] = field(default_factory=Timers)

    # -- time

    def next_timeout(self) -> int | None:
        """Return when :meth:`handle_timeout` is due."""
        return self._deferred.next_deadline()

    def handle_timeout(self, now: int) -> None:
        """Cause every waiting request to be tried again, including those whose fetches were deferred."""
        list(self._deferred.expired(now))  # removes the deadlines that have passed
        self._work.admit()

    # -- serving

    def serve(self) -> None:
        """Serve the ready queue, then the wait queues; deliver cached chunks and fetch others, as far as possible.

        If the cache or the holders have no room for a request's fetches, the request waits in a queue. Meanwhile its
        client receives chunks that are fetched for others. A client that asks again keeps its place.
        """
        while ready := self._demand.take_ready():
            for state in ready:
                if state.member.has_data_path and state.wanted:
                    self._serve(state)
                else:
                    self._dequeue(state)
        if self._queues and self._may_admit:
            self._serve_queues()
        self._broadcasts.send(self._work.now)

    @property
    def _admission(self) -> tuple[bool, int]:
        """A value that changes when a waiting request may be able to start fetches that it could not start before."""
        return self._cache_has_room, self._work.admission_epoch

    @property
    def _cache_has_room(self) -> bool:
        return self._cache.has_room(self._pending.frame_chunks)

    @property
    def _may_admit(self) -> bool:
        """Whether to try the waiting requests now.

        With thousands of clients, an attempt after every input would nearly always fail. If there are fetches, it is
        enough to try when one ends. If there are none, or a fetch is deferred for slower clients, try after any
        input.
        """
        is_new = self._admission != self._tried_admission or self._untried_queues > 0
        return is_new or not self._pending.is_active or self._deferred.next_deadline() is not None

    def _serve_queues(self) -> None:
        """Serve the queues of all files in turn.

        A round ends early if the cache has no room, or too many requests were skipped. The next round continues there.
        """
        if self._untried_queues == 0 or self._admission != self._tried_admission:
            self._untried_queues = len(self._queues)
        skipped = 0
        for file_id in list(islice(self._queues, self._untried_queues)):
            if not self._cache_has_room:  # the next round begins with the files that this one has not reached
                self._untried_queues = 0
                break
            self._untried_queues -= 1
            skipped += self._serve_queue(file_id)
            if file_id in self._queues:
                self._queues[file_id] = self._queues.pop(file_id)  # behind those of the other files
            if skipped >= self._tuning.queue_skips_per_round_max and self._pending.is_active:
                break
        else:
            self._untried_queues = 0
        self._tried_admission = self._admission

    def _serve_queue(self, file_id: FileId) -> int:
        """Serve the queue of one file, first come, first served, but skip a few requests whose holders have no room.

        Returns:
            How many requests were skipped.
        """
        skipped = 0
        while skipped < self._tuning.queue_skips_max and self._cache_has_room:
            following = next(islice(self._queues.get(file_id, ()), skipped, None), None)
            if following is None:
                break
            skipped += self._serve(following)
        return skipped

    def _serve(self, state: RequestState) -> bool:
        """Serve one request. An error ends only the session of its member.

        Returns:
            Whether the request waits in a queue, because not all of it could be fetched.
        """
        is_waiting = False
        try:
            is_waiting = self._hit_or_fetch(state)
        except Exception as error:
            self._work.member_failed(state.member.session, error)
        if is_waiting:
            state.queued()
            self._queues.setdefault(state.file.file_id, {}).setdefault(state)  # one that waits already keeps its place
        else:
            self._dequeue(state)
        return is_waiting

    def _dequeue(self, state: RequestState) -> None:
        """Remove a request from its wait queue, if it is there."""
        queue = self._queues.get(state.file.file_id)
        if queue is not None and state in queue:
            del queue[state]
            self._work.admit()  # those behind it move up
            if not queue:
                del self._queues[state.file.file_id]

    def _hit_or_fetch(self, state: RequestState) -> bool:
        """Deliver cached chunks, and fetch others. Return whether chunks are left to fetch."""
        self._deliveries.deliver_cached(state)
        if not state.wanted:
            return False
        fetchable = state.fetchable
        chunk_count = self._chunks_to_fetch(state) if fetchable else 0
        if chunk_count > 0:
            chunk_count -= self._fetch_from_cursor(state, fetchable, chunk_count)
        return chunk_count > 0 and bool(state.fetchable)

    def _chunks_to_fetch(self, state: RequestState) -> int:
        """Return how many more chunks to fetch for a client: as window and quota allow, less those being fetched."""
        window_chunks = state.window_left_chunks
        quota_chunks = self._deliveries.quota_left_chunks(state.requester)
        for other in state.requester.states.values():
            if min(window_chunks, quota_chunks) <= 0:
                return 0
            expected_chunks = other.expected_chunks
            quota_chunks -= expected_chunks
            if other is state:
                window_chunks -= expected_chunks
        return min(window_chunks, quota_chunks)

    def _fetch_from_cursor(self, state: RequestState, fetchable: RangeSet, chunk_count: int) -> int:
        """Start fetches of wanted chunks, from the shared cursor on. Return the number of chunks in these fetches."""
        file, demand = state.file, state.demand
        shares_tried = fetched_chunks = 0
        for start, stop in fetchable.cyclic_from(demand.cursor):
            while start < stop and fetched_chunks < chunk_count:
                span, holder = self._holders.next_fetch(file, start, stop, state.frame_chunks)
                if span is None:
                    shares_tried += 1
                    if shares_tried > self._tuning.shares_tried_max:
                        return fetched_chunks
                    start = file.shares.at(start).stop
                elif not self._reserve(state, span):
                    return fetched_chunks
                else:
                    self._pending.start(file, span, holder)
                    start = span.stop
                    demand.advance(start)
                    fetched_chunks += span.chunk_count
        return fetched_chunks

    def _reserve(self, state: RequestState, span: Range) -> bool:
        """Reserve room for a fetch. Return False if there is no room, or the fetch is deferred for slower clients."""
        if not self._cache.has_room(span.chunk_count):  # first: with hundreds of requests, there is rarely room
            return False
        return not self._defer_for_slower_clients(state, span) and self._cache.reserve(state.file.file_id, *span)

    def _defer_for_slower_clients(self, state: RequestState, span: Range) -> bool:
        """Defer a fetch if clients other than stragglers want chunks that it would evict. Return whether it waits."""
        if self._cache.victims(span.chunk_count):
            self._deliveries.flush_all()
        victims = self._cache.victims(span.chunk_count)  # flushing has pinned chunks, which are not victims
        if not victims:
            return False
        is_wanted = any(self._demand.of_file(file_id).is_wanted(start, stop) for file_id, start, stop in victims)
        deadline = state.demand.budget.wait_until(is_wanted, self._work.now)
        if deadline is not None:
            self._deferred.set(state.file.file_id, deadline)
        return deadline is not None

    # -- forgetting

    def forget(self, file: SharedFile) -> int:
        """End all requests and fetches of a file, and drop it from the cache (R2).

        Returns:
            How many bytes of it are still being received or sent.
        """
        self._deliveries.flush(file)
        self._demand.want_nothing(file.file_id)
        self._pending.give_up_all(file.file_id)
        return self._cache.forget(file.file_id) * CHUNK_BYTES

    def check(self) -> None:
        """Assert the invariants."""
        assert all(self._queues.values()), "an empty queue"
