"""Run programs on this machine, or in a network namespace that simulates another machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Makes the kernel kill a program when the test process is killed. A preexec_fn is not safe in a process with threads.
_EXIT_WITH_PARENT: tuple[str, ...] = ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()


@dataclass(frozen=True)
class Host:
    """A machine, real or simulated by a network namespace.

    Attributes:
        name: the host's name in messages.
        address: the IPv4 address.
        enter: the command prefix that runs a program there.
    """

    name: str
    address: str
    enter: tuple[str, ...] = ()

    def popen(self, args: Sequence[object], **options: Any) -> subprocess.Popen[Any]:
        """Start a program in its own process group; the returned process has the program's pid.

        Call it from the main thread: the kernel kills the program when the thread that started it ends.

        Args:
            args: the command.
            options: as for `subprocess.Popen`.
        """
        command = [*self.enter, *_EXIT_WITH_PARENT, *map(str, args)]
        return subprocess.Popen(command, start_new_session=True, **options)

    def run(self, args: Sequence[object], timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, kill the rest of its process group, and return its output.

        Args:
            args: the command.
            timeout: the most seconds that it may take.
            options: as for `subprocess.Popen`.

        Raises:
            subprocess.TimeoutExpired: the program took longer and was killed.
        """
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        with self.popen(args, stdin=subprocess.DEVNULL, **options) as process:
            try:
                output, errors = process.communicate(timeout=timeout)
            finally:
                kill_group(process)
        return subprocess.CompletedProcess(list(map(str, args)), process.returncode, output, errors)


LOCAL = Host("local", "127.0.0.1")


def kill_group(process: subprocess.Popen[Any]) -> None:
    """Kill the process group of a program that `Host.popen` started, and wait for the program."""
    # The group may still exist after its leader has ended, or may be empty.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
