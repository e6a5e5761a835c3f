"""The forwarder: serves requests from the cache, by aggregation, or by fetches (R4, R6-R9).

Cached chunks are delivered, as far as the client's window and quota allow. For chunks that are being fetched, a request
waits for that fetch. Other chunks are fetched from a holder. All clients of a file share a cursor, at which the next
fetch starts, so that one fetch serves many clients although the cache is small.
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
from pspd.core.server.holders import HolderSelector
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
        _selector: the service that chooses the holder and the range of a fetch.
        _broadcasts: the broadcasts, which ask the holders.
        _deliveries: the deliveries of cached chunks.
        _work: the work set, which notes what must be done next.
        _tuning: the limits on the requests and shares that are tried at a time.
    """

    _cache: Cache
    _demand: Demand
    _pending: Pending
    _selector: HolderSelector
    _broadcasts: Broadcasts
    _deliveries: Deliveries
    _work: WorkSet
    _tuning: ServerTuning
    _last_retry_state: tuple[bool, int] | None = None
    _queues: dict[FileId, dict[RequestState, None]] = field(default_factory=dict)
    _queues_left_in_round: int = 0
    _deferred: Timers[FileId] = field(default_factory=Timers)

    # -- time

    def next_timeout(self) -> int | None:
        """Return when :meth:`handle_timeout` is due, in nanoseconds; None if no fetch is deferred."""
        return self._deferred.next_deadline()

    def handle_timeout(self, now: int) -> None:
        """Let all waiting requests be tried again, including requests whose fetches were deferred."""
        list(self._deferred.expired(now))  # removes the deadlines that have passed
        self._work.mark_retry_waiting()

    # -- serving

    def serve(self) -> None:
        """Serve the requests in the ready queue, then requests in the wait queues. Send the broadcasts that are due.

        If not all fetches that a client's window and quota allow can be started now, the request waits in a queue.
        Meanwhile its client receives chunks that are fetched for others. A client that requests again keeps its place
        in the queue. A request that is limited only by its window or quota does not wait in a queue.
        """
        while ready := self._demand.take_ready():
            for state in ready:
                if state.member.has_data_path and state.wanted:
                    self._serve(state)
                else:
                    self._dequeue(state)
        if self._queues and self._is_queue_round_due:
            self._serve_queues()
        self._broadcasts.send(self._work.now)

    @property
    def _retry_state(self) -> tuple[bool, int]:
        """A value that changes when waiting requests may be tried again, and also when the cache becomes full."""
        return self._cache_has_room, self._work.retry_event_count

    @property
    def _cache_has_room(self) -> bool:
        return self._cache.has_room(self._pending.fetch_chunks_max)

    @property
    def _is_queue_round_due(self) -> bool:
        """Whether to begin or continue a round, which tries each wait queue once.

        With thousands of clients, an attempt after every input would nearly always fail. While there are fetches, it is
        enough to begin a round after a change of ``_retry_state``, and to continue a round that has not reached every
        queue. If there are no fetches, or if a fetch is deferred for slower clients, try after every input.
        """
        has_untried = self._retry_state != self._last_retry_state or self._queues_left_in_round > 0
        return has_untried or not self._pending.has_fetches or self._deferred.next_deadline() is not None

    def _serve_queues(self) -> None:
        """Begin or continue a round: serve the wait queues of all files in turn.

        If the cache has no room, the round ends. If too many requests were skipped while there are fetches, the round
        stops, and the next call continues it. Files that were not reached come first in the next call.
        """
        if self._queues_left_in_round == 0 or self._retry_state != self._last_retry_state:
            self._queues_left_in_round = len(self._queues)
        skipped = 0
        for file_id in list(islice(self._queues, self._queues_left_in_round)):
            if not self._cache_has_room:  # end the round
                self._queues_left_in_round = 0
                break
            self._queues_left_in_round -= 1
            skipped += self._serve_queue(file_id)
            if file_id in self._queues:
                self._queues[file_id] = self._queues.pop(file_id)  # move it after the queues of the other files
            if skipped >= self._tuning.queue_skips_per_call_max and self._pending.has_fetches:
                break
        else:
            self._queues_left_in_round = 0
        self._last_retry_state = self._retry_state

    def _serve_queue(self, file_id: FileId) -> int:
        """Serve the wait queue of one file in order, until the cache has no room or a few requests were skipped.

        A request is skipped if it still waits after the attempt.

        Returns:
            How many requests were skipped.
        """
        skipped = 0
        while skipped < self._tuning.queue_skips_max and self._cache_has_room:
            state = next(islice(self._queues.get(file_id, ()), skipped, None), None)
            if state is None:
                break
            skipped += self._serve(state)
        return skipped

    def _serve(self, state: RequestState) -> bool:
        """Serve one request. An error ends only the session of the request's member.

        Returns:
            Whether the request now waits in a queue; see :meth:`serve`.
        """
        is_waiting = False
        try:
            is_waiting = self._hit_or_fetch(state)
        except Exception as error:
            self._work.mark_failed(state.member.session, error)
        if is_waiting:
            state.discard_echoes()
            self._queues.setdefault(state.file.file_id, {}).setdefault(state)  # a waiting request keeps its place
        else:
            self._dequeue(state)
        return is_waiting

    def _dequeue(self, state: RequestState) -> None:
        """Remove a request from its wait queue, if it is there."""
        queue = self._queues.get(state.file.file_id)
        if queue is not None and state in queue:
            del queue[state]
            self._work.mark_retry_waiting()  # the requests after it may be tried now
            if not queue:
                del self._queues[state.file.file_id]

    def _hit_or_fetch(self, state: RequestState) -> bool:
        """Deliver cached chunks, and fetch others. Return whether the request must wait to fetch more chunks."""
        self._deliveries.deliver_cached(state)
        if not state.wanted:
            return False
        fetchable = state.fetchable
        chunk_count = self._chunks_to_fetch(state) if fetchable else 0
        if chunk_count > 0:
            chunk_count -= self._fetch_from_cursor(state, fetchable, chunk_count)
        return chunk_count > 0 and bool(state.fetchable)

    def _chunks_to_fetch(self, state: RequestState) -> int:
        """Return how many more chunks to fetch for a client; 0 or less for none.

        The window is for this file, the quota for all files that the client requests. Both must suffice for these
        chunks and for the chunks that are already being fetched for the client.
        """
        window_chunks = state.window_left_chunks
        quota_chunks = self._deliveries.quota_left_chunks(state.requester)
        for each in state.requester.states.values():
            if min(window_chunks, quota_chunks) <= 0:
                return 0
            expected_chunks = each.expected_chunks
            quota_chunks -= expected_chunks
            if each is state:
                window_chunks -= expected_chunks
        return min(window_chunks, quota_chunks)

    def _fetch_from_cursor(self, state: RequestState, fetchable: RangeSet, chunk_count: int) -> int:
        """Start fetches of wanted chunks, from the file's cursor on, until they have ``chunk_count`` chunks or more.

        Returns:
            The number of chunks in the started fetches; less than ``chunk_count`` if no more can be fetched now.
        """
        file, demand = state.file, state.demand
        shares_skipped = fetched_chunks = 0
        for start, stop in fetchable.cyclic_from(demand.cursor):
            while start < stop and fetched_chunks < chunk_count:
                span, holder = self._selector.next_fetch(file, start, stop, state.delivery_chunks_max)
                if span is None:
                    shares_skipped += 1
                    if shares_skipped > self._tuning.shares_skipped_max:
                        return fetched_chunks
                    start = file.shares.at(start).stop
                elif not self._reserve(state, span):
                    return fetched_chunks
                else:
                    self._pending.start(file, span, holder)
                    start = span.stop
                    demand.move_cursor(start)
                    fetched_chunks += span.chunk_count
        return fetched_chunks

    def _reserve(self, state: RequestState, span: Range) -> bool:
        """Reserve room for a fetch. Return whether there is room, and the fetch is not deferred for slower clients."""
        if not self._cache.has_room(span.chunk_count):  # checked first: with hundreds of requests, there is rarely room
            return False
        return not self._defer_for_slower_clients(state, span) and self._cache.reserve(state.file.file_id, *span)

    def _defer_for_slower_clients(self, state: RequestState, span: Range) -> bool:
        """Defer a fetch if it would evict chunks that clients other than stragglers want, and the budget allows it.

        If the fetch would evict anything, first deliver all batches, so that no chunk is evicted undelivered.

        Returns:
            Whether the fetch is deferred.
        """
        if self._cache.ranges_to_evict(span.chunk_count):
            self._deliveries.flush_all()
        ranges = self._cache.ranges_to_evict(span.chunk_count)  # without the chunks that flushing has pinned
        if not ranges:
            return False
        is_wanted = any(self._demand.of_file(file_id).is_wanted(start, stop) for file_id, start, stop in ranges)
        deadline = state.demand.budget.defer_until(is_wanted, self._work.now)
        if deadline is not None:
            self._deferred.set(state.file.file_id, deadline)
        return deadline is not None

    # -- the end of seeding, or of a file

    def drain(self, file: SharedFile) -> int:
        """Deliver a file's batch, end its requests and fetches, and drop the file from the cache (R2).

        Fetches whose contributions are being received go on, and chunks that are being sent stay in the cache.

        Returns:
            How many bytes of the file are still in the cache, because they are being received or sent.
        """
        self._deliveries.flush(file)
        self._demand.clear_wanted(file.file_id)
        self._pending.abandon_all(file.file_id)
        return self._cache.forget(file.file_id) * CHUNK_BYTES

    def check(self) -> None:
        """Assert the invariants."""
        assert all(self._queues.values()), "an empty queue"
