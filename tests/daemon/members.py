"""A network in this process: the server daemon, members with their files in memory, and a source."""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from pspd.core.model.parameters import Parameters
from pspd.core.model.tuning import SERVER_TUNING, ServerTuning
from pspd.daemon.member import declined, reconciler
from pspd.daemon.member.member import MemberDaemon
from pspd.daemon.member.reconciler import FileHooks
from pspd.daemon.member.route import Route
from pspd.daemon.server.network import NetworkDaemon
from pspd.daemon.source import SeedProgress, seed
from pspd.store.digests import blake3_digest
from pspd.store.files.disk import ExternalChanges
from pspd.store.files.memory import MemoryStore
from pspd.v1 import network_pb2
from tests.support.control import running_network
from tests.support.files import sha256
from tests.support.loops import until

CONNECT_SECONDS = 5.0


def retry_after(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Make members retry declined files after `seconds`."""
    for module in (declined, reconciler):
        monkeypatch.setattr(module, "RETRY_SECONDS_MIN", seconds)


def watch_every(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Make members check their finished files every `seconds`."""
    monkeypatch.setattr(reconciler, "WATCH_SECONDS", seconds)


class Client:
    """A member with its files in memory.

    Attributes:
        touched: the external changes of its finished files that `look` returns.
        look: returns the external changes.
    """

    def __init__(self, route: Route, name: str) -> None:
        self.name = name
        self.store = MemoryStore(blake3_digest, name.encode().ljust(16, b"."))
        self.touched = ExternalChanges({}, [])
        self.look = lambda: self.touched
        hooks = FileHooks(external_changes=lambda: self.look())
        self.daemon = MemberDaemon(route, name, self.store.instance_id, self.store, hooks=hooks)
        self.joined = asyncio.Event()
        self.running = asyncio.ensure_future(self.daemon.run(CONNECT_SECONDS, self.joined.set))

    async def ready(self) -> None:
        """Wait until it is a member; raise the error of a daemon that ended."""
        await until(f"{self.name} is a member", lambda: self.joined.is_set() or self.running.done())
        if self.running.done():
            await self.running

    async def end(self) -> None:
        """Leave the network, and wait until the daemon has ended."""
        await self.daemon.leave()
        self.running.cancel()
        await asyncio.wait([self.running])
        self.daemon.close()


class InProcess:
    """A server and its clients.

    Attributes:
        server: the server daemon.
        clients: by name.
    """

    def __init__(self, server: NetworkDaemon, address: str, stack: AsyncExitStack) -> None:
        self.server = server
        self.address = address
        self.route = Route(address)
        stack.push_async_callback(self.route.close)
        self.clients: dict[str, Client] = {}
        self._stack = stack

    async def join(self, *names: str) -> list[Client]:
        """Start clients; return them when they are members."""
        made = [Client(self.route, name) for name in names]
        for client in made:
            self.clients[client.name] = client
            self._stack.push_async_callback(client.end)
        for client in made:
            await client.ready()
        return made

    async def seed(self, path: Path, client_count: int = 0, hold_back: bool = False) -> list[SeedProgress]:
        """Seed a file; return the progress that its source reported."""
        told: list[SeedProgress] = []
        await seed(self.address, path, client_count=client_count, hold_back=hold_back, on_progress=told.append)
        return told

    def file(self, name: str) -> network_pb2.File:
        """Return a file as the server shows it."""
        return self.server.status(name, with_file_clients=True).files[0]

    def connected(self) -> list[str]:
        """Return the names of the connected clients."""
        return [
            client.name
            for client in self.server.messages.clients()
            if client.state == network_pb2.CLIENT_STATE_CONNECTED and not client.source
        ]

    async def copies(self, source: Path, *names: str) -> None:
        """Wait until clients show the file; each copy must equal the source."""
        for name in names:
            await until(f"{name} shows {source.name}", functools.partial(self._shows, name, source.name))
            shown = hashlib.sha256(self.clients[name].store.finished[source.name])
            assert shown.hexdigest() == sha256(source), name

    def _shows(self, client: str, name: str) -> bool:
        return name in self.clients[client].store.finished


@asynccontextmanager
async def in_process(parameters: Parameters, tuning: ServerTuning = SERVER_TUNING) -> AsyncIterator[InProcess]:
    """Run a server; its members end before it."""
    async with running_network(parameters, tuning) as (server, _, address), AsyncExitStack() as stack:
        yield InProcess(server, address, stack)
