"""Connections that say nothing where bytes are due. Time passes as the tests say: no alarm rings by itself."""

from __future__ import annotations

import pytest

from pspd.core.wire.frames import FRAME_BYTES, Frame, encode_frame
from pspd.core.wire.header import DropReason, Kind
from tests.net.links import SESSION, Recorder, clocked, delivery, say
from tests.support.loops import on_loop

pytestmark = pytest.mark.usefixtures("each_loop")

HEAD = encode_frame(delivery(100))
NAMING = encode_frame(Frame(Kind.LINK, SESSION))


@pytest.mark.parametrize("length", [0, 1, FRAME_BYTES - 1])
@on_loop
async def test_whoever_says_no_whole_head_is_shown_the_door(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    ends, clock = clocked(monkeypatch)
    async with ends:
        await say(ends, NAMING[:length])
        for _ in range(2 if length else 1):
            assert not ends.link.closed
            clock.pass_by()
        assert ends.link.closed
        assert ends.recorder.events == ["closed"]
        assert [error and error.reason for error in ends.recorder.errors] == [DropReason.SILENT]


@pytest.mark.parametrize("unwanted", [frozenset(), frozenset({1})], ids=["wanted", "dropped"])
@on_loop
async def test_a_frame_that_goes_on_no_more_breaks_the_connection(
    monkeypatch: pytest.MonkeyPatch, unwanted: frozenset[int]
) -> None:
    ends, clock = clocked(monkeypatch, Recorder(unwanted=unwanted))
    async with ends:
        await say(ends, HEAD + bytes(40))
        clock.pass_by()
        assert not ends.link.closed
        clock.pass_by()
        assert ends.link.closed
        assert ends.recorder.events == ["started", *([] if unwanted else ["aborted"]), "closed"]
        assert ends.recorder.errors == [None]
        assert await ends.far.receive(1) == b""
        assert not clock.is_watching


@pytest.mark.parametrize("unwanted", [frozenset(), frozenset({1})], ids=["wanted", "dropped"])
@on_loop
async def test_a_frame_that_trickles_is_waited_for(monkeypatch: pytest.MonkeyPatch, unwanted: frozenset[int]) -> None:
    ends, clock = clocked(monkeypatch, Recorder(unwanted=unwanted))
    async with ends:
        await say(ends, HEAD)
        for _ in range(99):
            await say(ends, b"x")
            clock.pass_by()
        assert not ends.link.closed
        await say(ends, b"x" + encode_frame(delivery(2, 2)) + b"ok")
        await ends.told("received", 1 if unwanted else 2)
        assert ends.recorder.payloads[-1] == b"ok"


@on_loop
async def test_a_head_that_trickles_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, clock = clocked(monkeypatch)
    async with ends:
        for index in range(FRAME_BYTES):
            await say(ends, HEAD[index : index + 1])
            clock.pass_by()
        await ends.told("started")
        assert not ends.link.closed


@on_loop
async def test_the_second_frame_is_watched_as_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, clock = clocked(monkeypatch)
    async with ends:
        await say(ends, NAMING)
        for _ in range(3):
            clock.pass_by()
        await say(ends, HEAD + bytes(99))
        assert clock.is_watching
        for _ in range(2):
            clock.pass_by()
        assert ends.link.closed
        assert ends.recorder.events[-2:] == ["aborted", "closed"]


@on_loop
async def test_between_frames_a_connection_may_be_silent_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, clock = clocked(monkeypatch)
    async with ends:
        await say(ends, NAMING + encode_frame(delivery(4)) + b"data")
        for _ in range(10):
            clock.pass_by()
        assert not clock.is_watching
        assert not ends.link.closed


@on_loop
async def test_a_connection_for_one_transfer_may_not_be_silent_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, clock = clocked(monkeypatch, kept=False)
    async with ends:
        await say(ends, encode_frame(delivery(4)) + b"data")
        clock.pass_by()
        assert not ends.link.closed
        clock.pass_by()
        assert ends.link.closed
        assert ends.recorder.errors == [None]


@on_loop
async def test_a_link_that_is_closed_is_watched_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, clock = clocked(monkeypatch)
    async with ends:
        await say(ends, HEAD)
        assert clock.is_watching
        ends.link.close()
        assert not clock.is_watching
