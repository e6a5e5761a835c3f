"""Receiving frames from a TCP stream, each payload straight into the memory that it is meant for."""

from __future__ import annotations

import os
import socket
from enum import Enum, auto
from typing import Generic, Protocol, TypeVar

from pspd.core.wire.frames import FRAME_BYTES, Frame, decode_frame
from pspd.core.wire.header import Kind

VIEWS_PER_CALL = 64
"""Buffers per system call; the system's limit is 1024."""

_DISCARD_BUFFER = memoryview(bytearray(1024 * 1024))
_DISCARD_FLAGS = getattr(socket, "MSG_TRUNC", 0) if os.uname().sysname == "Linux" else 0
"""Linux discards the bytes itself, without a copy (tcp(7))."""

OwnerT = TypeVar("OwnerT", contravariant=True)


class FrameHandler(Protocol[OwnerT]):
    """Receives the frames of connections. It may close a connection in any call; that ends its frames."""

    def frame_started(self, link: OwnerT, frame: Frame) -> list[memoryview] | None:
        """Handle the head of a frame.

        Args:
            link: the connection.
            frame: the head.

        Returns:
            Memory for the payload, or for its first part; None to discard the payload.
        """

    def frame_continued(self, link: OwnerT, frame: Frame) -> list[memoryview]:
        """Handle a part of the payload, which fills the memory, and return memory for the next part.

        Args:
            link: the connection.
            frame: the head of the frame.
        """

    def frame_received(self, link: OwnerT, frame: Frame) -> None:
        """Handle the end of the payload, or of its last part.

        Args:
            link: the connection.
            frame: the head of the frame.
        """


class ReceiveState(Enum):
    """What the next bytes of a stream are."""

    HEAD = auto()
    BODY = auto()
    DISCARD = auto()
    """A payload that is discarded."""
    ENDED = auto()
    """None: the connection is closed."""


# In Python 3.11 an enum's members are slow to look up, and these are compared several times for each frame.
_HEAD = ReceiveState.HEAD
_BODY = ReceiveState.BODY
_DISCARD = ReceiveState.DISCARD
_ENDED = ReceiveState.ENDED


class FrameReceiver(Generic[OwnerT]):
    """Reads frames from a stream socket.

    It has no reference to the connection that owns it: a cycle would delay the release of both to the collector.

    Args:
        handler: receives the frames.

    Attributes:
        state: what the next bytes are.
        received_count: bytes received so far.
    """

    def __init__(self, handler: FrameHandler[OwnerT]) -> None:
        self.state = _HEAD
        self.received_count = 0
        self._handler = handler
        self._head = memoryview(bytearray(FRAME_BYTES))
        self._targets = [self._head]
        self._frame = Frame(Kind.LINK, 0)  # in BODY: the head
        self._unallocated = 0  # in BODY: payload bytes that have no memory yet
        self._discard_left = 0  # in DISCARD: payload bytes to come

    def read(self, stream: socket.socket, owner: OwnerT) -> bool:
        """Read once, and handle what came; return False at the end of the stream.

        Args:
            stream: a non-blocking socket.
            owner: the connection that the handler is told of.

        Raises:
            BlockingIOError: nothing has arrived.
            OSError: the connection is broken.
            WireError: the peer violates the protocol.
        """
        if self.state is _DISCARD:
            length = min(self._discard_left, len(_DISCARD_BUFFER))
            count = stream.recv_into(_DISCARD_BUFFER, length, _DISCARD_FLAGS)
            self.received_count += count
            self._discard_left -= count
            if self._discard_left == 0:
                self.state = _HEAD
        else:
            count = stream.recvmsg_into(self._targets[:VIEWS_PER_CALL])[0]
            self.received_count += count
            self._advance(count, owner)
        return count > 0

    def end(self) -> Frame | None:
        """Receive nothing more; return the frame whose payload is incomplete, if it is not discarded."""
        frame = self._frame if self.state is _BODY else None
        self.state = _ENDED
        return frame

    @property
    def is_between_frames(self) -> bool:
        """Whether no frame has begun whose rest is still to come."""
        return self.state is _HEAD and len(self._targets[0]) == FRAME_BYTES

    @property
    def is_within_head(self) -> bool:
        """Whether a head has come in part."""
        return self.state is _HEAD and len(self._targets[0]) < FRAME_BYTES

    def _advance(self, count: int, owner: OwnerT) -> None:
        """Account for received bytes: the payload comes first, then the next head."""
        while count:
            target = self._targets[0]
            if count < len(target):
                self._targets[0] = target[count:]
                return
            count -= len(target)
            del self._targets[0]
            if self.state is _HEAD:
                self._targets = [self._head]
                self._start_frame(decode_frame(self._head), owner)
            elif len(self._targets) == (0 if self._unallocated else 1):
                self._end_part(owner)
            if self.state is _ENDED:
                return

    def _start_frame(self, frame: Frame, owner: OwnerT) -> None:
        targets = self._handler.frame_started(owner, frame)
        if frame.length == 0 or self.state is _ENDED:
            return
        if targets is None:
            self.state = _DISCARD
            self._discard_left = frame.length
        else:
            self.state = _BODY
            self._frame = frame
            self._unallocated = frame.length
            self._receive_into(targets)

    def _receive_into(self, targets: list[memoryview]) -> None:
        self._unallocated -= sum(map(len, targets))
        # One system call receives the end of this payload and the next head.
        self._targets = targets if self._unallocated else [*targets, self._head]

    def _end_part(self, owner: OwnerT) -> None:
        if self._unallocated:
            self._receive_into(self._handler.frame_continued(owner, self._frame))
        else:
            self.state = _HEAD
            self._handler.frame_received(owner, self._frame)
