"""Carries frames over a TCP connection: a member's link (fast), or a connection for one transfer (classic).

The connection uses a plain non-blocking socket: asyncio's transports buffer bytes that the kernel does not accept at
once, but the server may hold file bytes only in its cache (R4).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol

from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason, WireError
from pspd.net.io_budget import IoBudget
from pspd.net.outgoing import OutgoingFrame, Payload, UnreadablePayload
from pspd.net.receiving import FrameHandler, FrameReceiver
from pspd.net.sockets import configure_persistent, set_user_timeout, start_connect
from pspd.text.addresses import Address, address_text

READS_PER_WAKEUP = 8
"""The most reads on one connection before the event loop continues."""
OUTGOING_FRAMES_MAX = 4096
"""The most frames that may wait on one connection. Further frames are dropped: the peer asks for their chunks again."""
READ_TIMEOUT_SECONDS = 15.0
"""The interval at which a connection checks that its peer has sent something while bytes are due (see
``FrameConnection._bytes_are_due``). A silent peer is disconnected after one to two intervals. A
dialled connection begins to check when the first bytes arrive."""

log = logging.getLogger(__name__)


class ConnectionHandler(FrameHandler["FrameConnection"], Protocol):
    """Handles the frames and the state changes of connections."""

    def frame_aborted(self, connection: FrameConnection, frame: Frame) -> None:
        """Handle the end of a connection before a payload was complete; not called for a discarded payload.

        Args:
            connection: the connection.
            frame: the head of the frame.
        """

    def connection_opened(self, connection: FrameConnection) -> None:
        """Handle a dialled connection that is established now; not called for accepted connections."""

    def connection_closed(self, connection: FrameConnection, error: WireError | None) -> None:
        """Handle the end of a connection.

        Args:
            connection: the connection.
            error: the violation of the protocol by the peer; None if there was none.
        """


class FrameConnection:
    """One TCP connection; it owns its socket.

    It first tries to read or write, and asks the event loop for a wakeup only afterwards. So a connection for one short
    transfer often needs no wakeup.

    Args:
        stream: the socket.
        handler: the handler of the frames and the state changes.
        peer: the address of the other end.
        persistent: whether the connection carries many transfers in both directions; otherwise it carries one.
        connected: whether the socket is connected already.

    Attributes:
        peer: the address of the other end.
        closed: whether the connection is closed.
        connect_failure: the system's reason why the connection attempt failed; empty if it has not failed.
    """

    def __init__(
        self, stream: socket.socket, handler: ConnectionHandler, peer: Address, *, persistent: bool, connected: bool
    ) -> None:
        self.peer = peer
        self.closed = False
        self.connect_failure = ""
        self._stream = stream
        self._handler = handler
        self._persistent = persistent
        self._is_connected = connected
        self._loop = asyncio.get_running_loop()
        self._budget = IoBudget.of_running_loop()
        self._receiver: FrameReceiver[FrameConnection] = FrameReceiver(handler)
        self._outgoing: deque[OutgoingFrame] = deque()
        self._is_flush_pending = not connected  # a flush is under way, or follows once the socket is writable
        self._close_requested = False
        self._has_reader = self._has_writer = False
        self._read_timer: asyncio.TimerHandle | None = None

    @staticmethod
    def dial(address: Address, handler: ConnectionHandler, *, persistent: bool) -> FrameConnection:
        """Begin to connect to an address; return the connection. Call :meth:`start` next, or queue frames first.

        Args:
            address: the address to connect to.
            handler: the handler of the frames and the state changes.
            persistent: whether the connection carries many transfers in both directions; otherwise it only sends.

        Raises:
            OSError: the attempt fails at once.
        """
        stream = start_connect(address, persistent=persistent)
        return FrameConnection(stream, handler, address, persistent=persistent, connected=False)

    @staticmethod
    def wrap(stream: socket.socket, peer: Address, handler: ConnectionHandler, *, persistent: bool) -> FrameConnection:
        """Configure an accepted connection; return its ``FrameConnection``. Call :meth:`start` next.

        Args:
            stream: the connection's socket.
            peer: the address of the other end.
            handler: the handler of the frames and the state changes.
            persistent: whether the connection carries many transfers in both directions; otherwise it only receives.

        Raises:
            OSError: the connection is closed already.
        """
        stream.setblocking(False)
        if persistent:
            set_user_timeout(stream)
            configure_persistent(stream)
        return FrameConnection(stream, handler, peer, persistent=persistent, connected=True)

    def start(self) -> None:
        """Begin to send and receive. The handler may be called before this returns."""
        if self.closed:
            return
        if self._is_connected:
            self._on_readable()
            return
        try:
            self._stream.getpeername()
        except OSError:
            self._set_writer(True)
        else:  # on one machine the connection may be established already
            self._on_connected()

    # -- sending

    def send(
        self,
        frame: Frame,
        payload: Payload,
        on_end: Callable[[bool], None] | None = None,
        on_unreadable: Callable[[], None] | None = None,
    ) -> None:
        """Queue a frame, and send as much as the kernel accepts now.

        Drop the frame if the connection is closed, too many frames wait, or no file descriptor is free.

        Args:
            frame: the head.
            payload: the payload; its memory belongs to the caller.
            on_end: called with True when the kernel has the whole frame, or with False when the frame is dropped or
                the connection closes first.
            on_unreadable: called if the payload's file can no longer be read. The connection is closed first, as the
                rest of the frame is missing.
        """
        if self.closed or len(self._outgoing) >= OUTGOING_FRAMES_MAX:
            if on_end:
                on_end(False)
            return
        try:
            self._outgoing.append(OutgoingFrame(frame, payload, on_end, on_unreadable))
        except OSError:  # out of descriptors; the peer asks for the chunks again
            if on_end:
                on_end(False)
            return
        if not self._is_flush_pending:
            self._flush()

    def close_when_sent(self) -> None:
        """Close the connection once the kernel has accepted all queued frames. The kernel still sends them."""
        self._close_requested = True
        if not (self._outgoing or self._is_flush_pending):
            self.close()

    def _flush(self) -> None:
        self._is_flush_pending = True
        try:
            self._send_outgoing()
            self._set_writer(False)
        except BlockingIOError:
            self._set_writer(True)
        except UnreadablePayload:
            on_unreadable = self._outgoing[0].on_unreadable
            self.close()
            if on_unreadable:
                on_unreadable()
        except OSError:
            self.close()
        finally:  # if `on_end` raises, later frames are still sent
            self._is_flush_pending = self._has_writer

    def _send_outgoing(self) -> None:
        while self._outgoing:
            is_last = self._close_requested and len(self._outgoing) == 1
            self._outgoing[0].send(self._stream, end_follows=is_last)
            sent = self._outgoing.popleft()
            if is_last:
                self.close()
            if sent.on_end:
                sent.on_end(True)
        if self._close_requested:
            self.close()

    def _set_writer(self, wanted: bool) -> None:
        if wanted != self._has_writer and not self.closed:
            self._has_writer = wanted
            if wanted:
                self._loop.add_writer(self._stream, self._on_writable)
            else:
                self._loop.remove_writer(self._stream)

    def _on_writable(self) -> None:
        if self.closed or not self._budget.admit_or_defer(self._on_writable):
            return
        if self._is_connected:
            self._flush()
        elif number := self._stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.connect_failure = os.strerror(number)
            self.close()
        else:
            self._on_connected()

    def _on_connected(self) -> None:
        self._is_connected = True
        if self._persistent:
            self._add_reader()
        self._handler.connection_opened(self)
        self._flush()

    # -- receiving

    def _on_readable(self) -> None:
        if self.closed:
            return
        try:
            for _ in range(READS_PER_WAKEUP):
                if not self._budget.admit_or_defer(self._on_readable):
                    break
                self._receiver.read(self._stream, self)
                if self.closed:
                    return
        except BlockingIOError:
            pass
        except WireError as error:
            self.close(error)
            return
        except OSError:  # a truncated head is an error of the peer; a truncated payload is reported as aborted
            self.close(WireError(DropReason.TOO_SHORT) if self._receiver.is_within_head else None)
            return
        except Exception:  # the position in the stream is lost
            log.exception("a frame from %s could not be handled; closing the connection", address_text(self.peer))
            self.close()
            return
        self._add_reader()
        if self._bytes_are_due:
            self._start_read_timer()

    def _add_reader(self) -> None:
        if not self._has_reader:
            self._has_reader = True
            self._loop.add_reader(self._stream, self._on_readable)

    @property
    def _bytes_are_due(self) -> bool:
        """Whether the peer must send its first frame, the rest of a frame, or the end of a single transfer."""
        receiver = self._receiver
        return not (self._persistent and receiver.is_between_frames) or receiver.received_bytes == 0

    def _start_read_timer(self) -> None:
        if self._read_timer is None:
            received = self._receiver.received_bytes
            self._read_timer = self._loop.call_later(READ_TIMEOUT_SECONDS, self._check_progress, received)

    def _check_progress(self, received_before: int) -> None:
        self._read_timer = None
        received = self._receiver.received_bytes
        if received == received_before and not self._budget.is_deferred(self._on_readable):
            has_no_frame = received == 0 or self._receiver.is_within_head
            self.close(WireError(DropReason.SILENT) if has_no_frame else None)
        elif self._bytes_are_due:
            self._start_read_timer()

    # -- the end

    def close(self, error: WireError | None = None) -> None:
        """Close the connection; report a frame that is being received as aborted, and queued frames as not sent.

        Args:
            error: the violation of the protocol by the peer; None if there was none.
        """
        if self.closed:
            return
        if self._has_reader:
            self._loop.remove_reader(self._stream)
        self._set_writer(False)
        self.closed = True
        self._stream.close()
        if self._read_timer is not None:
            self._read_timer.cancel()
        if (aborted := self._receiver.end()) is not None:
            _call_safely(self._handler.frame_aborted, self, aborted)
        unsent, self._outgoing = list(self._outgoing), deque()
        # Called before `on_end` of the unsent frames, so that the handler knows then that the connection is closed.
        _call_safely(self._handler.connection_closed, self, error)
        for outgoing in unsent:
            outgoing.close_file()
            if outgoing.on_end:
                _call_safely(outgoing.on_end, False)


def _call_safely(callback: Callable[..., object], *arguments: object) -> None:
    """Call a callback and log its error, so that later callbacks are called too."""
    try:
        callback(*arguments)
    except Exception:
        log.exception("a callback failed while a connection was closed")
