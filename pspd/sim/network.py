"""A whole network in virtual time, which starts and stops processes and carries out the effects of state machines."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from pspd.core.effects import client as client_effects
from pspd.core.effects import server as effects
from pspd.core.effects.shared import SendDatagram
from pspd.core.model.file_record import FileRecord
from pspd.core.model.manifest import FileId
from pspd.core.model.parameters import SECOND_NS, Parameters
from pspd.core.model.tuning import SERVER_TUNING, ServerTuning
from pspd.core.server.machine import ServerMachine
from pspd.sim.content import Content
from pspd.sim.control import ControlPlane
from pspd.sim.data_plane import DataPlane
from pspd.sim.hosts import Client, Connection, HostConditions
from pspd.sim.network_state import NetworkState
from pspd.sim.observer import Observer

CONNECTION_TIMEOUT_NS = 15 * SECOND_NS
"""The time from the start of a partition until the connections end, in nanoseconds."""


class VirtualNetwork(NetworkState):
    """A server, its clients and the paths between them.

    Args:
        parameters: the protocol's parameters.
        cache_chunks: the size of the server's cache, in chunks; None for one chunk for each client.
        content: the maker of the files' bytes and of the clients' stores.
        seed: the seed of all random draws.
        server_rate: the server's rate in each direction, in bytes per second; 0 for unlimited.
        tuning: the server's tunables.

    Attributes:
        control: the control plane, which also opens and closes links.
        data_plane: the data plane, which carries frames and datagrams.
        observers: the observers, each of which is called for every effect.
    """

    def __init__(
        self,
        parameters: Parameters,
        cache_chunks: int | None,
        content: Content,
        seed: int,
        server_rate: int = 0,
        tuning: ServerTuning = SERVER_TUNING,
    ) -> None:
        super().__init__(parameters, content, seed)
        self.control = ControlPlane(self)
        self.data_plane = DataPlane(self, self.control, server_rate)
        self.observers: list[Observer] = []
        self._records: dict[FileId, FileRecord] = {}  # on the server's disk
        self._recorded_clients: dict[str, None] = {}  # also on the server's disk
        self._cache_chunks = cache_chunks
        self._tuning = tuning
        self._server_wakes_at: int | None = None
        self.boot_server()

    def run(self, until: Callable[[], bool], limit_ns: int) -> bool:
        """Let time pass until a condition holds, or the time limit is reached.

        Args:
            until: a function that returns whether the condition holds; called at once, and then after each action.
            limit_ns: the maximum time to wait, in virtual nanoseconds.

        Returns:
            Whether the condition holds.
        """
        end = self.now + limit_ns
        self.must_poll_server = True  # the caller may have given it inputs
        self._settle()
        while not until():
            if not self.step(end):
                return until()
            self._settle()
        return True

    # -- the server's process

    def boot_server(self) -> None:
        """Start the server from the state on its disk."""
        seed = self.random.getrandbits(32)
        draw_session = partial(Random(seed).getrandbits, 64)
        self.server = server = ServerMachine(
            self.parameters, self._cache_chunks, self.content.digest, seed, draw_session, self._tuning
        )
        server.restore(self._records.values(), self._recorded_clients, self.now)
        self._server_wakes_at = None
        self.must_poll_server = True
        self.control.renew_leases(server)  # starts the periodic renewal

    def crash_server(self, *, disk_lost: bool) -> None:
        """Crash the server, and erase its disk if ``disk_lost``. Every client loses its session at once."""
        self.server = None
        self.server_epoch += 1
        if disk_lost:
            self._records.clear()
            self._recorded_clients.clear()
        self.sessions.clear()
        for client in self.clients.values():
            if client.alive and client.session:
                self.control.lose_session(client)

    # -- clients' processes

    def add_client(self, name: str, conditions: HostConditions, *, is_source: bool = False) -> Client:
        """Add a client whose process is not running yet; return the client.

        Args:
            name: the client's name, unique in the network.
            conditions: the client's impairments and rates.
            is_source: whether the client is a source.
        """
        store = self.content.new_store(name.encode())
        client = self.clients[name] = Client(name, conditions, store, self.random, is_source=is_source)
        return client

    def start(self, client: Client) -> None:
        """Start the client's process, which joins."""
        client.alive = True
        self.control.join(client)
        self.poll_soon(client)

    def crash(self, client: Client) -> None:
        """Crash the client's process; the files stay. The server sees the connections close, except in a partition."""
        session, link = client.session, client.link
        client.alive = False
        client.reset_process(self.random)
        if session and not client.partitioned:
            self.at_server(self.now + self.draw_delay(client), self.control.end_disconnected_session, session, link)

    def stop(self, client: Client) -> None:
        """Send Leave for the client, and stop its process."""
        self.control.leave(client)
        client.alive = False
        client.reset_process(self.random)

    def partition(self, client: Client) -> None:
        """Let no message pass between the client and the server. Connections time out later if the partition lasts."""
        client.partitioned = True
        self.in_epoch(client, self.now + CONNECTION_TIMEOUT_NS, self._time_out, client.link)

    def heal(self, client: Client) -> None:
        """End the partition between the client and the server."""
        client.partitioned = False
        self.poll_soon(client)

    def _time_out(self, client: Client, link: Connection) -> None:
        session, server = client.session, self.server_for_input()
        if client.partitioned and client.alive and session:
            self.control.lose_session(client)
            if server is not None:
                self.control.end_disconnected_session(server, session, link)

    # -- effects

    def _settle(self) -> None:
        """Carry out effects until none are left, and schedule the next timeouts of the state machines."""
        polled: dict[Client, None] = {}
        while self.must_poll_server or self.clients_to_poll:
            if self.must_poll_server:
                self._settle_server()
            clients, self.clients_to_poll = self.clients_to_poll, {}
            polled |= clients
            for client in clients:
                self._settle_client(client)
        for observer in self.observers:
            observer.on_settled(polled)

    def _settle_server(self) -> None:
        server = self.server
        self.must_poll_server = False
        if server is None:
            return
        for effect in server.poll():
            for observer in self.observers:
                observer.on_server_effect(effect)
            self._carry_out(effect)
        deadline = server.next_timeout()
        if deadline is not None and (self._server_wakes_at is None or deadline < self._server_wakes_at):
            self._server_wakes_at = deadline
            self.at_server(deadline, self._wake_server, deadline)

    def _wake_server(self, server: ServerMachine, when: int) -> None:
        if self._server_wakes_at == when:
            self._server_wakes_at = None
            server.handle_timeout(self.now)

    def _settle_client(self, client: Client) -> None:
        epoch = client.epoch
        for effect in client.machine.poll():
            if client.epoch != epoch:
                break  # the other effects belong to a session that has ended
            for observer in self.observers:
                observer.on_client_effect(client, effect)
            self._carry_out_for(client, effect)
        deadline = client.machine.next_timeout() if client.alive else None
        if deadline is not None and (client.wakes_at is None or deadline < client.wakes_at):
            client.wakes_at = deadline
            self.at_client(client, deadline, self._wake, deadline)

    def _wake(self, client: Client, when: int) -> None:
        if client.wakes_at == when:
            client.wakes_at = None
            client.machine.handle_timeout(self.now)
            self.poll_soon(client)

    def _carry_out(self, effect: effects.ServerEffect) -> None:
        match effect:
            case SendDatagram(address, data):
                self.data_plane.send_to_client(self.clients[address[0]], data)
            case effects.Deliver():
                self.data_plane.deliver(effect)
            case (
                effects.Assign(session)
                | effects.StartExchange(session)
                | effects.VerifyFile(session)
                | effects.RemoveFile(session)
                | effects.EndSession(session)
            ):
                self.control.send_event(session, effect)
            case effects.MemberFailed(_, error):
                raise error
            case effects.SaveFile(record):
                self._records[record.file_id] = record
            case effects.FileRemoved(file_id):
                self._records.pop(file_id, None)
            case effects.MemberJoined(name) if not self.clients[name].is_source:
                self._recorded_clients[name] = None
            case effects.MemberLeft(name):
                self._recorded_clients.pop(name, None)
            case effects.CloseLink(session):
                if (client := self.client_of(session)) is not None:
                    self.control.break_link(client)

    def _carry_out_for(self, client: Client, effect: client_effects.ClientEffect) -> None:
        match effect:
            case SendDatagram(_, data):
                self.data_plane.send_to_server(client, data)
            case client_effects.Contribute(frame):
                self.data_plane.contribute(client, frame)
            case client_effects.FinishFile(file_id):
                self.control.finish(client, file_id)
            case client_effects.ReportMilestone():
                self.after_delay(client, self.control.report_arrived, effect)
