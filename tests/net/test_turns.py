"""IoBudget: busy sockets leave the event loop time for everything else, and each of them gets its own."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref

import pytest

from pspd.core.wire.frames import encode_frame
from pspd.net import io_budget as turns_module
from pspd.net.datagrams import DatagramSocket
from pspd.net.io_budget import IoBudget
from pspd.net.link import Link
from tests.net.links import Recorder, clocked, delivery, say
from tests.support.loops import faults_expected, on_loop, until

pytestmark = pytest.mark.usefixtures("each_loop")


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn is over as soon as one socket was read."""
    monkeypatch.setattr(turns_module, "TURN_NS", 0)


@on_loop
async def test_all_sockets_of_a_loop_share_its_turns() -> None:
    assert IoBudget.of_running_loop() is IoBudget.of_running_loop()


def test_a_loop_that_is_over_is_not_kept() -> None:
    async def use_turns() -> weakref.ref[asyncio.AbstractEventLoop]:
        assert IoBudget.of_running_loop().try_run(lambda: None)
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(use_turns())
    gc.collect()
    assert loop() is None


@pytest.mark.usefixtures("no_time")
@on_loop
async def test_who_is_put_off_comes_first_in_the_next_turn_and_in_order() -> None:
    turns = IoBudget.of_running_loop()
    served: list[str] = []

    def busy(name: str, times: int) -> None:
        left = times

        def wakeup() -> None:
            nonlocal left
            while left and turns.try_run(wakeup):
                left -= 1
                served.append(name)

        wakeup()

    for name in "abc":
        busy(name, 3)
    assert served == ["a"]
    await until("all are served", lambda: len(served) == 9)
    assert "".join(served) == "a" + "abc" + "abc" + "bc"


@pytest.mark.usefixtures("no_time")
@faults_expected()
@on_loop
async def test_a_fault_at_one_does_not_cost_the_others_their_turn(caplog: pytest.LogCaptureFixture) -> None:
    turns = IoBudget.of_running_loop()
    served: list[str] = []

    def faulty() -> None:
        if turns.try_run(faulty):
            raise ValueError("oops")

    def sound() -> None:
        if turns.try_run(sound):
            served.append("sound")

    assert turns.try_run(sound)
    faulty()
    sound()
    await until("the sound one has its turn", lambda: served == ["sound"])
    assert "could not be seen to" in caplog.text


@pytest.mark.usefixtures("no_time")
@on_loop
async def test_the_loop_goes_round_between_datagrams_that_take_long() -> None:
    sender, receiver = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    receiver.bind(("127.0.0.1", 0))
    receiver.setblocking(False)
    rounds, heard_in = 0, []

    def go_round() -> None:
        nonlocal rounds
        rounds += 1
        asyncio.get_running_loop().call_soon(go_round)

    for number in range(20):
        sender.sendto(bytes([number]), receiver.getsockname())
    datagrams = DatagramSocket(receiver, lambda data, _: heard_in.append(rounds))
    go_round()
    await until("all are heard", lambda: len(heard_in) == 20)
    assert len(set(heard_in)) == 20, "each in a round of its own"
    datagrams.close()
    sender.close()


@pytest.mark.usefixtures("no_time")
@on_loop
async def test_who_is_closed_meanwhile_is_not_read() -> None:
    sender, receiver = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    receiver.bind(("127.0.0.1", 0))
    receiver.setblocking(False)
    heard: list[bytes] = []
    for data in (b"1", b"2"):
        sender.sendto(data, receiver.getsockname())

    def hear(data: bytes, _: object) -> None:
        heard.append(data)
        datagrams.close()

    datagrams = DatagramSocket(receiver, hear)
    await until("the first is heard", lambda: bool(heard))
    for _ in range(5):
        await asyncio.sleep(0)
    assert heard == [b"1"]
    sender.close()


def end_turn(turns: IoBudget) -> None:
    """Whoever asks from now on, until the loop goes on, is put off."""
    while turns.try_run(lambda: None):
        pass


@pytest.mark.parametrize("far_end", ["takes it", "refuses it"])
@pytest.mark.usefixtures("no_time")
@on_loop
async def test_a_link_that_is_closed_while_it_is_put_off_is_left_alone(
    far_end: str, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if far_end == "refuses it":
            listener.close()
        recorder = Recorder()
        link = Link.dial(("127.0.0.1", 1) if far_end == "refuses it" else listener.getsockname(), recorder, kept=True)
        end_turn(IoBudget.of_running_loop())
        link._on_readable()
        link._on_writable()
        link.close()
        for _ in range(5):
            await asyncio.sleep(0)
        assert recorder.events == ["closed"]
        assert "could not be seen to" not in caplog.text


@on_loop
async def test_a_link_is_not_silent_as_long_as_it_is_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, clock = clocked(monkeypatch)
    async with ends:
        await say(ends, encode_frame(delivery(4)) + b"da")
        clock.pass_by()
        await asyncio.sleep(0)  # the turn in which that was read is over
        monkeypatch.setattr(turns_module, "TURN_NS", 0)
        ends.far.stream.sendall(b"ta")
        end_turn(ends.link._turns)
        ends.link._on_readable()
        clock.pass_by()
        assert not ends.link.closed
        await ends.told("received")
        assert ends.recorder.payloads == [b"data"]
