"""Demand: the requests of the clients, and the queue of requests to be served next (R5)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pspd.core.effects.shared import SendDatagram
from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import FileId
from pspd.core.model.parameters import MILLISECOND_NS, Parameters
from pspd.core.model.ranges import RangeSet
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.contributions import Contributions
from pspd.core.server.pending import Pending
from pspd.core.server.request_state import DeferralBudget, FileDemand, Requester, RequestState
from pspd.core.server.sessions import Member, Sessions
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.work_set import WorkSet
from pspd.core.wire.datagrams import Request, RequestAck, encode_datagram
from pspd.core.wire.header import DropReason


@dataclass(eq=False)
class Demand:
    """All requests. Besides this class, ``Deliveries`` (sent chunks) and ``Forwarder`` (wait queues) change them.

    Args:
        _parameters: the profile.
        _sessions: the connected members.
        _pending: the fetches.
        _contributions: the service that verifies cached chunks again.
        _work: the work set, which notes what must be done next.
        _tuning: the limits on deferrals, on stragglers, and on the deliveries presumed lost.
    """

    _parameters: Parameters
    _sessions: Sessions
    _pending: Pending
    _contributions: Contributions
    _work: WorkSet
    _tuning: ServerTuning
    _requesters: dict[int, Requester] = field(default_factory=dict)
    _files: dict[FileId, FileDemand] = field(default_factory=dict)
    _ready: dict[RequestState, None] = field(default_factory=dict)
    _to_acknowledge: dict[RequestState, None] = field(default_factory=dict)

    # -- reading

    def of_file(self, file_id: FileId) -> FileDemand:
        """Return the demand of all clients for a file. Create it if there is none."""
        demand = self._files.get(file_id)
        if demand is None:
            budget = DeferralBudget(self._tuning, self._tuning.deferral_budget_ns_initial)
            demand = self._files[file_id] = FileDemand(budget, self._tuning.straggler_acks)
        return demand

    def requester(self, member: Member) -> Requester:
        """Return the record of a member's requests. Create it if there is none."""
        requester = self._requesters.get(member.session)
        if requester is None:
            requester = self._requesters[member.session] = Requester(member)
        return requester

    def existing_state(self, member: Member, file_id: FileId) -> RequestState | None:
        """Return a member's request for a file; None if there is none.

        Args:
            member: the member.
            file_id: the id of the file.
        """
        requester = self._requesters.get(member.session)
        return requester.states.get(file_id) if requester is not None else None

    def state(self, member: Member, file: SharedFile) -> RequestState:
        """Return a member's request for a file. If there is none, create one that wants nothing.

        Args:
            member: the member.
            file: the file.
        """
        requester = self.requester(member)
        state = requester.states.get(file.file_id)
        if state is None:
            demand, fetches = self.of_file(file.file_id), self._pending.table_of(file.file_id)
            state = RequestState(requester, file, demand, fetches, self._tuning.presumed_lost_max)
            requester.states[file.file_id] = state
        return state

    # -- requests

    def receive(self, member: Member, file: SharedFile | None, request: Request) -> None:
        """Replace a client's previous request for a file, or drop the new request.

        An accepted request also shows which deliveries have arrived, and which chunks the client lacks.

        Args:
            member: the sender of the request.
            file: the file that the request names; None if there is no such file.
            request: the request.
        """
        if file is None or not file.is_divided or member.is_source:
            self._work.drop(DropReason.UNKNOWN_FILE, member.name)
            return
        file.traffic.count_request()
        if any(stop > file.manifest.chunk_count for _, stop in request.ranges):
            self._work.drop(DropReason.BAD_RANGE, member.name)
            return
        state = self.state(member, file)
        if request.number <= state.number:
            self._work.drop(DropReason.STALE, member.name)
            return
        name, parameters = member.name, self._parameters
        if request.repeated:
            file.traffic.count_retransmit()
        if (request.repeated or request.wants_ack) and parameters.kept_links:
            self._to_acknowledge[state] = None
        self.mark_ready(state)
        # Without kept links, presume lost each delivery in flight that the request does not acknowledge.
        arrived = state.acknowledge(request.acknowledged, is_rest_lost=not parameters.kept_links)
        if arrived:
            file.availability.add_arrived(name, arrived)
        # The client lacks the chunks that it requests, unless it has already reported the complete file.
        has_file = name in file.recipients.complete_names
        if not has_file and (refuted := file.availability.remove_arrived(name, request.ranges)):
            file.shares.clear_acks(name)
            self._contributions.recheck_cached(file, refuted)
        window_chunks = min(request.window_chunks, parameters.window_max_chunks)
        wanted = file.servable(name, request.ranges)
        state.renew(request.number, window_chunks, wanted, self._pending.started_count, self._work.now)

    def acknowledge_requests(self) -> None:
        """Send the REQUEST_ACKs that are due, so that clients wait longer before they repeat their requests.

        Call this after requests have been served, because the time to wait depends on whether deliveries are in flight.
        """
        for state in self._to_acknowledge:
            member = state.member
            wait_ns = self._sessions.retry_after_ns if state.in_flight else self._sessions.hello_interval_ns
            if member.address is not None and self._sessions.is_current(member):
                ack = RequestAck(member.session, state.file.file_id, state.number, wait_ns // MILLISECOND_NS)
                self._work.emit(SendDatagram(member.address, encode_datagram(ack)))
        self._to_acknowledge.clear()

    # -- the end of requests and deliveries

    def supersede(self, member: Member, file: SharedFile, number: int) -> RequestState:
        """Note that a report supersedes earlier requests of a client for a file. Return the client's request.

        Args:
            member: the client.
            file: the file.
            number: the number of the newest request that the report supersedes.
        """
        state = self.state(member, file)
        state.supersede(number)
        return state

    def client_declined(self, state: RequestState) -> None:
        """End the request of a client that declined the file, and presume its deliveries of the file in flight lost."""
        state.presume_lost()
        self.mark_ready(state)
        state.want(RangeSet())

    def client_completed(self, state: RequestState) -> None:
        """End the request of a client that has the complete file. Deliveries of this file are no longer in flight."""
        state.want(RangeSet())
        for number in list(state.in_flight):
            state.remove_in_flight(number)
        self.mark_ready(state)

    def delivery_lost(self, member: Member, number: int) -> None:
        """Note that a delivery will not arrive: it is no longer in flight.

        Args:
            member: the client to which the delivery was sent.
            number: the delivery's number.
        """
        for state in self.requester(member).states.values():
            if number in state.in_flight:
                state.remove_in_flight(number)
                self.mark_ready(state)

    def clear_wanted(self, file_id: FileId) -> None:
        """End all requests for a file: they want nothing until the clients request again."""
        for state in list(self.of_file(file_id).wanting):
            state.want(RangeSet())

    def forget(self, file_id: FileId) -> None:
        """Delete all requests for a deleted file, so that they do not apply if the file is announced again."""
        self._files.pop(file_id, None)
        for requester in self._requesters.values():
            requester.states.pop(file_id, None)

    # -- members

    def link_lost(self, member: Member) -> None:
        """Note that a member's link and all deliveries in flight to the member are lost.

        During the exchange, the lost chunks are wanted again. A delivery's buffers are released only when the driver
        reports that the delivery was sent or failed.
        """
        for state in self.requester(member).states.values():
            for number, span in list(state.in_flight.items()):
                state.remove_in_flight(number)
                if state.file.phase is Phase.EXCHANGING:  # during seeding, the client's shares may change
                    state.want_again(span)  # the client may not repeat its request soon
            self.mark_ready(state)  # so that Forwarder removes the request from the wait queue

    def member_left(self, member: Member) -> None:
        """Delete all requests of a member whose session ends. ``Forwarder`` then removes them from its queues."""
        self.link_lost(member)
        for state in self.requester(member).states.values():
            state.want(RangeSet())
        self._requesters.pop(member.session, None)

    # -- the ready queue

    def mark_ready(self, state: RequestState) -> None:
        """Add a request to the ready queue."""
        self._ready[state] = None
        self._work.mark_serving_due()

    def mark_ready_first(self, file_ids: Iterable[FileId], sessions: Iterable[int]) -> None:
        """Add requests to the front of the ready queue.

        Args:
            file_ids: the ids of files. All requests that want chunks of these files are added.
            sessions: the session numbers of members whose data paths may have opened. All their requests are added.
        """
        first: dict[RequestState, None] = {}
        for file_id in file_ids:
            first.update(self.of_file(file_id).wanting)
        for session in sessions:
            requester = self._requesters.get(session)
            if requester is not None:
                first.update(dict.fromkeys(requester.states.values()))
        first.update(self._ready)
        self._ready = first

    def take_ready(self) -> dict[RequestState, None]:
        """Empty the ready queue. Return its requests, in order."""
        ready, self._ready = self._ready, {}
        return ready

    def check(self) -> None:
        """Assert the invariants."""
        for requester in self._requesters.values():
            assert requester.quota_used_chunks >= 0, f"{requester.member.name} uses a negative quota"
            for state in requester.states.values():
                state.check()
        for file_id, demand in self._files.items():
            for state in demand.wanting:
                assert self._sessions.is_current(state.member), "a request of a member that has left"
                assert state.file.file_id == file_id, "a request of another file"
