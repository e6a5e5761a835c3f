"""A virtual network that a test controls step by step, and that records what its machines report."""

from __future__ import annotations

from collections.abc import Callable, Collection

from pspd.core.effects.client import ClientEffect, Contribute, FinishFile, ReportMilestone
from pspd.core.effects.server import Assign, CloseLink, Deliver, EndSession, ServerEffect, StartExchange
from pspd.core.effects.shared import SendDatagram
from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import Manifest
from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS, Parameters
from pspd.core.model.tuning import SERVER_TUNING, ServerTuning
from pspd.core.server.machine import ServerMachine
from pspd.sim.content import Content
from pspd.sim.hosts import Client, HostConditions
from pspd.sim.network import VirtualNetwork
from pspd.sim.observer import Observer
from pspd.sim.paths import Impairments
from pspd.sim.seeding import Seeding

Effect = ServerEffect | ClientEffect

COMMANDS = (
    *(SendDatagram, Contribute, FinishFile, ReportMilestone),
    *(Deliver, Assign, StartExchange, EndSession, CloseLink),
)
"""Effects that are carried out; the others are events."""


class CoreNetwork(Observer):
    """A server, clients and sources with real content.

    Args:
        parameters: the protocol's parameters.
        cache_chunks: the server's cache; None for one chunk per client.
        seed: of all random draws.
        loss: fraction of datagrams lost each way.
        duplicate: fraction of datagrams duplicated each way.
        jitter_ns: maximum additional delay of each message.
        tuning: of the server.

    Attributes:
        network: the virtual network.
        events: the events of all machines.
        on_effect: called with every effect, and the name of its client ("" for the server).
        used_chunks_max: the largest use of the cache.
    """

    def __init__(
        self,
        parameters: Parameters,
        cache_chunks: int | None,
        *,
        seed: int = 1,
        loss: float = 0.0,
        duplicate: float = 0.0,
        jitter_ns: int = MILLISECOND_NS,
        tuning: ServerTuning = SERVER_TUNING,
    ) -> None:
        self.network = VirtualNetwork(parameters, cache_chunks, Content(), seed, tuning=tuning)
        self.network.observers.append(self)
        self.events: list[Effect] = []
        self.on_effect: Callable[[str, Effect], None] = lambda name, effect: None
        self.used_chunks_max = 0
        self._conditions = HostConditions(Impairments(MILLISECOND_NS // 2, jitter_ns, loss=loss, duplicate=duplicate))

    @property
    def now(self) -> int:
        return self.network.now

    @property
    def server(self) -> ServerMachine:
        server = self.network.server
        assert server is not None
        return server

    @property
    def clients(self) -> dict[str, Client]:
        return self.network.clients

    # -- observing

    def on_server_effect(self, effect: ServerEffect) -> None:
        self._record("", effect)

    def on_client_effect(self, client: Client, effect: ClientEffect) -> None:
        self._record(client.name, effect)

    def _record(self, name: str, effect: Effect) -> None:
        self.on_effect(name, effect)
        if not isinstance(effect, COMMANDS):
            self.events.append(effect)

    def on_settled(self, polled: Collection[Client]) -> None:
        self.server.check()
        self.used_chunks_max = max(self.used_chunks_max, self.server.cache.used_chunks)

    # -- members

    def add(self, name: str) -> Client:
        """Add a client that is not running yet."""
        return self.network.add_client(name, self._conditions)

    def join(self, name: str) -> Client:
        """Start a client, and wait until it has joined. A running client crashes first, and the server notices."""
        client = self.clients.get(name) or self.add(name)
        if client.alive:
            self.network.crash(client)
        self.network.start(client)
        assert self.run(lambda: self.is_member(client), 60 * SECOND_NS)
        return client

    def is_member(self, client: Client) -> bool:
        """Return whether a client and the server agree on its session."""
        member = self.server.members.get(client.name)
        is_linked = client.link.is_open or not self.network.parameters.kept_links or client.link_blocked
        return member is not None and member.session == client.session and is_linked

    def crash(self, name: str, *, silently: bool = False) -> None:
        """Crash a client; its files stay. The server notices at once, or when the lease expires."""
        client = self.clients[name]
        session = client.session
        client.partitioned = silently
        self.network.crash(client)
        client.partitioned = False
        if not silently:
            assert self.run(lambda: all(m.session != session for m in self.server.members.values()), SECOND_NS)

    def block_link(self, client: Client) -> None:
        """Break a client's link, and let no other open."""
        client.link_blocked = True
        self.network.control.break_link(client)

    def unblock_link(self, client: Client) -> None:
        """Let a client open a link."""
        client.link_blocked = False

    # -- files

    def seed(self, name: str, data: bytes, *, share_count: int = 0, hold: bool = False) -> Manifest:
        """Start the source ``source-N of NAME``, and wait until it has divided its file.

        Args:
            name: the file's name.
            data: the file's bytes.
            share_count: how many shares to divide the file into; 0 for as many as clients.
            hold: whether the exchange waits for a release.
        """
        members = self.server.members.values()
        assert self.run(lambda: all(member.address is not None for member in members), 60 * SECOND_NS)
        seeding = Seeding(
            self.network,
            name,
            data,
            len(data),
            self._conditions,
            client_count=0,
            share_count=share_count,
            hold_back=hold,
        )
        seeding.start()
        assert self.run(lambda: seeding.file is not None and seeding.file.phase is not Phase.ANNOUNCED, 60 * SECOND_NS)
        return seeding.manifest

    # -- time

    def run(self, until: Callable[[], bool], limit_ns: int) -> bool:
        """Let time pass until a condition holds; return whether it does within ``limit_ns``."""
        return self.network.run(until, limit_ns)

    def pass_time(self, duration_ns: int) -> None:
        """Let time pass."""
        assert not self.run(lambda: False, duration_ns)
