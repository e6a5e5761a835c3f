"""The state of a virtual network: its clock, hosts and sessions, and the actions that are scheduled on them."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

from pspd.core.model.parameters import Parameters
from pspd.core.server.machine import ServerMachine
from pspd.sim.content import Content
from pspd.sim.hosts import Client
from pspd.text.addresses import Address

SERVER: Address = ("server", 1)

Action = Callable[..., object]


class NetworkState:
    """The clock, hosts and sessions of a virtual network, which the control plane and the data plane use.

    Args:
        parameters: the protocol's parameters.
        content: the maker of the files' bytes and of the clients' stores.
        seed: the seed of all random draws.

    Attributes:
        now: the virtual time, in nanoseconds.
        action_count: the number of actions that have run.
        random: the network's source of randomness.
        clients: every client that was ever added, sources included, by name.
        sessions: the client of each session since the server's last start, by session number.
        server: the server's state machine; None while the server is down.
        server_epoch: the number of the server's crashes. A message is lost if the server crashes before the message
            arrives.
        must_poll_server: whether the server's state machine must be polled.
        clients_to_poll: the clients whose state machines must be polled, in order.
    """

    def __init__(self, parameters: Parameters, content: Content, seed: int) -> None:
        self.now = 0
        self.action_count = 0
        self.random = Random(seed)
        self.parameters = parameters
        self.content = content
        self.clients: dict[str, Client] = {}
        self.sessions: dict[int, Client] = {}
        self.server_epoch = 0
        self.must_poll_server = True
        self.clients_to_poll: dict[Client, None] = {}
        self.server: ServerMachine | None = None
        self._queue: list[tuple[int, int, Action, tuple[Any, ...]]] = []
        self._order = 0

    def server_for_input(self) -> ServerMachine | None:
        """Return the server's state machine, which is polled after the input; return None if the server is down."""
        self.must_poll_server = True
        return self.server

    def client_of(self, session: int) -> Client | None:
        """Return the client of a session; None if the client has ended the session, or the server has crashed since."""
        client = self.sessions.get(session)
        return client if client is not None and client.session == session else None

    def poll_soon(self, client: Client) -> None:
        """Mark the client's state machine to be polled."""
        self.clients_to_poll[client] = None

    def draw_delay(self, client: Client) -> int:
        """Draw the one-way delay of one message between the server and a client, in nanoseconds."""
        return client.conditions.impairments.draw_delay(self.random)

    def jittered(self, duration_ns: int) -> int:
        """Draw a duration between 0.5 and 1.5 times ``duration_ns``."""
        return int(duration_ns * (0.5 + self.random.random()))

    # -- scheduling

    def at(self, when: int, action: Action, *arguments: Any) -> None:
        """Schedule an action; actions of the same time run in the order of scheduling.

        Args:
            when: the action's time, in nanoseconds; a past time means now.
            action: the function to call.
            *arguments: the action's arguments.
        """
        self._order += 1
        heappush(self._queue, (max(when, self.now), self._order, action, arguments))

    def after(self, delay_ns: int, action: Action, *arguments: Any) -> None:
        """Schedule an action relative to now.

        Args:
            delay_ns: the delay, in nanoseconds.
            action: the function to call.
            *arguments: the action's arguments.
        """
        self.at(self.now + delay_ns, action, *arguments)

    def step(self, end: int) -> bool:
        """Run the next action; return True. If none is due by ``end``, let time pass until ``end``; return False."""
        if not self._queue or self._queue[0][0] > end:
            self.now = max(self.now, end)
            return False
        self.now, _, action, arguments = heappop(self._queue)
        self.action_count += 1
        action(*arguments)
        return True

    def at_server(self, when: int, action: Action, *arguments: object) -> None:
        """Schedule an action of the server's process. It does not run if the process has crashed by then.

        Args:
            when: the action's time, in nanoseconds.
            action: the function to call, with the server's state machine and ``arguments``.
            *arguments: the action's further arguments.
        """
        self.at(when, self._run_at_server, self.server_epoch, action, arguments)

    def _run_at_server(self, epoch: int, action: Action, arguments: tuple[object, ...]) -> None:
        server = self.server_for_input()
        if server is not None and self.server_epoch == epoch:
            action(server, *arguments)

    def in_epoch(self, client: Client, when: int, action: Action, *arguments: object) -> None:
        """Schedule an action in a client's present epoch. It does not run if the epoch has ended by then.

        Args:
            client: the client, which is the action's first argument.
            when: the action's time, in nanoseconds.
            action: the function to call.
            *arguments: the action's further arguments.
        """
        self.at(when, self._run_in_epoch, client, client.epoch, action, arguments)

    def _run_in_epoch(self, client: Client, epoch: int, action: Action, arguments: tuple[object, ...]) -> None:
        if client.epoch == epoch:
            action(client, *arguments)

    def after_delay(self, client: Client, action: Action, *arguments: object) -> None:
        """Schedule an action for the arrival of a message that is sent now between the server and a client.

        Args:
            client: the client, which is the action's first argument.
            action: the function to call.
            *arguments: the action's further arguments.
        """
        self.in_epoch(client, self.now + self.draw_delay(client), action, *arguments)

    def at_client(self, client: Client, when: int, action: Action, *arguments: object) -> None:
        """Schedule an action of a client's process, as ``in_epoch`` does. A paused process runs it after the pause.

        Args:
            client: the client, which is the action's first argument.
            when: the action's time, in nanoseconds.
            action: the function to call.
            *arguments: the action's further arguments.
        """
        self.at(when, self._run_at_client, client, client.epoch, action, arguments)

    def _run_at_client(self, client: Client, epoch: int, action: Action, arguments: tuple[object, ...]) -> None:
        if self.now < client.paused_until or client.deferred:
            if not client.deferred:
                self.at(client.paused_until, self._resume, client)
            client.deferred.append((epoch, action, arguments))
        else:
            self._run_in_epoch(client, epoch, action, arguments)

    def _resume(self, client: Client) -> None:
        """Run the oldest deferred action if the pause is over, or else try again later. Each action is one step."""
        if self.now < client.paused_until:
            self.at(client.paused_until, self._resume, client)
        elif client.deferred:
            epoch, action, arguments = client.deferred.popleft()
            if client.deferred:
                self.at(self.now, self._resume, client)
            self._run_in_epoch(client, epoch, action, arguments)
