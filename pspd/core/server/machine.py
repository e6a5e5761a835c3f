"""The server machine: who is a member, which files there are, and what to do about each input.

It never waits and never fails on what comes from the network: inputs go in with the time, effects come
out of :meth:`ServerMachine.poll`, and :meth:`ServerMachine.next_timeout` says when to call
:meth:`ServerMachine.handle_timeout`. Commands (join, announce, ...) raise ``PspError`` when refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import islice
from random import Random

from pspd.core.cache.arena import Allocate, allocate_on_heap
from pspd.core.cache.cache import Cache
from pspd.core.effects.server import (
    ClientJoined,
    ClientLost,
    ClientReach,
    CloseLink,
    DuplicateRefused,
    EndCause,
    EndSession,
    MemberFailed,
    ServerEffect,
)
from pspd.core.effects.shared import InputDropped, SendDatagram
from pspd.core.model.manifest import Digest, FileId
from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS, Parameters
from pspd.core.model.storage import Held
from pspd.core.server.catalogue import Catalogue
from pspd.core.server.fetching import Fetching
from pspd.core.server.file_record import FileRecord, Phase
from pspd.core.server.forwarder import Relay
from pspd.core.server.members import Interest, Member, validate_client_name
from pspd.core.server.shared_file import SharedFile
from pspd.core.timing.timers import Timers, earliest
from pspd.core.wire.datagrams import (
    RESERVED_SESSIONS,
    SERVER_DATAGRAMS,
    Datagram,
    Hello,
    HelloAck,
    Request,
    RequestAck,
    decode_datagram,
    encode_datagram,
)
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason, Kind, WireError
from pspd.errors import BadArgument, DuplicateInstance, LimitReached, NameTaken, SessionUnknown
from pspd.text.addresses import PORT_MAX, Address, address_text

LEASE_NS = 30 * SECOND_NS
"""A process that ends is missed at once, by its connection. A lease is for machines that fall silent; a full link or a
busy disk may keep one from renewing it for seconds, and that is no reason to give its share to another."""
LEASE_NS_PER_MEMBER = 12 * MILLISECOND_NS
"""A lease is long enough for the server to hear from all members within it, however many they are."""
SPEAKS_PERCENT_OF_LEASE = 30
"""A member that was heard within this part of a lease still speaks: it renews at every quarter."""
REPLACEMENT_NS = 60 * SECOND_NS
"""Within this time a member that still speaks is replaced once by another session of its identity, and not again."""
LATE_NS = SECOND_NS
"""A server that looks so late whether a lease has run out has not read what would have renewed it."""
SILENT_AT_A_TIME = 8
"""How many members are given up in a row: it is some work for each, while others' signs of life wait to be read."""
HELLO_NS = 5 * SECOND_NS
HELLO_NS_PER_MEMBER = 10 * MILLISECOND_NS
HELLO_NS_MAX = 100 * SECOND_NS
"""How often a client says hello: less often where so many do that it would keep the server busy, but always within the
two minutes for which a NAT keeps a mapping at least (RFC 4787, REQ-5)."""
PATIENCE_NS = 30 * SECOND_NS
PATIENCE_NS_PER_MEMBER = 24 * MILLISECOND_NS
"""How long a client is to wait for what is on its way over TCP already before it asks again."""
HELLOS_PER_REACH = 2
REACH_NS = 30 * SECOND_NS
"""How long a member counts as a holder without a sign that datagrams pass both ways and its link stands."""
MEMBERS_MAX = 20_000
TOLD_RANGES_MAX = 5_000_000
"""Ranges that all members together may say at joining that they hold, a file counting as one at least: some 80 bytes of
memory each."""
LOST_CLIENTS_MAX = 1024


class ServerMachine:
    """Mediates between requesters and holders, and keeps nothing but its cache (R2, R4).

    Args:
        parameters: the profile; clients learn it when they join.
        cache_chunks: the cache's size; None for one chunk per client, growing as clients join.
        digest: the digest that manifests are made with.
        seed: of the jitter and of the choice among holders; the same seed gives the same effects.
        draw_session: gives a random 64-bit number for a new session. It is all that tells a member from a stranger, so
            the driver draws it from a cryptographic source; a seeded generator here would give away every later number.
        reach_ns: how long a member counts as a holder without a sign that it can be asked.
        allocate: takes the memory for the cache.
    """

    def __init__(
        self,
        parameters: Parameters,
        cache_chunks: int | None,
        digest: Digest,
        seed: int,
        draw_session: Callable[[], int],
        reach_ns: int = REACH_NS,
        allocate: Allocate = allocate_on_heap,
    ) -> None:
        self.parameters = parameters
        self.cache = Cache(1 if cache_chunks is None else cache_chunks, allocate)
        self.members: dict[str, Member] = {}
        self.lost_clients: dict[str, Address | None] = {}
        self.drop_counts: Counter[DropReason] = Counter()
        self._told_range_count = 0
        self._cache_follows_clients = cache_chunks is None
        self._sessions: dict[int, Member] = {}
        self._reach_ns = reach_ns
        self._leases: Timers[int] = Timers()
        self._reach: Timers[int] = Timers()
        self._returning_until: int | None = None
        self._unanswered: dict[Interest, None] = {}
        self._effects: list[ServerEffect] = []
        self._draw_session = draw_session
        emit = self._effects.append
        self._fetching = Fetching(parameters, self.cache, digest, self.members, emit, Random(seed + 1))
        files: dict[FileId, SharedFile] = {}
        self._failures: dict[Member, Exception] = {}
        self._relay = Relay(parameters, self.cache, self._fetching, files, emit, self._note_failure)
        self.catalogue = Catalogue(files, self.members, self.member_of, self.cache, self._relay, emit, self._lose)

    # -- for the driver

    def poll(self) -> list[ServerEffect]:
        """Everything to be done since the last call, in order."""
        self._relay.serve()
        while self._failures:
            self._end_failed()
            self._relay.serve()
        if self._unanswered:
            self._answer_requests()
        effects = self._effects.copy()
        self._effects.clear()
        return effects

    def _note_failure(self, member: Member, error: Exception) -> None:
        self._failures.setdefault(member, error)

    def _end_failed(self) -> None:
        """Ends the sessions of members for whom something raised: they may join again, with a clean state."""
        failures = list(self._failures.items())
        self._failures.clear()
        for member, error in failures:
            if self._sessions.get(member.session) is member:
                self._effects.append(MemberFailed(member.name, error))
                reason = "the server met an internal error while it served it: see its log"
                self._lose(member, reason, EndCause.SERVER_FAULT, self._relay.now)

    def next_timeout(self) -> int | None:
        """When :meth:`handle_timeout` is due, in nanoseconds; None if nothing waits for the time."""
        return earliest(
            self._relay.next_timeout(),
            self.catalogue.next_timeout(),
            self._leases.next_deadline(),
            self._reach.next_deadline(),
            self._returning_until,
        )

    def _silent(self, timers: Timers[int], now: int) -> Iterator[int]:
        """The sessions from which nothing has come for too long: a few at a time, as each is some work.

        Where it is looked late, this server was too busy, or stood still, and what has come meanwhile is not read yet:
        they are given as long again, but no more than a lease.
        """
        late_ns = now - (timers.next_deadline() or now)
        for session in islice(timers.expired(now), SILENT_AT_A_TIME):
            if late_ns < LATE_NS:
                yield session
            else:
                timers.set(session, now + min(late_ns, self.lease_ns))

    def handle_timeout(self, now: int) -> None:
        """Does what is due: retransmissions (R11), leases that ran out, members that are out of reach."""
        for session in self._silent(self._leases, now):
            self._lose(self._sessions[session], "its lease ran out", EndCause.LEASE_EXPIRED, now)
        for session in self._silent(self._reach, now):
            self._set_reach(self._sessions[session], False, now)
        if self._returning_until is not None and self._returning_until <= now:
            self._returning_until = None
            self.catalogue.stop_awaiting(now)
        self.catalogue.handle_timeout(now)
        for file in self._relay.handle_timeout(now):
            self.catalogue.review(file, now)
        self._relay.serve_soon(now)

    def restore(self, records: Iterable[FileRecord], clients: Collection[str], now: int) -> None:
        """Takes up what was written down before a restart; comes before anything else.

        Args:
            records: of every file, oldest first.
            clients: names of the clients that were connected: they have time to come back.
            now: the time, in nanoseconds.
        """
        self.lost_clients.update(dict.fromkeys(clients))
        self.catalogue.restore(records, clients, now)
        self._returning_until = now + max(self.reach_ns, LEASE_NS_PER_MEMBER * len(clients))

    # -- membership

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
        """Makes a member and gives it a session; one that comes back under its name replaces its old session.

        Args:
            peer: where the join came from, for messages.

        Raises:
            BadArgument: the name or the port cannot be used.
            NameTaken: another connected member has the name.
            DuplicateInstance: another machine has the same identity and still speaks.
            LimitReached: there are too many members, or they hold too many pieces.
        """
        present = self.members.get(validate_client_name(name))
        if not 0 <= delivery_port <= PORT_MAX:
            raise BadArgument(f"delivery port {delivery_port} is none: name one from 0 to {PORT_MAX}")
        if present is not None:
            if present.instance_id != instance_id:
                raise NameTaken(f"a client named {name!r} is connected already: choose another with --name")
            self._refuse_duplicate(present, peer, now)
            self._lose(present, f"it joined again from {peer}" if peer else "it joined again", EndCause.REPLACED, now)
        if len(self.members) >= MEMBERS_MAX:
            raise LimitReached(f"the network has its most members ({MEMBERS_MAX}) already")
        told_range_count = sum(max(1, known.verified.range_count) for known in held.values()) if held else 0
        if self._told_range_count + told_range_count > TOLD_RANGES_MAX:
            raise LimitReached(f"the clients of the network hold their files in more than {TOLD_RANGES_MAX} pieces")
        member = Member(self._new_session(), name, source, instance_id, delivery_port, self.parameters, held, peer)
        member.told_range_count = told_range_count
        self._told_range_count += told_range_count
        member.joined_at = member.spoke_at = now
        member.contested_at = None if present is None else now
        self.members[name] = self._sessions[member.session] = member
        self.lost_clients.pop(name, None)
        self._leases.set(member.session, now + self.lease_ns)
        self._reach.set(member.session, now + self.reach_ns)
        self._size_cache()
        self._effects.append(ClientJoined(name))
        self.catalogue.member_joined(member, now)
        return member

    def _refuse_duplicate(self, present: Member, peer: str, now: int) -> None:
        """Keeps two machines of one identity from replacing each other for ever.

        A client that comes back replaces its old session, once. When that happens again soon, and the old session was
        heard lately, two machines are at work: the newcomer is refused until the other is silent.

        Raises:
            DuplicateInstance: the member stays.
        """
        if present.contested_at is None or now - present.contested_at >= REPLACEMENT_NS:
            return
        if now - present.spoke_at >= self.lease_ns * SPEAKS_PERCENT_OF_LEASE // 100:
            return
        present.contested_at = now  # who keeps trying stays refused
        if present.refusal_told_at is None or now - present.refusal_told_at >= REPLACEMENT_NS:
            present.refusal_told_at = now
            self._effects.append(DuplicateRefused(present.name, peer, present.peer))
        raise DuplicateInstance(
            f"{present.name!r} is connected from {present.peer or 'elsewhere'}, with the identity of this client at"
            f" {peer or 'another address'}: if its folder was copied, give one of the two another --name"
        )

    def _new_session(self) -> int:
        while (session := self._draw_session()) in RESERVED_SESSIONS or session in self._sessions:
            pass
        return session

    def _size_cache(self) -> None:
        """The classic cache has one chunk per client; it follows their number upwards."""
        if self._cache_follows_clients and len(self.members) > self.cache.capacity_chunks:
            client_count = sum(not member.source for member in self.members.values())
            if client_count > self.cache.capacity_chunks:
                self.cache.resize(client_count)

    def member_of(self, session: int) -> Member:
        """The member that a session belongs to.

        Raises:
            SessionUnknown: it has ended or never was.
        """
        member = self._sessions.get(session)
        if member is None:
            raise SessionUnknown(f"session {session:016x} is not known: join again")
        return member

    def lease_renewed(self, session: int, now: int) -> None:
        """A member is alive."""
        member = self.member_of(session)
        member.spoke_at = now
        self._leases.postpone(session, now + self.lease_ns)

    @property
    def lease_ns(self) -> int:
        """How long a member may say nothing before it is lost, in nanoseconds."""
        return max(LEASE_NS, LEASE_NS_PER_MEMBER * len(self.members))

    @property
    def hello_ns(self) -> int:
        """How long a client is to wait until it says hello again, in nanoseconds."""
        stretched_ns = min(HELLO_NS_PER_MEMBER * len(self.members), HELLO_NS_MAX)
        return max(min(HELLO_NS, self._reach_ns // HELLOS_PER_REACH), stretched_ns)

    @property
    def reach_ns(self) -> int:
        """How long a member counts as a holder without a sign that it can be asked, in nanoseconds."""
        return max(self._reach_ns, HELLOS_PER_REACH * self.hello_ns)

    def client_left(self, session: int, reason: str, now: int, cause: EndCause = EndCause.LEFT) -> None:
        """A session has ended; unknown ones are no matter."""
        member = self._sessions.get(session)
        if member is not None:
            self._lose(member, reason, cause, now)

    def _lose(self, member: Member, reason: str, cause: EndCause, now: int) -> None:
        self._relay.member_lost(member)
        self._leases.cancel(member.session)
        self._reach.cancel(member.session)
        del self.members[member.name], self._sessions[member.session]
        self._told_range_count -= member.told_range_count
        if not member.source:
            self.lost_clients[member.name] = member.address
            if len(self.lost_clients) > LOST_CLIENTS_MAX:
                del self.lost_clients[next(iter(self.lost_clients))]
        self._effects += [
            EndSession(member.session, reason, cause),
            CloseLink(member.session),
            ClientLost(member.name, reason),
        ]
        self.catalogue.member_left(member, now)
        self._relay.serve_soon(now)

    def _set_reach(self, member: Member, in_reach: bool, now: int) -> None:
        """A member shows that it can be asked for chunks, or has not shown it for too long."""
        if in_reach:
            self._reach.postpone(member.session, now + self.reach_ns)
        if in_reach != member.in_reach:
            member.in_reach = in_reach
            self._effects.append(ClientReach(member.name, in_reach))
            self.catalogue.reach_changed(member, now)
            self._relay.serve_soon(now)

    def link_opened(self, session: int, now: int) -> bool:
        """A client's TCP link is there, in place of any before. Returns False if no such session is known."""
        member = self._sessions.get(session)
        if member is None:
            self._drop(DropReason.UNKNOWN_SESSION, f"link of session {session:016x}")
            return False
        if member.linked:
            self._relay.link_lost(member)
        member.linked = True
        self._relay.reached(member)
        self._relay.serve_soon(now)
        return True

    def link_closed(self, session: int, now: int) -> None:
        """A client's TCP link is gone; the client will dial again."""
        member = self._sessions.get(session)
        if member is not None:
            member.linked = False
            self._relay.link_lost(member)
            self._relay.serve_soon(now)

    # -- the cache

    def clear_cache(self, now: int) -> int:
        """Drops what is cached. Returns how many chunks that were."""
        dropped = self.cache.clear()
        self._relay.serve_soon(now)
        return dropped

    def resize_cache(self, capacity_chunks: int, now: int) -> None:
        """Gives the cache another size, and keeps it there."""
        if capacity_chunks < 1:
            raise BadArgument("the cache holds at least one chunk: give 1KiB or more")
        self._cache_follows_clients = False
        self.cache.resize(capacity_chunks)
        for file in self.catalogue.files.values():
            self._relay.wake(file)
        self._relay.serve_soon(now)

    # -- datagrams

    def receive_datagram(self, data: bytes | memoryview, source: Address, now: int) -> None:
        """Takes in one datagram, whatever it holds."""
        try:
            datagram = decode_datagram(data, SERVER_DATAGRAMS)
        except WireError as error:
            self._drop(error.reason, address_text(source))
            return
        member = self._sessions.get(datagram.session)
        if member is None:
            self._drop(DropReason.UNKNOWN_SESSION, address_text(source))
            return
        try:
            self._receive_from(member, datagram, source, now)
        except Exception as fault:  # another name: mypyc gives all errors of one name the type of the first
            self._relay.serve_soon(now)
            self._note_failure(member, fault)

    def _receive_from(self, member: Member, datagram: Datagram, source: Address, now: int) -> None:
        match datagram:
            case Hello(_, number, srtt_us):
                member.measured(srtt_us)
                self._heard_from(member, source, srtt_us != 0, now)
                answer = HelloAck(member.session, number, self.hello_ns // MILLISECOND_NS)
                self._effects.append(SendDatagram(source, encode_datagram(answer)))
            case Request():
                self._heard_from(member, source, datagram.downlink_ok, now)
                self._receive_request(member, datagram, now)

    def _heard_from(self, member: Member, source: Address, downlink_ok: bool, now: int) -> None:
        """A datagram of a member says where it is, and whether it hears the server."""
        member.spoke_at = now
        self._leases.postpone(member.session, now + self.lease_ns)  # who is heard lives, however late renewals come
        is_first = member.address is None
        was_reachable, member.address = member.reachable, source
        if is_first:
            self.catalogue.member_heard(member, now)
        if member.reachable and not was_reachable:
            self._relay.reached(member)
            self._relay.serve_soon(now)
        if member.reachable and downlink_ok:
            self._set_reach(member, True, now)

    def _receive_request(self, member: Member, request: Request, now: int) -> None:
        fault = member.take_request_number(request.number)
        if fault is not None:
            self._drop(DropReason.BAD_NUMBER, member.name)
            self._lose(member, fault, EndCause.PROTOCOL_ERROR, now)
            return
        file = self.catalogue.files.get(request.file_id)
        if file is None or not file.is_divided or member.source:
            self._drop(DropReason.UNKNOWN_FILE, member.name)
            return
        file.traffic.request_datagrams += 1
        if any(stop > file.manifest.chunk_count for _, stop in request.ranges):
            self._drop(DropReason.BAD_RANGE, member.name)
            return
        interest = member.interest_in(file)
        if request.number <= interest.number:
            self._drop(DropReason.STALE, member.name)
            return
        interest.requested_at = now
        file.traffic.retransmit_count += request.repeated
        self._relay.acknowledged(interest, request.acknowledged)
        if not self.parameters.kept_links:  # no link tells by its end what was lost: who asks again has not got it
            self._relay.give_up(interest)
        # A request that its sender's own report overtook is no news: who has the file lacks nothing.
        if member.name not in file.complete and (refuted := file.lack(member.name, request.ranges)):
            file.loosen_shares(member.name)
            self._fetching.distrust(file, refuted)
            self.catalogue.review(file, now)
        ranges = file.servable(member.name, request.ranges)
        self._relay.asked(interest, request.number, self._granted(request.window_chunks), ranges)
        self._relay.serve_soon(now)
        if (request.repeated or request.wants_ack) and self.parameters.kept_links:
            self._unanswered[interest] = None

    def _answer_requests(self) -> None:
        """Tells clients that their requests are here, so that they ask no more while they wait for others.

        When they have been served: how long to wait is another thing for whom something is on its way.
        """
        patience_ns = max(PATIENCE_NS, PATIENCE_NS_PER_MEMBER * len(self.members))
        for interest in self._unanswered:
            member, file_id = interest.member, interest.file.file_id
            again_ns = patience_ns if interest.in_flight else self.hello_ns
            if member.address is not None and member.session in self._sessions:
                answer = RequestAck(member.session, file_id, interest.number, again_ns // MILLISECOND_NS)
                self._effects.append(SendDatagram(member.address, encode_datagram(answer)))
        self._unanswered.clear()

    def _granted(self, window_chunks: int) -> int:
        """No client gets a larger window than the profile gives."""
        return min(window_chunks, self.parameters.window_max_chunks)

    # -- contributions

    def contribution_started(self, frame: Frame, origin: str, now: int) -> list[memoryview] | None:
        """A frame's head has come from a client.

        Returns:
            Where its payload is to be received, in order; then say ``contribution_received`` or
            ``contribution_aborted``. None: receive the payload and drop it.
        """
        member, file = self._sessions.get(frame.session), self.catalogue.files.get(frame.file_id)
        if frame.kind is not Kind.CONTRIBUTION:
            self._drop(DropReason.UNKNOWN_KIND, origin)
        elif member is None:
            self._drop(DropReason.UNKNOWN_SESSION, origin)
        elif file is None or not file.is_divided:
            self._drop(DropReason.UNKNOWN_FILE, member.name)
        elif not file.manifest.has_range(frame.start, frame.stop, frame.length):
            self._drop(DropReason.BAD_RANGE, member.name)
        else:
            taken = self._fetching.contribution_started(member, file, frame, now)
            if not isinstance(taken, DropReason):
                return taken
            self._drop(taken, member.name)
        return None

    def contribution_received(self, frame: Frame, now: int) -> None:
        """A contribution's payload is all where ``contribution_started`` said."""
        member, file = self._sessions.get(frame.session), self.catalogue.files[frame.file_id]
        try:
            ended = self._fetching.contribution_received(member, file, frame, now)
            if isinstance(ended, DropReason):
                self._drop(ended, self._name_of(frame.session))
            else:
                self._relay.received(ended, now)
            self.catalogue.review(file, now)
        except Exception as error:
            if member is None:
                raise
            self._note_failure(member, error)
        self._relay.serve_soon(now)

    def contribution_aborted(self, frame: Frame, now: int) -> None:
        """The connection broke before a contribution's payload was all there."""
        file = self.catalogue.files[frame.file_id]
        self._drop(DropReason.ABORTED, self._name_of(frame.session))
        self._fetching.contribution_aborted(file, frame, now)
        self.catalogue.review(file, now)
        self._relay.serve_soon(now)

    def _name_of(self, session: int) -> str:
        member = self._sessions.get(session)
        return member.name if member else f"session {session:016x}"

    # -- deliveries

    def delivery_sent(self, session: int, number: int, now: int) -> None:
        """The views of a delivery are no longer needed: the kernel has all of it."""
        self._bytes_left(self._relay.delivery_sent(session, number), now)

    def delivery_failed(self, session: int, number: int, now: int) -> None:
        """A delivery will not reach the client, and its views are no longer needed; the client will ask again."""
        self._bytes_left(self._relay.delivery_failed(self._sessions.get(session), session, number), now)

    def _bytes_left(self, file: SharedFile | None, now: int) -> None:
        """The last bytes of a file to leave make the seeded moment (R2)."""
        if file is not None and file.phase in (Phase.SEEDING, Phase.REMOVED):
            self.catalogue.review(file, now)
        self._relay.serve_soon(now)

    def delivery_address(self, session: int) -> Address | None:
        """Where a client takes connections for deliveries; None if it takes none now."""
        member = self._sessions.get(session)
        if member is None or member.address is None or member.delivery_port == 0:
            return None
        return member.address[0], member.delivery_port

    def frame_refused(self, reason: DropReason, origin: str) -> None:
        """What came in over TCP was no frame; its connection is closed."""
        self._drop(reason, origin)

    def report_refused(self, session: int) -> None:
        """A member reported on a file that is not divided, or no more: it may have been removed meanwhile."""
        self._drop(DropReason.UNKNOWN_FILE, self._name_of(session))

    def _drop(self, reason: DropReason, origin: str) -> None:
        self.drop_counts[reason] += 1
        self._effects.append(InputDropped(reason, origin))
