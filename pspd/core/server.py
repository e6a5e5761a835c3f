"""The server machine: who is a member, which files there are, and what to do about each input.

It never waits and never fails on what comes from the network: inputs go in with the time, effects come
out of :meth:`ServerMachine.poll`, and :meth:`ServerMachine.next_timeout` says when to call
:meth:`ServerMachine.handle_timeout`. Commands (join, announce, ...) raise ``PspError`` when refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import Random

from pspd.core.cache import Cache
from pspd.core.effects import (
    Address,
    Assign,
    ClientJoined,
    ClientLost,
    CloseLink,
    EndSession,
    FileCompleted,
    FileDeclined,
    FileDivided,
    FileResumed,
    FileSeeded,
    FileStalled,
    InputDropped,
    Milestone,
    SendDatagram,
    ServerEffect,
    StartExchange,
    address_text,
)
from pspd.core.manifest import CHUNK_BYTES, Digest, FileId, Manifest
from pspd.core.members import Member
from pspd.core.parameters import SECOND_NS, Parameters
from pspd.core.relay import Relay
from pspd.core.shared_file import Phase, SharedFile
from pspd.core.storage import Held
from pspd.core.timers import Timers
from pspd.core.wire import (
    DropReason,
    Frame,
    Hello,
    HelloAck,
    Kind,
    Request,
    WireError,
    decode_datagram,
    encode_datagram,
)
from pspd.errors import BadArgument, LimitReached, NameTaken, NotFound, SessionUnknown, WrongState

LEASE_NS = 10 * SECOND_NS
MEMBERS_MAX = 20_000
FILES_MAX = 10_000
LOST_CLIENTS_MAX = 1024
CLIENT_NAME_CHARACTERS_MAX = 100
REFUSAL_CHARACTERS_MAX = 300


class ServerMachine:
    """Mediates between requesters and holders, and keeps nothing but its cache (R2, R4).

    Args:
        parameters: the profile; clients learn it when they join.
        cache_chunks: the cache's size; None for one chunk per client, growing as clients join.
        digest: the digest that manifests are made with.
        seed: of the jitter and of session numbers; the same seed gives the same effects.
    """

    def __init__(self, parameters: Parameters, cache_chunks: int | None, digest: Digest, seed: int) -> None:
        self.parameters = parameters
        self.cache = Cache(1 if cache_chunks is None else cache_chunks)
        self.members: dict[str, Member] = {}
        self.lost_clients: dict[str, Address | None] = {}
        self.files: dict[FileId, SharedFile] = {}
        self.drop_counts: Counter[DropReason] = Counter()
        self._cache_follows_clients = cache_chunks is None
        self._sessions: dict[int, Member] = {}
        self._leases: Timers[int] = Timers()
        self._effects: list[ServerEffect] = []
        self._random = Random(seed)
        self._relay = Relay(
            parameters, self.cache, digest, self.members, self.files, self._effects.append, Random(seed + 1)
        )

    # -- for the driver

    def poll(self) -> list[ServerEffect]:
        """Everything to be done since the last call, in order."""
        effects = self._effects.copy()
        self._effects.clear()
        return effects

    def next_timeout(self) -> int | None:
        """When :meth:`handle_timeout` is due, in nanoseconds; None if nothing waits for the time."""
        deadlines = (self._relay.next_timeout(), self._leases.next_deadline())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def handle_timeout(self, now: int) -> None:
        """Does what is due: retransmissions (R11), leases that ran out."""
        for session in self._leases.expired(now):
            self._lose(self._sessions[session], "its lease ran out", now)
        self._relay.handle_timeout(now)
        self._relay.serve(now)

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
    ) -> Member:
        """Makes a member and gives it a session; one that comes back under its name replaces its old session.

        Raises:
            BadArgument: the name cannot be used.
            NameTaken: another connected member has the name.
            LimitReached: there are too many members.
        """
        if not 0 < len(name) <= CLIENT_NAME_CHARACTERS_MAX or not name.isprintable() or "/" in name:
            raise BadArgument(
                f"client name {name[:120]!r} is not 1 to {CLIENT_NAME_CHARACTERS_MAX} plain characters"
            )
        present = self.members.get(name)
        if present is not None:
            if present.instance_id != instance_id:
                raise NameTaken(f"a client named {name!r} is connected already: choose another with --name")
            self._lose(present, "it joined again", now)
        if len(self.members) >= MEMBERS_MAX:
            raise LimitReached(f"the network has its most members ({MEMBERS_MAX}) already")
        member = Member(self._new_session(), name, source, instance_id, delivery_port, self.parameters)
        self.members[name] = self._sessions[member.session] = member
        self.lost_clients.pop(name, None)
        self._leases.set(member.session, now + LEASE_NS)
        self._size_cache()
        self._effects.append(ClientJoined(name))
        self._take_in(member, held or {}, now)
        return member

    def _take_in(self, member: Member, held: Mapping[FileId, Held], now: int) -> None:
        """Learns what a new member holds, and tells it of every file."""
        for file in self.files.values():
            known = held.get(file.file_id)
            file.hold(member.name, known.verified.within(0, file.manifest.chunk_count) if known else ())
            if known and known.complete:
                file.complete.add(member.name)
            self._reassign_shares(file)
            self._assign(member, file)
            self._review(file, now)
        self._relay.serve(now)

    def _new_session(self) -> int:
        while (session := self._random.getrandbits(64)) == 0 or session in self._sessions:
            pass
        return session

    def _size_cache(self) -> None:
        """The classic cache has one chunk per client; it follows their number upwards."""
        client_count = sum(not member.source for member in self.members.values())
        if self._cache_follows_clients and client_count > self.cache.capacity_chunks:
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
        self._leases.set(self.member_of(session).session, now + LEASE_NS)

    def client_left(self, session: int, reason: str, now: int) -> None:
        """A session has ended; unknown ones are no matter."""
        member = self._sessions.get(session)
        if member is not None:
            self._lose(member, reason, now)

    def _lose(self, member: Member, reason: str, now: int) -> None:
        self._relay.member_lost(member)
        self._leases.cancel(member.session)
        del self.members[member.name], self._sessions[member.session]
        if not member.source:
            self.lost_clients[member.name] = member.address
            if len(self.lost_clients) > LOST_CLIENTS_MAX:
                del self.lost_clients[next(iter(self.lost_clients))]
        self._effects += [
            EndSession(member.session, reason),
            CloseLink(member.session),
            ClientLost(member.name, reason),
        ]
        for file in self.files.values():
            file.depart(member.name, source=member.source)
            file.complete.discard(member.name)
            file.declined.pop(member.name, None)
            for name in self._reassign_shares(file):
                self._assign(self.members[name], file)
            self._review(file, now)
        self._relay.serve(now)

    def link_opened(self, session: int, now: int) -> bool:
        """A client's TCP link is there, in place of any before. Returns False if no such session is known."""
        member = self._sessions.get(session)
        if member is None:
            self._drop(DropReason.UNKNOWN_SESSION, f"link of session {session:016x}")
            return False
        if member.linked:
            self._relay.link_lost(member)
        member.linked = True
        self._relay.serve(now)
        return True

    def link_closed(self, session: int, now: int) -> None:
        """A client's TCP link is gone; the client will dial again."""
        member = self._sessions.get(session)
        if member is not None:
            member.linked = False
            self._relay.link_lost(member)
            self._relay.serve(now)

    # -- files

    def announce(self, manifest: Manifest, session: int) -> SharedFile:
        """A source tells of its file. A file that is known already is taken up where it stands.

        Raises:
            NameTaken: another file has the name.
            WrongState: another source is seeding it right now.
        """
        source = self.member_of(session)
        file = self.files.get(manifest.file_id)
        if file is None:
            for other in self.files.values():
                if other.manifest.name == manifest.name:
                    raise NameTaken(
                        f"{manifest.name!r} is in the network with other bytes: give another name with --name"
                    )
            if len(self.files) >= FILES_MAX:
                raise LimitReached(f"the network has its most files ({FILES_MAX}) already")
            file = self.files[manifest.file_id] = SharedFile(manifest, source.name)
            for member in self.members.values():
                file.hold(member.name, ())
        elif (
            file.phase in (Phase.ANNOUNCED, Phase.SEEDING)
            and file.source in self.members
            and file.source != source.name
        ):
            raise WrongState(
                f"{manifest.name!r} is being seeded already: wait for it with `pspctl wait {manifest.name}`"
            )
        return file

    def source_returned(self, file: SharedFile, session: int, now: int) -> None:
        """A source of a file that was divided already offers every chunk again: repair."""
        source = self.member_of(session)
        if file.phase is Phase.SEEDING:
            file.source = source.name
        file.hold(source.name, [(0, file.manifest.chunk_count)])
        self._review(file, now)
        self._relay.serve(now)

    def withdraw(self, file: SharedFile) -> None:
        """A file that was announced and never divided is as if it had never been."""
        if file.phase is Phase.ANNOUNCED:
            self.files.pop(file.file_id, None)

    def client_names(self) -> list[str]:
        """Names of the connected clients, in the order in which they joined."""
        return [member.name for member in self.members.values() if not member.source]

    def takers_of(self, file: SharedFile) -> list[str]:
        """Names of the connected clients that want or have a file: all that did not decline it."""
        return [name for name in self.client_names() if name not in file.declined]

    def divide(self, manifest: Manifest, session: int, now: int, *, hold_back: bool = False) -> SharedFile:
        """Divides an announced file among the connected clients and begins to give out the shares (R1).

        Raises:
            NotFound: it was not announced.
            WrongState: it is divided already, or there is no client.
        """
        source = self.member_of(session)
        file = self.files.get(manifest.file_id)
        if file is None:
            raise NotFound(f"file {manifest.file_id.hex()[:12]} was not announced")
        names = self.client_names()
        if file.phase is not Phase.ANNOUNCED or not names or manifest.share_count == 0:
            raise WrongState(
                f"{manifest.name!r} cannot be divided now: {len(names)} clients, {file.phase.value}"
            )
        file.source, file.held_back = source.name, hold_back
        file.divide(manifest, names, now)
        file.hold(source.name, [(0, manifest.chunk_count)])
        shares = tuple((share.owner, manifest.share(index)) for index, share in enumerate(file.shares))
        self._effects.append(FileDivided(file.file_id, manifest.name, shares))
        for member in list(self.members.values()):
            self._assign(member, file)
        return file

    def _assign(self, member: Member, file: SharedFile) -> None:
        if not member.source and file.phase is not Phase.ANNOUNCED:
            shares = file.shares_of(member.name) if file.phase is Phase.SEEDING else ()
            self._effects.append(
                Assign(member.session, file.manifest, shares, file.phase is Phase.EXCHANGING)
            )

    def _reassign_shares(self, file: SharedFile) -> list[str]:
        if file.phase is not Phase.SEEDING:
            return []
        takers = self.takers_of(file)
        return file.reassign(takers, takers)

    def milestone_reached(
        self,
        session: int,
        file_id: FileId,
        milestone: Milestone,
        now: int,
        share_chunk_count: int | None = None,
    ) -> None:
        """A client holds its whole share, or has finished the file. Saying it twice does no harm.

        Args:
            session: the client's.
            file_id: the file.
            milestone: what it reached.
            now: the time, in nanoseconds.
            share_chunk_count: chunks of the share that it speaks of. If it was given more meanwhile, it
                will speak again. None: not said, and not looked at.

        Raises:
            NotFound: there is no such file.
        """
        member, file = self.member_of(session), self._file_of(file_id)
        if milestone is Milestone.COMPLETE:
            file.complete.add(member.name)
            file.hold(member.name, [(0, file.manifest.chunk_count)])
            file.shares_held(member.name)
            self._relay.satisfied(member.interest_in(file))
        elif share_chunk_count in (None, sum(share.chunk_count for share in file.shares_of(member.name))):
            file.hold(member.name, file.shares_of(member.name))
            file.shares_held(member.name)
        self._review(file, now)
        self._relay.serve(now)

    def file_declined(self, session: int, file_id: FileId, reason: str, now: int) -> None:
        """A client cannot take a file: its share goes to another, and nobody waits for it (R12).

        Raises:
            NotFound: there is no such file.
        """
        member, file = self.member_of(session), self._file_of(file_id)
        file.declined[member.name] = reason[:REFUSAL_CHARACTERS_MAX]
        self._effects.append(FileDeclined(file.file_id, file.manifest.name, member.name, reason))
        for name in self._reassign_shares(file):
            self._assign(self.members[name], file)
        self._review(file, now)
        self._relay.serve(now)

    def _file_of(self, file_id: FileId) -> SharedFile:
        file = self.files.get(file_id)
        if file is None:
            raise NotFound(f"file {file_id.hex()[:12]} is not in the network")
        return file

    def release(self, file: SharedFile, now: int) -> None:
        """Starts an exchange that was held back at the seeded moment, or will not hold it back.

        Raises:
            WrongState: it is not held back.
        """
        if not file.held_back:
            raise WrongState(
                f"{file.manifest.name!r} is not held back: only what was seeded with --hold can be released"
            )
        file.held_back = False
        self._review(file, now)

    def _review(self, file: SharedFile, now: int) -> None:
        """Takes a file to the phase that its holdings allow, and tells what changed."""
        if file.phase is Phase.ANNOUNCED:
            return
        if file.phase is Phase.SEEDING and file.shares_are_held:
            self._try_to_forget(file, now)
        if file.phase is Phase.SEEDED and not file.held_back:
            file.phase = Phase.EXCHANGING
            for member in self.members.values():
                if not member.source:
                    self._effects.append(StartExchange(member.session, file.file_id))
        self._review_coverage(file)
        takers = self.takers_of(file)
        is_complete = file.phase is Phase.EXCHANGING and bool(takers) and file.complete.issuperset(takers)
        if is_complete and not file.is_complete:
            file.completed_at = file.completed_at or now
            self._effects.append(FileCompleted(file.file_id, file.manifest.name, len(takers)))
        file.is_complete = is_complete

    def _try_to_forget(self, file: SharedFile, now: int) -> None:
        """The seeded moment (R2): every share is held, and no byte is left here."""
        if self._relay.forget(file):
            return
        source = self.members.get(file.source)
        file.phase, file.seeded_at = Phase.SEEDED, now
        file.cached_bytes_when_seeded = self.cache.chunks_of(file.file_id) * CHUNK_BYTES
        file.traffic.seeding_contributed_bytes = file.traffic.contributed_bytes
        file.traffic.seeding_delivered_bytes = file.traffic.delivered_bytes
        self._effects.append(
            FileSeeded(
                file.file_id,
                file.manifest.name,
                len(file.shares),
                file.manifest.chunk_count,
                file.cached_bytes_when_seeded,
            )
        )
        if source is not None and source.source:
            self._lose(source, "the file is seeded", now)

    def _review_coverage(self, file: SharedFile) -> None:
        stalled = file.available.chunk_count < file.manifest.chunk_count
        if stalled != file.stalled:
            file.stalled = stalled
            if stalled:
                self._effects.append(FileStalled(file.file_id, file.manifest.name, tuple(file.missing())))
            else:
                self._effects.append(FileResumed(file.file_id, file.manifest.name))

    # -- the cache

    def clear_cache(self, now: int) -> int:
        """Drops what is cached. Returns how many chunks that were."""
        dropped = self.cache.clear()
        self._relay.serve(now)
        return dropped

    def resize_cache(self, capacity_chunks: int, now: int) -> None:
        """Gives the cache another size, and keeps it there."""
        if capacity_chunks < 1:
            raise BadArgument("the cache holds at least one chunk: give 1KiB or more")
        self._cache_follows_clients = False
        self.cache.resize(capacity_chunks)
        self._relay.serve(now)

    # -- datagrams

    def receive_datagram(self, data: bytes | memoryview, source: Address, now: int) -> None:
        """Takes in one datagram, whatever it holds."""
        try:
            datagram = decode_datagram(data)
        except WireError as error:
            self._drop(error.reason, address_text(source))
            return
        member = self._sessions.get(datagram.session)
        if member is None:
            self._drop(DropReason.UNKNOWN_SESSION, address_text(source))
            return
        match datagram:
            case Hello(_, number, srtt_us):
                member.heard_from(source, srtt_us)
                self._relay.serve(now)
                self._effects.append(SendDatagram(source, encode_datagram(HelloAck(member.session, number))))
            case Request():
                member.address = source
                self._receive_request(member, datagram, now)
            case _:
                self._drop(DropReason.UNKNOWN_KIND, member.name)

    def _receive_request(self, member: Member, request: Request, now: int) -> None:
        file = self.files.get(request.file_id)
        if file is None or member.source:
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
        file.traffic.retransmit_count += request.repeated
        if self.parameters.kept_links:
            self._relay.acknowledged(interest, request.acknowledged)
        if file.lack(member.name, request.ranges):
            self._review(file, now)
        ranges = file.servable(member.name, request.ranges)
        self._relay.asked(interest, request.number, self._granted(request.window_chunks), ranges)
        self._relay.serve(now)

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
        member, file = self._sessions.get(frame.session), self.files.get(frame.file_id)
        if frame.kind is not Kind.CONTRIBUTION:
            self._drop(DropReason.UNKNOWN_KIND, origin)
        elif member is None:
            self._drop(DropReason.UNKNOWN_SESSION, origin)
        elif file is None:
            self._drop(DropReason.UNKNOWN_FILE, member.name)
        elif (
            frame.stop > file.manifest.chunk_count
            or frame.length != file.manifest.byte_span(frame.start, frame.stop)[1]
        ):
            self._drop(DropReason.BAD_RANGE, member.name)
        else:
            taken = self._relay.contribution_started(member, file, frame, now)
            if not isinstance(taken, DropReason):
                return taken
            self._drop(taken, member.name)
        return None

    def contribution_received(self, frame: Frame, now: int) -> None:
        """A contribution's payload is all where ``contribution_started`` said."""
        file = self.files[frame.file_id]
        reason = self._relay.contribution_received(self._sessions.get(frame.session), file, frame, now)
        if reason is not None:
            self._drop(reason, self._name_of(frame.session))
        self._review(file, now)
        self._relay.serve(now)

    def contribution_aborted(self, frame: Frame, now: int) -> None:
        """The connection broke before a contribution's payload was all there."""
        file = self.files[frame.file_id]
        self._drop(DropReason.ABORTED, self._name_of(frame.session))
        self._relay.contribution_aborted(file, frame, now)
        self._review(file, now)

    def _name_of(self, session: int) -> str:
        member = self._sessions.get(session)
        return member.name if member else f"session {session:016x}"

    # -- deliveries

    def delivery_sent(self, session: int, number: int, now: int) -> None:
        """The views of a delivery are no longer needed."""
        self._bytes_left(self._relay.delivery_sent(session, number), now)

    def delivery_finished(self, session: int, number: int, now: int) -> None:
        """The client has taken a delivery and closed its connection in good order."""
        self._delivery_ended(session, number, now, arrived=True)

    def delivery_failed(self, session: int, number: int, now: int) -> None:
        """A delivery will not reach the client, and its views are no longer needed; the client will ask again."""
        self._delivery_ended(session, number, now, arrived=False)

    def _delivery_ended(self, session: int, number: int, now: int, *, arrived: bool) -> None:
        member = self._sessions.get(session)
        self._bytes_left(self._relay.delivery_ended(member, session, number, arrived=arrived), now)

    def _bytes_left(self, file: SharedFile | None, now: int) -> None:
        """The last bytes of a file to leave make the seeded moment (R2)."""
        if file is not None and file.phase is Phase.SEEDING:
            self._review(file, now)
        self._relay.serve(now)

    def delivery_address(self, session: int) -> Address | None:
        """Where a client takes connections for deliveries; None if it takes none now."""
        member = self._sessions.get(session)
        if member is None or member.address is None or member.delivery_port == 0:
            return None
        return member.address[0], member.delivery_port

    def frame_refused(self, reason: DropReason, origin: str) -> None:
        """What came in over TCP was no frame; its connection is closed."""
        self._drop(reason, origin)

    def _drop(self, reason: DropReason, origin: str) -> None:
        self.drop_counts[reason] += 1
        self._effects.append(InputDropped(reason, origin))
