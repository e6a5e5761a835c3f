"""A tiny virtual network that drives the machines: no sockets, no clock, seeded loss."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from random import Random

from pspd.core.client import ClientMachine
from pspd.core.effects import (
    Address,
    Assign,
    ClientEffect,
    CloseLink,
    Contribute,
    Deliver,
    EndSession,
    FinishFile,
    ReportMilestone,
    SendDatagram,
    ServerEffect,
    StartExchange,
)
from pspd.core.manifest import Manifest
from pspd.core.parameters import MILLISECOND_NS, SECOND_NS, Parameters
from pspd.core.server import ServerMachine
from pspd.core.storage import Held
from pspd.core.wire import Frame
from pspd.store.digests import blake3_digest
from pspd.store.memory import MemoryStore

SERVER: Address = ("server", 1)


class Peer:
    """A client or a source: its machine, its store, its session."""

    def __init__(self, ether: Ether, name: str, seed: int) -> None:
        self.ether = ether
        self.name = name
        self.address: Address = (name, 1)
        self.machine = ClientMachine(seed)
        self.store = MemoryStore(blake3_digest)
        self.original: bytes | None = None
        self.session = 0
        self.alive = True

    def payload(self, frame: Frame) -> bytes:
        if self.original is not None:
            return self.original[frame.start * 1024 : frame.start * 1024 + frame.length]
        view = self.store.payload(frame.file_id, frame.start, frame.stop)
        assert isinstance(view, memoryview)
        return bytes(view)


class Ether:
    """Everything in one place, in virtual nanoseconds."""

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
        self.server = ServerMachine(parameters, cache_chunks, blake3_digest, seed)
        self.peers: dict[str, Peer] = {}
        self.loss, self.duplicate, self.delay_ns = loss, duplicate, delay_ns
        self.events: list[ServerEffect | ClientEffect] = []
        self.on_event: Callable[[ServerEffect], None] = lambda event: None
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()

    # -- people

    def join(self, name: str, *, source: bool = False) -> Peer:
        peer = self.peers.get(name) or Peer(self, name, self.random.getrandbits(32))
        peer.alive = True
        self.peers[name] = peer
        member = self.server.client_joined(
            name, name.encode(), self.now, source=source, delivery_port=1, held=peer.store.known()
        )
        peer.session = member.session
        peer.machine.joined(member.session, SERVER, self.parameters, self.now)
        if self.parameters.kept_links:
            self.server.link_opened(member.session, self.now)
        self.settle()
        return peer

    def crash(self, name: str) -> None:
        peer = self.peers[name]
        peer.alive = False
        peer.machine = ClientMachine(self.random.getrandbits(32))
        self.server.client_left(peer.session, "crashed", self.now)
        self.settle()

    def seed(
        self, name: str, data: bytes, share_count: int | None = None, *, hold_back: bool = False
    ) -> Manifest:
        source = self.join(f"source of {name}", source=True)
        self.run(lambda: self.server.members[source.name].address is not None, 60 * SECOND_NS)

        def read_at(offset: int, length: int) -> bytes:
            return data[offset : offset + length]

        manifest = Manifest.build(name, len(data), read_at, blake3_digest)
        self.server.announce(manifest, source.session)
        manifest = manifest.divided(share_count or len(self.server.client_names()), read_at, blake3_digest)
        source.original = data
        source.machine.hold_whole(manifest)
        self.server.divide(manifest, source.session, self.now, hold_back=hold_back)
        self.settle()
        return manifest

    # -- time

    def at(self, when: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._order), action))

    def settle(self) -> None:
        """Carries out effects until there are none."""
        while self._carry_out():
            pass

    def run(self, until: Callable[[], bool], limit_ns: int) -> bool:
        """Lets time pass until a condition holds; False if it does not within ``limit_ns``."""
        end = self.now + limit_ns
        while not until():
            machines = [self.server, *(peer.machine for peer in self.peers.values() if peer.alive)]
            deadlines = [deadline for m in machines if (deadline := m.next_timeout()) is not None]
            if self._queue:
                deadlines.append(self._queue[0][0])
            if not deadlines or min(deadlines) > end:
                return False
            self.now = max(self.now, min(deadlines))
            while self._queue and self._queue[0][0] <= self.now:
                heapq.heappop(self._queue)[2]()
                self.settle()
            for peer in self.peers.values():
                if peer.alive and peer.session in self.server._sessions:
                    self.server.lease_renewed(peer.session, self.now)
            for machine in machines:
                machine.handle_timeout(self.now)
                self.settle()
        return True

    def _later(self, action: Callable[[], None]) -> None:
        self.at(self.now + int(self.delay_ns * (0.5 + self.random.random())), action)

    def _datagram(self, action: Callable[[], None]) -> None:
        copies = 2 if self.random.random() < self.duplicate else 1
        for _ in range(copies):
            if self.random.random() >= self.loss:
                self._later(action)

    # -- effects

    def _carry_out(self) -> bool:
        effects = self.server.poll()
        for effect in effects:
            self._server_effect(effect)
        busy = bool(effects)
        for peer in [peer for peer in self.peers.values() if peer.machine._effects]:
            for client_effect in peer.machine.poll():
                busy = True
                if peer.alive:
                    self._client_effect(peer, client_effect)
        return busy

    def _by_session(self, session: int) -> Peer | None:
        return next((p for p in self.peers.values() if p.alive and p.session == session), None)

    def _server_effect(self, effect: ServerEffect) -> None:
        match effect:
            case SendDatagram(address, data):
                peer = self.peers[address[0]]
                self._datagram(lambda: peer.alive and peer.machine.receive_datagram(data, SERVER, self.now))
            case Deliver():
                self._deliver(effect)
            case Assign(session, manifest, shares, started):
                if peer := self._by_session(session):
                    held: Held = peer.store.begin(manifest)
                    peer.machine.file_assigned(manifest, shares, started, held, self.now)
            case StartExchange(session, file_id):
                if peer := self._by_session(session):
                    peer.machine.exchange_started(file_id, self.now)
            case EndSession(session, _):
                if peer := self._by_session(session):
                    peer.machine.left()
            case CloseLink():
                pass
            case _:
                self.events.append(effect)
                self.on_event(effect)

    def _deliver(self, effect: Deliver) -> None:
        payload = b"".join(effect.views)
        assert len(payload) == effect.frame.length
        peer = self._by_session(effect.session)
        if peer is None:
            self.server.delivery_failed(effect.session, effect.number, self.now)
            return
        self.server.delivery_sent(effect.session, effect.number, self.now)

        def arrive() -> None:
            if not peer.alive or peer.session != effect.session:
                self.server.delivery_failed(effect.session, effect.number, self.now)
                return
            if peer.machine.delivery_started(effect.frame, "server"):
                frame = effect.frame
                written = peer.store.write(frame.file_id, frame.start, frame.stop, memoryview(payload))
                peer.machine.delivery_stored(frame, written, self.now)
            if not self.parameters.kept_links:
                self.server.delivery_finished(effect.session, effect.number, self.now)

        self.at(self.now + self.delay_ns, arrive)

    def _client_effect(self, peer: Peer, effect: ClientEffect) -> None:
        match effect:
            case SendDatagram(_, data):
                self._datagram(lambda: self.server.receive_datagram(data, peer.address, self.now))
            case Contribute(frame):
                payload = peer.payload(frame)
                self.at(self.now + self.delay_ns, lambda: self._contribute(peer, frame, payload))
            case FinishFile(file_id):
                peer.store.finish(file_id)
                peer.machine.file_finished(file_id)
            case ReportMilestone(file_id, milestone):
                session = peer.session

                def report() -> None:
                    if peer.alive and peer.session == session:
                        self.server.milestone_reached(session, file_id, milestone, self.now)

                self._later(report)
            case _:
                self.events.append(effect)

    def _contribute(self, peer: Peer, frame: Frame, payload: bytes) -> None:
        if not peer.alive or peer.session != frame.session:
            return
        views = self.server.contribution_started(frame, peer.name, self.now)
        if views is None:
            return
        offset = 0
        for view in views:
            view[:] = payload[offset : offset + len(view)]
            offset += len(view)
        assert offset == len(payload)
        self.server.contribution_received(frame, self.now)
