"""The server's machine: its inputs, and ``poll``, which works off what they changed.

It never waits and never fails on what comes from the network: inputs go in with the time, effects come out of
:meth:`ServerMachine.poll`, and :meth:`ServerMachine.next_timeout` says when to call
:meth:`ServerMachine.handle_timeout`. Commands (join, announce, ...) raise ``PspError`` when refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from random import Random

from pspd.core.cache.arena import Allocate, allocate_on_heap
from pspd.core.cache.cache import Cache
from pspd.core.effects.server import EndCause, MemberFailed, ServerEffect
from pspd.core.effects.shared import SendDatagram
from pspd.core.model.file_record import FileRecord
from pspd.core.model.manifest import Digest, FileId
from pspd.core.model.parameters import MILLISECOND_NS, Parameters
from pspd.core.model.storage import Held
from pspd.core.model.tuning import SERVER_TUNING, ServerTuning
from pspd.core.server.broadcasts import Broadcasts
from pspd.core.server.catalogue import Catalogue
from pspd.core.server.contributions import Contributions, Receipt
from pspd.core.server.deliveries import Deliveries
from pspd.core.server.demand import Demand
from pspd.core.server.drops import Drops
from pspd.core.server.forwarder import Forwarder
from pspd.core.server.holders import Holders
from pspd.core.server.lifecycle import Lifecycle
from pspd.core.server.member import Member
from pspd.core.server.pending import Pending
from pspd.core.server.retransmit import Retransmitter
from pspd.core.server.sessions import Sessions
from pspd.core.server.share_monitor import ShareMonitor
from pspd.core.server.verify import Verifier
from pspd.core.server.work_set import WorkSet
from pspd.core.timing.timers import earliest
from pspd.core.wire.datagrams import SERVER_DATAGRAMS, Hello, HelloAck, Request, decode_datagram, encode_datagram
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason, WireError
from pspd.errors import BadArgument
from pspd.text.addresses import Address, address_text


class ServerMachine:
    """Mediates between requesters and holders, and keeps nothing but its cache (R2, R4).

    Args:
        parameters: the profile; clients learn it when they join.
        cache_chunks: the cache's size; None for one chunk per client, growing as clients join.
        digest: the digest that manifests are made with.
        seed: of the jitter and of the choice among holders; the same seed gives the same effects.
        draw_session: gives a random 64-bit number for a new session. Only that number tells a member from a stranger,
            so the driver draws it from a cryptographic source; a seeded generator would reveal every later number.
        tuning: timeouts, pacing and bounds.
        allocate: takes the memory for the cache.

    Attributes:
        catalogue: commands and reports about files.
        lifecycle: the files.
        sessions: the members.
    """

    def __init__(
        self,
        parameters: Parameters,
        cache_chunks: int | None,
        digest: Digest,
        seed: int,
        draw_session: Callable[[], int],
        tuning: ServerTuning = SERVER_TUNING,
        allocate: Allocate = allocate_on_heap,
    ) -> None:
        self.parameters = parameters
        self.cache = cache = Cache(1 if cache_chunks is None else cache_chunks, allocate)
        self._cache_follows_clients = cache_chunks is None
        self._returning_until: int | None = None
        random = Random(seed + 1)
        self._work = work = WorkSet()
        self._drops = drops = Drops(work)
        self.sessions = sessions = Sessions(parameters.kept_links, draw_session, work, tuning)
        self._pending = pending = Pending(parameters, cache, random, work, tuning)
        holders = Holders(parameters, sessions, pending, random, tuning)
        verifier = Verifier(cache, digest, sessions, work, tuning.parts_max)
        self._contributions = Contributions(cache, pending, verifier, sessions, drops)
        self._broadcasts = broadcasts = Broadcasts(parameters, pending, holders, sessions, work, tuning)
        self.demand = demand = Demand(parameters, sessions, pending, verifier, drops, work, tuning)
        self._retransmitter = Retransmitter(pending, holders, demand, work, tuning)
        self.deliveries = deliveries = Deliveries(parameters, cache, pending, demand, work, tuning)
        self._forwarder = forwarder = Forwarder(cache, demand, pending, holders, broadcasts, deliveries, work, tuning)
        self._monitor = monitor = ShareMonitor(sessions, demand, pending, tuning)
        self.lifecycle = Lifecycle(sessions, forwarder, demand, pending, cache, work)
        self.catalogue = Catalogue(sessions, demand, self.lifecycle, monitor, work, tuning)

    # -- for the driver

    def poll(self) -> list[ServerEffect]:
        """Return what is to be done since the last call, in order."""
        self._settle()
        self.demand.acknowledge_requests()
        return self._work.take_effects()

    def _settle(self) -> None:
        """Work off everything that changed, and what changes by that, until nothing is left."""
        while self._work.serving_due:
            if self._work.is_marked:
                self._review()
            self._forwarder.serve()
            self._work.serving_ended()
            self._end_failed()

    def _review(self) -> None:
        """Bring members and files up to date with what is marked, and have the requests served that now can be."""
        work = self._work
        work.review_started()
        self._end_marked()
        for session in work.heard_sessions():
            if self.sessions.find(session) is not None:
                self.lifecycle.member_heard()
        for session in work.reach_sessions():
            member = self.sessions.find(session)
            if member is not None:
                self.lifecycle.reach_changed(member)
        for file_id in work.changed_files():
            file = self.lifecycle.files.get(file_id)
            if file is not None:
                self.lifecycle.review(file)
                self._end_marked()
        self.demand.mark_ready_first(work.waiter_files(), work.data_path_sessions())

    def _end_marked(self) -> None:
        for session, ending in self._work.endings():
            member = self.sessions.find(session)
            if member is not None:
                self._end_session(member, ending.reason, ending.cause)

    def _end_failed(self) -> None:
        """End the sessions of members for which something raised: they may join again, with a clean state."""
        for session, error in self._work.failures():
            member = self.sessions.find(session)
            if member is not None:
                self._work.emit(MemberFailed(member.name, error))
                reason = "the server met an internal error while it served it: see its log"
                self._end_session(member, reason, EndCause.SERVER_FAULT)

    def next_timeout(self) -> int | None:
        """Return when :meth:`handle_timeout` is due, in nanoseconds; None if nothing waits for the time."""
        return earliest(
            self._pending.next_timeout(),
            self._broadcasts.next_timeout(),
            self._forwarder.next_timeout(),
            self.deliveries.next_timeout(),
            self._monitor.next_timeout(),
            self.sessions.next_timeout(),
            self._returning_until,
        )

    def handle_timeout(self, now: int) -> None:
        """Do what is due: retransmissions (R11), leases that ran out, members that are unreachable."""
        self._work.started(now)
        for session in self.sessions.expired_leases(now):
            self._end_session(self.sessions.get(session), "its lease ran out", EndCause.LEASE_EXPIRED)
        self.sessions.expire_reach(now)
        if self._returning_until is not None and self._returning_until <= now:
            self._returning_until = None
            self.lifecycle.stop_awaiting()
        for file, idle in self._monitor.idle_owners(now):
            self.lifecycle.reassign_idle(file, idle)
        self.deliveries.handle_timeout(now)
        self._retransmitter.handle_timeout(now)
        self._broadcasts.send(now)
        self._forwarder.handle_timeout(now)

    def restore(self, records: Iterable[FileRecord], clients: Collection[str], now: int) -> None:
        """Take over what was saved before a restart; call it before anything else.

        Args:
            records: of every file, oldest first.
            clients: names of the clients that were connected: they have time to come back.
            now: the time, in nanoseconds.
        """
        self.sessions.remember_lost(clients)
        self.catalogue.restore(records, clients, now)
        self._returning_until = now + self.sessions.returning_ns(len(clients))

    # -- membership

    @property
    def members(self) -> Mapping[str, Member]:
        """Who is connected, by name."""
        return self.sessions.members

    @property
    def lost_clients(self) -> Mapping[str, Address | None]:
        """Where clients that were lost were heard from last, by name."""
        return self.sessions.lost_clients

    def client_joined(
        self,
        name: str,
        instance_id: bytes,
        now: int,
        *,
        source: bool = False,
        delivery_port: int = 0,
        held: Mapping[FileId, Held] | None = None,
        peer: str = "",
    ) -> Member:
        """Begin a session; one that comes back under its name replaces its old session.

        Args:
            name: the member's name.
            instance_id: who it is.
            now: the time, in nanoseconds.
            source: it is a source.
            delivery_port: where it takes connections for deliveries; 0 if it takes none.
            held: what it holds, by file.
            peer: where the join came from, for messages.

        Raises:
            BadArgument: the name or the port cannot be used.
            NameTaken: another connected member has the name.
            DuplicateInstance: another machine has the same identity and is still active.
            LimitReached: there are too many members, or they hold too many pieces.
        """
        self._work.started(now)
        present = self.sessions.validate_join(name, instance_id, delivery_port, peer, now)
        if present is not None:
            reason = f"it joined again from {peer}" if peer else "it joined again"
            self._end_session(present, reason, EndCause.REPLACED)
        member = self.sessions.join(
            name,
            instance_id,
            now,
            source=source,
            delivery_port=delivery_port,
            held=held,
            peer=peer,
            is_replacement=present is not None,
        )
        if self._cache_follows_clients:  # the classic cache has one chunk per client
            self._grow_cache()
        self.lifecycle.member_joined(member)
        return member

    def member_of(self, session: int) -> Member:
        """Return the member of a session.

        Raises:
            SessionUnknown: it has ended or never was.
        """
        return self.sessions.get(session)

    def lease_renewed(self, session: int, now: int) -> None:
        """Note that a member is alive.

        Args:
            session: the member's session.
            now: the time, in nanoseconds.

        Raises:
            SessionUnknown: the session has ended or never was.
        """
        self.sessions.lease_renewed(session, now)

    @property
    def lease_ns(self) -> int:
        """How long a member may be silent before it is lost, in nanoseconds."""
        return self.sessions.lease_ns

    @property
    def hello_interval_ns(self) -> int:
        """The interval at which clients say hello, in nanoseconds."""
        return self.sessions.hello_interval_ns

    @property
    def reach_ns(self) -> int:
        """How long a member stays reachable without a sign that it can be asked, in nanoseconds."""
        return self.sessions.reach_ns

    def client_left(self, session: int, reason: str, now: int, cause: EndCause = EndCause.LEFT) -> None:
        """Note that a member has left; an unknown session does not matter.

        Args:
            session: the member's session.
            reason: why, in words.
            now: the time, in nanoseconds.
            cause: why, as a program reads it.
        """
        self._work.started(now)
        member = self.sessions.find(session)
        if member is not None:
            self._end_session(member, reason, cause)

    def _end_session(self, member: Member, reason: str, cause: EndCause) -> None:
        self.demand.member_lost(member)
        self._pending.member_lost(member)
        self.sessions.end(member, reason, cause)
        self.lifecycle.member_left(member)

    def link_opened(self, session: int, now: int) -> bool:
        """Note a client's TCP link, in place of any before.

        Args:
            session: the client's session.
            now: the time, in nanoseconds.

        Returns:
            False if no such session is known.
        """
        self._work.started(now)
        member = self.sessions.find(session)
        if member is None:
            self._drops.drop(DropReason.UNKNOWN_SESSION, f"link of session {session:016x}")
            return False
        if member.linked:
            self._link_lost(member)
        self.sessions.link_opened(member)
        return True

    def link_closed(self, session: int, now: int) -> None:
        """Note that a client's TCP link is gone; the client will dial again.

        Args:
            session: the client's session.
            now: the time, in nanoseconds.
        """
        self._work.started(now)
        member = self.sessions.find(session)
        if member is not None:
            self.sessions.link_closed(member)
            self._link_lost(member)

    def _link_lost(self, member: Member) -> None:
        self.demand.link_lost(member)
        self._pending.link_lost(member)

    # -- the cache

    def clear_cache(self, now: int) -> int:
        """Drop what is cached. Return how many chunks that were."""
        self._work.started(now)
        self._work.room_changed()
        return self.cache.clear()

    def resize_cache(self, capacity_chunks: int, now: int) -> None:
        """Give the cache another size, and keep it there.

        Args:
            capacity_chunks: the size.
            now: the time, in nanoseconds.

        Raises:
            BadArgument: it is too small.
        """
        if capacity_chunks < 1:
            raise BadArgument("the cache holds at least one chunk: give 1KiB or more")
        self._work.started(now)
        self._cache_follows_clients = False
        self.cache.resize(capacity_chunks)
        for file in self.lifecycle.files.values():
            self._work.serve_waiters(file.file_id)
        self._work.room_changed()

    def _grow_cache(self) -> None:
        if len(self.members) > self.cache.capacity_chunks:
            client_count = self.sessions.client_count
            if client_count > self.cache.capacity_chunks:
                self.cache.resize(client_count)

    # -- datagrams

    def receive_datagram(self, data: bytes | memoryview, source: Address, now: int) -> None:
        """Take in one datagram, whatever it holds.

        Args:
            data: the datagram.
            source: where it came from.
            now: the time, in nanoseconds.
        """
        self._work.started(now)
        try:
            datagram = decode_datagram(data, SERVER_DATAGRAMS)
        except WireError as error:
            self._drops.drop(error.reason, address_text(source))
            return
        member = self.sessions.find(datagram.session)
        if member is None:
            self._drops.drop(DropReason.UNKNOWN_SESSION, address_text(source))
            return
        try:
            match datagram:
                case Hello(_, number, srtt_us):
                    self.sessions.note_srtt(member, srtt_us)
                    self._pending.seed_rtt(member, member.srtt_us)
                    self.sessions.heard_from(member, source, srtt_us != 0, now)
                    answer = HelloAck(member.session, number, self.hello_interval_ns // MILLISECOND_NS)
                    self._work.emit(SendDatagram(source, encode_datagram(answer)))
                case Request():
                    self.sessions.heard_from(member, source, datagram.downlink_ok, now)
                    if self.sessions.take_request_number(member, datagram.number) is None:
                        self.demand.receive(member, self.lifecycle.files.get(datagram.file_id), datagram)
                    else:
                        self._drops.drop(DropReason.BAD_NUMBER, member.name)
        except Exception as fault:  # another name: mypyc gives all errors of one name the type of the first
            self._work.member_failed(member.session, fault)

    # -- contributions

    def contribution_started(self, frame: Frame, origin: str, now: int) -> Receipt | None:
        """Take in the head of a frame that came from a client.

        Args:
            frame: the head.
            origin: where it came from, for messages.
            now: the time, in nanoseconds.

        Returns:
            Where its payload is to be received. Hand that back to ``contribution_received`` or
            ``contribution_aborted``. None: receive the payload and drop it.
        """
        self._work.started(now)
        return self._contributions.accept(frame, self.lifecycle.files.get(frame.file_id), origin, now)

    def contribution_received(self, receipt: Receipt, now: int) -> None:
        """Take in the payload of a contribution: it is all where the receipt says.

        Args:
            receipt: from ``contribution_started``.
            now: the time, in nanoseconds.
        """
        self._work.started(now)
        try:
            if self._contributions.received(receipt, now):
                self.deliveries.fetched(receipt.fetch, now)
        except Exception as error:
            if not self.sessions.is_current(receipt.sender):
                raise
            self._work.member_failed(receipt.sender.session, error)

    def contribution_aborted(self, receipt: Receipt, now: int) -> None:
        """Note that the connection broke before a contribution's payload was all there.

        Args:
            receipt: from ``contribution_started``.
            now: the time, in nanoseconds.
        """
        self._work.started(now)
        self._contributions.aborted(receipt, now)

    # -- deliveries

    def delivery_sent(self, session: int, number: int, now: int) -> None:
        """Note that the kernel has all of a delivery: its views are not needed any more.

        Args:
            session: whose it is.
            number: its number.
            now: the time, in nanoseconds.
        """
        self._work.started(now)
        self.deliveries.sent(session, number)

    def delivery_failed(self, session: int, number: int, now: int) -> None:
        """Note that a delivery does not arrive, and that its views are not needed any more; the client asks again.

        Args:
            session: whose it is.
            number: its number.
            now: the time, in nanoseconds.
        """
        self._work.started(now)
        self.deliveries.failed(self.sessions.find(session), session, number)

    def delivery_address(self, session: int) -> Address | None:
        """Return where a client takes connections for deliveries; None if it takes none now."""
        member = self.sessions.find(session)
        if member is None or member.address is None or member.delivery_port == 0:
            return None
        return member.address[0], member.delivery_port

    # -- what is dropped

    @property
    def drop_counts(self) -> Counter[DropReason]:
        """How many inputs were dropped, by reason."""
        return self._drops.counts

    def frame_refused(self, reason: DropReason, origin: str) -> None:
        """Count what came over TCP and was no frame; its connection is closed.

        Args:
            reason: what was wrong with it.
            origin: where it came from.
        """
        self._drops.drop(reason, origin)

    def report_refused(self, session: int) -> None:
        """Count a report on a file that is not divided, or no more: it may have been removed meanwhile."""
        self._drops.drop(DropReason.UNKNOWN_FILE, self.sessions.name_of(session))

    def check(self) -> None:
        """Assert the invariants of every record; tests and the simulator call it after each input."""
        self.cache.check()
        self.sessions.check()
        self._pending.check()
        self.demand.check()
        self.deliveries.check()
        for file in self.lifecycle.files.values():
            file.check(self.members)
