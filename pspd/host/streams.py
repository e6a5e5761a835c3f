"""The standard streams of ``pspd`` and ``pspctl``: always open, and without tracebacks when they fail.

If a descriptor is closed at the start, Python sets its stream, such as ``sys.stdout``, to None. The next file or socket
then gets the number of the closed descriptor.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING

from pspd.errors import StorageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDIN, STDOUT, STDERR = range(3)


class ReaderGone(Exception):
    """The reader of stdout has closed it. The program then ends without a message."""


def prepare() -> None:
    """Make all three streams usable. Call this before anything opens a file or a socket.

    Closed descriptors are opened on ``/dev/null``. Characters outside a stream's encoding are written as escapes.
    Writing to stdout may raise ``ReaderGone`` or ``StorageError``; writing to stderr raises nothing. Streams that a
    test has replaced are not changed.
    """
    for descriptor in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            # The system assigns the lowest free number, and all lower ones are in use.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(STDIN, closefd=False)))
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text_stream(_Stdout(STDOUT, "w", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text_stream(_Stderr(STDERR, "w", closefd=False), sys.stderr, line_buffering=True)


def writes_unicode() -> bool:
    """Return whether stdout can write every character unescaped."""
    return (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf8")


def require_reader() -> None:
    """Check that stdout still has a reader, for a program that writes rarely.

    Raises:
        ReaderGone: stdout is a pipe whose reader has closed it, or a socket with an error.
    """
    poll = select.poll()
    poll.register(STDOUT, 0)  # poll always reports errors
    if any(event & select.POLLERR for _, event in poll.poll(0)):
        raise ReaderGone


class _Stdout(io.FileIO):
    """The stream of stdout, which fails only once.

    After a failure, it drops all bytes: otherwise the rest of the buffer would fail again at the program's end.
    """

    _failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Write bytes; return the number of bytes written or dropped.

        Raises:
            ReaderGone: the reader has closed stdout.
            StorageError: the bytes cannot be written for another reason.
        """
        if self._failed:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._failed = True
            if error.errno == errno.EPIPE:
                raise ReaderGone from error
            raise StorageError(f"cannot write to stdout: {error.strerror}") from error


class _Stderr(io.FileIO):
    """The stream of stderr. It drops bytes that cannot be written, because there is no other place for a report."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write bytes; return the number of bytes written or dropped."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _text_stream(raw: io.FileIO, replaced: io.TextIOBase | None, *, line_buffering: bool = False) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(replaced, "encoding", None),
        errors="backslashreplace",
        line_buffering=line_buffering or raw.isatty(),
    )
