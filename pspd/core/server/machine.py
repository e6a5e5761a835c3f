"""The server's state machine: its inputs, and ``poll``, which processes the changes that they cause.

The machine never blocks, and invalid input from the network raises no error. The driver calls the machine with each
input and the time, takes the effects from :meth:`ServerMachine.poll`, and calls :meth:`ServerMachine.handle_timeout`
at the time that :meth:`ServerMachine.next_timeout` returns. A command (join, announce, ...) that is refused raises
``PspError``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from random import Random

from pspd.core.cache.arena import Allocate, allocate_on_heap
from pspd.core.cache.cache import Cache
from pspd.core.effects.server import EndCause, MemberFailed, ServerEffect
from pspd.core.effects.shared import SendDatagram
from pspd.core.model.file_record import FileRecord
from pspd.core.model.manifest import DigestFunction, FileId
from pspd.core.model.parameters import MILLISECOND_NS, Parameters
from pspd.core.model.storage import HeldChunks
from pspd.core.model.tuning import SERVER_TUNING, ServerTuning
from pspd.core.server.broadcasts import Broadcasts
from pspd.core.server.catalogue import Catalogue
from pspd.core.server.contributions import Contributions, Reception
from pspd.core.server.deliveries import Deliveries
from pspd.core.server.demand import Demand
from pspd.core.server.forwarder import Forwarder
from pspd.core.server.holders import HolderSelector
from pspd.core.server.lifecycle import Lifecycle
from pspd.core.server.pending import Pending
from pspd.core.server.sessions import Member, Sessions
from pspd.core.server.share_monitor import ShareMonitor
from pspd.core.server.work_set import WorkSet, drain
from pspd.core.timing.pacing import Pacer
from pspd.core.timing.timers import earliest
from pspd.core.wire.datagrams import ACCEPTED_BY_SERVER, Hello, HelloAck, Request, decode_datagram, encode_datagram
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason, WireError
from pspd.errors import BadArgument
from pspd.text.addresses import Address, address_text


class ServerMachine:
    """Serves the requests of clients with chunks from holders, and keeps bytes of files only in its cache (R2, R4).

    Args:
        parameters: the profile; clients learn it when they join.
        cache_chunks: the size of the cache, in chunks; None for a cache that grows with the network, to one
            chunk per client.
        digest: the function that computes the digests in manifests.
        seed: the seed for the jitter of timeouts and the choice of holders. Equal seeds, inputs and session numbers
            give equal effects.
        draw_session: the function that returns a random 64-bit number for a new session. Only this number authenticates
            a member, so it must come from a cryptographic source. The numbers of a seeded generator are predictable.
        tuning: the timeouts, pacing and limits.
        allocate: the function that allocates the memory of the cache.

    Attributes:
        parameters: the profile.
        cache: the cache.
        members: the connected members, by name.
        sessions: the sessions of the members. The driver may read them and call ``renew_lease``, but not change them
            in other ways.
        drop_counts: the number of dropped inputs, by reason.
        demand: the requests.
        deliveries: the deliveries.
        lifecycle: the files, and their phases.
        catalogue: the commands and reports about files.
    """

    def __init__(
        self,
        parameters: Parameters,
        cache_chunks: int | None,
        digest: DigestFunction,
        seed: int,
        draw_session: Callable[[], int],
        tuning: ServerTuning = SERVER_TUNING,
        allocate: Allocate = allocate_on_heap,
    ) -> None:
        self.parameters = parameters
        self.cache = cache = Cache(1 if cache_chunks is None else cache_chunks, allocate)
        self._cache_grows_with_clients = cache_chunks is None
        self._awaiting_ends_at: int | None = None
        random = Random(seed + 1)
        self._work = work = WorkSet()
        self.drop_counts = work.drop_counts
        self.sessions = sessions = Sessions(draw_session, work, tuning)
        self.members: Mapping[str, Member] = sessions.members
        self._pending = pending = Pending(parameters, cache, random, work, tuning)
        selector = HolderSelector(parameters, sessions, pending, random, tuning)
        self._contributions = contributions = Contributions(cache, digest, pending, sessions, work, tuning)
        self.demand = demand = Demand(parameters, sessions, pending, contributions, work, tuning)
        self._broadcasts = broadcasts = Broadcasts(parameters, pending, selector, demand, sessions, work, tuning)
        pacer = Pacer(tuning.delivery_pacing_ns)
        self.deliveries = deliveries = Deliveries(parameters, cache, pending, demand, work, tuning, pacer)
        self._forwarder = forwarder = Forwarder(cache, demand, pending, selector, broadcasts, deliveries, work, tuning)
        self._monitor = monitor = ShareMonitor(sessions, demand, pending, tuning)
        self.lifecycle = Lifecycle(sessions, forwarder, demand, pending, cache, work)
        self.catalogue = Catalogue(sessions, demand, self.lifecycle, monitor, work, tuning)

    # -- for the driver

    def poll(self) -> list[ServerEffect]:
        """Process every change. Return the effects since the last call, in order."""
        self._review_and_serve()
        self.demand.acknowledge_requests()
        return self._work.take_effects()

    def _review_and_serve(self) -> None:
        """Review what is marked in the work set, and serve requests, until no work is left."""
        while self._work.serving_due:
            if self._work.is_marked:
                self._review()
            self._forwarder.serve()
            self._work.end_serving()

    def _review(self) -> None:
        """Process all marks, and add requests that may be served now to the ready queue."""
        work = self._work
        work.begin_review()
        self._end_marked_sessions()
        for _ in drain(work.uplink_sessions):
            self.lifecycle.uplink_confirmed()
        for session, _ in drain(work.reachability_sessions):
            member = self.sessions.find(session)
            if member is not None:
                self.lifecycle.reachability_changed(member)
        for file_id, _ in drain(work.changed_files):
            file = self.lifecycle.files.get(file_id)
            if file is not None:
                self.lifecycle.review(file)
                self._end_marked_sessions()
        servable_files = [file_id for file_id, _ in drain(work.servable_files)]
        self.demand.mark_ready_first(servable_files, [session for session, _ in drain(work.data_path_sessions)])

    def _end_marked_sessions(self) -> None:
        for session, (reason, cause, error) in drain(self._work.endings):
            member = self.sessions.find(session)
            if member is not None:
                if error is not None:
                    self._work.emit(MemberFailed(member.name, error))
                self._end_session(member, reason, cause)

    def next_timeout(self) -> int | None:
        """Return when :meth:`handle_timeout` is due, in nanoseconds; None if no timer runs."""
        return earliest(
            self._broadcasts.next_timeout(),
            self._forwarder.next_timeout(),
            self.deliveries.next_timeout(),
            self._monitor.next_timeout(),
            self.sessions.next_timeout(),
            self._awaiting_ends_at,
        )

    def handle_timeout(self, now: int) -> None:
        """Handle the timers that are due: retransmissions (R11), batches, leases and others.

        Only a few leases end at a time, and only a few members become unreachable: the next call handles more.
        """
        self._work.set_time(now)
        for session in self.sessions.expired_leases(now):
            self._end_session(self.sessions.get(session), "its lease ran out", EndCause.LEASE_EXPIRED)
        self.sessions.expire_reachability(now)
        if self._awaiting_ends_at is not None and self._awaiting_ends_at <= now:
            self._awaiting_ends_at = None
            self.lifecycle.stop_awaiting()
        for file, owners in self._monitor.find_owners_without_progress(now):
            self.lifecycle.reassign_shares_of(file, owners)
        self.deliveries.handle_timeout(now)
        self._broadcasts.handle_timeout(now)
        self._forwarder.handle_timeout(now)

    def restore(self, records: Iterable[FileRecord], clients: Collection[str], now: int) -> None:
        """Restore the state that was saved before a restart. Call this before any other method.

        Args:
            records: the records of all divided files, oldest first.
            clients: the names of the clients that were connected before the restart. The machine waits some time for
                their return.
            now: the time, in nanoseconds.
        """
        self.catalogue.restore(records, clients, now)
        self._awaiting_ends_at = now + self.sessions.restore(clients)

    # -- membership

    def member_joined(
        self,
        name: str,
        instance_id: bytes,
        now: int,
        *,
        is_source: bool = False,
        delivery_port: int = 0,
        held: Mapping[FileId, HeldChunks] | None = None,
        peer: str = "",
    ) -> Member:
        """Begin a session, and return its member. If a connected member joins again, the old session is replaced.

        Args:
            name: the member's name.
            instance_id: the identity by which the server recognizes the member when it joins again.
            now: the time, in nanoseconds.
            is_source: whether the member is a source.
            delivery_port: the port where the member accepts connections for deliveries; 0 if it accepts none.
            held: the chunks that the member holds, by the id of the file.
            peer: the address from which the member makes its control calls, for messages; empty if unknown.

        Raises:
            BadArgument: the name or the port is invalid.
            NameTaken: a connected member with another identity has the name.
            DuplicateInstance: another machine has the same identity and is still active.
            LimitReached: there are too many members, all members together hold too many ranges, or there is not enough
                memory for one chunk per client. If the member was connected, its old session has ended.
        """
        self._work.set_time(now)
        present = self.sessions.validate_join(name, instance_id, delivery_port, peer, now)
        if present is not None:
            reason = f"it joined again from {peer}" if peer else "it joined again"
            self._end_session(present, reason, EndCause.REPLACED)
        if self._cache_grows_with_clients and len(self.members) >= self.cache.capacity_chunks:
            client_count = sum(not each.is_source for each in self.members.values()) + (not is_source)
            if client_count > self.cache.capacity_chunks:
                self.cache.resize(client_count)  # a cache without a given size has one chunk per client
        session, kept_links = self.sessions.new_session(), self.parameters.kept_links
        member = Member(session, name, is_source, instance_id, delivery_port, kept_links, dict(held or {}), peer, now)
        self.sessions.join(member, replaces=present is not None)
        self.lifecycle.member_joined(member)
        return member

    def member_left(self, session: int, reason: str, now: int, cause: EndCause = EndCause.LEFT) -> None:
        """End a session, because the member has left, or for another cause. Do nothing if the session is unknown.

        Args:
            session: the member's session number.
            reason: why the session ends, for people.
            now: the time, in nanoseconds.
            cause: why the session ends, for programs.
        """
        self._work.set_time(now)
        member = self.sessions.find(session)
        if member is not None:
            self._end_session(member, reason, cause)

    def _end_session(self, member: Member, reason: str, cause: EndCause) -> None:
        self.demand.member_left(member)
        self._pending.member_left(member)
        self.sessions.end(member, reason, cause)
        self.lifecycle.member_left(member)

    def link_opened(self, session: int, now: int) -> bool:
        """Note that a member has opened its link. The link replaces an earlier link of the session.

        Args:
            session: the member's session number.
            now: the time, in nanoseconds.

        Returns:
            Whether the session is known. If not, a dropped input is counted.
        """
        self._work.set_time(now)
        member = self.sessions.find(session)
        if member is None:
            self._work.drop(DropReason.UNKNOWN_SESSION, f"link of session {session:016x}")
            return False
        if member.linked:
            self._link_lost(member)
        self.sessions.link_opened(member)
        return True

    def link_closed(self, session: int, now: int) -> None:
        """Note that a member's link is closed, and that all deliveries in flight over it are lost.

        Args:
            session: the member's session number.
            now: the time, in nanoseconds.
        """
        self._work.set_time(now)
        member = self.sessions.find(session)
        if member is not None:
            self.sessions.link_closed(member)
            self._link_lost(member)

    def _link_lost(self, member: Member) -> None:
        self.demand.link_lost(member)
        self._pending.link_lost(member)

    # -- the cache

    def clear_cache(self, now: int) -> int:
        """Drop all cached chunks that are not being sent. Return the number of dropped chunks."""
        self._work.set_time(now)
        self._work.mark_serving_due()
        return self.cache.clear()

    def resize_cache(self, capacity_chunks: int, now: int) -> None:
        """Set the size of the cache, which then no longer grows with the number of clients.

        Args:
            capacity_chunks: the size, in chunks.
            now: the time, in nanoseconds.

        Raises:
            BadArgument: the size is less than one chunk.
            LimitReached: there is not enough memory.
        """
        if capacity_chunks < 1:
            raise BadArgument("the cache holds at least one chunk: give 1KiB or more")
        self._work.set_time(now)
        self._cache_grows_with_clients = False
        self.cache.resize(capacity_chunks)
        for file in self.lifecycle.files.values():
            self._work.mark_servable(file.file_id)
        self._work.mark_serving_due()

    # -- datagrams

    def receive_datagram(self, data: bytes | memoryview, source: Address, now: int) -> None:
        """Handle a hello or a request, or drop the datagram. An internal error ends the sender's session.

        Args:
            data: the datagram.
            source: the sender's address.
            now: the time, in nanoseconds.
        """
        self._work.set_time(now)
        try:
            datagram = decode_datagram(data, ACCEPTED_BY_SERVER)
        except WireError as error:
            self._work.drop(error.reason, address_text(source))
            return
        member = self.sessions.find(datagram.session)
        if member is None:
            self._work.drop(DropReason.UNKNOWN_SESSION, address_text(source))
            return
        try:
            if isinstance(datagram, Hello):
                self.sessions.note_srtt(member, datagram.srtt_us)
                self._pending.seed_rtt(member)
                self.sessions.note_datagram(member, source, datagram.srtt_us != 0, now)
                answer = HelloAck(member.session, datagram.number, self.sessions.hello_interval_ns // MILLISECOND_NS)
                self._work.emit(SendDatagram(source, encode_datagram(answer)))
            else:
                assert isinstance(datagram, Request), "ACCEPTED_BY_SERVER has no other kind"
                self.sessions.note_datagram(member, source, datagram.downlink_ok, now)
                if self.sessions.note_request_number(member, datagram.number) is None:
                    self.demand.receive(member, self.lifecycle.files.get(datagram.file_id), datagram)
                else:
                    self._work.drop(DropReason.BAD_NUMBER, member.name)
        except Exception as fault:  # another name: mypyc gives all errors of one name the type of the first
            self._work.mark_failed(member.session, fault)

    # -- contributions

    def contribution_started(self, frame: Frame, origin: str, now: int) -> Reception | None:
        """Handle the head of a frame from a member.

        Args:
            frame: the head.
            origin: the sender's address, for messages.
            now: the time, in nanoseconds.

        Returns:
            The reception, with the memory for the payload; None if the driver must drop the payload. The driver passes
            the reception to ``contribution_received`` or ``contribution_aborted``.
        """
        self._work.set_time(now)
        return self._contributions.accept(frame, self.lifecycle.files.get(frame.file_id), origin, now)

    def contribution_received(self, reception: Reception, now: int) -> None:
        """Handle the complete payload of a contribution, which is in the reception's memory.

        An internal error ends the sender's session. It is raised if this session has ended already.

        Args:
            reception: the reception from ``contribution_started``.
            now: the time, in nanoseconds.
        """
        self._work.set_time(now)
        try:
            if self._contributions.finish(reception, now):
                self.deliveries.deliver_fetched(reception.fetch, now)
        except Exception as error:
            if not self.sessions.is_current(reception.sender):
                raise
            self._work.mark_failed(reception.sender.session, error)

    def contribution_aborted(self, reception: Reception, now: int) -> None:
        """Handle a contribution whose connection closed before the whole payload had arrived.

        Args:
            reception: the reception from ``contribution_started``.
            now: the time, in nanoseconds.
        """
        self._work.set_time(now)
        self._contributions.abort(reception, now)

    # -- deliveries

    def delivery_sent(self, session: int, number: int, now: int) -> None:
        """Note that the kernel has taken a whole delivery, so that its views are no longer needed.

        Args:
            session: the client's session number.
            number: the delivery's number.
            now: the time, in nanoseconds.
        """
        self._work.set_time(now)
        self.deliveries.delivery_sent(session, number)

    def delivery_failed(self, session: int, number: int, now: int) -> None:
        """Note that a delivery will not arrive, and that its views are no longer needed.

        Args:
            session: the client's session number.
            number: the delivery's number.
            now: the time, in nanoseconds.
        """
        self._work.set_time(now)
        self.deliveries.delivery_failed(self.sessions.find(session), session, number)

    def delivery_address(self, session: int) -> Address | None:
        """Return the address where a member accepts connections for deliveries; None if none is known."""
        member = self.sessions.find(session)
        if member is None or member.address is None or member.delivery_port == 0:
            return None
        return member.address[0], member.delivery_port

    # -- dropped inputs

    def connection_dropped(self, reason: DropReason, origin: str) -> None:
        """Count and report a TCP connection that the driver closes because of invalid input or a limit.

        Args:
            reason: why the connection is closed.
            origin: the address of the peer.
        """
        self._work.drop(reason, origin)

    def report_dropped(self, session: int) -> None:
        """Count a refused report as a dropped input, with the reason UNKNOWN_FILE."""
        self._work.drop(DropReason.UNKNOWN_FILE, self.sessions.name_of(session))

    def check(self) -> None:
        """Carry out all :meth:`checks`."""
        for check in self.checks():
            check()

    def checks(self) -> list[Callable[[], None]]:
        """Return the functions that check the invariants: one for each main part of the server and for each file."""
        owners = self.cache, self.sessions, self._pending, self.demand, self._forwarder, self.deliveries
        files = self.lifecycle.files.values()
        return [owner.check for owner in owners] + [partial(file.check, self.members) for file in files]
