"""Where a program runs: on this machine as it is, or in a network namespace that plays another machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# The kernel ends a program when the test process is killed. setpriv sets this and becomes the program: a
# preexec_fn would do the same, but is not safe in a process with threads, and pytest has some.
_DIES_WITH_US: tuple[str, ...] = ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()


@dataclass(frozen=True)
class Host:
    """A machine, real or played.

    Attributes:
        name: what messages call it.
        address: the IPv4 address at which the others reach it.
        enter: the words before a command that make it run there.
    """

    name: str
    address: str
    enter: tuple[str, ...] = ()

    def popen(self, args: Sequence[object], **options: Any) -> subprocess.Popen[Any]:
        """Starts a program there, in a process group of its own that is named by its pid.

        Call it from the main thread: where the kernel sees to it, a program ends with the thread that
        started it. The program's pid is that of the process returned, whatever the host.
        """
        command = [*self.enter, *_DIES_WITH_US, *map(str, args)]
        return subprocess.Popen(command, start_new_session=True, **options)

    def run(self, args: Sequence[object], timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs a program there to its end and returns what it said; nothing of it is left afterwards.

        Raises:
            subprocess.TimeoutExpired: it had not ended after ``timeout`` seconds, and was killed.
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
    """Kills a program that :meth:`Host.popen` started, and what it started in its group; waits for it."""
    # The group may outlive its leader; once the leader is waited for, an empty group is simply not there.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
