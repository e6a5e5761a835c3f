"""Whether data can flow between a client and its server, and what is said where it cannot."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from pspd.core.client.machine import ClientMachine
from pspd.core.effects.shared import SendDatagram
from pspd.core.model.parameters import CLASSIC, FAST, Parameters
from pspd.core.server.machine import ServerMachine
from pspd.errors import NoDataPath
from pspd.net.client import ClientPlane
from pspd.net.datagrams import DatagramSocket
from pspd.net.dial import LOG_SECONDS, DialLog, first_answering
from pspd.net.driver import now_ns
from pspd.net.faults import Faults
from pspd.net.sockets import bind_datagrams, bind_listener, bind_pairs
from pspd.store.digests import blake3_digest
from pspd.store.files.memory import MemoryStore
from pspd.text.addresses import Address
from tests.core.samples import sessions
from tests.support.loops import on_loop, until

HOST = "127.0.0.1"
SOON = 0.6
"""Seconds after which what does not pass is given up: what passes on one machine does in milliseconds."""
EACH_PROFILE = pytest.mark.parametrize("parameters", [FAST, CLASSIC], ids=["fast", "classic"])


class Server:
    """A server's data port that answers by UDP, by TCP, by both or by neither."""

    def __init__(self, stack: ExitStack, parameters: Parameters, *, udp: bool, tcp: bool) -> None:
        self._machine = ServerMachine(parameters, 64, blake3_digest, 1, sessions(1))
        self.session = self._machine.client_joined("a", bytes(16), now_ns(), delivery_port=1).session
        ((listener, datagrams),) = bind_pairs([HOST], 0)
        self.address: Address = datagrams.getsockname()
        self._replies = stack.enter_context(
            closing(DatagramSocket(datagrams, self._answer, None if udp else Faults(loss=1)))
        )
        if tcp:
            stack.enter_context(listener)
        else:
            listener.close()

    def _answer(self, data: bytes, source: Address) -> None:
        self._machine.receive_datagram(data, source, now_ns())
        for effect in self._machine.poll():
            if isinstance(effect, SendDatagram):
                self._replies.send(effect.data, effect.address)


@contextmanager
def joined(parameters: Parameters, *, udp: bool, tcp: bool) -> Iterator[tuple[ClientPlane, Server]]:
    """A client that has just joined such a server."""

    def failed(error: Exception) -> None:
        raise error

    with ExitStack() as stack:
        server = Server(stack, parameters, udp=udp, tcp=tcp)
        store = MemoryStore(blake3_digest)
        plane = ClientPlane(ClientMachine(1), store, lambda _: None, lambda _: None, failed)
        stack.enter_context(closing(plane))
        plane.join(server.session, server.address, parameters)
        yield plane, server


@EACH_PROFILE
@on_loop
async def test_path_stands_where_both_protocols_pass(parameters: Parameters) -> None:
    with joined(parameters, udp=True, tcp=True) as (plane, _):
        await plane.require_path(10)


@EACH_PROFILE
@pytest.mark.parametrize(
    ("udp", "tcp", "told"),
    [
        (False, True, r"no datagram from {} passes: is UDP port {} open\?"),
        (True, False, r"no TCP connection with {} stands \(Connection refused\): is TCP port {} open\?"),
        (False, False, r"neither a datagram nor a TCP connection .* {} \(Connection refused\): .* UDP and TCP port {}"),
    ],
    ids=["no udp", "no tcp", "neither"],
)
@on_loop
async def test_blocked_protocol_is_named(parameters: Parameters, udp: bool, tcp: bool, told: str) -> None:
    with joined(parameters, udp=udp, tcp=tcp) as (plane, server):
        host, port = server.address
        with pytest.raises(NoDataPath, match=told.format(f"{host}:{port}", port)):
            await plane.require_path(SOON)


@EACH_PROFILE
@on_loop
async def test_path_that_opens_in_time_is_waited_for(parameters: Parameters) -> None:
    with joined(parameters, udp=True, tcp=False) as (plane, server):
        path = asyncio.ensure_future(plane.require_path(15))
        await asyncio.wait([path], timeout=SOON)
        assert not path.done()
        with bind_listener(*server.address):
            await path


@on_loop
async def test_path_is_asked_for_anew_in_each_session() -> None:
    with joined(FAST, udp=True, tcp=True) as (plane, server):
        await plane.require_path(10)
        with closing(DatagramSocket(bind_datagrams(HOST, 0), lambda *_: None)) as silent:
            plane.join(server.session, (HOST, silent.port), FAST)
            with pytest.raises(NoDataPath, match="neither"):
                await plane.require_path(SOON)


@on_loop
async def test_link_that_is_closed_at_once_is_a_failed_dial(caplog: pytest.LogCaptureFixture) -> None:
    with joined(FAST, udp=True, tcp=False) as (_, server), bind_listener(*server.address) as listener:
        closed = 0

        def close_next() -> None:
            nonlocal closed
            listener.accept()[0].close()
            closed += 1

        asyncio.get_running_loop().add_reader(listener, close_next)
        await until("it is logged", lambda: "it was closed at once" in caplog.text)
        assert closed >= 1
        asyncio.get_running_loop().remove_reader(listener)


@on_loop
async def test_dial_that_fails_again_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with joined(FAST, udp=True, tcp=False) as (plane, server):
        host, port = server.address
        refused = f"no TCP connection with {host}:{port} after 2 tries: Connection refused"
        await until("it is logged", lambda: refused in caplog.text)
        assert [record.levelname for record in caplog.records if refused in record.message] == ["WARNING"]
        with bind_listener(host, port):
            await plane.require_path(15)
            stands = f"the TCP connection with {host}:{port} stands"
            await until("its end is logged", lambda: stands in caplog.text)


@on_loop
async def test_failures_are_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    log, address = DialLog(), (HOST, 7)
    log.failed(address, "refused")
    assert not caplog.records
    for _ in range(5):
        log.failed(address, "refused")
    assert len(caplog.records) == 1
    log.succeeded(address)
    log.failed(address, "refused")
    assert len(caplog.records) == 1
    log.failed(address, "no route")
    assert "no route" in caplog.records[-1].getMessage()
    assert LOG_SECONDS >= 10


@on_loop
async def test_first_address_that_takes_connections_is_chosen() -> None:
    with bind_listener("127.0.0.2", 0) as second, bind_listener("127.0.0.3", second.getsockname()[1]):
        port = second.getsockname()[1]
        refused, first, other = ((f"127.0.0.{number}", port) for number in (1, 2, 3))
        assert await first_answering([refused, first, other], 10) == first
        assert await first_answering([other, first], 10) == other
        assert await first_answering([refused], 10) is None
        assert await first_answering([], 10) is None
        assert await first_answering([("fe80::1%nowhere0", port), first], 10) == first
