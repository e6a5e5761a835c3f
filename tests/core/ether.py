"""A tiny virtual network that drives the machines: no sockets, no clock, seeded loss."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random

from pspd.core.client.machine import ClientMachine
from pspd.core.effects.client import ClientEffect, Contribute, FinishFile, ReportMilestone
from pspd.core.effects.server import Assign, CloseLink, Deliver, EndSession, MemberFailed, ServerEffect, StartExchange
from pspd.core.effects.shared import SendDatagram
from pspd.core.model.manifest import CHUNK_BYTES, Manifest
from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS, Parameters
from pspd.core.server.machine import LEASE_NS, ServerMachine
from pspd.core.server.members import Member
from pspd.core.wire.frames import Frame
from pspd.errors import DuplicateInstance
from pspd.store.digests import blake3_digest
from pspd.store.files.memory import MemoryStore
from pspd.text.addresses import Address

SERVER: Address = ("server", 1)

Effect = ServerEffect | ClientEffect
Action = Callable[[], object]


def sessions(seed: int) -> Callable[[], int]:
    """Session numbers for a server machine, the same for the same seed."""
    return partial(Random(seed).getrandbits, 64)


def sample_bytes(size_bytes: int, seed: int = 7) -> bytes:
    """Bytes of which no two chunks are alike."""
    return Random(seed).randbytes(size_bytes)


class Peer:
    """A client or a source: its machine, its store, its session, its faults.

    Attributes:
        forge: what becomes of a payload it contributes; None breaks the connection before the end.
        takes_deliveries: whether deliveries reach it.
        hears: whether the server's datagrams reach it.
        link: counts its TCP links; what was sent over an earlier one is lost.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.address: Address = (name, 1)
        self.machine = ClientMachine(seed)
        self.store = MemoryStore(blake3_digest)
        self.original: bytes | None = None
        self.session = 0
        self.alive = True
        self.linked = False
        self.link = 0
        self.forge: Callable[[Frame, bytes], bytes | None] = lambda frame, payload: payload
        self.takes_deliveries = True
        self.hears = True
        self.wakes_at: int | None = None

    def payload(self, frame: Frame) -> bytes | None:
        if self.original is not None:
            offset = frame.start * CHUNK_BYTES
            return self.forge(frame, self.original[offset : offset + frame.length])
        return self.forge(frame, bytes(self.store.payload(frame.file_id, frame.start, frame.stop)))


class Ether:
    """Everything in one place, in virtual nanoseconds.

    Attributes:
        events: what the machines told and nobody carries out.
        on_effect: hears of every effect, with the name of whose it is ("" for the server's).
        used_chunks_max: the most that the cache ever held.
    """

    def __init__(
        self,
        parameters: Parameters,
        cache_chunks: int | None,
        *,
        seed: int = 1,
        loss: float = 0.0,
        duplicate: float = 0.0,
        delay_ns: int = MILLISECOND_NS,
    ) -> None:
        self.now = 0
        self.random = Random(seed)
        self.parameters = parameters
        self.server = ServerMachine(parameters, cache_chunks, blake3_digest, seed, sessions(seed))
        self.peers: dict[str, Peer] = {}
        self.loss, self.duplicate, self.delay_ns = loss, duplicate, delay_ns
        self.events: list[Effect] = []
        self.on_effect: Callable[[str, Effect], None] = lambda name, effect: None
        self.used_chunks_max = 0
        self._queue: list[tuple[int, int, Action]] = []
        self._order = count()
        self._sessions: dict[int, Peer] = {}
        self._touched: dict[Peer, None] = {}
        self._server_wakes_at: int | None = None

    # -- people

    def join(self, name: str, *, source: bool = False) -> Peer:
        peer = self.peers.get(name) or Peer(name, self.random.getrandbits(32))
        peer.alive = True
        self.peers[name] = peer
        try:
            member = self._joined_at_server(peer, source)
        except DuplicateInstance:  # the server misses its old connection before it tries again
            self.server.client_left(peer.session, "its connection ended", self.now)
            member = self._joined_at_server(peer, source)
        peer.session = member.session
        self._sessions[peer.session] = peer
        peer.machine.joined(member.session, SERVER, self.parameters, self.now)
        self._renew(peer, member.session)
        self.open_link(peer)
        self.settle()
        return peer

    def _joined_at_server(self, peer: Peer, source: bool) -> Member:
        return self.server.client_joined(
            peer.name, peer.name.encode(), self.now, source=source, delivery_port=1, held=peer.store.known()
        )

    def crash(self, name: str, *, silently: bool = False) -> None:
        """The client is gone at once; its files stay. Silently: the server finds out when the lease ends."""
        peer = self.peers[name]
        peer.alive = False
        peer.machine = ClientMachine(self.random.getrandbits(32))
        if not silently:
            self.server.link_closed(peer.session, self.now)
            self.server.client_left(peer.session, "crashed", self.now)
        self.settle()

    def open_link(self, peer: Peer) -> None:
        """Opens the link that the profile keeps, if it does; whatever an old one carried is lost."""
        if self.parameters.kept_links:
            peer.link, peer.linked = peer.link + 1, True
            self.server.link_opened(peer.session, self.now)
            peer.machine.link_opened(self.now)
        self._touch(peer)

    def cut_link(self, peer: Peer) -> None:
        """The link breaks; what is on its way over it is lost."""
        peer.link, peer.linked = peer.link + 1, False
        self.server.link_closed(peer.session, self.now)
        self.settle()

    def seed(self, name: str, data: bytes, share_count: int | None = None, *, hold_back: bool = False) -> Manifest:
        source = self.join(f"source of {name}", source=True)
        members = self.server.members.values()
        assert self.run(lambda: all(member.address is not None for member in members), 60 * SECOND_NS)

        def read_at(offset: int, length: int) -> bytes:
            return data[offset : offset + length]

        manifest = Manifest.build(name, len(data), read_at, blake3_digest)
        self.server.catalogue.announce(manifest, source.session)
        manifest = manifest.divided(share_count or len(self.server.catalogue.heard_names()), read_at, blake3_digest)
        source.original = data
        source.machine.hold_whole(manifest)
        self.server.catalogue.divide(manifest, source.session, self.now, hold_back=hold_back)
        self.settle()
        return manifest

    # -- time

    def at(self, when: int, action: Action) -> None:
        heapq.heappush(self._queue, (when, next(self._order), action))

    def run(self, until: Callable[[], bool], limit_ns: int) -> bool:
        """Lets time pass until a condition holds; False if it does not within ``limit_ns``."""
        end = self.now + limit_ns
        self.settle()
        while not until():
            if self._queue[0][0] > end:
                self.now = end
                return False
            when, _, action = heapq.heappop(self._queue)
            self.now = max(self.now, when)
            action()
            self.settle()
        return True

    def pass_time(self, duration_ns: int) -> None:
        """Lets so much time pass."""
        assert not self.run(lambda: False, duration_ns)

    def settle(self) -> None:
        """Carries out effects until there are none, and sets the alarms for what comes later."""
        while effects := self.server.poll():
            for effect in effects:
                self.on_effect("", effect)
                self._server_effect(effect)
        touched, self._touched = self._touched, {}
        for peer in touched:
            for client_effect in peer.machine.poll():
                self.on_effect(peer.name, client_effect)
                if peer.alive:
                    self._client_effect(peer, client_effect)
            self._set_alarm(peer)
        if self._touched or touched:
            self.settle()
            return
        self.used_chunks_max = max(self.used_chunks_max, self.server.cache.used_chunks)
        deadline = self.server.next_timeout()
        if deadline is not None and deadline != self._server_wakes_at:
            self._server_wakes_at = deadline
            self.at(deadline, self._wake_server)

    def _wake_server(self) -> None:
        self._server_wakes_at = None
        self.server.handle_timeout(self.now)

    def _set_alarm(self, peer: Peer) -> None:
        deadline = peer.machine.next_timeout()
        if deadline is not None and deadline != peer.wakes_at:
            peer.wakes_at = deadline
            self.at(deadline, lambda: self._wake(peer))

    def _wake(self, peer: Peer) -> None:
        peer.wakes_at = None
        if peer.alive:
            peer.machine.handle_timeout(self.now)
        self._touch(peer)

    def _touch(self, peer: Peer) -> None:
        self._touched[peer] = None

    def _renew(self, peer: Peer, session: int) -> None:
        if peer.alive and peer.session == session and self._member_of(peer):
            self.server.lease_renewed(session, self.now)
            self.at(self.now + LEASE_NS // 3, lambda: self._renew(peer, session))

    def _member_of(self, peer: Peer) -> bool:
        member = self.server.members.get(peer.name)
        return member is not None and member.session == peer.session

    def _later(self, action: Action) -> None:
        self.at(self.now + int(self.delay_ns * (0.5 + self.random.random())), action)

    def _datagram(self, action: Action) -> None:
        copies = 2 if self.random.random() < self.duplicate else 1
        for _ in range(copies):
            if self.random.random() >= self.loss:
                self._later(action)

    # -- effects

    def _server_effect(self, effect: ServerEffect) -> None:
        match effect:
            case SendDatagram(address, data):
                self._datagram(lambda: self._arrive(self.peers[address[0]], data))
            case Deliver():
                self._deliver(effect)
            case Assign(session, manifest, shares, started, division):
                if peer := self._by_session(session):
                    held = peer.store.begin(manifest)
                    peer.machine.file_assigned(manifest, shares, started, held, self.now, division)
            case StartExchange(session, file_id):
                if peer := self._by_session(session):
                    peer.machine.exchange_started(file_id, self.now)
            case EndSession(session, _):
                if peer := self._by_session(session):
                    peer.machine.left()
            case MemberFailed(_, error):
                raise error
            case CloseLink(session):
                if (peer := self._by_session(session)) and self._member_of(peer):
                    self.cut_link(peer)
                    self._later(lambda: self.open_link(peer))
            case _:
                self.events.append(effect)

    def _by_session(self, session: int) -> Peer | None:
        peer = self._sessions[session]
        if not peer.alive or peer.session != session:
            return None
        self._touch(peer)
        return peer

    def _arrive(self, peer: Peer, data: bytes) -> None:
        if peer.alive and peer.hears:
            peer.machine.receive_datagram(data, SERVER, self.now)
            self._touch(peer)

    def _deliver(self, effect: Deliver) -> None:
        """The views are read twice, at the beginning and when they are given back: they must not change."""
        payload = b"".join(effect.views)
        assert len(payload) == effect.frame.length
        peer = self._by_session(effect.session)
        link = peer.link if peer else 0

        def is_there() -> bool:
            assert peer is not None
            linked = peer.link == link and (peer.linked or not self.parameters.kept_links)
            return peer.alive and peer.session == effect.session and linked and peer.takes_deliveries

        if peer is None or not is_there():
            self.server.delivery_failed(effect.session, effect.number, self.now)
            return

        def leave() -> None:
            assert b"".join(effect.views) == payload, "the bytes changed while they were sent"
            self.server.delivery_sent(effect.session, effect.number, self.now)

        def arrive() -> None:
            if is_there():
                self._store(peer, effect.frame, payload)

        self.at(self.now + self.delay_ns // 2, leave)
        self.at(self.now + self.delay_ns, arrive)

    def _store(self, peer: Peer, frame: Frame, payload: bytes) -> None:
        if peer.machine.delivery_started(frame, "server"):
            written = peer.store.write(frame.file_id, frame.start, frame.stop, memoryview(payload))
            peer.machine.delivery_stored(frame, written, self.now)
        self._touch(peer)

    def _client_effect(self, peer: Peer, effect: ClientEffect) -> None:
        match effect:
            case SendDatagram(_, data):
                self._datagram(lambda: self.server.receive_datagram(data, peer.address, self.now))
            case Contribute(frame):
                link = peer.link
                self.at(self.now + self.delay_ns // 2, lambda: self._contribute(peer, link, frame))
            case FinishFile(file_id):
                peer.store.finish(file_id)
                peer.machine.file_finished(file_id)
                self._touch(peer)
            case ReportMilestone():
                session = peer.session
                self._later(lambda: self._report(peer, session, effect))
            case _:
                self.events.append(effect)

    def _report(self, peer: Peer, session: int, effect: ReportMilestone) -> None:
        if peer.alive and peer.session == session and self._member_of(peer):
            self.server.catalogue.milestone_reached(
                session,
                effect.file_id,
                effect.milestone,
                self.now,
                effect.share_chunk_count,
                division=effect.division,
                request_number=effect.request_number,
            )

    def _contribute(self, peer: Peer, link: int, frame: Frame) -> None:
        def is_there() -> bool:
            linked = peer.link == link and (peer.linked or not self.parameters.kept_links)
            return peer.alive and peer.session == frame.session and linked

        if not is_there():
            return
        payload = peer.payload(frame)
        views = self.server.contribution_started(frame, peer.name, self.now)
        if views is None:
            return

        def arrive() -> None:
            if payload is None or not is_there():
                self.server.contribution_aborted(frame, self.now)
                return
            offset = 0
            for view in views:
                view[:] = payload[offset : offset + len(view)]
                offset += len(view)
            assert offset == frame.length
            self.server.contribution_received(frame, self.now)

        self.at(self.now + self.delay_ns // 2, arrive)
