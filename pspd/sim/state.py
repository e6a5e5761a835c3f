"""State that all parts of a virtual network share: time, machines, and which of them to poll."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from pspd.core.model.parameters import Parameters
from pspd.core.server.machine import ServerMachine
from pspd.sim.clock import Clock
from pspd.sim.content import Content
from pspd.sim.hosts import Client
from pspd.text.addresses import Address

SERVER: Address = ("server", 1)


class NetworkState:
    """Time, hosts and sessions of a virtual network.

    Args:
        parameters: the protocol's parameters.
        content: how files' bytes are made and stored.
        seed: of all random draws.

    Attributes:
        clock: virtual time.
        random: the only source of randomness.
        clients: every client and source that was ever added, by name.
        sessions: the client of each session since the server's last start.
        server_epoch: counts the server's crashes; what was sent to an earlier epoch is lost.
        server_touched: whether to poll the server.
        touched: the clients to poll.
    """

    def __init__(self, parameters: Parameters, content: Content, seed: int) -> None:
        self.clock = Clock()
        self.random = Random(seed)
        self.parameters = parameters
        self.content = content
        self.clients: dict[str, Client] = {}
        self.sessions: dict[int, Client] = {}
        self.server_epoch = 0
        self.server_touched = True
        self.touched: dict[Client, None] = {}
        self._server: ServerMachine | None = None

    @property
    def now(self) -> int:
        """The time, in nanoseconds."""
        return self.clock.now

    @property
    def server(self) -> ServerMachine | None:
        """The server's machine, None while it is down; it is polled after each access."""
        self.server_touched = True
        return self._server

    @server.setter
    def server(self, server: ServerMachine | None) -> None:
        self._server = server

    def client_of(self, session: int) -> Client | None:
        """Return the client of a session that neither side has ended; None if there is none."""
        client = self.sessions.get(session)
        return client if client is not None and client.session == session else None

    def touch(self, client: Client) -> None:
        """Have the client's machine polled."""
        self.touched[client] = None

    def delay(self, client: Client) -> int:
        """Draw the one-way delay of one message between the server and a client, in nanoseconds."""
        return client.access.impairments.delay(self.random)

    def jittered(self, duration_ns: int) -> int:
        """Draw a duration between a half and one and a half of ``duration_ns``."""
        return int(duration_ns * (0.5 + self.random.random()))

    def at_client(self, client: Client, when: int, action: Callable[..., object], *arguments: object) -> None:
        """Schedule an action of the client's process; a paused process runs it when it resumes.

        Args:
            client: whose process acts.
            when: the action's time, in nanoseconds.
            action: the function to call.
            *arguments: its arguments.
        """
        self.clock.at(when, self._run_at_client, client, action, arguments)

    def _run_at_client(self, client: Client, action: Callable[..., object], arguments: tuple[object, ...]) -> None:
        if self.now < client.paused_until or client.deferred:
            if not client.deferred:
                self.clock.at(client.paused_until, self._resume, client)
            client.deferred.append((action, arguments))
        else:
            action(*arguments)

    def _resume(self, client: Client) -> None:
        """Run the oldest deferred action of a process, if it has resumed; each action is a step of its own."""
        if self.now < client.paused_until:
            self.clock.at(client.paused_until, self._resume, client)
        elif client.deferred:
            action, arguments = client.deferred.popleft()
            if client.deferred:
                self.clock.at(self.now, self._resume, client)
            action(*arguments)

    def after_delay(self, client: Client, action: Callable[..., object], *arguments: object) -> None:
        """Schedule an action for when a message sent now between the server and a client arrives.

        Args:
            client: which path the message takes.
            action: the function to call.
            *arguments: its arguments.
        """
        self.clock.after(self.delay(client), action, *arguments)
