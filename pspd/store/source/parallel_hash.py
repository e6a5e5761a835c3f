"""Hash a file's blocks in child processes, while this process still loads the modules that it needs for seeding.

Threads would not help: for small blocks, passing the interpreter lock costs as much as hashing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

from pspd.core.model.manifest import DIGEST_BYTES, DigestFunction, block_bytes_of

PARALLEL_BYTES_MIN = 32 * 1024 * 1024
"""The minimum size of a file that is hashed in processes, in bytes. For smaller files, this would save no time."""
PROCESSES_MAX = 8
STRIPE_BLOCKS = 128
"""The number of consecutive blocks in a stripe. The stripes are assigned to the processes in rotation.

The digests of several stripes fit into a pipe's buffer, so a process seldom waits while another pipe is read.
"""


class FileState(NamedTuple):
    """A file's identity, size and modification time. They change if the file is written to or replaced."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Self:
        """Return the state in a ``stat`` result."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class ParallelHash(contextlib.AbstractContextManager["ParallelHash"]):
    """Child processes that hash one file. Leaving the context ends the processes.

    Attributes:
        state: the file's state when the processes were started.
    """

    def __init__(self, fd: int, digest: DigestFunction) -> None:
        """Start the processes.

        Args:
            fd: the file's descriptor. The caller may close it at any time after this call.
            digest: the digest function of manifests.

        Raises:
            OSError: a process cannot be started.
        """
        self.state = FileState.of(os.fstat(fd))
        self._pipes: list[int] = []
        self._pids: list[int] = []
        block_count = -(-self.state.size_bytes // block_bytes_of(self.state.size_bytes))
        firsts = range(0, block_count, STRIPE_BLOCKS)
        self._stripes = [range(first, min(first + STRIPE_BLOCKS, block_count)) for first in firsts]
        process_count = min(len(os.sched_getaffinity(0)), PROCESSES_MAX, len(self._stripes))
        try:
            for index in range(process_count):
                self._fork(fd, self._stripes[index::process_count], digest)
        except OSError:
            self.close()
            raise

    @classmethod
    def start(cls, path: Path, digest: DigestFunction) -> Self | None:
        """Start hashing a file.

        Args:
            path: the file.
            digest: the digest function of manifests.

        Returns:
            The processes; None if the file is too small, not regular or unreadable, if other threads run, or if a
            process cannot be started. The caller then hashes the file itself.
        """
        if threading.active_count() > 1:  # a fork copies the locks that other threads hold, but not the threads
            return None
        with contextlib.suppress(OSError), open(path, "rb", buffering=0, opener=_open_nonblocking) as file:
            found = os.fstat(file.fileno())
            if stat.S_ISREG(found.st_mode) and found.st_size >= PARALLEL_BYTES_MIN:
                return cls(file.fileno(), digest)
        return None

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        self.close()

    def block_digests(self, progress: Callable[[int], None]) -> bytes | None:
        """Return the digests of all blocks in order, and end the processes. Return None on failure.

        Args:
            progress: a function that is called with the number of bytes hashed so far. An exception from it ends the
                processes.
        """
        found: list[bytes] = []
        with self:
            for index, blocks in enumerate(self._stripes):
                wanted_bytes = len(blocks) * DIGEST_BYTES
                with contextlib.suppress(OSError):
                    while wanted_bytes and (part := os.read(self._pipes[index % len(self._pipes)], wanted_bytes)):
                        found.append(part)
                        wanted_bytes -= len(part)
                if wanted_bytes:
                    return None
                progress(min(blocks.stop * block_bytes_of(self.state.size_bytes), self.state.size_bytes))
        return b"".join(found)

    def kill(self) -> None:
        """Kill the processes, so that a call of :meth:`block_digests` in another thread returns at once."""
        for pid in list(self._pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End the processes and wait for them; idempotent."""
        while self._pipes:
            os.close(self._pipes.pop())
        while self._pids:
            pid = self._pids.pop()
            with contextlib.suppress(ChildProcessError):  # if SIGCHLD is ignored, the kernel reaps ended processes
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)

    def _fork(self, fd: int, stripes: list[range], digest: DigestFunction) -> None:
        """Start a process that hashes some stripes."""
        reading_end, writing_end = os.pipe()
        self._pipes.append(reading_end)
        try:
            pid = os.fork()
            if pid == 0:
                self._run_child(fd, stripes, digest, writing_end)
        finally:
            os.close(writing_end)
        self._pids.append(pid)

    def _run_child(self, fd: int, stripes: list[range], digest: DigestFunction, pipe: int) -> None:
        """Hash stripes in the forked process, write the digests to a pipe, and exit; also exit on any error."""
        step = block_bytes_of(self.state.size_bytes)
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends this process
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            for reading_end in self._pipes:
                os.close(reading_end)
            for block in itertools.chain(*stripes):
                length = min(step, self.state.size_bytes - block * step)
                data = os.pread(fd, length, block * step)
                if len(data) < length:
                    return  # another program truncated the file
                os.write(pipe, digest((data,)))
        finally:
            os._exit(0)


def _open_nonblocking(path: str, flags: int) -> int:
    """Open a file; if it is a named pipe, do not wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)
