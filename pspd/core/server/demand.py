"""Demand: what clients want, which requests can be served now, and which wait in a queue (R5)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from pspd.core.effects.shared import SendDatagram
from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import FileId
from pspd.core.model.parameters import MILLISECOND_NS, Parameters
from pspd.core.model.ranges import RangeSet
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.drops import Drops
from pspd.core.server.member import Member
from pspd.core.server.pending import Pending
from pspd.core.server.request_state import FileDemand, Requester, RequestState
from pspd.core.server.sessions import Sessions
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.verify import Verifier
from pspd.core.server.work_set import WorkSet
from pspd.core.wire.datagrams import Request, RequestAck, encode_datagram
from pspd.core.wire.header import DropReason


class Demand:
    """Every request. It alone changes requests and what is wanted of each file, but for what is delivered.

    Args:
        parameters: the profile.
        sessions: who is connected.
        pending: what is being fetched.
        verifier: drops what a client found wrong.
        drops: counts the requests that are dropped.
        work: where changes are marked.
        tuning: bounds of what is remembered.

    Attributes:
        queues: the requests of each file that wait for room in the cache or at a holder, first come, first served.
    """

    def __init__(
        self,
        parameters: Parameters,
        sessions: Sessions,
        pending: Pending,
        verifier: Verifier,
        drops: Drops,
        work: WorkSet,
        tuning: ServerTuning,
    ) -> None:
        self.queues: dict[FileId, dict[RequestState, None]] = {}
        self._parameters = parameters
        self._sessions = sessions
        self._pending = pending
        self._verifier = verifier
        self._drops = drops
        self._work = work
        self._tuning = tuning
        self._requesters: dict[int, Requester] = {}
        self._files: dict[FileId, FileDemand] = {}
        self._ready: dict[RequestState, None] = {}
        self._to_acknowledge: dict[RequestState, None] = {}

    # -- reading

    def of_file(self, file_id: FileId) -> FileDemand:
        """Return what is wanted of a file."""
        demand = self._files.get(file_id)
        if demand is None:
            demand = self._files[file_id] = FileDemand(self._tuning)
        return demand

    def requester(self, member: Member) -> Requester:
        """Return all requests of a member."""
        requester = self._requesters.get(member.session)
        if requester is None:
            requester = self._requesters[member.session] = Requester(member)
        return requester

    def existing_state(self, member: Member, file_id: FileId) -> RequestState | None:
        """Return a member's request of a file; None if there is none.

        Args:
            member: the member.
            file_id: the file.
        """
        requester = self._requesters.get(member.session)
        return requester.states.get(file_id) if requester is not None else None

    def state(self, member: Member, file: SharedFile) -> RequestState:
        """Return a member's request of a file; at first it wants nothing.

        Args:
            member: the member.
            file: the file.
        """
        state = self.existing_state(member, file.file_id)
        if state is None:
            demand, requester = self.of_file(file.file_id), self.requester(member)
            fetches = self._pending.table_of(file.file_id)
            state = RequestState(requester, file, demand, fetches, self._tuning.presumed_lost_max)
            requester.add(state)
        return state

    # -- requests

    def receive(self, member: Member, file: SharedFile | None, request: Request) -> None:
        """Take a client's newest request in place of the one before, except what is in flight already.

        Args:
            member: the client.
            file: the file that it names; None if there is none.
            request: the request.
        """
        if file is None or not file.is_divided or member.source:
            self._drops.drop(DropReason.UNKNOWN_FILE, member.name)
            return
        file.traffic.count_request()
        if any(stop > file.manifest.chunk_count for _, stop in request.ranges):
            self._drops.drop(DropReason.BAD_RANGE, member.name)
            return
        state = self.state(member, file)
        if request.number <= state.number:
            self._drops.drop(DropReason.STALE, member.name)
            return
        self._take(state, request)

    def _take(self, state: RequestState, request: Request) -> None:
        """Take in what a request acknowledges, what it says that its client lacks, and what it asks for."""
        file, name, parameters = state.file, state.member.name, self._parameters
        if request.repeated:
            file.traffic.count_retransmit()
        if (request.repeated or request.wants_ack) and parameters.kept_links:
            self._to_acknowledge[state] = None
        self.mark_ready(state)
        # Without a kept link nothing else tells what was lost: a client that asks again lacks it.
        arrived = state.acknowledge(request.acknowledged, is_rest_lost=not parameters.kept_links)
        if arrived:
            file.availability.hold(name, arrived)
        # A request that its sender's own report overtook is no news: a client that has the file lacks nothing.
        if name not in file.recipients.complete and (refuted := file.availability.retract(name, request.ranges)):
            file.shares.clear_acks(name)
            self._verifier.distrust(file, refuted)
        window_chunks = min(request.window_chunks, parameters.window_max_chunks)
        wanted = file.servable(name, request.ranges)
        state.renew(request.number, window_chunks, wanted, self._pending.started_count, self._work.now)

    def acknowledge_requests(self) -> None:
        """Tell clients that their requests have come, so that they do not repeat them while they wait for others.

        Call it when requests have been served: a client that something is in flight to waits longer.
        """
        for state in self._to_acknowledge:
            member = state.member
            wait_ns = self._sessions.retry_after_ns if state.in_flight else self._sessions.hello_interval_ns
            if member.address is not None and self._sessions.is_current(member):
                ack = RequestAck(member.session, state.file.file_id, state.number, wait_ns // MILLISECOND_NS)
                self._work.emit(SendDatagram(member.address, encode_datagram(ack)))
        self._to_acknowledge.clear()

    # -- what becomes of it

    def note_number(self, state: RequestState, number: int) -> None:
        """Take a client's requests up to a number for stale.

        Args:
            state: its request of the file.
            number: the newest request that a report follows.
        """
        state.note_number(number)

    def presume_lost(self, state: RequestState) -> None:
        """Take what is in flight to a client for lost: it may be requested again."""
        state.presume_lost()
        self.mark_ready(state)

    def declined(self, state: RequestState) -> None:
        """Want nothing for a client that does not take the file, and drop what is in flight to it."""
        self.presume_lost(state)
        state.want(RangeSet())

    def satisfied(self, state: RequestState) -> None:
        """Want nothing for a client that has the whole file; everything in flight to it has arrived."""
        state.want(RangeSet())
        for delivery in list(state.in_flight):
            self._settle(state, delivery, has_arrived=True)

    def delivery_lost(self, member: Member, number: int) -> None:
        """Note that a delivery does not arrive.

        Args:
            member: whose it was.
            number: the delivery's number.
        """
        for state in self.requester(member).states.values():
            if number in state.in_flight:
                self._settle(state, number, has_arrived=False)
                break

    def _settle(self, state: RequestState, number: int, has_arrived: bool) -> None:
        span = state.settle(number)
        if has_arrived:
            state.file.availability.hold(state.member.name, [span])
        self.mark_ready(state)

    def want_nothing(self, file_id: FileId) -> None:
        """Drop all requests of a file that is seeded or removed."""
        for state in list(self.of_file(file_id).waiting):
            state.want(RangeSet())

    def forget(self, file_id: FileId) -> None:
        """Forget all requests of a file that is gone: they belong to one division."""
        self._files.pop(file_id, None)
        for requester in self._requesters.values():
            requester.forget(file_id)

    # -- members

    def link_lost(self, member: Member) -> None:
        """Take what is in flight to a member for lost with its link. Its buffers are released as the driver tells."""
        for state in self.requester(member).states.values():
            for number, span in list(state.in_flight.items()):
                self._settle(state, number, has_arrived=False)
                if state.file.phase is Phase.EXCHANGING:  # before, what may be served can change meanwhile
                    state.want_again(span)  # its client may have been told to wait for it
            self.mark_ready(state)  # out of every queue: nothing is fetched for a client that nothing can reach

    def member_lost(self, member: Member) -> None:
        """Forget all requests of a member that is gone."""
        self.link_lost(member)
        for state in self.requester(member).states.values():
            self._ready.pop(state, None)
            self.dequeue(state)
            state.want(RangeSet())
        self._requesters.pop(member.session, None)

    # -- what can be served now, and what waits

    def mark_ready(self, state: RequestState) -> None:
        """Have a request looked at when requests are served next."""
        self._ready[state] = None
        self._work.room_changed()

    def mark_ready_first(self, file_ids: Iterable[FileId], sessions: Iterable[int]) -> None:
        """Have more requests looked at, before those that are ready already.

        Args:
            file_ids: files of which all requests that are not satisfied are meant.
            sessions: members that can be sent to again.
        """
        first: dict[RequestState, None] = {}
        for file_id in file_ids:
            first.update(self.of_file(file_id).waiting)
        for session in sessions:
            requester = self._requesters.get(session)
            if requester is not None:
                first.update(dict.fromkeys(requester.states.values()))
        first.update(self._ready)
        self._ready = first

    def take_ready(self) -> dict[RequestState, None]:
        """Take out the requests to look at, in order."""
        ready, self._ready = self._ready, {}
        return ready

    def enqueue(self, state: RequestState) -> None:
        """Have a request wait for room; one that waits already keeps its place."""
        state.queued()
        self.queues.setdefault(state.file.file_id, {}).setdefault(state)

    def dequeue(self, state: RequestState) -> None:
        """Take a request out of its queue."""
        queue = self.queues.get(state.file.file_id)
        if queue is not None and state in queue:
            del queue[state]
            self._work.admit()  # those behind it move up
            if not queue:
                del self.queues[state.file.file_id]

    def in_queue(self, file_id: FileId, index: int) -> RequestState | None:
        """Return a request in a queue; None if there are not so many.

        Args:
            file_id: the file.
            index: how many are before it.
        """
        return next(islice(self.queues.get(file_id, ()), index, None), None)

    def rotate_queue(self, file_id: FileId) -> None:
        """Put a file's queue behind those of the other files."""
        if file_id in self.queues:
            self.queues[file_id] = self.queues.pop(file_id)

    def check(self) -> None:
        """Assert the invariants."""
        for requester in self._requesters.values():
            assert requester.quota_used_chunks >= 0, f"{requester.member.name} uses less than nothing of the cache"
            for state in requester.states.values():
                state.check()
        for file_id, demand in self._files.items():
            for state in demand.waiting:
                assert self._sessions.is_current(state.member), "a request of a member that is gone"
                assert state.file.file_id == file_id, "a request of another file"
        assert all(self.queues.values()), "an empty queue"
