"""The standard streams of both programs: open from the start, and never a reason for a traceback.

Python leaves ``sys.stdout`` at None where the descriptor is closed, and lets the next file or socket take its number.
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
    """Whoever read stdout has closed it: a program ends then without a word."""


def prepare() -> None:
    """Makes all three streams usable; call it before anything opens a file or a socket.

    A closed descriptor becomes ``/dev/null``. Characters that the terminal's encoding lacks are written as escapes.
    Writing to stdout raises errors of our own; writing to stderr raises none. Streams that a test has replaced stay.
    """
    for descriptor in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            # The system gives the lowest free number, and those below are taken.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(STDIN, closefd=False)))
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text_stream(_Output(STDOUT, "w", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text_stream(_Remarks(STDERR, "w", closefd=False), sys.stderr, line_buffering=True)


def writes_unicode() -> bool:
    """Whether stdout takes every character as it is."""
    return (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf8")


def require_reader() -> None:
    """Checks that somebody can still read stdout, for a program that may have nothing to write for long.

    Raises:
        ReaderGone: stdout is a pipe or a socket, and its other end is closed.
    """
    poll = select.poll()
    poll.register(STDOUT, 0)  # errors are always told
    if any(event & select.POLLERR for _, event in poll.poll(0)):
        raise ReaderGone


class _Output(io.FileIO):
    """stdout. It fails once: what is buffered by then would only fail again at the program's end."""

    _failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Writes some bytes; returns how many."""
        if self._failed:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._failed = True
            if error.errno == errno.EPIPE:
                raise ReaderGone from error
            raise StorageError(f"cannot write the answer: {error.strerror}") from error


class _Remarks(io.FileIO):
    """stderr. What cannot be written is dropped: nobody is left to be told."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Writes some bytes; returns how many."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _text_stream(raw: io.FileIO, before: io.TextIOBase | None, *, line_buffering: bool = False) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None),
        errors="backslashreplace",
        line_buffering=line_buffering or raw.isatty(),
    )
