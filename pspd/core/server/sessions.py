"""Sessions: begins and ends sessions, and records which members are connected and which are reachable (R12)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import islice

from pspd.core.effects import server as effects
from pspd.core.model.manifest import FileId
from pspd.core.model.storage import HeldChunks
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.work_set import WorkSet
from pspd.core.timing.timers import Timers, earliest
from pspd.core.wire.datagrams import REQUEST_NUMBER_MAX, RESERVED_SESSIONS
from pspd.errors import BadArgument, DuplicateInstance, LimitReached, NameTaken, SessionUnknown
from pspd.text.addresses import PORT_MAX, Address

CLIENT_NAME_CHARACTERS_MAX = 100

SRTT_US_MAX = 60_000_000
"""The longest round-trip time that the server notes, in microseconds. It replaces a longer one in a hello."""

REQUEST_NUMBER_LAST = REQUEST_NUMBER_MAX - 2**20
"""The highest request number of a session. A higher one ends the session, and the client joins again and counts from 1.
So request numbers never wrap. The 2**20 numbers above this one are left for requests that the client sends before it
learns that the session has ended."""


def validate_client_name(name: str) -> str:
    """Return a client name if it is allowed.

    Raises:
        BadArgument: the name is blank or too long, or contains a slash or an unprintable character.
    """
    if not 0 < len(name.strip()) <= CLIENT_NAME_CHARACTERS_MAX or not name.isprintable() or "/" in name:
        shown = name if len(name) <= CLIENT_NAME_CHARACTERS_MAX else f"{name[:CLIENT_NAME_CHARACTERS_MAX]}..."
        raise BadArgument(
            f"client name {shown!r} is not 1 to {CLIENT_NAME_CHARACTERS_MAX} plain characters: give another with --name"
        )
    return name


@dataclass(slots=True, eq=False)
class Member:
    """A client or a source, during one session. Only ``Sessions`` changes members.

    Attributes:
        session: the random number that identifies the session in every message.
        name: the member's name. A client has the same name in all its sessions.
        is_source: whether the member is a source.
        instance_id: the identity by which the server recognizes the member when it joins again.
        delivery_port: the port where the member accepts connections for deliveries; 0 if it accepts none.
        kept_links: whether the profile has links, over which all file data is sent.
        held_at_join: the chunks that the member held when it joined, by the id of the file, except removed files.
        peer: the address from which the member makes its control calls, for messages; empty if unknown.
        joined_at: when the session began, in nanoseconds.
        contested_at: when the session replaced another one with the same identity, or when a join with this identity
            was last refused, in nanoseconds; None for never.
        refusal_reported_at: when such a refusal was last reported, in nanoseconds; None for never.
        heard_at: when the member joined or last sent a message that renewed its lease, in nanoseconds.
        address: the address that sent the member's last datagram; None before the first datagram.
        linked: whether the member's link is open.
        reachable: whether the member has recently joined, or confirmed that the server's datagrams arrive.
        srtt_us: the smoothed round-trip time in the member's last hello, in microseconds; 0 if there is none.
        request_number: the highest number in the member's requests and reports; 0 before the first.
        join_range_count: how many ranges the member held when it joined; each file counts as at least one.
    """

    session: int
    name: str
    is_source: bool
    instance_id: bytes
    delivery_port: int
    kept_links: bool
    held_at_join: dict[FileId, HeldChunks] = field(default_factory=dict)
    peer: str = ""
    joined_at: int = 0
    contested_at: int | None = None
    refusal_reported_at: int | None = None
    heard_at: int = 0
    address: Address | None = None
    linked: bool = False
    reachable: bool = True
    srtt_us: int = 0
    request_number: int = 0
    join_range_count: int = 0

    @property
    def has_data_path(self) -> bool:
        """Whether the member has a data path: its address is known and, if the profile has links, its link is open."""
        return self.address is not None and (self.linked or not self.kept_links)

    @property
    def askable(self) -> bool:
        """Whether the server may ask the member for chunks."""
        return self.has_data_path and self.reachable


class Sessions:
    """Begins, records and ends all sessions.

    Args:
        draw_session: the function that returns a random 64-bit number.
        work: the work set, which collects the effects and the marks.
        tuning: the durations of leases and of reachability, and the limits on members.

    Attributes:
        members: the connected members, by name.
        lost_clients: the last datagram address of clients that are no longer connected, by name; None if unknown. Only
            the clients that left last are remembered.
    """

    def __init__(self, draw_session: Callable[[], int], work: WorkSet, tuning: ServerTuning) -> None:
        self.members: dict[str, Member] = {}
        self.lost_clients: dict[str, Address | None] = {}
        self._draw_session = draw_session
        self._work = work
        self._tuning = tuning
        self._by_session: dict[int, Member] = {}
        self._join_range_count = 0
        self._leases: Timers[int] = Timers()
        self._reachability: Timers[int] = Timers()
        self._reachable_clients: list[str] | None = None
        self._with_uplink: list[str] | None = None

    # -- reading

    def find(self, session: int) -> Member | None:
        """Return the member of a session; None if the session is unknown."""
        return self._by_session.get(session)

    def get(self, session: int) -> Member:
        """Return the member of a session.

        Raises:
            SessionUnknown: the session has ended, or never existed.
        """
        member = self._by_session.get(session)
        if member is None:
            raise SessionUnknown(f"session {session:016x} is not known: join again")
        return member

    def is_current(self, member: Member) -> bool:
        """Return whether a member's session has not ended."""
        return self._by_session.get(member.session) is member

    def name_of(self, session: int) -> str:
        """Return the name of a session's member for messages, or the session's number if the session is unknown."""
        member = self._by_session.get(session)
        return member.name if member else f"session {session:016x}"

    def reachable_clients(self) -> list[str]:
        """Return the names of the reachable clients, in the order in which they joined."""
        if self._reachable_clients is None:
            self._reachable_clients = [m.name for m in self.members.values() if m.reachable and not m.is_source]
        return self._reachable_clients

    def clients_with_uplink(self) -> list[str]:
        """Return the names of the reachable clients that have sent a datagram. Only these clients get shares."""
        if self._with_uplink is None:
            self._with_uplink = [name for name in self.reachable_clients() if self.members[name].address is not None]
        return self._with_uplink

    @property
    def lease_ns(self) -> int:
        """How long a session lasts after the last renewal of its lease, in nanoseconds."""
        return max(self._tuning.lease_ns, self._tuning.lease_ns_per_member * len(self.members))

    @property
    def hello_interval_ns(self) -> int:
        """The interval at which members send hellos, in nanoseconds."""
        tuning = self._tuning
        stretched_ns = min(tuning.hello_interval_ns_per_member * len(self.members), tuning.hello_interval_ns_max)
        return max(min(tuning.hello_interval_ns, tuning.reachability_ns // tuning.reachability_hellos), stretched_ns)

    @property
    def reachability_ns(self) -> int:
        """How long a member stays reachable after it last confirmed that datagrams arrive, in nanoseconds."""
        return max(self._tuning.reachability_ns, self._tuning.reachability_hellos * self.hello_interval_ns)

    @property
    def retry_after_ns(self) -> int:
        """How long a client with deliveries in flight is told to wait before it repeats a request, in nanoseconds."""
        return max(self._tuning.retry_after_ns, self._tuning.retry_after_ns_per_member * len(self.members))

    # -- joining

    def restore(self, lost_clients: Collection[str]) -> int:
        """Note which clients were connected before a restart of the server.

        Returns:
            How long these clients have to return, in nanoseconds.
        """
        self.lost_clients.update(dict.fromkeys(lost_clients))
        return max(self.reachability_ns, self._tuning.lease_ns_per_member * len(lost_clients))

    def validate_join(self, name: str, instance_id: bytes, delivery_port: int, peer: str, now: int) -> Member | None:
        """Check a join. Return the member whose session the join replaces; None if it replaces no session.

        Args:
            name: the name of the new member.
            instance_id: the identity of the new member.
            delivery_port: the port where the new member accepts connections for deliveries; 0 if it accepts none.
            peer: the address from which the new member makes its control calls, for messages; empty if unknown.
            now: the time, in nanoseconds.

        Raises:
            BadArgument: the name or the port is invalid.
            NameTaken: a connected member with another identity has the name.
            DuplicateInstance: another machine has the same identity and is still active.
        """
        present = self.members.get(validate_client_name(name))
        if not 0 <= delivery_port <= PORT_MAX:
            raise BadArgument(f"delivery port {delivery_port} is out of range: name one from 0 to {PORT_MAX}")
        if present is not None:
            if present.instance_id != instance_id:
                raise NameTaken(f"a client named {name!r} is connected already: choose another with --name")
            self._refuse_duplicate(present, peer, now)
        return present

    def _refuse_duplicate(self, present: Member, peer: str, now: int) -> None:
        """Prevent two machines with one identity from replacing each other again and again.

        A client that returns replaces its old session. If the old session itself replaced another one a short time ago,
        and is still active, there are two machines. The new machine is refused while the old one stays active. Refusals
        are reported at most once per ``replacement_ns``.

        Raises:
            DuplicateInstance: there are two machines.
        """
        replacement_ns = self._tuning.replacement_ns
        if present.contested_at is None or now - present.contested_at >= replacement_ns:
            return
        if now - present.heard_at >= self.lease_ns * self._tuning.active_percent_of_lease // 100:
            return
        present.contested_at = now  # each refusal extends the time in which the next join is refused
        if present.refusal_reported_at is None or now - present.refusal_reported_at >= replacement_ns:
            present.refusal_reported_at = now
            self._work.emit(effects.DuplicateRefused(present.name, peer, present.peer))
        raise DuplicateInstance(
            f"{present.name!r} is connected from {present.peer or 'elsewhere'}, with the identity of this client at"
            f" {peer or 'another address'}: if its folder was copied, give one of the two another --name"
        )

    def new_session(self) -> int:
        """Draw a session number that is neither reserved nor in use."""
        while (session := self._draw_session()) in RESERVED_SESSIONS or session in self._by_session:
            pass
        return session

    def join(self, member: Member, *, replaces: bool) -> None:
        """Begin the session of a new member.

        Args:
            member: the member.
            replaces: whether the session has replaced another one with the same identity.

        Raises:
            LimitReached: there are too many members, or all members together hold too many ranges.
        """
        tuning = self._tuning
        if len(self.members) >= tuning.members_max:
            raise LimitReached(f"the network already has {tuning.members_max} members, the most that are possible")
        member.join_range_count = sum(max(1, held.verified.range_count) for held in member.held_at_join.values())
        if self._join_range_count + member.join_range_count > tuning.join_ranges_max:
            raise LimitReached(
                f"the clients of the network hold their files in more than {tuning.join_ranges_max} ranges"
            )
        self._join_range_count += member.join_range_count
        member.heard_at = member.joined_at
        member.contested_at = member.joined_at if replaces else None
        self.members[member.name] = self._by_session[member.session] = member
        self.lost_clients.pop(member.name, None)
        self._leases.set(member.session, member.joined_at + self.lease_ns)
        self._reachability.set(member.session, member.joined_at + self.reachability_ns)
        self._clear_client_lists()
        self._work.emit(effects.MemberJoined(member.name))

    # -- during a session

    def renew_lease(self, session: int, now: int) -> None:
        """Renew the lease of a session.

        Args:
            session: the member's session number.
            now: the time, in nanoseconds.

        Raises:
            SessionUnknown: the session has ended, or never existed.
        """
        self.get(session).heard_at = now
        self._leases.postpone(session, now + self.lease_ns)

    def note_datagram(self, member: Member, address: Address, downlink_ok: bool, now: int) -> None:
        """Renew the lease of a member that sent a datagram, and note the sender's address.

        The first datagram of a client confirms its uplink: the path of datagrams to the server. The member becomes or
        stays reachable if it has a data path and ``downlink_ok`` is set.

        Args:
            member: the member.
            address: the address that sent the datagram.
            downlink_ok: whether the datagram confirms that the server's datagrams arrive at the member.
            now: the time, in nanoseconds.
        """
        session, is_first_datagram, had_data_path = member.session, member.address is None, member.has_data_path
        member.address, member.heard_at = address, now
        self._leases.postpone(session, now + self.lease_ns)  # control calls, which also renew the lease, may be late
        is_reachable = member.has_data_path and downlink_ok
        if is_reachable:
            self._reachability.postpone(session, now + self.reachability_ns)
        if is_first_datagram:
            self._clear_client_lists()
            if not member.is_source:
                self._work.emit(effects.UplinkConfirmed(member.name))
                self._work.mark_uplink(session)
        if member.has_data_path and not had_data_path:
            self._work.mark_data_path(session)
        if is_reachable and not member.reachable:
            self._set_reachable(member, True)

    def _set_reachable(self, member: Member, reachable: bool) -> None:
        member.reachable = reachable
        self._clear_client_lists()
        self._work.emit(effects.ReachabilityChanged(member.name, reachable))
        self._work.mark_reachability(member.session)

    def note_srtt(self, member: Member, srtt_us: int) -> None:
        """Note the round-trip time that a member measured.

        Args:
            member: the member.
            srtt_us: the smoothed round-trip time, in microseconds; 0 if the member has none.
        """
        member.srtt_us = min(srtt_us, SRTT_US_MAX)

    def link_opened(self, member: Member) -> None:
        """Note that a member has opened its link."""
        member.linked = True
        self._work.mark_data_path(member.session)

    def link_closed(self, member: Member) -> None:
        """Note that a member's link is closed."""
        member.linked = False

    def note_request_number(self, member: Member, number: int) -> str | None:
        """Note the number of a request or report. If it is too high, mark the session to end.

        Args:
            member: the member that sent the request or report.
            number: the number of the request or report.

        Returns:
            The reason why the session ends; None if the session continues.
        """
        jump_max = self._tuning.request_number_jump_max
        if number > member.request_number + jump_max:
            fault = f"request number {number} is more than {jump_max} ahead of {member.request_number}: join again"
        elif number > REQUEST_NUMBER_LAST:
            fault = f"request number {number} is near the last of this session: join again"
        else:
            member.request_number = max(member.request_number, number)
            return None
        self._work.mark_ending(member.session, fault, effects.EndCause.PROTOCOL_ERROR)
        return fault

    def forget_held_at_join(self, file_id: FileId) -> None:
        """Forget which chunks of a removed file members held when they joined, because it may be announced again."""
        for member in self.members.values():
            member.held_at_join.pop(file_id, None)

    # -- the end of a session

    def end(self, member: Member, reason: str, cause: effects.EndCause) -> None:
        """End a session.

        Args:
            member: the member.
            reason: the reason, for people.
            cause: the reason, for programs.
        """
        self._leases.cancel(member.session)
        self._reachability.cancel(member.session)
        del self.members[member.name], self._by_session[member.session]
        self._join_range_count -= member.join_range_count
        self._clear_client_lists()
        if not member.is_source:
            self.lost_clients[member.name] = member.address
            if len(self.lost_clients) > self._tuning.lost_clients_max:
                del self.lost_clients[next(iter(self.lost_clients))]
        self._work.emit(effects.EndSession(member.session, reason, cause))
        self._work.emit(effects.CloseLink(member.session))
        self._work.emit(effects.MemberLeft(member.name, reason))

    def _clear_client_lists(self) -> None:
        self._reachable_clients = self._with_uplink = None

    # -- time

    def next_timeout(self) -> int | None:
        """Return when a lease or the reachability of a member expires, in nanoseconds; None if no timer runs."""
        return earliest(self._leases.next_deadline(), self._reachability.next_deadline())

    def expired_leases(self, now: int) -> Iterator[int]:
        """Remove leases that have expired, but only a few in each call, and yield the numbers of their sessions."""
        return self._expired(self._leases, now)

    def expire_reachability(self, now: int) -> None:
        """Mark members whose last confirmation is too old as unreachable, but only a few in each call."""
        for session in self._expired(self._reachability, now):
            self._set_reachable(self._by_session[session], False)

    def _expired(self, timers: Timers[int], now: int) -> Iterator[int]:
        """Remove expired timers, but only a few in each call, and yield the numbers of their sessions.

        If the call comes late, the server was busy, and messages of these sessions may still be unread. Then start the
        timers again, for as long as the call was late, but at most for one lease.
        """
        late_ns = now - (timers.next_deadline() or now)
        for session in islice(timers.expired(now), self._tuning.expiries_per_tick_max):
            if late_ns < self._tuning.loop_lag_ns:
                yield session
            else:
                timers.set(session, now + min(late_ns, self.lease_ns))

    def check(self) -> None:
        """Assert the invariants."""
        assert list(self._by_session.values()) == list(self.members.values()), "sessions and members differ"
        assert all(name == member.name for name, member in self.members.items()), "a member under another name"
        assert all(session == member.session for session, member in self._by_session.items()), "a wrong session"
        assert not self.lost_clients.keys() & self.members.keys(), "a connected client counts as lost"
        assert self._join_range_count == sum(member.join_range_count for member in self.members.values())
        assert all(session in self._leases for session in self._by_session), "a member without a lease"
        assert all((member.session in self._reachability) == member.reachable for member in self.members.values())
