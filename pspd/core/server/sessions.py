"""Sessions: who is a member, how long its lease lasts, and whether it is reachable (R12)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from pspd.core.effects.server import (
    ClientJoined,
    ClientLost,
    CloseLink,
    DuplicateRefused,
    EndCause,
    EndSession,
    ReachabilityChanged,
    UplinkConfirmed,
)
from pspd.core.model.manifest import FileId
from pspd.core.model.storage import Held
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.member import Member, told_range_count, validate_client_name
from pspd.core.server.work_set import WorkSet
from pspd.core.timing.timers import Timers, earliest
from pspd.core.wire.datagrams import RESERVED_SESSIONS
from pspd.errors import BadArgument, DuplicateInstance, LimitReached, NameTaken, SessionUnknown
from pspd.text.addresses import PORT_MAX, Address


class Sessions:
    """Every session. It alone changes members.

    Args:
        kept_links: whether members keep a link open.
        draw_session: gives a random 64-bit number.
        work: where changes are marked.
        tuning: leases, reachability and bounds.

    Attributes:
        members: who is connected, by name.
        lost_clients: where clients that were lost were heard from last, by name.
    """

    def __init__(self, kept_links: bool, draw_session: Callable[[], int], work: WorkSet, tuning: ServerTuning) -> None:
        self.members: dict[str, Member] = {}
        self.lost_clients: dict[str, Address | None] = {}
        self._kept_links = kept_links
        self._draw_session = draw_session
        self._work = work
        self._tuning = tuning
        self._by_session: dict[int, Member] = {}
        self._told_range_count = 0
        self._leases: Timers[int] = Timers()
        self._reach: Timers[int] = Timers()
        self._client_names: list[str] | None = None
        self._heard_names: list[str] | None = None

    # -- reading

    def find(self, session: int) -> Member | None:
        """Return the member of a session; None if the session has ended or never was."""
        return self._by_session.get(session)

    def get(self, session: int) -> Member:
        """Return the member of a session.

        Raises:
            SessionUnknown: it has ended or never was.
        """
        member = self._by_session.get(session)
        if member is None:
            raise SessionUnknown(f"session {session:016x} is not known: join again")
        return member

    def is_current(self, member: Member) -> bool:
        """Whether a member's session goes on."""
        return self._by_session.get(member.session) is member

    def name_of(self, session: int) -> str:
        """Return how to name a session in a message."""
        member = self._by_session.get(session)
        return member.name if member else f"session {session:016x}"

    def client_names(self) -> list[str]:
        """Return the names of the reachable clients, in the order in which they joined."""
        if self._client_names is None:
            self._client_names = [m.name for m in self.members.values() if m.reachable and not m.source]
        return self._client_names

    def heard_names(self) -> list[str]:
        """Return the names of reachable clients that sent a datagram in this session: only these get shares."""
        if self._heard_names is None:
            self._heard_names = [name for name in self.client_names() if self.members[name].address is not None]
        return self._heard_names

    @property
    def client_count(self) -> int:
        """How many clients are connected."""
        return sum(not member.source for member in self.members.values())

    @property
    def lease_ns(self) -> int:
        """How long a member may be silent before it is lost, in nanoseconds."""
        return max(self._tuning.lease_ns, self._tuning.lease_ns_per_member * len(self.members))

    @property
    def hello_interval_ns(self) -> int:
        """The interval at which clients say hello, in nanoseconds."""
        tuning = self._tuning
        stretched_ns = min(tuning.hello_ns_per_member * len(self.members), tuning.hello_ns_max)
        return max(min(tuning.hello_ns, tuning.reach_ns // tuning.hellos_per_reach), stretched_ns)

    @property
    def reach_ns(self) -> int:
        """How long a member stays reachable without a sign that it can be asked, in nanoseconds."""
        return max(self._tuning.reach_ns, self._tuning.hellos_per_reach * self.hello_interval_ns)

    @property
    def retry_after_ns(self) -> int:
        """How long a client waits for what is in flight before it repeats a request, in nanoseconds."""
        return max(self._tuning.retry_after_ns, self._tuning.retry_after_ns_per_member * len(self.members))

    def returning_ns(self, client_count: int) -> int:
        """Return how long clients that were connected before a restart have time to come back, in nanoseconds."""
        return max(self.reach_ns, self._tuning.lease_ns_per_member * client_count)

    # -- joining

    def validate_join(self, name: str, instance_id: bytes, delivery_port: int, peer: str, now: int) -> Member | None:
        """Return the member whose session a join replaces; None if there is none.

        Args:
            name: the name of who joins.
            instance_id: who that is.
            delivery_port: where it takes connections for deliveries.
            peer: where the join came from, for messages.
            now: the time, in nanoseconds.

        Raises:
            BadArgument: the name or the port cannot be used.
            NameTaken: another connected member has the name.
            DuplicateInstance: another machine has the same identity and is still active.
        """
        present = self.members.get(validate_client_name(name))
        if not 0 <= delivery_port <= PORT_MAX:
            raise BadArgument(f"delivery port {delivery_port} is none: name one from 0 to {PORT_MAX}")
        if present is not None:
            if present.instance_id != instance_id:
                raise NameTaken(f"a client named {name!r} is connected already: choose another with --name")
            self._refuse_duplicate(present, peer, now)
        return present

    def _refuse_duplicate(self, present: Member, peer: str, now: int) -> None:
        """Keep two machines of one identity from replacing each other for ever.

        A client that comes back replaces its old session, once. If that happens again soon, and the old session was
        heard lately, two machines are at work: the newcomer is refused until the other is silent.

        Raises:
            DuplicateInstance: the member stays.
        """
        replacement_ns = self._tuning.replacement_ns
        if present.contested_at is None or now - present.contested_at >= replacement_ns:
            return
        if now - present.heard_at >= self.lease_ns * self._tuning.active_percent_of_lease // 100:
            return
        present.contested(now)  # a machine that keeps trying stays refused
        if present.refusal_logged_at is None or now - present.refusal_logged_at >= replacement_ns:
            present.refusal_logged(now)
            self._work.emit(DuplicateRefused(present.name, peer, present.peer))
        raise DuplicateInstance(
            f"{present.name!r} is connected from {present.peer or 'elsewhere'}, with the identity of this client at"
            f" {peer or 'another address'}: if its folder was copied, give one of the two another --name"
        )

    def join(
        self,
        name: str,
        instance_id: bytes,
        now: int,
        *,
        source: bool,
        delivery_port: int,
        held: Mapping[FileId, Held] | None,
        peer: str,
        is_replacement: bool,
    ) -> Member:
        """Begin a session.

        Args:
            name: the member's name.
            instance_id: who it is.
            now: the time, in nanoseconds.
            source: it is a source.
            delivery_port: where it takes connections for deliveries.
            held: what it holds, by file.
            peer: where the join came from, for messages.
            is_replacement: the session replaces another one of its identity.

        Raises:
            LimitReached: there are too many members, or they hold too many ranges.
        """
        tuning = self._tuning
        if len(self.members) >= tuning.members_max:
            raise LimitReached(f"the network has its most members ({tuning.members_max}) already")
        if self._told_range_count + told_range_count(held) > tuning.told_ranges_max:
            raise LimitReached(
                f"the clients of the network hold their files in more than {tuning.told_ranges_max} pieces"
            )
        member = Member(
            self._new_session(),
            name,
            source,
            instance_id,
            delivery_port,
            self._kept_links,
            held,
            peer,
            joined_at=now,
            contested_at=now if is_replacement else None,
            tuning=tuning,
        )
        self._told_range_count += member.told_range_count
        self.members[name] = self._by_session[member.session] = member
        self.lost_clients.pop(name, None)
        self._leases.set(member.session, now + self.lease_ns)
        self._reach.set(member.session, now + self.reach_ns)
        self._forget_names()
        self._work.emit(ClientJoined(name))
        return member

    def _new_session(self) -> int:
        while (session := self._draw_session()) in RESERVED_SESSIONS or session in self._by_session:
            pass
        return session

    def remember_lost(self, names: Iterable[str]) -> None:
        """Note the clients that were connected before a restart."""
        self.lost_clients.update(dict.fromkeys(names))

    # -- while a session lasts

    def lease_renewed(self, session: int, now: int) -> None:
        """Note that a member is alive.

        Args:
            session: the member's session.
            now: the time, in nanoseconds.

        Raises:
            SessionUnknown: the session has ended or never was.
        """
        self.get(session).note_heard(now)
        self._leases.postpone(session, now + self.lease_ns)

    def heard_from(self, member: Member, address: Address, downlink_ok: bool, now: int) -> None:
        """Note a datagram of a member.

        Args:
            member: the member.
            address: where the datagram came from.
            downlink_ok: the member receives the server's datagrams.
            now: the time, in nanoseconds.
        """
        session, is_first, had_data_path = member.session, member.address is None, member.has_data_path
        member.note_datagram(address, now)
        self._leases.postpone(session, now + self.lease_ns)  # however late its renewals come
        is_reachable = member.has_data_path and downlink_ok
        if is_reachable:
            self._reach.postpone(session, now + self.reach_ns)
        if is_first:
            self._forget_names()
            if not member.source:
                self._work.emit(UplinkConfirmed(member.name))
                self._work.member_heard(session)
        if member.has_data_path and not had_data_path:
            self._work.data_path_opened(session)
        if is_reachable and not member.reachable:
            self._set_reach(member, True)

    def note_srtt(self, member: Member, srtt_us: int) -> None:
        """Note the round-trip time that a member measured.

        Args:
            member: the member.
            srtt_us: the round-trip time, in microseconds; 0 if it does not know.
        """
        member.set_srtt(srtt_us)

    def _set_reach(self, member: Member, reachable: bool) -> None:
        member.set_reach(reachable)
        self._forget_names()
        self._work.emit(ReachabilityChanged(member.name, reachable))
        self._work.reach_changed(member.session)

    def link_opened(self, member: Member) -> None:
        """Note that a member's TCP link is open."""
        member.set_linked(True)
        self._work.data_path_opened(member.session)

    def link_closed(self, member: Member) -> None:
        """Note that a member's TCP link is closed."""
        member.set_linked(False)

    def take_request_number(self, member: Member, number: int) -> str | None:
        """Note the number of a request, and have the session ended if the number is impossible.

        Args:
            member: whose request it is.
            number: its number.

        Returns:
            Why the session ends; None if it goes on.
        """
        fault = member.note_request_number(number)
        if fault is not None:
            self._work.end_session(member.session, fault, EndCause.PROTOCOL_ERROR)
        return fault

    def drop_told(self, file_id: FileId) -> None:
        """Forget what members said at joining of a file that is removed: seeded anew, it begins with nothing there."""
        for member in self.members.values():
            member.drop_told(file_id)

    # -- the end of a session

    def end(self, member: Member, reason: str, cause: EndCause) -> None:
        """End a session.

        Args:
            member: whose.
            reason: why, in words.
            cause: why, as a program reads it.
        """
        self._leases.cancel(member.session)
        self._reach.cancel(member.session)
        del self.members[member.name], self._by_session[member.session]
        self._told_range_count -= member.told_range_count
        self._forget_names()
        if not member.source:
            self.lost_clients[member.name] = member.address
            if len(self.lost_clients) > self._tuning.lost_clients_max:
                del self.lost_clients[next(iter(self.lost_clients))]
        self._work.emit(EndSession(member.session, reason, cause))
        self._work.emit(CloseLink(member.session))
        self._work.emit(ClientLost(member.name, reason))

    def _forget_names(self) -> None:
        self._client_names = self._heard_names = None

    # -- time

    def next_timeout(self) -> int | None:
        """Return when :meth:`expired_leases` and :meth:`expire_reach` are due."""
        return earliest(self._leases.next_deadline(), self._reach.next_deadline())

    def expired_leases(self, now: int) -> Iterator[int]:
        """Take out the sessions whose leases ran out: their members are lost."""
        return self._expired(self._leases, now)

    def expire_reach(self, now: int) -> None:
        """Take members for unreachable that gave no sign for too long that they can be asked."""
        for session in self._expired(self._reach, now):
            member = self._by_session[session]
            if member.reachable:
                self._set_reach(member, False)

    def _expired(self, timers: Timers[int], now: int) -> Iterator[int]:
        """Take out sessions that were silent for too long, a few at a time.

        If this looks late, the server was busy or stood still, and has not read what came meanwhile: they get as much
        time again, but no more than a lease.
        """
        late_ns = now - (timers.next_deadline() or now)
        for session in islice(timers.expired(now), self._tuning.expiries_per_tick_max):
            if late_ns < self._tuning.loop_lag_ns:
                yield session
            else:
                timers.set(session, now + min(late_ns, self.lease_ns))

    def check(self) -> None:
        """Assert the invariants."""
        assert list(self._by_session.values()) == list(self.members.values()), "a session without a member"
        assert all(name == member.name for name, member in self.members.items()), "a member under another name"
        assert all(session == member.session for session, member in self._by_session.items()), "a wrong session"
        assert not self.lost_clients.keys() & self.members.keys(), "a connected client counts as lost"
        assert self._told_range_count == sum(member.told_range_count for member in self.members.values())
        assert all(session in self._leases for session in self._by_session), "a member without a lease"
