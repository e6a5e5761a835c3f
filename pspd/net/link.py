"""Frames over one TCP connection, received straight into the memory they are meant for, sent from where they lie.

Plain non-blocking sockets rather than asyncio's transports: those keep what the kernel does not take at
once in buffers of their own, and the server may hold file bytes nowhere but in its cache (R4).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol

from pspd.core.effects import Address
from pspd.core.storage import FileSlice
from pspd.core.wire import FRAME_BYTES, Frame, WireError, decode_frame, encode_frame
from pspd.net.sockets import tune_stream

READS_PER_WAKEUP = 8
"""How many reads one link has in a row before the loop sees to others."""
VIEWS_PER_CALL = 64
"""How many pieces of memory one send or receive names: a system takes no more than 1024."""
OUTGOING_FRAMES_MAX = 4096
"""Frames that may wait on one link; what is beyond is not sent, and asked for again."""
SILENT_SECONDS_MAX = 15.0
"""How long a connection may stay silent where bytes are due: before its first frame, and within one."""

_SCRATCH = memoryview(bytearray(1024 * 1024))
_MORE = getattr(socket, "MSG_MORE", 0)
_DISCARD = getattr(socket, "MSG_TRUNC", 0) if os.uname().sysname == "Linux" else 0

Payload = list[memoryview] | FileSlice


class LinkHandler(Protocol):
    """What a link tells whoever owns it."""

    def frame_started(self, link: Link, frame: Frame) -> list[memoryview] | None:
        """A frame's head has come: where its payload is to go; None to drop it."""

    def frame_received(self, link: Link, frame: Frame) -> None:
        """The payload is where it was to go."""

    def frame_aborted(self, link: Link, frame: Frame) -> None:
        """The connection broke before the payload was whole."""

    def link_opened(self, link: Link) -> None:
        """A link that was dialled stands."""

    def link_closed(self, link: Link, error: WireError | None) -> None:
        """The connection is gone; with an error if the other side broke the protocol."""


class _Outgoing:
    """A frame on its way out: its head, its payload, and who is to hear of its end."""

    __slots__ = ("done", "file", "views")

    def __init__(self, head: bytes, payload: Payload, done: Callable[[bool], None] | None) -> None:
        self.done = done
        self.file: FileSlice | None = None
        self.views = [memoryview(head)]
        if isinstance(payload, FileSlice):
            # A descriptor of its own: the store may close its one before the last byte has left.
            self.file = FileSlice(os.dup(payload.fd), payload.offset, payload.length)
        else:
            self.views += payload

    def send(self, stream: socket.socket) -> bool:
        """Sends what the kernel takes; returns whether that was all.

        Raises:
            BlockingIOError: it takes nothing more now.
        """
        while self.views:
            sent = stream.sendmsg(self.views[:VIEWS_PER_CALL], (), _MORE if self.file else 0)
            self._drop_sent(sent)
        while self.file is not None:
            sent = os.sendfile(stream.fileno(), self.file.fd, self.file.offset, self.file.length)
            if sent == 0:
                raise ConnectionAbortedError("the file is shorter than it was")
            left = FileSlice(self.file.fd, self.file.offset + sent, self.file.length - sent)
            if left.length == 0:
                self.end()
            else:
                self.file = left
        return True

    def _drop_sent(self, sent: int) -> None:
        whole = 0
        for view in self.views:
            if sent < len(view):
                break
            sent -= len(view)
            whole += 1
        del self.views[:whole]
        if sent:
            self.views[0] = self.views[0][sent:]

    def end(self) -> None:
        """Lets go of the file."""
        if self.file is not None:
            os.close(self.file.fd)
            self.file = None


class Link:
    """One TCP connection; takes ownership of its socket.

    Attributes:
        session: the client's session, once it is known; 0 before.
        peer: the other end's address.
        broken: the connection ended otherwise than by the other side closing it in good order.
    """

    def __init__(self, stream: socket.socket, handler: LinkHandler, *, connecting: bool = False) -> None:
        tune_stream(stream)
        self.session = 0
        self.peer: Address = ("", 0)
        self.broken = False
        self._stream = stream
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._outgoing: deque[_Outgoing] = deque()
        self._writing = False
        self._closing_when_sent = False
        self._head = memoryview(bytearray(FRAME_BYTES))
        self._frame: Frame | None = None
        self._dropping = False
        self._drop_left = 0
        self._targets = [self._head]
        self._silence: asyncio.TimerHandle | None = None
        self._received_count = 0
        if connecting:
            self._loop.add_writer(stream, self._on_connected)
            self._writing = True
        else:
            self.peer = stream.getpeername()[:2]
            self._loop.add_reader(stream, self._on_readable)
            self._expect_bytes()

    @staticmethod
    def dial(address: Address, handler: LinkHandler) -> Link:
        """Begins to connect; frames may be sent at once and wait until it stands.

        Raises:
            OSError: it cannot even begin.
        """
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        stream = socket.socket(family, socket.SOCK_STREAM)
        try:
            stream.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                stream.connect(address)
            return Link(stream, handler, connecting=True)
        except OSError:
            stream.close()
            raise

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._stream.fileno() < 0

    # -- sending

    def send(self, frame: Frame, payload: Payload, done: Callable[[bool], None] | None = None) -> None:
        """Sends a frame after those before it. ``done`` hears when its payload is no longer needed, and if it went."""
        if self.closed or len(self._outgoing) >= OUTGOING_FRAMES_MAX:
            if done:
                done(False)
            return
        try:
            self._outgoing.append(_Outgoing(encode_frame(frame), payload, done))
        except OSError:  # no descriptor left: it is asked for again
            if done:
                done(False)
            return
        if not self._writing:
            self._flush()

    def close_when_sent(self) -> None:
        """Says to the other side that nothing more comes, once everything is sent; it then has to close."""
        self._closing_when_sent = True
        if not self._outgoing:
            self._finish_sending()

    def _flush(self) -> None:
        try:
            while self._outgoing and not self.closed:
                self._outgoing[0].send(self._stream)
                ended = self._outgoing.popleft()
                if ended.done:
                    ended.done(True)
        except BlockingIOError:
            self._watch_writable(True)
            return
        except OSError:
            self._break()
            return
        if not self.closed:
            self._watch_writable(False)
            if self._closing_when_sent:
                self._finish_sending()

    def _finish_sending(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_WR)
        self._expect_bytes()

    def _watch_writable(self, wanted: bool) -> None:
        if wanted != self._writing:
            self._writing = wanted
            if wanted:
                self._loop.add_writer(self._stream, self._flush)
            else:
                self._loop.remove_writer(self._stream)

    def _on_connected(self) -> None:
        if self._stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._break()
            return
        self.peer = self._stream.getpeername()[:2]
        self._watch_writable(False)
        self._loop.add_reader(self._stream, self._on_readable)
        self._handler.link_opened(self)
        self._flush()

    # -- receiving

    def _on_readable(self) -> None:
        try:
            for _ in range(READS_PER_WAKEUP):
                count = self._read()
                if count == 0:
                    self.close()
                if self.closed:
                    return
                self._received_count += count
                self._advance(count)
        except BlockingIOError:
            return
        except WireError as error:
            self.close(error)
        except OSError:
            self._break()

    def _break(self) -> None:
        self.broken = True
        self.close()

    def _read(self) -> int:
        if self._drop_left:
            return self._stream.recv_into(_SCRATCH, min(self._drop_left, len(_SCRATCH)), _DISCARD)
        return self._stream.recvmsg_into(self._targets[:VIEWS_PER_CALL])[0]

    def _advance(self, count: int) -> None:
        """Takes note of bytes received: of the payload first, then of the next frame's head."""
        if self._drop_left:
            self._drop_left -= count
            if self._drop_left == 0:
                self._expect_head()
            return
        while count:
            target = self._targets[0]
            if count < len(target):
                self._targets[0] = target[count:]
                self._expect_bytes()
                return
            count -= len(target)
            del self._targets[0]
            if self._frame is not None and len(self._targets) == 1:
                frame, self._frame = self._frame, None
                self._handler.frame_received(self, frame)
                if self.closed:
                    return
            elif not self._targets:
                self._start_frame(decode_frame(self._head))

    def _start_frame(self, frame: Frame) -> None:
        self._expect_bytes()
        targets = self._handler.frame_started(self, frame)
        if targets is None or frame.length == 0:
            self._drop_left = frame.length
            self._expect_head()
        else:
            # The next head is received in the same call as the end of this payload.
            self._frame = frame
            self._targets = [*targets, self._head]

    def _expect_bytes(self) -> None:
        """From now on bytes are due: their absence breaks the connection."""
        if self._silence is None:
            self._silence = self._loop.call_later(SILENT_SECONDS_MAX, self._check_progress, self._received_count)

    @property
    def _has_part_of_a_head(self) -> bool:
        return self._frame is None and len(self._targets[0]) < FRAME_BYTES

    def _check_progress(self, received_count: int) -> None:
        self._silence = None
        if self._received_count == received_count:
            self._break()
        elif self._frame is not None or self._drop_left or self._closing_when_sent or self._has_part_of_a_head:
            self._expect_bytes()

    def _expect_head(self) -> None:
        self._targets = [self._head]

    def close(self, error: WireError | None = None) -> None:
        """Closes the connection and tells everyone who waits for something on it."""
        if self.closed:
            return
        self._loop.remove_reader(self._stream)
        self._loop.remove_writer(self._stream)
        self._stream.close()
        if self._silence is not None:
            self._silence.cancel()
        frame, self._frame = self._frame, None
        if frame is not None:
            self._handler.frame_aborted(self, frame)
        unsent, self._outgoing = list(self._outgoing), deque()
        self._handler.link_closed(self, error)  # first: what could not be sent is lost with the link, not refused by it
        for outgoing in unsent:
            outgoing.end()
            if outgoing.done:
                outgoing.done(False)
