"""Whether data can flow between a client and its server, and the message if it cannot."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from pspd.core.client.machine import ClientMachine
from pspd.core.effects.shared import SendDatagram
from pspd.core.model.manifest import FileId
from pspd.core.model.parameters import CLASSIC, FAST, Parameters
from pspd.core.server.machine import ServerMachine
from pspd.errors import NoDataPath
from pspd.net.client import ClientPlane
from pspd.net.datagrams import DatagramSocket
from pspd.net.dial import LOG_INTERVAL_SECONDS, DialLog, first_answering
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
"""Seconds until a blocked protocol is reported: on one machine a working one answers within milliseconds."""
EACH_PROFILE = pytest.mark.parametrize("parameters", [FAST, CLASSIC], ids=["fast", "classic"])


class Server:
    """A server's data port that answers by UDP, by TCP, by both or by neither."""

    def __init__(self, stack: ExitStack, parameters: Parameters, *, udp: bool, tcp: bool) -> None:
        self._machine = ServerMachine(parameters, 64, blake3_digest, 1, sessions(1))
        self.session = self._machine.member_joined("a", bytes(16), now_ns(), delivery_port=1).session
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
    """Yield a client that has just joined such a server."""

    def failed(_: FileId, error: Exception) -> None:
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
async def test_path_is_ready_if_udp_and_tcp_work(parameters: Parameters) -> None:
    with joined(parameters, udp=True, tcp=True) as (plane, _):
        await plane.wait_for_data_path(10)


@EACH_PROFILE
@pytest.mark.parametrize(
    ("udp", "tcp", "problem"),
    [
        (False, True, r"no answer from {} by UDP: is UDP port {} open\?"),
        (True, False, r"cannot connect to {} by TCP \(Connection refused\): is TCP port {} open\?"),
        (False, False, r"cannot reach {} by UDP or TCP \(Connection refused\): are UDP and TCP port {} open\?"),
    ],
    ids=["no udp", "no tcp", "neither"],
)
@on_loop
async def test_blocked_protocol_is_named(parameters: Parameters, udp: bool, tcp: bool, problem: str) -> None:
    with joined(parameters, udp=udp, tcp=tcp) as (plane, server):
        host, port = server.address
        with pytest.raises(NoDataPath, match=problem.format(f"{host}:{port}", port)):
            await plane.wait_for_data_path(SOON)


@EACH_PROFILE
@on_loop
async def test_path_may_become_ready_later(parameters: Parameters) -> None:
    with joined(parameters, udp=True, tcp=False) as (plane, server):
        path = asyncio.ensure_future(plane.wait_for_data_path(15))
        await asyncio.wait([path], timeout=SOON)
        assert not path.done()
        with bind_listener(*server.address):
            await path


@on_loop
async def test_path_is_tested_in_each_session() -> None:
    with joined(FAST, udp=True, tcp=True) as (plane, server):
        await plane.wait_for_data_path(10)
        with closing(DatagramSocket(bind_datagrams(HOST, 0), lambda *_: None, None)) as unanswered:
            plane.join(server.session, (HOST, unanswered.port), FAST)
            with pytest.raises(NoDataPath, match="cannot reach"):
                await plane.wait_for_data_path(SOON)


@on_loop
async def test_link_closed_at_once_is_failed_attempt(caplog: pytest.LogCaptureFixture) -> None:
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
async def test_repeated_failure_is_logged_with_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with joined(FAST, udp=True, tcp=False) as (plane, server):
        host, port = server.address
        refused = f"no TCP connection to {host}:{port} after 2 tries: Connection refused"
        await until("it is logged", lambda: refused in caplog.text)
        assert [record.levelname for record in caplog.records if refused in record.message] == ["WARNING"]
        with bind_listener(host, port):
            await plane.wait_for_data_path(15)
            connected = f"connected to {host}:{port} by TCP again"
            await until("the success is logged", lambda: connected in caplog.text)


@on_loop
async def test_failures_are_logged_at_intervals(caplog: pytest.LogCaptureFixture) -> None:
    log, address = DialLog(), (HOST, 7)
    log.note_failure(address, "refused")
    assert not caplog.records
    for _ in range(5):
        log.note_failure(address, "refused")
    assert len(caplog.records) == 1
    log.note_success(address)
    log.note_failure(address, "refused")
    assert len(caplog.records) == 1
    log.note_failure(address, "no route")
    assert "no route" in caplog.records[-1].getMessage()
    assert LOG_INTERVAL_SECONDS >= 10


@on_loop
async def test_address_with_oldest_failure_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pspd.net.dial.LOGGED_ADDRESSES_MAX", 2)
    log = DialLog()
    for port in (1, 2, 3, 1):
        log.note_failure((HOST, port), "refused")
    assert not caplog.records
    log.note_failure((HOST, 3), "refused")
    assert [record.getMessage().split()[4] for record in caplog.records] == [f"{HOST}:3"]


@on_loop
async def test_first_answering_address_is_returned() -> None:
    with bind_listener("127.0.0.2", 0) as second, bind_listener("127.0.0.3", second.getsockname()[1]):
        port = second.getsockname()[1]
        refused, first, other = ((f"127.0.0.{number}", port) for number in (1, 2, 3))
        assert await first_answering([refused, first, other], 10) == first
        assert await first_answering([other, first], 10) == other
        assert await first_answering([refused], 10) is None
        assert await first_answering([], 10) is None
        assert await first_answering([("fe80::1%nowhere0", port), first], 10) == first
