"""Frames over one TCP connection, received straight into the memory they are meant for, sent from where they lie.

Plain non-blocking sockets rather than asyncio's transports: those keep what the kernel does not take at
once in buffers of their own, and the server may hold file bytes nowhere but in its cache (R4).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol

from pspd.core.model.storage import FileSlice
from pspd.core.wire.frames import FRAME_BYTES, Frame, decode_frame, encode_frame
from pspd.core.wire.header import DropReason, WireError
from pspd.host.addresses import family_of, sockaddr_of
from pspd.net.io_budget import IoBudget
from pspd.net.sockets import limit_silence, tune_kept
from pspd.text.addresses import Address, address_text, unmapped

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

_READ_ERRORS = frozenset({errno.EIO, errno.EBADMSG, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.EUCLEAN})
"""What `sendfile` fails with where the file cannot be read; a connection fails with none of these."""

Payload = list[memoryview] | FileSlice

log = logging.getLogger(__name__)


class LinkHandler(Protocol):
    """What a link tells whoever owns it."""

    def frame_started(self, link: Link, frame: Frame) -> list[memoryview] | None:
        """A frame's head has come: where its payload, or the beginning of it, is to go; None to drop it."""

    def frame_continued(self, link: Link, frame: Frame) -> list[memoryview]:
        """That memory is full, and the payload goes on: where the next piece of it is to go."""

    def frame_received(self, link: Link, frame: Frame) -> None:
        """The payload, or the last piece of it, is where it was to go."""

    def frame_aborted(self, link: Link, frame: Frame) -> None:
        """The connection broke before the payload was whole."""

    def link_opened(self, link: Link) -> None:
        """A link that was dialled stands."""

    def link_closed(self, link: Link, error: WireError | None) -> None:
        """The connection is gone; with an error if the other side broke the protocol."""


class _UnreadableError(Exception):
    """A payload cannot be read from its file; the connection is not to blame."""


class _Outgoing:
    """A frame on its way out: its head, its payload, and who hears of its end or that its file cannot be read."""

    __slots__ = ("done", "file", "unreadable", "views")

    def __init__(
        self,
        head: bytes,
        payload: Payload,
        done: Callable[[bool], None] | None,
        unreadable: Callable[[], None] | None,
    ) -> None:
        self.done = done
        self.unreadable = unreadable
        self.file: FileSlice | None = None
        self.views = [memoryview(head)]
        if isinstance(payload, FileSlice):
            # A descriptor of its own: the store may close its one before the last byte has left.
            self.file = FileSlice(os.dup(payload.fd), payload.offset, payload.length)
        else:
            self.views += payload

    def send(self, stream: socket.socket, *, end_follows: bool) -> None:
        """Sends all of it; what else is to follow at once, the file or the end of the stream, may travel with it.

        Raises:
            BlockingIOError: the kernel takes nothing more now.
            OSError: the connection is broken.
            _UnreadableError: the file is shorter than it was, or its disk fails.
        """
        flags = _MORE if self.file or end_follows else 0
        while self.views:
            sent = stream.sendmsg(self.views[:VIEWS_PER_CALL], (), flags)
            self._drop_sent(sent)
        while self.file is not None:
            try:
                sent = os.sendfile(stream.fileno(), self.file.fd, self.file.offset, self.file.length)
            except OSError as error:
                if error.errno in _READ_ERRORS:
                    raise _UnreadableError from error
                raise
            if sent == 0:
                raise _UnreadableError
            left = FileSlice(self.file.fd, self.file.offset + sent, self.file.length - sent)
            if left.length == 0:
                self.end()
            else:
                self.file = left

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

    The event loop is asked to wake it only when the kernel has nothing more to give or to take: a connection for one
    short transfer is often over before.

    Attributes:
        session: the client's session, once it is known; 0 before.
        peer: the other end's address.
        failure: why it could not be connected, in the system's words; empty if it could, or may still.
    """

    def __init__(
        self, stream: socket.socket, handler: LinkHandler, peer: Address, *, kept: bool, stands: bool = True
    ) -> None:
        self.session = 0
        self.peer = peer
        self.failure = ""
        self._stream = stream
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._turns = IoBudget.of_running_loop()
        self._stands = stands
        self._kept = kept
        self._outgoing: deque[_Outgoing] = deque()
        self._is_sending = not stands
        self._watches_readable = self._watches_writable = False
        self._closing_when_sent = False
        self._head = memoryview(bytearray(FRAME_BYTES))
        self._frame: Frame | None = None
        self._homeless = 0  # bytes of its payload for which there is no memory yet
        self._drop_left = 0
        self._targets = [self._head]
        self._silence: asyncio.TimerHandle | None = None
        self._received_count = 0

    @staticmethod
    def dial(address: Address, handler: LinkHandler, *, kept: bool) -> Link:
        """A link that is to be connected: say :meth:`begin`. Frames may be sent before, and wait until it stands.

        Args:
            address: whom to dial.
            handler: is told what becomes of it.
            kept: it is for many transfers, both ways; else for what is sent alone.

        Raises:
            OSError: it cannot even begin.
        """
        target = (unmapped(address[0]), address[1])
        stream = socket.socket(family_of(target), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            limit_silence(stream)
            if kept:
                tune_kept(stream)
            with contextlib.suppress(BlockingIOError):
                stream.connect(sockaddr_of(target))
        except OSError:
            stream.close()
            raise
        return Link(stream, handler, address, kept=kept, stands=False)

    @staticmethod
    def accepted(stream: socket.socket, peer: Address, handler: LinkHandler, *, kept: bool) -> Link:
        """A link that somebody dialled: say :meth:`begin`.

        Raises:
            OSError: it is gone already.
        """
        stream.setblocking(False)
        if kept:
            limit_silence(stream)
            tune_kept(stream)
        return Link(stream, handler, peer, kept=kept)

    def begin(self) -> None:
        """Begins to move bytes; the handler has to know the link by now."""
        if self.closed:
            return
        if self._stands:
            self._on_readable()
            return
        try:
            self._stream.getpeername()
        except OSError:
            self._watch_writable(True)
        else:  # on one machine a connection stands at once
            self._on_connected()

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._stream.fileno() < 0

    # -- sending

    def send(
        self,
        frame: Frame,
        payload: Payload,
        done: Callable[[bool], None] | None = None,
        unreadable: Callable[[], None] | None = None,
    ) -> None:
        """Sends a frame after those before it.

        Args:
            frame: the head.
            payload: what follows it; memory stays the caller's.
            done: is told when the payload is no longer needed, and whether it was sent.
            unreadable: is told if the payload's file cannot be read any more. The link is closed then, as the rest of
                the frame is missing.
        """
        if self.closed or len(self._outgoing) >= OUTGOING_FRAMES_MAX:
            if done:
                done(False)
            return
        try:
            self._outgoing.append(_Outgoing(encode_frame(frame), payload, done, unreadable))
        except OSError:  # no descriptor left: it is asked for again
            if done:
                done(False)
            return
        if not self._is_sending:
            self._flush()

    def close_when_sent(self) -> None:
        """Closes the connection once everything is sent: the kernel still brings that to the other side."""
        self._closing_when_sent = True
        if not (self._outgoing or self._is_sending):
            self.close()

    def _flush(self) -> None:
        self._is_sending = True
        try:
            self._send_outgoing()
            self._watch_writable(False)
        except BlockingIOError:
            self._watch_writable(True)
        except _UnreadableError:
            tell = self._outgoing[0].unreadable
            self.close()
            if tell:
                tell()
        except OSError:
            self.close()
        finally:  # whatever whoever is told of a frame's end may raise: the next frame is sent
            self._is_sending = self._watches_writable

    def _send_outgoing(self) -> None:
        while self._outgoing:
            is_last = self._closing_when_sent and len(self._outgoing) == 1
            self._outgoing[0].send(self._stream, end_follows=is_last)
            ended = self._outgoing.popleft()
            if is_last:
                self.close()
            if ended.done:
                ended.done(True)
        if self._closing_when_sent:
            self.close()

    def _watch_writable(self, wanted: bool) -> None:
        if wanted != self._watches_writable and not self.closed:
            self._watches_writable = wanted
            if wanted:
                self._loop.add_writer(self._stream, self._on_writable)
            else:
                self._loop.remove_writer(self._stream)

    def _on_writable(self) -> None:
        if self.closed or not self._turns.try_run(self._on_writable):
            return
        if self._stands:
            self._flush()
        elif number := self._stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.failure = os.strerror(number)
            self.close()
        else:
            self._on_connected()

    def _on_connected(self) -> None:
        self._stands = True
        if self._kept:
            self._watch_readable()
        self._handler.link_opened(self)
        self._flush()

    # -- receiving

    def _on_readable(self) -> None:
        if self.closed:
            return
        try:
            for _ in range(READS_PER_WAKEUP):
                if not self._turns.try_run(self._on_readable):
                    break
                count = self._read()
                if count == 0:
                    self.close(self._cut_short)
                    return
                self._received_count += count
                self._advance(count)
                if self.closed:
                    return
        except BlockingIOError:
            pass
        except WireError as error:
            self.close(error)
            return
        except OSError:
            self.close(self._cut_short)
            return
        except Exception:  # what follows on the stream would not be understood
            log.exception("a frame from %s could not be taken in: its connection is closed", address_text(self.peer))
            self.close()
            return
        self._watch_readable()
        if self._bytes_are_due:
            self._expect_bytes()

    def _watch_readable(self) -> None:
        if not self._watches_readable:
            self._watches_readable = True
            self._loop.add_reader(self._stream, self._on_readable)

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
                return
            count -= len(target)
            del self._targets[0]
            if self._frame is not None and len(self._targets) == (0 if self._homeless else 1):
                self._end_piece(self._frame)
                if self.closed:
                    return
            elif not self._targets:
                self._start_frame(decode_frame(self._head))
                if self.closed:
                    return

    def _start_frame(self, frame: Frame) -> None:
        targets = self._handler.frame_started(self, frame)
        if targets is None and not self._kept:
            self.close()  # nothing else is to come
        elif targets is None or frame.length == 0:
            self._drop_left = frame.length
            self._expect_head()
        else:
            self._frame = frame
            self._homeless = frame.length
            self._receive_into(targets)

    def _receive_into(self, targets: list[memoryview]) -> None:
        self._homeless -= sum(map(len, targets))
        # The next head is received in the same call as the end of this payload.
        self._targets = targets if self._homeless else [*targets, self._head]

    def _end_piece(self, frame: Frame) -> None:
        if self._homeless:
            self._receive_into(self._handler.frame_continued(self, frame))
        else:
            self._frame = None
            self._handler.frame_received(self, frame)

    @property
    def _is_within_a_frame(self) -> bool:
        return self._frame is not None or self._drop_left > 0

    @property
    def _is_within_a_head(self) -> bool:
        return not self._is_within_a_frame and len(self._targets[0]) < FRAME_BYTES

    @property
    def _cut_short(self) -> WireError | None:
        """The error when the other end closes. Within a payload there is none: the frame is aborted, or was dropped."""
        return WireError(DropReason.TOO_SHORT) if self._is_within_a_head else None

    def _expect_bytes(self) -> None:
        """From now on bytes are due: their absence breaks the connection."""
        if self._silence is None:
            self._silence = self._loop.call_later(SILENT_SECONDS_MAX, self._check_progress, self._received_count)

    @property
    def _bytes_are_due(self) -> bool:
        """Whether it may not be silent: before the first frame, within one, and where it is for one transfer alone."""
        is_begun = self._is_within_a_frame or self._is_within_a_head
        return is_begun or not self._kept or self._received_count == 0

    def _check_progress(self, received_count: int) -> None:
        self._silence = None
        if self._received_count == received_count and not self._turns.puts_off(self._on_readable):
            said_nothing = self._received_count == 0 or self._is_within_a_head
            self.close(WireError(DropReason.SILENT) if said_nothing else None)
        elif self._bytes_are_due:
            self._expect_bytes()

    def _expect_head(self) -> None:
        self._targets = [self._head]

    def close(self, error: WireError | None = None) -> None:
        """Closes the connection and tells everyone who waits for something on it."""
        if self.closed:
            return
        if self._watches_readable:
            self._loop.remove_reader(self._stream)
        self._watch_writable(False)
        self._stream.close()
        if self._silence is not None:
            self._silence.cancel()
        frame, self._frame = self._frame, None
        if frame is not None:
            _tell(self._handler.frame_aborted, self, frame)
        unsent, self._outgoing = list(self._outgoing), deque()
        # First: what could not be sent is lost with the link, not refused by it.
        _tell(self._handler.link_closed, self, error)
        for outgoing in unsent:
            outgoing.end()
            if outgoing.done:
                _tell(outgoing.done, False)


def _tell(heard: Callable[..., object], *arguments: object) -> None:
    """Calls whoever is to hear of an end; what it raises is logged, so that the others hear of it too."""
    try:
        heard(*arguments)
    except Exception:
        log.exception("the end of a connection could not be told")
