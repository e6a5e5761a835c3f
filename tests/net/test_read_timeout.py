"""Connections on which no bytes arrive although bytes are due. The tests fire the timers themselves."""

from __future__ import annotations

import pytest

from pspd.core.wire.frames import FRAME_BYTES, Frame, encode_frame
from pspd.core.wire.header import DropReason, Kind
from tests.net.connections import SESSION, Recorder, delivery, ends_with_clock, send_and_wait
from tests.support.loops import on_loop

pytestmark = pytest.mark.usefixtures("each_loop")

HEAD = encode_frame(delivery(100))
LINK = encode_frame(Frame(Kind.LINK, SESSION))


@pytest.mark.parametrize("length", [0, 1, FRAME_BYTES - 1])
@on_loop
async def test_connection_without_complete_head_times_out(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    ends, clock = ends_with_clock(monkeypatch)
    async with ends:
        await send_and_wait(ends, LINK[:length])
        for _ in range(2 if length else 1):
            assert not ends.connection.closed
            clock.expire()
        assert ends.connection.closed
        assert ends.recorder.events == ["closed"]
        assert [error and error.reason for error in ends.recorder.errors] == [DropReason.SILENT]


@pytest.mark.parametrize("unwanted", [frozenset(), frozenset({1})], ids=["wanted", "discarded"])
@on_loop
async def test_stalled_frame_times_out(monkeypatch: pytest.MonkeyPatch, unwanted: frozenset[int]) -> None:
    ends, clock = ends_with_clock(monkeypatch, Recorder(unwanted=unwanted))
    async with ends:
        await send_and_wait(ends, HEAD + bytes(40))
        clock.expire()
        assert not ends.connection.closed
        clock.expire()
        assert ends.connection.closed
        assert ends.recorder.events == ["started", *([] if unwanted else ["aborted"]), "closed"]
        assert ends.recorder.errors == [None]
        assert await ends.far.receive(1) == b""
        assert not clock.is_watching


@pytest.mark.parametrize("unwanted", [frozenset(), frozenset({1})], ids=["wanted", "discarded"])
@on_loop
async def test_slow_frame_does_not_time_out(monkeypatch: pytest.MonkeyPatch, unwanted: frozenset[int]) -> None:
    ends, clock = ends_with_clock(monkeypatch, Recorder(unwanted=unwanted))
    async with ends:
        await send_and_wait(ends, HEAD)
        for _ in range(99):
            await send_and_wait(ends, b"x")
            clock.expire()
        assert not ends.connection.closed
        await send_and_wait(ends, b"x" + encode_frame(delivery(2, 2)) + b"ok")
        await ends.wait_for("received", 1 if unwanted else 2)
        assert ends.recorder.payloads[-1] == b"ok"


@on_loop
async def test_slow_head_does_not_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, clock = ends_with_clock(monkeypatch)
    async with ends:
        for index in range(FRAME_BYTES):
            await send_and_wait(ends, HEAD[index : index + 1])
            clock.expire()
        await ends.wait_for("started")
        assert not ends.connection.closed


@on_loop
async def test_second_frame_times_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, clock = ends_with_clock(monkeypatch)
    async with ends:
        await send_and_wait(ends, LINK)
        for _ in range(3):
            clock.expire()
        await send_and_wait(ends, HEAD + bytes(99))
        assert clock.is_watching
        for _ in range(2):
            clock.expire()
        assert ends.connection.closed
        assert ends.recorder.events[-2:] == ["aborted", "closed"]


@on_loop
async def test_connection_may_be_idle_between_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, clock = ends_with_clock(monkeypatch)
    async with ends:
        await send_and_wait(ends, LINK + encode_frame(delivery(4)) + b"data")
        for _ in range(10):
            clock.expire()
        assert not clock.is_watching
        assert not ends.connection.closed


@on_loop
async def test_connection_for_one_transfer_may_not_be_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, clock = ends_with_clock(monkeypatch, persistent=False)
    async with ends:
        await send_and_wait(ends, encode_frame(delivery(4)) + b"data")
        clock.expire()
        assert not ends.connection.closed
        clock.expire()
        assert ends.connection.closed
        assert ends.recorder.errors == [None]


@on_loop
async def test_closed_connection_has_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, clock = ends_with_clock(monkeypatch)
    async with ends:
        await send_and_wait(ends, HEAD)
        assert clock.is_watching
        ends.connection.close()
        assert not clock.is_watching
