"""Both ends of a connection on loopback: a ``FrameConnection`` to test, and a plain socket as its peer."""

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
from pspd.net.connection import READ_TIMEOUT_SECONDS, FrameConnection
from tests.support.loops import until

SESSION = 7


def delivery(length: int, number: int = 1) -> Frame:
    """Return the head of a delivery of ``length`` bytes."""
    return Frame(Kind.DELIVERY, SESSION, bytes(range(32)), 5, 5 + -(-length // 1024), length, number, 3)


class Event(NamedTuple):
    """A call of a connection to its handler."""

    what: str
    frame: Frame | None = None


def close_when(word: str) -> Callable[[str, FrameConnection], None]:
    """Return a reaction that closes a connection at an event."""

    def react(what: str, connection: FrameConnection) -> None:
        if what == word:
            connection.close()

    return react


@dataclass
class Recorder:
    """Implements ``ConnectionHandler``: records all calls, and every payload.

    Attributes:
        calls: the calls of the connections, in order.
        payloads: the payloads of the received frames.
        errors: the errors with which connections closed; None for no error.
        cuts: the sizes of all buffers for a payload but the last, which has the rest.
        part_bytes: the size of the parts in which payloads are received; 0 for whole payloads.
        unwanted: the numbers of frames whose payload is discarded.
        react: called after each event.
    """

    calls: list[Event] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    errors: list[WireError | None] = field(default_factory=list)
    cuts: tuple[int, ...] = ()
    part_bytes: int = 0
    unwanted: frozenset[int] = frozenset()
    react: Callable[[str, FrameConnection], object] = lambda _what, _connection: None
    memory: list[bytearray] = field(default_factory=list)

    @property
    def events(self) -> list[str]:
        """The names of the events."""
        return [each.what for each in self.calls]

    def of(self, what: str) -> list[Frame | None]:
        """Return the frames of the events with a name."""
        return [each.frame for each in self.calls if each.what == what]

    def _note(self, what: str, connection: FrameConnection, frame: Frame | None = None) -> None:
        self.calls.append(Event(what, frame))
        self.react(what, connection)

    def frame_started(self, connection: FrameConnection, frame: Frame) -> list[memoryview] | None:
        self._note("started", connection, frame)
        if frame.number in self.unwanted or frame.kind is Kind.LINK:
            return None
        if self.part_bytes:
            self.memory = [bytearray(min(frame.length, self.part_bytes))]
            return [memoryview(self.memory[0])]
        self.memory = [bytearray(cut) for cut in self.cuts]
        self.memory.append(bytearray(frame.length - sum(self.cuts)))
        return [memoryview(part) for part in self.memory]

    def frame_continued(self, connection: FrameConnection, frame: Frame) -> list[memoryview]:
        self._note("continued", connection, frame)
        left = frame.length - sum(map(len, self.memory))
        self.memory.append(bytearray(min(left, self.part_bytes)))
        return [memoryview(self.memory[-1])]

    def frame_received(self, connection: FrameConnection, frame: Frame) -> None:
        self.payloads.append(b"".join(self.memory))
        self._note("received", connection, frame)

    def frame_aborted(self, connection: FrameConnection, frame: Frame) -> None:
        self._note("aborted", connection, frame)

    def connection_opened(self, connection: FrameConnection) -> None:
        self._note("opened", connection)

    def connection_closed(self, connection: FrameConnection, error: WireError | None) -> None:
        self.errors.append(error)
        self._note("closed", connection)


class Far:
    """The peer: a plain non-blocking socket."""

    def __init__(self, stream: socket.socket) -> None:
        stream.setblocking(False)
        self.stream = stream

    async def send(self, data: bytes | memoryview) -> None:
        """Send everything."""
        await asyncio.get_running_loop().sock_sendall(self.stream, data)

    async def receive(self, count: int) -> bytes:
        """Return exactly ``count`` bytes; fewer at the end of the stream."""
        parts = bytearray()
        while len(parts) < count:
            part = await asyncio.get_running_loop().sock_recv(self.stream, min(count - len(parts), 1 << 20))
            if not part:
                break
            parts += part
        return bytes(parts)

    def reset(self) -> None:
        """Reset the connection, as a crash would."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.stream.close()


class Ends:
    """Both ends. On exit they are closed, and the connection must have reported its end exactly once.

    Args:
        recorder: the connection's handler.
        small_buffers: whether the kernel's buffers are small.
        persistent: whether the connection carries many transfers.
        sent: the bytes that the peer sends before the connection starts.
    """

    def __init__(
        self,
        recorder: Recorder | None = None,
        *,
        small_buffers: bool = False,
        persistent: bool = True,
        sent: bytes = b"",
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
            self.far.stream.sendall(sent)
        self._near = near
        self.connection = FrameConnection.wrap(near, near.getpeername(), self.recorder, persistent=persistent)
        self.connection.start()

    async def __aenter__(self) -> Ends:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.connection.close()
        self.far.stream.close()
        assert self.recorder.events.count("closed") == 1
        assert self.connection.closed

    async def wait_read(self) -> None:
        """Wait until the connection has read everything from the kernel."""
        count = bytearray(4)

        def is_empty() -> bool:
            fcntl.ioctl(self._near, termios.FIONREAD, count)
            return not any(count)

        await until("everything is read", is_empty)

    async def wait_for(self, what: str, count: int = 1) -> None:
        """Wait until an event has happened ``count`` times."""
        await until(
            f"{count} times {what!r}, not {self.recorder.events}", lambda: self.recorder.events.count(what) >= count
        )


class Timer:
    """A scheduled call."""

    def __init__(self, fire: Callable[[], None]) -> None:
        self.fire = fire
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualClock:
    """Replaces the event loop of a connection; a test fires the timers itself."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timers: list[Timer] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_later(self, delay: float, callback: Callable[..., None], *args: object) -> Timer:
        assert delay == READ_TIMEOUT_SECONDS
        self._timers.append(Timer(lambda: callback(*args)))
        return self._timers[-1]

    @property
    def is_watching(self) -> bool:
        """Whether a timer is set."""
        return any(not timer.cancelled for timer in self._timers)

    def expire(self) -> None:
        """Fire all timers, as after the read timeout."""
        due, self._timers = self._timers, []
        for timer in due:
            if not timer.cancelled:
                timer.fire()


def ends_with_clock(
    monkeypatch: pytest.MonkeyPatch, recorder: Recorder | None = None, *, persistent: bool = True
) -> tuple[Ends, ManualClock]:
    """Return both ends of a connection, and the clock of the connection."""
    clock = ManualClock()
    with monkeypatch.context() as patch:
        patch.setattr("pspd.net.connection.asyncio.get_running_loop", lambda: clock)
        return Ends(recorder, persistent=persistent), clock


async def send_and_wait(ends: Ends, data: bytes) -> None:
    """Send bytes to the connection; return when it has read them."""
    await ends.far.send(data)
    await ends.wait_read()
