"""Frames that a connection sends in order, without a copy of the payload; the end of each frame is reported."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from pspd.core.model.storage import FileSlice
from pspd.core.wire.frames import FRAME_BYTES, Frame, decode_frame, encode_frame
from pspd.core.wire.header import Kind
from pspd.net.connection import OUTGOING_FRAMES_MAX, FrameConnection
from pspd.net.receiving import VIEWS_PER_CALL
from tests.net.connections import Ends, Far, Recorder, close_when, delivery
from tests.support.loops import on_loop, until

pytestmark = pytest.mark.usefixtures("each_loop")

BLOCK_BYTES = 512 * 1024
"""More than the kernel accepts at once with small buffers."""
SAMPLE_BYTES = 3 * BLOCK_BYTES
SAMPLE = Random(1).randbytes(SAMPLE_BYTES)


class Outcomes:
    """Records the end of frames.

    Attributes:
        ended: number and outcome, in order.
    """

    def __init__(self, react: Callable[[int, bool], object] = lambda _number, _sent: None) -> None:
        self.ended: list[tuple[int, bool]] = []
        self._react = react

    def of(self, number: int) -> Callable[[bool], None]:
        """Return the callback for one frame."""

        def note(sent: bool) -> None:
            self.ended.append((number, sent))
            self._react(number, sent)

        return note


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "sample"
    path.write_bytes(SAMPLE)
    return path


@on_loop
async def test_frame_is_sent_as_head_and_payload() -> None:
    outcomes = Outcomes()
    async with Ends() as ends:
        ends.connection.send(delivery(8), [memoryview(b"abc"), memoryview(b"defgh")], outcomes.of(1))
        ends.connection.send(Frame(Kind.LINK, 9), [], outcomes.of(2))
        expected = encode_frame(delivery(8)) + b"abcdefgh" + encode_frame(Frame(Kind.LINK, 9))
        assert await ends.far.receive(len(expected)) == expected
        assert outcomes.ended == [(1, True), (2, True)]


@on_loop
async def test_views_are_sent_without_copy() -> None:
    """A queued frame refers to the owner's memory: the peer receives a change that is made before it is sent."""
    outcomes = Outcomes()
    async with Ends(small_buffers=True) as ends:
        memory = bytearray(BLOCK_BYTES)
        ends.connection.send(delivery(len(memory)), [memoryview(memory)], outcomes.of(1))
        assert outcomes.ended == []
        memory[-1024:] = b"\xff" * 1024
        received = await ends.far.receive(FRAME_BYTES + len(memory))
        assert received[FRAME_BYTES:] == bytes(memory)
        await until("the frame has ended", lambda: outcomes.ended == [(1, True)])


@on_loop
async def test_memory_is_released_at_end_of_frame() -> None:
    """A bytearray with exported views cannot change its size."""
    memory = bytearray(BLOCK_BYTES)
    sizes: list[int] = []

    def shrink(_number: int, _sent: bool) -> None:
        view.release()
        sizes.append(len(memory))

    outcomes = Outcomes(shrink)
    async with Ends(small_buffers=True) as ends:
        view = memoryview(memory)
        ends.connection.send(delivery(len(memory)), [view], outcomes.of(1))
        await ends.far.receive(FRAME_BYTES + len(memory))
        await until("the frame has ended", lambda: sizes)
        await until("no view is left", lambda: can_shrink(memory))


def can_shrink(memory: bytearray) -> bool:
    try:
        memory.pop()
    except BufferError:
        return False
    return True


@pytest.mark.parametrize("view_count", [1, VIEWS_PER_CALL - 1, VIEWS_PER_CALL, 5 * VIEWS_PER_CALL + 3])
@on_loop
async def test_payload_may_consist_of_many_views(view_count: int) -> None:
    async with Ends(small_buffers=True) as ends:
        payload = Random(view_count).randbytes(view_count * 1024)
        views = [memoryview(payload)[start : start + 1024] for start in range(0, len(payload), 1024)]
        ends.connection.send(delivery(len(payload)), views)
        received = await ends.far.receive(FRAME_BYTES + len(payload))
        assert received == encode_frame(delivery(len(payload))) + payload
        assert len(views) == view_count


@pytest.mark.parametrize(("offset", "length"), [(0, SAMPLE_BYTES), (0, 1), (1025, 5000), (SAMPLE_BYTES - 1, 1)])
@on_loop
async def test_slice_of_file_is_sent(sample: Path, offset: int, length: int) -> None:
    outcomes, before = Outcomes(), open_files()
    async with Ends() as ends:
        with sample.open("rb") as file:
            ends.connection.send(delivery(length), FileSlice(file.fileno(), offset, length), outcomes.of(1))
            ends.connection.send(delivery(2, 2), [memoryview(b"hi")], outcomes.of(2))
        received = await ends.far.receive(2 * FRAME_BYTES + length + 2)
        assert received[FRAME_BYTES : -FRAME_BYTES - 2] == SAMPLE[offset : offset + length]
        assert received.endswith(encode_frame(delivery(2, 2)) + b"hi")
        await until("both frames have ended", lambda: outcomes.ended == [(1, True), (2, True)])
    assert open_files() == before


@on_loop
async def test_file_may_be_closed_before_it_is_sent(sample: Path) -> None:
    async with Ends(small_buffers=True) as ends:
        fd = os.open(sample, os.O_RDONLY)
        ends.connection.send(delivery(len(SAMPLE)), FileSlice(fd, 0, len(SAMPLE)))
        os.close(fd)
        os.unlink(sample)
        reused = os.open("/dev/null", os.O_RDONLY)
        try:
            received = await ends.far.receive(FRAME_BYTES + len(SAMPLE))
        finally:
            os.close(reused)
        assert received[FRAME_BYTES:] == SAMPLE


@on_loop
async def test_truncated_file_closes_connection(sample: Path) -> None:
    outcomes, before = Outcomes(), open_files()
    async with Ends() as ends:
        with sample.open("rb") as file:
            ends.connection.send(
                delivery(4 * BLOCK_BYTES), FileSlice(file.fileno(), 0, 4 * BLOCK_BYTES), outcomes.of(1)
            )
        received = await ends.far.receive(FRAME_BYTES + 4 * BLOCK_BYTES)
        assert len(received) == FRAME_BYTES + SAMPLE_BYTES
        assert outcomes.ended == [(1, False)]
        assert ends.connection.closed
    assert open_files() == before


@pytest.mark.parametrize("fault", ["truncated", "disk error"])
@on_loop
async def test_unreadable_payload_is_reported(fault: str, sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[bool] = []

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    if fault == "truncated":
        os.truncate(sample, 1000)
    else:
        monkeypatch.setattr(os, "sendfile", fail)
    async with Ends() as ends:
        with sample.open("rb") as file:
            payload = FileSlice(file.fileno(), 0, SAMPLE_BYTES)
            ends.connection.send(
                delivery(SAMPLE_BYTES), payload, on_unreadable=lambda: reports.append(ends.connection.closed)
            )
        await until("the connection is closed", lambda: ends.connection.closed)
    assert reports == [True]


@on_loop
async def test_broken_connection_does_not_blame_file(sample: Path) -> None:
    outcomes, reports = Outcomes(), list[bool]()
    async with Ends(small_buffers=True) as ends:
        with sample.open("rb") as file:
            payload = FileSlice(file.fileno(), 0, SAMPLE_BYTES)
            ends.connection.send(delivery(SAMPLE_BYTES), payload, outcomes.of(1), lambda: reports.append(True))
        ends.far.stream.close()
        await until("the frame has ended", lambda: outcomes.ended == [(1, False)])
    assert reports == []


@on_loop
async def test_many_frames_wait_for_slow_reader(sample: Path) -> None:
    outcomes, count = Outcomes(), 200
    payloads = [Random(number).randbytes(1 + 37 * number) for number in range(count)]
    async with Ends(small_buffers=True) as ends:
        with sample.open("rb") as file:
            for number, payload in enumerate(payloads):
                ends.connection.send(delivery(len(payload), number), [memoryview(payload)], outcomes.of(number))
                ends.connection.send(delivery(100, count), FileSlice(file.fileno(), number, 100), outcomes.of(count))
        assert len(outcomes.ended) < count
        for number, payload in enumerate(payloads):
            assert decode_frame(await ends.far.receive(FRAME_BYTES)) == delivery(len(payload), number)
            assert await ends.far.receive(len(payload)) == payload
            assert len(await ends.far.receive(FRAME_BYTES + 100)) == FRAME_BYTES + 100
        await until("all frames have ended", lambda: len(outcomes.ended) == 2 * count)
        assert [each for each in outcomes.ended if each[0] < count] == [(number, True) for number in range(count)]
        assert all(sent for _, sent in outcomes.ended)


@on_loop
async def test_queue_of_connection_is_bounded() -> None:
    outcomes, block = Outcomes(), memoryview(bytes(BLOCK_BYTES))
    async with Ends(small_buffers=True) as ends:
        ends.connection.send(delivery(len(block), 0), [block], outcomes.of(0))
        for number in range(1, OUTGOING_FRAMES_MAX + 3):
            ends.connection.send(delivery(1, number), [block[:1]], outcomes.of(number))
        assert outcomes.ended == [(OUTGOING_FRAMES_MAX + extra, False) for extra in range(3)]


@on_loop
async def test_close_ends_queued_frames_as_unsent(sample: Path) -> None:
    outcomes, before, block = Outcomes(), open_files(), memoryview(bytes(BLOCK_BYTES))
    async with Ends(small_buffers=True) as ends:
        ends.connection.send(delivery(len(block), 1), [block], outcomes.of(1))
        with sample.open("rb") as file:
            ends.connection.send(delivery(9, 2), FileSlice(file.fileno(), 0, 9), outcomes.of(2))
        ends.connection.send(delivery(9, 3), [block[:9]], outcomes.of(3))
        ends.connection.send(delivery(9, 4), [block[:9]])
        ends.connection.close()
        assert outcomes.ended == [(1, False), (2, False), (3, False)]
        ends.connection.send(delivery(9, 5), [block[:9]], outcomes.of(5))
        ends.connection.send(delivery(9, 6), [block[:9]])
        assert outcomes.ended[3:] == [(5, False)]
        assert ends.recorder.events == ["closed"]
    assert open_files() == before


@on_loop
async def test_reset_ends_queued_frames_as_unsent() -> None:
    outcomes, block = Outcomes(), memoryview(bytes(BLOCK_BYTES))
    async with Ends(small_buffers=True) as ends:
        for number in range(3):
            ends.connection.send(delivery(len(block), number), [block], outcomes.of(number))
        ends.far.reset()
        await ends.wait_for("closed")
        assert outcomes.ended == [(number, False) for number in range(3)]
        assert ends.connection.closed


@on_loop
async def test_callback_may_send_next_frame() -> None:
    def react(number: int, _sent: bool) -> None:
        if number < 20:
            send(number + 1)

    outcomes = Outcomes(react)

    def send(number: int) -> None:
        ends.connection.send(delivery(2, number), [memoryview(b"ok")], outcomes.of(number))

    async with Ends() as ends:
        send(1)
        received = await ends.far.receive(20 * (FRAME_BYTES + 2))
        assert received == b"".join(encode_frame(delivery(2, number)) + b"ok" for number in range(1, 21))
        assert outcomes.ended == [(number, True) for number in range(1, 21)]


@on_loop
async def test_error_in_callback_does_not_stop_next_frame() -> None:
    def fail(_: bool) -> None:
        raise RuntimeError("on purpose")

    outcomes = Outcomes()
    async with Ends() as ends:
        with pytest.raises(RuntimeError, match="on purpose"):
            ends.connection.send(delivery(2, 1), [memoryview(b"hi")], fail)
        ends.connection.send(delivery(2, 2), [memoryview(b"ok")], outcomes.of(2))
        assert outcomes.ended == [(2, True)]
        assert (await ends.far.receive(2 * (FRAME_BYTES + 2))).endswith(encode_frame(delivery(2, 2)) + b"ok")


@pytest.mark.parametrize("when", [True, False], ids=["sent", "failed"])
@on_loop
async def test_callback_may_close_connection_and_send(when: bool) -> None:
    def react(number: int, sent: bool) -> None:
        if sent is when:
            ends.connection.close()
            if number < 100:
                ends.connection.send(delivery(1, number + 100), [memoryview(b"x")], outcomes.of(number + 100))

    outcomes, block = Outcomes(react), memoryview(bytes(BLOCK_BYTES))
    async with Ends(small_buffers=True) as ends:
        ends.connection.send(delivery(len(block), 1), [block], outcomes.of(1))
        ends.connection.send(delivery(1, 2), [block[:1]], outcomes.of(2))
        if when:
            await ends.far.receive(FRAME_BYTES + len(block))
        else:
            ends.far.reset()
        await ends.wait_for("closed")
        assert sorted(outcomes.ended) == [(1, when), (2, False), (101, False), *([] if when else [(102, False)])]


@pytest.mark.parametrize("length", [0, BLOCK_BYTES], ids=["empty-queue", "full-queue"])
@on_loop
async def test_close_when_sent_sends_everything_first(length: int) -> None:
    outcomes = Outcomes()
    async with Ends(small_buffers=True) as ends:
        if length:
            ends.connection.send(delivery(length), [memoryview(bytes(length))], outcomes.of(1))
        ends.connection.close_when_sent()
        received = await ends.far.receive(FRAME_BYTES + length + 1)
        assert len(received) == (FRAME_BYTES + length if length else 0)
        await ends.wait_for("closed")
        assert outcomes.ended == ([(1, True)] if length else [])


class Listening:
    """A listening port, or the number of a closed one."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.address: tuple[str, int] = self._listener.getsockname()

    async def accept(self) -> Far:
        return Far((await asyncio.get_running_loop().sock_accept(self._listener))[0])

    def close(self) -> None:
        self._listener.close()


@on_loop
async def test_frames_wait_until_connection_is_connected() -> None:
    recorder, outcomes, listening = Recorder(), Outcomes(), Listening()
    connection = FrameConnection.dial(listening.address, recorder, persistent=False)
    connection.send(delivery(2), [memoryview(b"hi")], outcomes.of(1))
    connection.close_when_sent()
    assert recorder.events == []
    connection.start()
    far = await listening.accept()
    assert await far.receive(FRAME_BYTES + 3) == encode_frame(delivery(2)) + b"hi"
    assert outcomes.ended == [(1, True)]
    assert recorder.events == ["opened", "closed"]
    assert connection.peer == listening.address
    far.stream.close()
    listening.close()


@on_loop
async def test_persistent_dialled_connection_receives() -> None:
    recorder, listening = Recorder(), Listening()
    connection = FrameConnection.dial(listening.address, recorder, persistent=True)
    connection.send(delivery(2), [memoryview(b"hi")])
    connection.start()
    far = await listening.accept()
    assert await far.receive(FRAME_BYTES + 2) == encode_frame(delivery(2)) + b"hi"
    await far.send(encode_frame(delivery(2)) + b"ok")
    far.stream.close()
    await until("the connection is closed", lambda: connection.closed)
    assert recorder.events == ["opened", "started", "received", "closed"]
    listening.close()


@on_loop
async def test_refused_connection_closes_connection() -> None:
    recorder, outcomes, listening = Recorder(), Outcomes(), Listening()
    listening.close()
    connection = FrameConnection.dial(listening.address, recorder, persistent=False)
    connection.send(delivery(2), [memoryview(b"hi")], outcomes.of(1))
    connection.start()
    await until("the connection is closed", lambda: connection.closed)
    assert (recorder.events, recorder.errors) == (["closed"], [None])
    assert outcomes.ended == [(1, False)]
    assert connection.closed


@on_loop
async def test_connection_may_be_closed_when_connected() -> None:
    recorder = Recorder(react=close_when("opened"))
    outcomes, listening = Outcomes(), Listening()
    connection = FrameConnection.dial(listening.address, recorder, persistent=False)
    connection.send(delivery(2), [memoryview(b"hi")], outcomes.of(1))
    connection.start()
    await until("the connection is closed", lambda: connection.closed)
    assert recorder.events == ["opened", "closed"]
    assert outcomes.ended == [(1, False)]
    listening.close()


@on_loop
async def test_invalid_address_fails_at_once() -> None:
    with pytest.raises(OSError, match=r"not known|not supported"):
        FrameConnection.dial(("2001:db8:::1", 1), Recorder(), persistent=False)
