"""Reads a file ahead: other processes take its blocks' digests while this one still loads what it needs to seed it.

They are forked, so they run within a millisecond, one on each processor: threads gain nothing on blocks of 64 KiB, as
handing over the interpreter costs as much as the hashing. What they say of a file counts only if whoever asks has
the same file open, unchanged since.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

from pspd.core.model.manifest import DIGEST_BYTES, Digest, block_bytes_of

AHEAD_BYTES_MIN = 32 * 1024 * 1024
"""Smaller files are read sooner than it pays."""
READERS_MAX = 8
STRIPE_BLOCKS = 128
"""Each process reads so many blocks in a row, and then those after what the others read: what it has to say of several
stripes has room in a pipe while another is listened to."""


class FileState(NamedTuple):
    """What changes when somebody writes to a file or puts another one in its place."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Self:
        """The state that ``stat`` tells of."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class ReadAhead:
    """A file that other processes read. Ends them when it is closed.

    Attributes:
        state: the file's, when it was opened.
    """

    def __init__(self, fd: int, digest: Digest) -> None:
        """Begins to read; the descriptor stays the caller's."""
        self.state = FileState.of(os.fstat(fd))
        self._pipes: list[int] = []
        self._pids: list[int] = []
        readers = min(len(os.sched_getaffinity(0)), READERS_MAX, len(list(self._stripes())))
        try:
            for index in range(readers):
                self._fork(partial(self._read, fd, index, readers, digest))
        except OSError:
            self.close()
            raise

    @classmethod
    def begin(cls, path: Path, digest: Digest) -> Self | None:
        """Begins to read a file; None where that is not worth while, or cannot be: who seeds it will find out why."""
        if threading.active_count() > 1:  # a fork leaves the other threads, and the locks that they hold, behind
            return None
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            found = os.fstat(fd)
            worth_while = stat.S_ISREG(found.st_mode) and found.st_size >= AHEAD_BYTES_MIN
            return cls(fd, digest) if worth_while else None
        except OSError:
            return None
        finally:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def block_digests(self, progress: Callable[[int], None]) -> bytes | None:
        """The digests of all blocks, in order; None if they cannot be had. May be called once, and closes.

        Args:
            progress: is told how many bytes are read so far; what it raises ends the reading.
        """
        try:
            return self._listen(progress)
        finally:
            self.close()

    def _listen(self, progress: Callable[[int], None]) -> bytes | None:
        found: list[bytes] = []
        for index, (first, stop) in enumerate(self._stripes()):
            wanted_bytes = (stop - first) * DIGEST_BYTES
            with contextlib.suppress(OSError):
                while wanted_bytes and (answer := os.read(self._pipes[index % len(self._pipes)], wanted_bytes)):
                    found.append(answer)
                    wanted_bytes -= len(answer)
            if wanted_bytes:
                return None
            progress(min(stop * block_bytes_of(self.state.size_bytes), self.state.size_bytes))
        return b"".join(found)

    def stop(self) -> None:
        """Ends those who still read, so that whoever listens to them in another thread hears the end at once."""
        for pid in list(self._pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends those who still read; idempotent."""
        while self._pipes:
            os.close(self._pipes.pop())
        while self._pids:
            pid = self._pids.pop()
            with contextlib.suppress(ChildProcessError):  # where SIGCHLD is ignored they are gone when they end
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)

    def _stripes(self) -> Iterator[tuple[int, int]]:
        block_count = -(-self.state.size_bytes // block_bytes_of(self.state.size_bytes))
        for first in range(0, block_count, STRIPE_BLOCKS):
            yield first, min(first + STRIPE_BLOCKS, block_count)

    def _fork(self, read: Callable[[int], None]) -> None:
        pipe, answers = os.pipe()
        self._pipes.append(pipe)
        try:
            pid = os.fork()
            if pid == 0:
                self._be_reader(lambda: read(answers))
        finally:
            os.close(answers)
        self._pids.append(pid)

    def _be_reader(self, read: Callable[[], None]) -> None:
        """What a forked process does, and nothing after it; it ends when there is nobody to hear it any more."""
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the one who listens, who ends this one
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            for pipe in self._pipes:
                os.close(pipe)
            read()
        finally:
            os._exit(0)

    def _read(self, fd: int, index: int, readers: int, digest: Digest, answers: int) -> None:
        step = block_bytes_of(self.state.size_bytes)
        for number, (first, stop) in enumerate(self._stripes()):
            for block in range(first, stop) if number % readers == index else ():
                length = min(step, self.state.size_bytes - block * step)
                data = os.pread(fd, length, block * step)
                if len(data) < length:
                    return  # somebody has cut it short
                os.write(answers, digest((data,)))
