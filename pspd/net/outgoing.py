"""Sends a frame over a TCP stream, with a payload from memory or from a file."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

from pspd.core.model.storage import FileSlice
from pspd.core.wire.frames import Frame, encode_frame
from pspd.net.receiving import VIEWS_PER_CALL

_MORE = getattr(socket, "MSG_MORE", 0)

_FILE_ERRNOS = frozenset({errno.EIO, errno.EBADMSG, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.EUCLEAN})
"""Errors of `sendfile` that come from the file, not from the connection."""

Payload = list[memoryview] | FileSlice


class UnreadablePayload(Exception):
    """A payload cannot be read from its file; the connection itself works."""


class OutgoingFrame:
    """A frame that is being sent.

    Args:
        frame: the head.
        payload: the payload. Its memory belongs to the caller. A file's descriptor is duplicated, because the caller
            may close its own before the last byte is sent.
        on_end: called by the connection with True when the kernel has the whole frame, or with False if it never will.
        on_unreadable: called by the connection if the payload's file can no longer be read.

    Raises:
        OSError: no file descriptor is free.
    """

    __slots__ = ("_file", "_views", "on_end", "on_unreadable")

    def __init__(
        self,
        frame: Frame,
        payload: Payload,
        on_end: Callable[[bool], None] | None,
        on_unreadable: Callable[[], None] | None,
    ) -> None:
        self.on_end = on_end
        self.on_unreadable = on_unreadable
        self._file: FileSlice | None = None
        self._views = [memoryview(encode_frame(frame))]
        if isinstance(payload, FileSlice):
            self._file = FileSlice(os.dup(payload.fd), payload.offset, payload.length)
        else:
            self._views += payload

    def send(self, stream: socket.socket, *, end_follows: bool) -> None:
        """Send the rest of the frame.

        Args:
            stream: a non-blocking socket.
            end_follows: whether the stream ends after the frame; the last bytes and the end may then share a segment.

        Raises:
            BlockingIOError: the kernel's buffer is full. Call this again later for the rest.
            OSError: the connection is broken.
            UnreadablePayload: the file is too short now, or cannot be read.
        """
        flags = _MORE if self._file or end_follows else 0
        while self._views:
            self._drop_sent(stream.sendmsg(self._views[:VIEWS_PER_CALL], (), flags))
        while self._file is not None:
            try:
                sent = os.sendfile(stream.fileno(), self._file.fd, self._file.offset, self._file.length)
            except OSError as error:
                if error.errno in _FILE_ERRNOS:
                    raise UnreadablePayload from error
                raise
            if sent == 0:
                raise UnreadablePayload
            rest = FileSlice(self._file.fd, self._file.offset + sent, self._file.length - sent)
            if rest.length == 0:
                self.close_file()
            else:
                self._file = rest

    def _drop_sent(self, sent: int) -> None:
        whole = 0
        for view in self._views:
            if sent < len(view):
                break
            sent -= len(view)
            whole += 1
        del self._views[:whole]
        if sent:
            self._views[0] = self._views[0][sent:]

    def close_file(self) -> None:
        """Close the duplicate of the file's descriptor, if it is open."""
        if self._file is not None:
            os.close(self._file.fd)
            self._file = None
