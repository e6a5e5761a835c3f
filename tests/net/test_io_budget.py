"""Busy sockets leave the event loop time for other work, and none of them starves."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref

import pytest

from pspd.core.wire.frames import encode_frame
from pspd.net import io_budget as io_budget_module
from pspd.net.connection import FrameConnection
from pspd.net.datagrams import DatagramSocket
from pspd.net.io_budget import IoBudget
from tests.net.connections import Recorder, delivery, ends_with_clock, send_and_wait
from tests.support.loops import faults_expected, on_loop, until

pytestmark = pytest.mark.usefixtures("each_loop")


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """End a time slice as soon as one socket was read."""
    monkeypatch.setattr(io_budget_module, "TIME_SLICE_NS", 0)


@on_loop
async def test_sockets_of_loop_share_budget() -> None:
    assert IoBudget.of_running_loop() is IoBudget.of_running_loop()


def test_closed_loop_is_not_referenced() -> None:
    async def use_budget() -> weakref.ref[asyncio.AbstractEventLoop]:
        assert IoBudget.of_running_loop().admit_or_defer(lambda: None)
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(use_budget())
    gc.collect()
    assert loop() is None


@pytest.mark.usefixtures("no_time")
@on_loop
async def test_deferred_callbacks_run_first_and_in_order() -> None:
    budget = IoBudget.of_running_loop()
    ran: list[str] = []

    def busy(name: str, times: int) -> None:
        remaining = times

        def callback() -> None:
            nonlocal remaining
            while remaining and budget.admit_or_defer(callback):
                remaining -= 1
                ran.append(name)

        callback()

    for name in "abc":
        busy(name, 3)
    assert ran == ["a"]
    await until("all have run", lambda: len(ran) == 9)
    assert "".join(ran) == "a" + "abc" + "abc" + "bc"


@pytest.mark.usefixtures("no_time")
@faults_expected()
@on_loop
async def test_error_in_callback_does_not_stop_others(caplog: pytest.LogCaptureFixture) -> None:
    budget = IoBudget.of_running_loop()
    ran: list[str] = []

    def failing() -> None:
        if budget.admit_or_defer(failing):
            raise ValueError("oops")

    def working() -> None:
        if budget.admit_or_defer(working):
            ran.append("working")

    assert budget.admit_or_defer(working)
    failing()
    working()
    await until("the other callback runs", lambda: ran == ["working"])
    assert "the callback of a socket failed" in caplog.text


@pytest.mark.usefixtures("no_time")
@on_loop
async def test_loop_continues_between_slow_datagrams() -> None:
    sender, receiver = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    receiver.bind(("127.0.0.1", 0))
    receiver.setblocking(False)
    rounds, received_in = 0, []

    def count_round() -> None:
        nonlocal rounds
        rounds += 1
        asyncio.get_running_loop().call_soon(count_round)

    for number in range(20):
        sender.sendto(bytes([number]), receiver.getsockname())
    datagrams = DatagramSocket(receiver, lambda data, _: received_in.append(rounds), None)
    count_round()
    await until("all are received", lambda: len(received_in) == 20)
    assert len(set(received_in)) == 20, "each in another round of the loop"
    datagrams.close()
    sender.close()


@pytest.mark.usefixtures("no_time")
@on_loop
async def test_closed_socket_is_not_read() -> None:
    sender, receiver = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    receiver.bind(("127.0.0.1", 0))
    receiver.setblocking(False)
    received: list[bytes] = []
    for data in (b"1", b"2"):
        sender.sendto(data, receiver.getsockname())

    def receive(data: bytes, _: object) -> None:
        received.append(data)
        datagrams.close()

    datagrams = DatagramSocket(receiver, receive, None)
    await until("the first is received", lambda: bool(received))
    for _ in range(5):
        await asyncio.sleep(0)
    assert received == [b"1"]
    sender.close()


def exhaust(budget: IoBudget) -> None:
    """Use up the time slice: callbacks are deferred until the loop continues."""
    while budget.admit_or_defer(lambda: None):
        pass


@pytest.mark.parametrize("peer", ["accepts", "refuses"])
@pytest.mark.usefixtures("no_time")
@on_loop
async def test_connection_closed_while_deferred_is_ignored(peer: str, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if peer == "refuses":
            listener.close()
        recorder = Recorder()
        connection = FrameConnection.dial(
            ("127.0.0.1", 1) if peer == "refuses" else listener.getsockname(), recorder, persistent=True
        )
        exhaust(IoBudget.of_running_loop())
        connection._on_readable()
        connection._on_writable()
        connection.close()
        for _ in range(5):
            await asyncio.sleep(0)
        assert recorder.events == ["closed"]
        assert "the callback of a socket failed" not in caplog.text


@on_loop
async def test_deferred_connection_does_not_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, clock = ends_with_clock(monkeypatch)
    async with ends:
        await send_and_wait(ends, encode_frame(delivery(4)) + b"da")
        clock.expire()
        await asyncio.sleep(0)  # end the time slice in which that was read
        monkeypatch.setattr(io_budget_module, "TIME_SLICE_NS", 0)
        ends.far.stream.sendall(b"ta")
        exhaust(ends.connection._budget)
        ends.connection._on_readable()
        clock.expire()
        assert not ends.connection.closed
        await ends.wait_for("received")
        assert ends.recorder.payloads == [b"data"]
