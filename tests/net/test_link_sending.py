"""Frames that go out over a link: from where they lie, in order, and whoever waits for their end hears of it."""

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
from pspd.net.link import OUTGOING_FRAMES_MAX, VIEWS_PER_CALL, Link
from tests.net.links import Ends, Far, Recorder, close_when, delivery
from tests.support.loops import on_loop, until

pytestmark = pytest.mark.usefixtures("each_loop")

BLOCK_BYTES = 512 * 1024
"""More than the kernel takes at once where the buffers are small."""
SAMPLE_BYTES = 3 * BLOCK_BYTES
SAMPLE = Random(1).randbytes(SAMPLE_BYTES)


class Outcomes:
    """Hears of the end of frames.

    Attributes:
        heard: number and outcome, in the order in which they came.
    """

    def __init__(self, react: Callable[[int, bool], object] = lambda _number, _sent: None) -> None:
        self.heard: list[tuple[int, bool]] = []
        self._react = react

    def of(self, number: int) -> Callable[[bool], None]:
        """What a link is given to call for one frame."""

        def note(sent: bool) -> None:
            self.heard.append((number, sent))
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
async def test_a_frame_leaves_as_head_and_payload() -> None:
    outcomes = Outcomes()
    async with Ends() as ends:
        ends.link.send(delivery(8), [memoryview(b"abc"), memoryview(b"defgh")], outcomes.of(1))
        ends.link.send(Frame(Kind.LINK, 9), [], outcomes.of(2))
        expected = encode_frame(delivery(8)) + b"abcdefgh" + encode_frame(Frame(Kind.LINK, 9))
        assert await ends.far.receive(len(expected)) == expected
        assert outcomes.heard == [(1, True), (2, True)]


@on_loop
async def test_views_are_sent_from_where_they_lie() -> None:
    """What waits for the kernel is the owner's memory, not a copy: a change before it left is seen at the far end."""
    outcomes = Outcomes()
    async with Ends(small_buffers=True) as ends:
        memory = bytearray(BLOCK_BYTES)
        ends.link.send(delivery(len(memory)), [memoryview(memory)], outcomes.of(1))
        assert outcomes.heard == []
        memory[-1024:] = b"\xff" * 1024
        received = await ends.far.receive(FRAME_BYTES + len(memory))
        assert received[FRAME_BYTES:] == bytes(memory)
        await until("the end is heard of", lambda: outcomes.heard == [(1, True)])


@on_loop
async def test_memory_is_let_go_of_when_its_end_is_told() -> None:
    """An array that something still looks into cannot change its size."""
    memory = bytearray(BLOCK_BYTES)
    sizes: list[int] = []

    def shrink(_number: int, _sent: bool) -> None:
        view.release()
        sizes.append(len(memory))

    outcomes = Outcomes(shrink)
    async with Ends(small_buffers=True) as ends:
        view = memoryview(memory)
        ends.link.send(delivery(len(memory)), [view], outcomes.of(1))
        await ends.far.receive(FRAME_BYTES + len(memory))
        await until("the end is heard of", lambda: sizes)
        await until("nothing looks into it", lambda: can_shrink(memory))


def can_shrink(memory: bytearray) -> bool:
    try:
        memory.pop()
    except BufferError:
        return False
    return True


@pytest.mark.parametrize("view_count", [1, VIEWS_PER_CALL - 1, VIEWS_PER_CALL, 5 * VIEWS_PER_CALL + 3])
@on_loop
async def test_a_payload_may_lie_in_many_places(view_count: int) -> None:
    async with Ends(small_buffers=True) as ends:
        payload = Random(view_count).randbytes(view_count * 1024)
        views = [memoryview(payload)[start : start + 1024] for start in range(0, len(payload), 1024)]
        ends.link.send(delivery(len(payload)), views)
        received = await ends.far.receive(FRAME_BYTES + len(payload))
        assert received == encode_frame(delivery(len(payload))) + payload
        assert len(views) == view_count


@pytest.mark.parametrize(("offset", "length"), [(0, SAMPLE_BYTES), (0, 1), (1025, 5000), (SAMPLE_BYTES - 1, 1)])
@on_loop
async def test_a_part_of_a_file_is_sent(sample: Path, offset: int, length: int) -> None:
    outcomes, before = Outcomes(), open_files()
    async with Ends() as ends:
        with sample.open("rb") as file:
            ends.link.send(delivery(length), FileSlice(file.fileno(), offset, length), outcomes.of(1))
            ends.link.send(delivery(2, 2), [memoryview(b"hi")], outcomes.of(2))
        received = await ends.far.receive(2 * FRAME_BYTES + length + 2)
        assert received[FRAME_BYTES : -FRAME_BYTES - 2] == SAMPLE[offset : offset + length]
        assert received.endswith(encode_frame(delivery(2, 2)) + b"hi")
        await until("both ends are heard of", lambda: outcomes.heard == [(1, True), (2, True)])
    assert open_files() == before


@on_loop
async def test_a_file_may_be_closed_and_replaced_before_it_has_left(sample: Path) -> None:
    async with Ends(small_buffers=True) as ends:
        fd = os.open(sample, os.O_RDONLY)
        ends.link.send(delivery(len(SAMPLE)), FileSlice(fd, 0, len(SAMPLE)))
        os.close(fd)
        os.unlink(sample)
        reused = os.open("/dev/null", os.O_RDONLY)
        try:
            received = await ends.far.receive(FRAME_BYTES + len(SAMPLE))
        finally:
            os.close(reused)
        assert received[FRAME_BYTES:] == SAMPLE


@on_loop
async def test_a_file_that_became_shorter_breaks_the_link(sample: Path) -> None:
    outcomes, before = Outcomes(), open_files()
    async with Ends() as ends:
        with sample.open("rb") as file:
            ends.link.send(delivery(4 * BLOCK_BYTES), FileSlice(file.fileno(), 0, 4 * BLOCK_BYTES), outcomes.of(1))
        received = await ends.far.receive(FRAME_BYTES + 4 * BLOCK_BYTES)
        assert len(received) == FRAME_BYTES + SAMPLE_BYTES
        assert outcomes.heard == [(1, False)]
        assert ends.link.closed
    assert open_files() == before


@pytest.mark.parametrize("fault", ["truncated", "disk error"])
@on_loop
async def test_unreadable_payload_is_told_to_its_owner(
    fault: str, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    if fault == "truncated":
        os.truncate(sample, 1000)
    else:
        monkeypatch.setattr(os, "sendfile", fail)
    async with Ends() as ends:
        with sample.open("rb") as file:
            payload = FileSlice(file.fileno(), 0, SAMPLE_BYTES)
            ends.link.send(delivery(SAMPLE_BYTES), payload, unreadable=lambda: told.append(ends.link.closed))
        await until("the link is closed", lambda: ends.link.closed)
    assert told == [True]


@on_loop
async def test_broken_connection_says_nothing_of_the_file(sample: Path) -> None:
    outcomes, told = Outcomes(), []
    async with Ends(small_buffers=True) as ends:
        with sample.open("rb") as file:
            payload = FileSlice(file.fileno(), 0, SAMPLE_BYTES)
            ends.link.send(delivery(SAMPLE_BYTES), payload, outcomes.of(1), lambda: told.append(True))
        ends.far.stream.close()
        await until("the end is heard of", lambda: outcomes.heard == [(1, False)])
    assert told == []


@on_loop
async def test_many_frames_wait_for_a_slow_reader(sample: Path) -> None:
    outcomes, count = Outcomes(), 200
    payloads = [Random(number).randbytes(1 + 37 * number) for number in range(count)]
    async with Ends(small_buffers=True) as ends:
        with sample.open("rb") as file:
            for number, payload in enumerate(payloads):
                ends.link.send(delivery(len(payload), number), [memoryview(payload)], outcomes.of(number))
                ends.link.send(delivery(100, count), FileSlice(file.fileno(), number, 100), outcomes.of(count))
        assert len(outcomes.heard) < count
        for number, payload in enumerate(payloads):
            assert decode_frame(await ends.far.receive(FRAME_BYTES)) == delivery(len(payload), number)
            assert await ends.far.receive(len(payload)) == payload
            assert len(await ends.far.receive(FRAME_BYTES + 100)) == FRAME_BYTES + 100
        await until("all ends are heard of", lambda: len(outcomes.heard) == 2 * count)
        assert [each for each in outcomes.heard if each[0] < count] == [(number, True) for number in range(count)]
        assert all(sent for _, sent in outcomes.heard)


@on_loop
async def test_no_more_frames_wait_than_a_link_has_room_for() -> None:
    outcomes, block = Outcomes(), memoryview(bytes(BLOCK_BYTES))
    async with Ends(small_buffers=True) as ends:
        ends.link.send(delivery(len(block), 0), [block], outcomes.of(0))
        for number in range(1, OUTGOING_FRAMES_MAX + 3):
            ends.link.send(delivery(1, number), [block[:1]], outcomes.of(number))
        assert outcomes.heard == [(OUTGOING_FRAMES_MAX + extra, False) for extra in range(3)]


@on_loop
async def test_frames_that_wait_hear_that_they_will_not_go(sample: Path) -> None:
    outcomes, before, block = Outcomes(), open_files(), memoryview(bytes(BLOCK_BYTES))
    async with Ends(small_buffers=True) as ends:
        ends.link.send(delivery(len(block), 1), [block], outcomes.of(1))
        with sample.open("rb") as file:
            ends.link.send(delivery(9, 2), FileSlice(file.fileno(), 0, 9), outcomes.of(2))
        ends.link.send(delivery(9, 3), [block[:9]], outcomes.of(3))
        ends.link.send(delivery(9, 4), [block[:9]])
        ends.link.close()
        assert outcomes.heard == [(1, False), (2, False), (3, False)]
        ends.link.send(delivery(9, 5), [block[:9]], outcomes.of(5))
        ends.link.send(delivery(9, 6), [block[:9]])
        assert outcomes.heard[3:] == [(5, False)]
        assert ends.recorder.events == ["closed"]
    assert open_files() == before


@on_loop
async def test_a_reader_that_crashes_ends_what_waits_for_it() -> None:
    outcomes, block = Outcomes(), memoryview(bytes(BLOCK_BYTES))
    async with Ends(small_buffers=True) as ends:
        for number in range(3):
            ends.link.send(delivery(len(block), number), [block], outcomes.of(number))
        ends.far.reset()
        await ends.told("closed")
        assert outcomes.heard == [(number, False) for number in range(3)]
        assert ends.link.closed


@on_loop
async def test_a_frame_may_be_sent_when_another_has_left() -> None:
    def react(number: int, _sent: bool) -> None:
        if number < 20:
            send(number + 1)

    outcomes = Outcomes(react)

    def send(number: int) -> None:
        ends.link.send(delivery(2, number), [memoryview(b"ok")], outcomes.of(number))

    async with Ends() as ends:
        send(1)
        received = await ends.far.receive(20 * (FRAME_BYTES + 2))
        assert received == b"".join(encode_frame(delivery(2, number)) + b"ok" for number in range(1, 21))
        assert outcomes.heard == [(number, True) for number in range(1, 21)]


@on_loop
async def test_what_is_raised_when_a_frame_has_left_keeps_no_other_from_it() -> None:
    def fail(_: bool) -> None:
        raise RuntimeError("on purpose")

    outcomes = Outcomes()
    async with Ends() as ends:
        with pytest.raises(RuntimeError, match="on purpose"):
            ends.link.send(delivery(2, 1), [memoryview(b"hi")], fail)
        ends.link.send(delivery(2, 2), [memoryview(b"ok")], outcomes.of(2))
        assert outcomes.heard == [(2, True)]
        assert (await ends.far.receive(2 * (FRAME_BYTES + 2))).endswith(encode_frame(delivery(2, 2)) + b"ok")


@pytest.mark.parametrize("when", [True, False], ids=["left", "failed"])
@on_loop
async def test_a_link_may_be_closed_and_used_when_a_frame_has_ended(when: bool) -> None:
    def react(number: int, sent: bool) -> None:
        if sent is when:
            ends.link.close()
            if number < 100:
                ends.link.send(delivery(1, number + 100), [memoryview(b"x")], outcomes.of(number + 100))

    outcomes, block = Outcomes(react), memoryview(bytes(BLOCK_BYTES))
    async with Ends(small_buffers=True) as ends:
        ends.link.send(delivery(len(block), 1), [block], outcomes.of(1))
        ends.link.send(delivery(1, 2), [block[:1]], outcomes.of(2))
        if when:
            await ends.far.receive(FRAME_BYTES + len(block))
        else:
            ends.far.reset()
        await ends.told("closed")
        assert sorted(outcomes.heard) == [(1, when), (2, False), (101, False), *([] if when else [(102, False)])]


@pytest.mark.parametrize("length", [0, BLOCK_BYTES], ids=["nothing-waits", "much-waits"])
@on_loop
async def test_closing_when_sent_ends_the_stream_after_the_last_byte(length: int) -> None:
    outcomes = Outcomes()
    async with Ends(small_buffers=True) as ends:
        if length:
            ends.link.send(delivery(length), [memoryview(bytes(length))], outcomes.of(1))
        ends.link.close_when_sent()
        received = await ends.far.receive(FRAME_BYTES + length + 1)
        assert len(received) == (FRAME_BYTES + length if length else 0)
        await ends.told("closed")
        assert outcomes.heard == ([(1, True)] if length else [])


class Listening:
    """A port that accepts connections, or the number of one that nobody listens on."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.address: tuple[str, int] = self._listener.getsockname()

    async def accept(self) -> Far:
        return Far((await asyncio.get_running_loop().sock_accept(self._listener))[0])

    def close(self) -> None:
        self._listener.close()


@on_loop
async def test_frames_wait_until_a_dialled_link_stands() -> None:
    recorder, outcomes, listening = Recorder(), Outcomes(), Listening()
    link = Link.dial(listening.address, recorder, kept=False)
    link.send(delivery(2), [memoryview(b"hi")], outcomes.of(1))
    link.close_when_sent()
    assert recorder.events == []
    link.begin()
    far = await listening.accept()
    assert await far.receive(FRAME_BYTES + 3) == encode_frame(delivery(2)) + b"hi"
    assert outcomes.heard == [(1, True)]
    assert recorder.events == ["opened", "closed"]
    assert link.peer == listening.address
    far.stream.close()
    listening.close()


@on_loop
async def test_a_dialled_link_that_is_kept_brings_what_the_other_side_sends() -> None:
    recorder, listening = Recorder(), Listening()
    link = Link.dial(listening.address, recorder, kept=True)
    link.send(delivery(2), [memoryview(b"hi")])
    link.begin()
    far = await listening.accept()
    assert await far.receive(FRAME_BYTES + 2) == encode_frame(delivery(2)) + b"hi"
    await far.send(encode_frame(delivery(2)) + b"ok")
    far.stream.close()
    await until("the link has ended", lambda: link.closed)
    assert recorder.events == ["opened", "started", "received", "closed"]
    listening.close()


@on_loop
async def test_a_dialled_link_that_nobody_accepts_is_broken() -> None:
    recorder, outcomes, listening = Recorder(), Outcomes(), Listening()
    listening.close()
    link = Link.dial(listening.address, recorder, kept=False)
    link.send(delivery(2), [memoryview(b"hi")], outcomes.of(1))
    link.begin()
    await until("the link has ended", lambda: link.closed)
    assert (recorder.events, recorder.errors) == (["closed"], [None])
    assert outcomes.heard == [(1, False)]
    assert link.closed


@on_loop
async def test_a_link_may_be_closed_as_soon_as_it_stands() -> None:
    recorder = Recorder(react=close_when("opened"))
    outcomes, listening = Outcomes(), Listening()
    link = Link.dial(listening.address, recorder, kept=False)
    link.send(delivery(2), [memoryview(b"hi")], outcomes.of(1))
    link.begin()
    await until("the link has ended", lambda: link.closed)
    assert recorder.events == ["opened", "closed"]
    assert outcomes.heard == [(1, False)]
    listening.close()


@on_loop
async def test_an_address_that_cannot_be_dialled_is_refused_at_once() -> None:
    with pytest.raises(OSError, match=r"not known|not supported"):
        Link.dial(("2001:db8:::1", 1), Recorder(), kept=False)
