"""Two ends of a connection on loopback: a link that is tested, and a plain socket that does as it is told."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import termios
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

from pspd.core.wire.frames import Frame
from pspd.core.wire.header import Kind, WireError
from pspd.net.link import SILENT_SECONDS_MAX, Link
from tests.support.loops import until

SESSION = 7


def delivery(length: int, number: int = 1) -> Frame:
    """The head of a delivery of so many bytes."""
    return Frame(Kind.DELIVERY, SESSION, bytes(range(32)), 5, 5 + -(-length // 1024), length, number, 3)


class Said(NamedTuple):
    """Something that a link told."""

    what: str
    frame: Frame | None = None


def close_when(word: str) -> Callable[[str, Link], None]:
    """A reaction: closes a link when it tells something."""

    def react(what: str, link: Link) -> None:
        if what == word:
            link.close()

    return react


@dataclass
class Recorder:
    """Implements ``LinkHandler``: keeps what it is told, and every payload.

    Attributes:
        said: what the links told, in order.
        payloads: of each frame received.
        errors: with which each link was closed.
        cuts: sizes of the memory that a payload is received into; the last takes the rest.
        piece_bytes: payloads are received in pieces of so many bytes; whole for 0.
        unwanted: frames, by number, whose payload is dropped.
        react: is called on everything a link tells, after it is noted.
    """

    said: list[Said] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    errors: list[WireError | None] = field(default_factory=list)
    cuts: tuple[int, ...] = ()
    piece_bytes: int = 0
    unwanted: frozenset[int] = frozenset()
    react: Callable[[str, Link], object] = lambda _what, _link: None
    memory: list[bytearray] = field(default_factory=list)

    @property
    def events(self) -> list[str]:
        """What was told, in words."""
        return [each.what for each in self.said]

    def of(self, what: str) -> list[Frame | None]:
        """The frames of which something was told."""
        return [each.frame for each in self.said if each.what == what]

    def _note(self, what: str, link: Link, frame: Frame | None = None) -> None:
        self.said.append(Said(what, frame))
        self.react(what, link)

    def frame_started(self, link: Link, frame: Frame) -> list[memoryview] | None:
        self._note("started", link, frame)
        if frame.number in self.unwanted or frame.kind is Kind.LINK:
            return None
        if self.piece_bytes:
            self.memory = [bytearray(min(frame.length, self.piece_bytes))]
            return [memoryview(self.memory[0])]
        self.memory = [bytearray(cut) for cut in self.cuts]
        self.memory.append(bytearray(frame.length - sum(self.cuts)))
        return [memoryview(part) for part in self.memory]

    def frame_continued(self, link: Link, frame: Frame) -> list[memoryview]:
        self._note("continued", link, frame)
        left = frame.length - sum(map(len, self.memory))
        self.memory.append(bytearray(min(left, self.piece_bytes)))
        return [memoryview(self.memory[-1])]

    def frame_received(self, link: Link, frame: Frame) -> None:
        self.payloads.append(b"".join(self.memory))
        self._note("received", link, frame)

    def frame_aborted(self, link: Link, frame: Frame) -> None:
        self._note("aborted", link, frame)

    def link_opened(self, link: Link) -> None:
        self._note("opened", link)

    def link_closed(self, link: Link, error: WireError | None) -> None:
        self.errors.append(error)
        self._note("closed", link)


class Far:
    """The other end: a plain non-blocking socket."""

    def __init__(self, stream: socket.socket) -> None:
        stream.setblocking(False)
        self.stream = stream

    async def send(self, data: bytes | memoryview) -> None:
        """Sends everything."""
        await asyncio.get_running_loop().sock_sendall(self.stream, data)

    async def receive(self, count: int) -> bytes:
        """Exactly so many bytes; fewer at the end of the stream."""
        parts = bytearray()
        while len(parts) < count:
            part = await asyncio.get_running_loop().sock_recv(self.stream, min(count - len(parts), 1 << 20))
            if not part:
                break
            parts += part
        return bytes(parts)

    def reset(self) -> None:
        """Ends the connection as a crash would."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.stream.close()


class Ends:
    """Both ends; leaving closes them, and every link must have told of its end exactly once.

    Args:
        recorder: hears what the link tells.
        small_buffers: the kernel takes little at a time.
        kept: the link is for many transfers.
        said: by the far end, before the link begins.
    """

    def __init__(
        self, recorder: Recorder | None = None, *, small_buffers: bool = False, kept: bool = True, said: bytes = b""
    ) -> None:
        self.recorder = recorder or Recorder()
        listener = socket.create_server(("127.0.0.1", 0))
        if small_buffers:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with listener:
            near = socket.socket()
            if small_buffers:
                near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            near.connect(listener.getsockname())
            self.far = Far(listener.accept()[0])
            self.far.stream.sendall(said)
        self._near = near
        self.link = Link.accepted(near, near.getpeername(), self.recorder, kept=kept)
        self.link.begin()

    async def __aenter__(self) -> Ends:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.link.close()
        self.far.stream.close()
        assert self.recorder.events.count("closed") == 1
        assert self.link.closed

    async def everything_read(self) -> None:
        """Waits until the link has taken from the kernel what is there for it."""
        count = bytearray(4)

        def nothing_waits() -> bool:
            fcntl.ioctl(self._near, termios.FIONREAD, count)
            return not any(count)

        await until("everything is read", nothing_waits)

    async def told(self, what: str, count: int = 1) -> None:
        """Waits until the link told something so many times."""
        await until(
            f"{count} times {what!r}, not {self.recorder.events}", lambda: self.recorder.events.count(what) >= count
        )


class Alarm:
    """One call that was asked for later."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self.ring = ring
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class HeldClock:
    """Stands for the event loop of a link: keeps its alarms until the test lets their time come."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._alarms: list[Alarm] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_later(self, delay: float, callback: Callable[..., None], *args: object) -> Alarm:
        assert delay == SILENT_SECONDS_MAX
        self._alarms.append(Alarm(lambda: callback(*args)))
        return self._alarms[-1]

    @property
    def is_watching(self) -> bool:
        """Whether an alarm is set."""
        return any(not alarm.cancelled for alarm in self._alarms)

    def pass_by(self) -> None:
        """So much time passes as a link may be silent for."""
        due, self._alarms = self._alarms, []
        for alarm in due:
            if not alarm.cancelled:
                alarm.ring()


def clocked(
    monkeypatch: pytest.MonkeyPatch, recorder: Recorder | None = None, *, kept: bool = True
) -> tuple[Ends, HeldClock]:
    """Both ends of a connection, and the clock that the link among them goes by."""
    clock = HeldClock()
    with monkeypatch.context() as patch:
        patch.setattr("pspd.net.link.asyncio.get_running_loop", lambda: clock)
        return Ends(recorder, kept=kept), clock


async def say(ends: Ends, data: bytes) -> None:
    """Sends something to the link; returns when it has been taken in."""
    await ends.far.send(data)
    await ends.everything_read()
