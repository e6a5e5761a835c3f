"""A member's route to its server: one address of its name, for control and data."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing

import pytest

from pspd.core.model.parameters import FAST, default_cache_chunks
from pspd.daemon.member.route import Route
from pspd.daemon.server.network import NetworkDaemon
from pspd.errors import Unreachable
from pspd.net.sockets import bind_listener, resolve_listen_hosts
from pspd.rpc.server.server import serve
from tests.daemon.members import Client
from tests.support.control import control, register_all
from tests.support.loops import on_loop

HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the addresses to which the name ``hub`` resolves."""
    known: list[str] = []
    resolve = socket.getaddrinfo

    def answer(host: str, port: int, *rest: object, **options: object) -> object:
        if host != "hub":
            return resolve(host, port, *rest, **options)  # type: ignore[arg-type]
        if not known:
            raise socket.gaierror(socket.EAI_NONAME, "not there")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (literal, port)) for literal in known]

    monkeypatch.setattr(socket, "getaddrinfo", answer)

    def say(*hosts: str) -> None:
        known[:] = hosts

    return say


@asynccontextmanager
async def server_on(*hosts: str, port: int = 0) -> AsyncIterator[tuple[NetworkDaemon, int]]:
    """Run a complete server on these hosts."""
    network = NetworkDaemon(FAST, default_cache_chunks(FAST), hosts, 0, asyncio.Event())
    served, bound = await serve(hosts, port, [], lambda server: register_all(server, network))
    try:
        yield network, bound
    finally:
        await served.stop(None)
        await network.close()


async def joins(route: Route, name: str) -> Client:
    """Run a client that data can reach."""
    client = Client(route, name)
    await client.ready()
    return client


@on_loop
async def test_data_goes_to_the_address_that_answers(hub: Callable[..., None]) -> None:
    hub(*HOSTS)
    async with server_on(HOSTS[1]) as (network, port):
        route = Route(f"hub:{port}")
        client = await joins(route, "a")
        assert (await route.connect())[1] == (HOSTS[1], port)
        assert [each.name for each in network.messages.clients()] == ["a"]
        await client.end()
        await route.close()


@pytest.mark.parametrize("reached", range(len(HOSTS)))
@on_loop
async def test_server_answers_on_every_address_it_has(hub: Callable[..., None], reached: int) -> None:
    async with server_on(*HOSTS, port=free_port_of(hub)) as (_, port):
        hub(HOSTS[reached])
        route = Route(f"hub:{port}")
        client = await joins(route, "a")
        await client.end()
        await route.close()


def free_port_of(hub: Callable[..., None]) -> int:
    """Return a port that is free on every host."""
    hub(*HOSTS)
    return resolve_listen_hosts("hub", 0)[1]


@on_loop
async def test_address_of_another_program_is_skipped(hub: Callable[..., None]) -> None:
    hub(*HOSTS)
    async with server_on(HOSTS[2]) as (_, port):
        other, _ = await serve([HOSTS[0]], port, [], lambda _server: None)  # knows none of our requests
        route = Route(f"hub:{port}")
        with closing(bind_listener(HOSTS[1], port)) as closing_at_once:
            asyncio.get_running_loop().add_reader(closing_at_once, lambda: closing_at_once.accept()[0].close())
            assert (await route.connect())[1] == (HOSTS[2], port)
            asyncio.get_running_loop().remove_reader(closing_at_once)
        await route.close()
        await other.stop(None)


@on_loop
async def test_name_is_resolved_for_each_connection(hub: Callable[..., None]) -> None:
    route = Route("hub:1")
    with pytest.raises(Unreachable, match=r"unknown host 'hub' \(not there\)"):
        await route.connect()
    hub(HOSTS[0])
    with pytest.raises(Unreachable, match="no server answers at hub:1"):
        await route.connect()
    async with server_on(HOSTS[1]) as (_, port):
        route = Route(f"hub:{port}")
        hub(HOSTS[1])
        channel, address = await route.connect()
        assert address == (HOSTS[1], port)
        assert (await route.connect())[0] is channel  # it stands: members share it
    hub(HOSTS[2])
    async with server_on(HOSTS[2], port=port):
        assert (await route.connect())[1] == (HOSTS[2], port)
    await route.close()


@on_loop
async def test_members_of_one_process_share_a_connection() -> None:
    class Nobody:
        parameters = FAST

    async with control(Nobody()) as (_, address):
        route = Route(address)
        chosen = await asyncio.gather(*(route.connect() for _ in range(5)))
        assert len({id(channel) for channel, _ in chosen}) == 1
        await route.close()
