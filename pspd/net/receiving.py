"""Receives frames from a TCP stream, each payload directly into the memory that the handler provides."""

from __future__ import annotations

import os
import socket
from enum import Enum, auto
from typing import Final, Generic, Protocol, TypeVar

from pspd.core.wire.frames import FRAME_BYTES, Frame, decode_frame
from pspd.core.wire.header import Kind

VIEWS_PER_CALL = 64
"""The most buffers per system call; the system's limit is 1024."""

_DISCARD_BUFFER = memoryview(bytearray(1024 * 1024))
_DISCARD_FLAGS = getattr(socket, "MSG_TRUNC", 0) if os.uname().sysname == "Linux" else 0
"""With MSG_TRUNC, Linux itself discards the received bytes, without a copy (tcp(7))."""

ConnectionT = TypeVar("ConnectionT", contravariant=True)


class FrameHandler(Protocol[ConnectionT]):
    """Handles the frames of connections. Any call may close its connection; the rest of the stream is then ignored."""

    def frame_started(self, connection: ConnectionT, frame: Frame) -> list[memoryview] | None:
        """Handle the head of a frame. This is the only call for a frame whose payload is empty or discarded.

        Args:
            connection: the connection.
            frame: the head.

        Returns:
            Memory for the payload, or for its first part; None to discard the payload.
        """

    def frame_continued(self, connection: ConnectionT, frame: Frame) -> list[memoryview]:
        """Handle a received part of the payload, except the last part; return memory for the next part.

        Args:
            connection: the connection.
            frame: the head of the frame.
        """

    def frame_received(self, connection: ConnectionT, frame: Frame) -> None:
        """Handle the complete payload, or its last part.

        Args:
            connection: the connection.
            frame: the head of the frame.
        """


class ReceiveState(Enum):
    """The meaning of the next bytes of a stream.

    HEAD and PAYLOAD are the head and the payload of a frame, and DISCARD is a payload to discard. ENDED means that
    the connection is closed.
    """

    HEAD = auto()
    PAYLOAD = auto()
    DISCARD = auto()
    ENDED = auto()


# Python 3.11 looks up an enum's members slowly. mypyc compiles a Final to a C variable.
_HEAD: Final = ReceiveState.HEAD
_PAYLOAD: Final = ReceiveState.PAYLOAD
_DISCARD: Final = ReceiveState.DISCARD
_ENDED: Final = ReceiveState.ENDED


class FrameReceiver(Generic[ConnectionT]):
    """Reads frames from a stream socket.

    A receiver has no reference to the connection that owns it, because a cycle would stay in memory until a garbage
    collection.

    Args:
        handler: the handler of the frames.

    Attributes:
        state: the meaning of the next bytes.
        received_bytes: the number of bytes received so far.
    """

    def __init__(self, handler: FrameHandler[ConnectionT]) -> None:
        self.state = _HEAD
        self.received_bytes = 0
        self._handler = handler
        self._head = memoryview(bytearray(FRAME_BYTES))
        self._targets = [self._head]
        self._frame = Frame(Kind.LINK, 0)  # in PAYLOAD: the head of the frame
        self._unallocated_bytes = 0  # in PAYLOAD: the number of payload bytes without memory
        self._discard_bytes = 0  # in DISCARD: the number of payload bytes to come

    def read(self, stream: socket.socket, connection: ConnectionT) -> None:
        """Read once, and handle the received bytes.

        Args:
            stream: a non-blocking socket.
            connection: the connection to pass to the handler.

        Raises:
            BlockingIOError: nothing has arrived.
            OSError: the connection is closed or broken.
            WireError: the peer violates the protocol.
        """
        if self.state is _DISCARD:
            length = min(self._discard_bytes, len(_DISCARD_BUFFER))
            count = stream.recv_into(_DISCARD_BUFFER, length, _DISCARD_FLAGS)
            self._discard_bytes -= count
            if self._discard_bytes == 0:
                self.state = _HEAD
        else:
            count = stream.recvmsg_into(self._targets[:VIEWS_PER_CALL])[0]
            self._advance(count, connection)
        if count == 0:
            raise ConnectionResetError("the peer has closed the connection")
        self.received_bytes += count

    def end(self) -> Frame | None:
        """End the stream; return the head of a frame whose payload is incomplete and not discarded, or None."""
        frame = self._frame if self.state is _PAYLOAD else None
        self.state = _ENDED
        return frame

    @property
    def is_between_frames(self) -> bool:
        """Whether the next byte is the first of a frame."""
        return self.state is _HEAD and len(self._targets[0]) == FRAME_BYTES

    @property
    def is_within_head(self) -> bool:
        """Whether a part of a head, but not all of it, has been received."""
        return self.state is _HEAD and len(self._targets[0]) < FRAME_BYTES

    def _advance(self, count: int, connection: ConnectionT) -> None:
        """Process received bytes, which fill the targets in order: the rest of a payload, then the next head."""
        while count:
            target = self._targets[0]
            if count < len(target):
                self._targets[0] = target[count:]
                return
            count -= len(target)
            del self._targets[0]
            if self.state is _HEAD:
                self._targets = [self._head]
                self._start_frame(decode_frame(self._head), connection)
            elif len(self._targets) == (0 if self._unallocated_bytes else 1):
                self._end_part(connection)
            if self.state is _ENDED:
                return

    def _start_frame(self, frame: Frame, connection: ConnectionT) -> None:
        targets = self._handler.frame_started(connection, frame)
        if frame.length == 0 or self.state is _ENDED:
            return
        if targets is None:
            self.state, self._discard_bytes = _DISCARD, frame.length
        else:
            self.state, self._frame, self._unallocated_bytes = _PAYLOAD, frame, frame.length
            self._receive_into(targets)

    def _receive_into(self, targets: list[memoryview]) -> None:
        self._unallocated_bytes -= sum(map(len, targets))
        # One system call receives the end of this payload and the next head.
        self._targets = targets if self._unallocated_bytes else [*targets, self._head]

    def _end_part(self, connection: ConnectionT) -> None:
        if self._unallocated_bytes:
            self._receive_into(self._handler.frame_continued(connection, self._frame))
        else:
            self.state = _HEAD
            self._handler.frame_received(connection, self._frame)
