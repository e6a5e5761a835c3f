"""Frames that a connection receives into the memory of the handler, however TCP segments the stream."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from random import Random

import pytest

from pspd.core.wire.frames import FRAME_BYTES, Frame, encode_frame
from pspd.core.wire.header import DropReason, Kind
from pspd.net import connection as connection_module
from pspd.net.connection import READS_PER_WAKEUP, FrameConnection
from tests.net.connections import SESSION, Ends, Recorder, close_when, delivery
from tests.support.loops import faults_expected, on_loop, until

pytestmark = pytest.mark.usefixtures("each_loop")

LINK = Frame(Kind.LINK, SESSION)


def bytes_of(length: int, seed: int = 0) -> bytes:
    return Random(seed).randbytes(length)


@on_loop
async def test_payload_is_received_into_given_memory() -> None:
    async with Ends() as ends:
        payload = bytes_of(3000)
        await ends.far.send(encode_frame(delivery(3000)) + payload)
        await ends.wait_for("received")
        assert bytes(ends.recorder.memory[0]) == payload
        assert ends.recorder.events == ["started", "received"]
        assert ends.recorder.of("received") == [delivery(3000)]


@pytest.mark.parametrize("cuts", [(1,), (1024, 1024), (1, 2, 3, 1000), (2999,), (10,) * 299, (1,) * 1500], ids=len)
@on_loop
async def test_payload_fills_several_buffers_in_order(cuts: tuple[int, ...]) -> None:
    async with Ends(Recorder(cuts=cuts)) as ends:
        payload = bytes_of(3000)
        await ends.far.send((encode_frame(delivery(3000)) + payload) * 2)
        await ends.wait_for("received", 2)
        assert ends.recorder.payloads == [payload, payload]
        assert [len(part) for part in ends.recorder.memory[:-1]] == list(cuts)


@pytest.mark.parametrize("part_bytes", [1, 7, 499, 500, 999, 1000, 1001])
@on_loop
async def test_payload_may_be_received_in_parts(part_bytes: int) -> None:
    async with Ends(Recorder(part_bytes=part_bytes)) as ends:
        payload = bytes_of(1000)
        await ends.far.send((encode_frame(delivery(1000)) + payload) * 2)
        await ends.wait_for("received", 2)
        assert ends.recorder.payloads == [payload, payload]
        assert len(ends.recorder.of("continued")) == 2 * ((1000 - 1) // part_bytes)


@on_loop
async def test_connection_may_be_closed_between_parts() -> None:
    async with Ends(Recorder(part_bytes=10, react=close_when("continued"))) as ends:
        await ends.far.send(encode_frame(delivery(25)) + bytes_of(25))
        await ends.wait_for("closed")
        assert ends.recorder.events == ["started", "continued", "aborted", "closed"]


@pytest.mark.parametrize("count", range(1, 2 * READS_PER_WAKEUP))
@on_loop
async def test_connection_may_be_closed_by_any_frame_sent_before_start(count: int) -> None:
    frames = b"".join(encode_frame(delivery(4, number)) + b"data" for number in range(1, count + 1))

    def close_at_last(what: str, connection: FrameConnection) -> None:
        if what == "received" and len(recorder.payloads) == count:
            connection.close()

    recorder = Recorder(react=close_at_last)
    async with Ends(recorder, sent=frames) as ends:
        await ends.wait_for("closed")
        assert recorder.payloads == count * [b"data"]


@on_loop
async def test_next_head_may_come_with_end_of_payload() -> None:
    frames = [delivery(1024 * count, count) for count in (1, 2, 3)]
    payloads = [bytes_of(frame.length, frame.number) for frame in frames]
    async with Ends() as ends:
        await ends.far.send(b"".join(encode_frame(f) + p for f, p in zip(frames, payloads, strict=True)))
        await ends.wait_for("received", 3)
        assert ends.recorder.of("received") == frames
        assert ends.recorder.payloads == payloads


@pytest.mark.parametrize("unwanted", [frozenset(), frozenset({2})], ids=["wanted", "second-discarded"])
@on_loop
async def test_stream_may_be_segmented_anywhere(unwanted: frozenset[int]) -> None:
    """At every byte of a head, of a payload, of the next head, and of a discarded payload."""
    frames = [delivery(70, 1), delivery(50, 2), delivery(20, 3)]
    payloads = [bytes_of(frame.length, frame.number) for frame in frames]
    stream = b"".join(encode_frame(f) + p for f, p in zip(frames, payloads, strict=True))
    wanted = [p for f, p in zip(frames, payloads, strict=True) if f.number not in unwanted]
    async with Ends(Recorder(cuts=(7,), unwanted=unwanted)) as ends:
        for cut in range(1, len(stream)):
            ends.recorder.payloads.clear()
            await ends.far.send(stream[:cut])
            await ends.wait_read()
            await ends.far.send(stream[cut:])
            await ends.wait_for("started", 3 * cut)
            await ends.wait_for("received", len(wanted) * cut)
            assert ends.recorder.payloads == wanted, cut


@on_loop
async def test_stream_may_come_byte_by_byte() -> None:
    async with Ends(Recorder(cuts=(1, 1))) as ends:
        stream = encode_frame(LINK) + encode_frame(delivery(5)) + b"hello" + encode_frame(delivery(3)) + b"you"
        for index in range(len(stream)):
            await ends.far.send(stream[index : index + 1])
            await ends.wait_read()
        await ends.wait_for("received", 2)
        assert ends.recorder.payloads == [b"hello", b"you"]


@on_loop
async def test_frame_without_payload_is_reported() -> None:
    async with Ends() as ends:
        await ends.far.send(encode_frame(LINK) * 2 + encode_frame(delivery(4)) + b"data")
        await ends.wait_for("received")
        assert ends.recorder.of("started") == [LINK, LINK, delivery(4)]


@pytest.mark.parametrize("length", [1, 1024, 3 * 1024 * 1024 + 1])
@on_loop
async def test_unwanted_payload_is_discarded(length: int) -> None:
    async with Ends(Recorder(unwanted=frozenset({1}))) as ends:
        await ends.far.send(encode_frame(delivery(length, 1)) + bytes_of(length))
        await ends.far.send(encode_frame(delivery(4, 2)) + b"kept")
        await ends.wait_for("received")
        assert ends.recorder.payloads == [b"kept"]
        assert ends.recorder.events == ["started", "started", "received"]


GOOD = encode_frame(delivery(100))
BAD_HEADS = {
    DropReason.BAD_MAGIC: b"HT" + GOOD[2:],
    DropReason.BAD_VERSION: GOOD[:2] + b"\x09" + GOOD[3:],
    DropReason.UNKNOWN_KIND: GOOD[:3] + b"\x63" + GOOD[4:],
    DropReason.TOO_LONG: encode_frame(Frame(Kind.DELIVERY, SESSION, bytes(32), 0, 1, 2**31)),
    DropReason.BAD_RANGE: encode_frame(Frame(Kind.CONTRIBUTION, SESSION, bytes(32), 3, 3, 10)),
}


@pytest.mark.parametrize("reason", BAD_HEADS)
@on_loop
async def test_malformed_head_closes_connection_with_reason(reason: DropReason) -> None:
    async with Ends() as ends:
        await ends.far.send(encode_frame(delivery(4)) + b"good" + BAD_HEADS[reason])
        await ends.wait_for("closed")
        assert ends.recorder.events == ["started", "received", "closed"]
        assert [error and error.reason for error in ends.recorder.errors] == [reason]
        assert await ends.far.receive(1) == b""


@pytest.mark.parametrize("count", [0, 1, FRAME_BYTES, FRAME_BYTES + 1, FRAME_BYTES + 99])
@on_loop
async def test_end_of_stream_aborts_frame_and_closes_connection(count: int) -> None:
    """The handler learns of the aborted frame first, then of the end of the connection."""
    async with Ends() as ends:
        await ends.far.send((encode_frame(delivery(100)) + bytes(100))[:count])
        ends.far.stream.close()
        await ends.wait_for("closed")
        begun = ["started", "aborted"] if count >= FRAME_BYTES else []
        assert ends.recorder.events == [*begun, "closed"]
        cut_short = DropReason.TOO_SHORT if 0 < count < FRAME_BYTES else None
        assert [error and error.reason for error in ends.recorder.errors] == [cut_short]
        assert ends.recorder.of("aborted") == [delivery(100)] * (count >= FRAME_BYTES)


@on_loop
async def test_last_frame_is_received_before_end() -> None:
    async with Ends() as ends:
        await ends.far.send(encode_frame(delivery(4)) + b"last")
        ends.far.stream.close()
        await ends.wait_for("closed")
        assert ends.recorder.events == ["started", "received", "closed"]


@on_loop
async def test_reset_connection_closes_connection() -> None:
    async with Ends() as ends:
        await ends.far.send(encode_frame(delivery(100)) + bytes(10))
        await ends.wait_for("started")
        ends.far.reset()
        await ends.wait_for("closed")
        assert ends.recorder.events == ["started", "aborted", "closed"]
        assert ends.recorder.errors == [None]
        assert ends.connection.closed


@on_loop
async def test_close_aborts_frame_once() -> None:
    async with Ends() as ends:
        await ends.far.send(encode_frame(delivery(100)) + bytes(10))
        await ends.wait_for("started")
        ends.connection.close()
        ends.connection.close()
        assert ends.recorder.events == ["started", "aborted", "closed"]


@pytest.mark.parametrize("when", ["received", "aborted", "closed"])
@on_loop
async def test_connection_may_be_closed_by_its_handler(when: str) -> None:
    """There are no events after its end, although more frames had arrived."""
    recorder = Recorder(react=close_when(when))
    async with Ends(recorder) as ends:
        await ends.far.send((encode_frame(delivery(4)) + b"data") * 2 + encode_frame(delivery(4)))
        ends.far.stream.close()
        await ends.wait_for("closed")
        if when == "received":
            assert recorder.events == ["started", "received", "closed"]
        assert recorder.events[-1] == "closed"
        assert recorder.events.count("closed") == 1


@on_loop
async def test_connection_may_be_closed_at_start_of_unwanted_frame() -> None:
    recorder = Recorder(unwanted=frozenset({1}), react=close_when("started"))
    async with Ends(recorder) as ends:
        await ends.far.send((encode_frame(delivery(4)) + b"data") * 2)
        await ends.wait_for("closed")
        assert recorder.events == ["started", "closed"]


@on_loop
async def test_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "READ_TIMEOUT_SECONDS", 0.01)
    async with Ends() as ends:
        await ends.wait_for("closed")
        assert [error and error.reason for error in ends.recorder.errors] == [DropReason.SILENT]
        assert await ends.far.receive(1) == b""


@on_loop
async def test_incomplete_head_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "READ_TIMEOUT_SECONDS", 0.01)
    async with Ends() as ends:
        await ends.far.send(encode_frame(LINK)[:-1])
        await ends.wait_for("closed")
        assert ends.recorder.events == ["closed"]


def fail_when(word: str) -> Callable[[str, FrameConnection], None]:
    """Return a reaction that raises an error at an event."""

    def react(what: str, connection: FrameConnection) -> None:
        if what == word:
            raise RuntimeError(word)

    return react


@pytest.mark.parametrize("when", ["started", "received"])
@faults_expected()
@on_loop
async def test_error_in_handler_closes_connection(when: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Ends(Recorder(react=fail_when(when))) as ends:
        await ends.far.send(encode_frame(delivery(3000)) + bytes_of(3000))
        await ends.wait_for("closed")
        assert ends.connection.closed
        assert f"RuntimeError: {when}" in caplog.text


@faults_expected()
@on_loop
async def test_error_in_one_callback_does_not_skip_others(caplog: pytest.LogCaptureFixture) -> None:
    async with Ends(Recorder(react=fail_when("aborted"))) as ends:
        await ends.far.send(encode_frame(delivery(3000)) + bytes_of(1000))
        await ends.wait_for("started")
        ends.connection.close()
        assert ends.recorder.events[-2:] == ["aborted", "closed"]
        assert "RuntimeError: aborted" in caplog.text


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Without the garbage collector, reference counts alone free memory."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def connection_count() -> int:
    return sum(isinstance(each, FrameConnection) for each in gc.get_objects())


@pytest.mark.usefixtures("no_collector")
@on_loop
async def test_closed_connection_is_freed_without_the_collector() -> None:
    async with Ends() as ends:
        await ends.far.send(encode_frame(delivery(3000)) + bytes_of(1000))
        await ends.wait_for("started")
        assert connection_count() == 1
    del ends
    await until("the connection is freed", lambda: connection_count() == 0)
