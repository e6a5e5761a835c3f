"""Starts daemons as separate processes, waits until they are ready, and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pspd.errors import BadArgument, InternalError, LimitReached, PspError, parse_daemon_error
from pspd.host.command import CLIENTS_PER_PROCESS_MAX, DAEMON_COMMAND, STOP_ON_STDIN_EOF
from pspd.host.environment import no_home_error, user_folder
from pspd.rpc.limits import ADDRESS_CHARACTERS_MAX, DIRECTORY_CHARACTERS_MAX
from pspd.text.addresses import parse_address
from pspd.text.plain import plain_text

LAUNCHES_MAX = 100
"""The most launched processes that run at the same time. Each launch starts one process."""
READY_SECONDS = 30.0
"""How long launched clients may take until they are ready."""
STOP_SECONDS = 5.0
"""How long daemons that are stopped at the same time may take before they are killed."""
REAP_SECONDS = 0.1
"""The delay from the end of a process's log to the reaping of the process, which has normally ended by then."""
READ_BYTES = 64 * 1024


def _start_in_group(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process in its own process group: Ctrl-C reaches only the parent, which then stops the process."""
    return subprocess.Popen(command, process_group=0, **options)


class DaemonProcess:
    """A ``pspd`` process, which stops by itself when its parent ends.

    Attributes:
        title: the name of the process in messages.
        ready_line: the contents of the ready line; empty until `read_ready` has read the whole line.
    """

    def __init__(
        self,
        title: str,
        arguments: Sequence[object],
        log_path: Path | None,
        *,
        command: Sequence[object] | None = None,
        environment: Mapping[str, str] | None = None,
        start: Callable[..., subprocess.Popen[bytes]] = _start_in_group,
        **options: Any,
    ) -> None:
        """Start the process.

        Args:
            title: the name of the process in messages.
            arguments: the arguments of `pspd`.
            log_path: the file to append the log to; None for a pipe, which must be emptied with `read_log`.
            command: the command to which the arguments are added; None for `pspd` of this installation.
            environment: the environment of the process; None for the environment of this process.
            start: starts the process; it takes the arguments of `subprocess.Popen`.
            **options: further options for `start`.

        Raises:
            LimitReached: the process cannot be started.
            OSError: the log cannot be written.
        """
        self.title = title
        self.ready_line: dict[str, Any] = {}
        self._log_path = log_path
        self._output = bytearray()
        self._log_tail = b""
        with open(log_path, "ab") if log_path is not None else contextlib.nullcontext(subprocess.PIPE) as log_file:
            try:
                self._process = start(
                    [*map(str, DAEMON_COMMAND if command is None else command), *map(str, arguments)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log_file,
                    env={**(os.environ if environment is None else environment), STOP_ON_STDIN_EOF: "1"},
                    **options,
                )
            except OSError as error:
                raise LimitReached(f"cannot start the {title}: {error.strerror}: end other processes first") from error
        for pipe in (self.output_pipe, self._process.stderr):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def output_pipe(self) -> IO[bytes]:
        """The pipe from the standard output of the process."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def log_pipe(self) -> IO[bytes]:
        """The pipe from the log of the process, which must have no log file."""
        assert self._process.stderr is not None
        return self._process.stderr

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended; if so, it is reaped."""
        return self._process.poll() is not None

    def read_ready(self) -> bool:
        """Read the ready line as far as it has arrived; return whether it is complete. Never block.

        Raises:
            PspError: the process ended, or closed its output, before it was ready. If it still runs, it is killed.
            InternalError: the first line of its output is not a ready line.
        """
        while not self.ready_line:
            try:
                part = os.read(self.output_pipe.fileno(), READ_BYTES)
            except BlockingIOError:
                return False
            if not part:
                self.kill()
                raise self.exit_error("did not start")
            self._output += part
            line, newline, _ = self._output.partition(b"\n")
            if newline:
                try:
                    fields = json.loads(line)
                except ValueError:
                    fields = None
                if not (isinstance(fields, dict) and fields):
                    text = line.decode(errors="replace")
                    raise InternalError(f"the {self.title} wrote {text!r} instead of a ready line")
                self.ready_line = fields
        return True

    def wait_ready(self, seconds: float | None) -> bool:
        """Wait for the ready line; return whether it has arrived.

        Args:
            seconds: how long to wait; None for no limit.

        Raises:
            PspError: as in `read_ready`.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self.output_pipe, selectors.EVENT_READ)
            while not self.read_ready():
                if not selector.select(None if deadline is None else max(0.0, deadline - time.monotonic())):
                    return False
        return True

    def read_log(self) -> bool:
        """Empty the pipe from the log, and keep the last line; return whether the pipe is still open. Never block."""
        while True:
            try:
                part = os.read(self.log_pipe.fileno(), READ_BYTES)
            except BlockingIOError:
                return True
            if not part:
                return False
            *lines, rest = (self._log_tail + part)[-READ_BYTES:].split(b"\n")
            last = next(filter(bytes.strip, reversed(lines)), b"")
            self._log_tail = last + b"\n" + rest

    def log_text(self) -> str:
        """Return the log of the process; only its end if there is no log file."""
        if self._log_path is not None:
            return self._log_path.read_text(errors="replace")
        self.read_log()
        return self._log_tail.decode(errors="replace")

    @property
    def last_log_line(self) -> str:
        """The last line of the log that is not empty; "it logged nothing" if there is none."""
        lines = self.log_text().split("\n")
        return next((plain_text(line.strip()) for line in reversed(lines) if line.strip()), "it logged nothing")

    def exit_error(self, what: str = "ended") -> PspError:
        """Return an error for the end of the process: the error in its last log line, otherwise an `InternalError`.

        Args:
            what: what the process did, such as "did not start".
        """
        code, last_log_line = self._process.returncode, self.last_log_line
        reported = parse_daemon_error(code, last_log_line)
        if reported is not None:
            return type(reported)(f"the {self.title} {what}: {reported}")
        return InternalError(f"the {self.title} {what}: {last_log_line} (exit code {code})")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, unless it has ended."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int | None:
        """Wait until the process ends; return its exit code, negative for a signal; None if `seconds` have passed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def kill(self) -> None:
        """Kill the process if it has not ended, and wait for its end."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kill the process if it has not ended, and close its pipes."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


def stop_all(processes: Sequence[DaemonProcess], seconds: float) -> None:
    """Stop processes at the same time; kill those that do not end in time.

    Args:
        processes: the processes.
        seconds: how long to wait for all of them together.
    """
    deadline = time.monotonic() + seconds
    try:
        for process in processes:
            process.signal(signal.SIGTERM)
        for process in processes:
            process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        for process in processes:
            process.kill()


def default_folder() -> Path:
    """Return the default folder for the folders of launched clients.

    Raises:
        StorageError: the user has no home folder.
    """
    folder = user_folder("data")
    if folder is None:
        raise no_home_error("data", "--dir")
    return folder / "clients"


class Launcher:
    """Launches clients for a server or an agent. The clients stop when the server or the agent stops."""

    def __init__(self) -> None:
        self._processes: list[DaemonProcess] = []

    async def launch(self, count: int, folder: str, server: str) -> list[str]:
        """Start clients in one process; return their names once all of them are ready.

        Args:
            count: how many clients to start.
            folder: the folder in which each client gets its own folder; empty for the default.
            server: the address of the server that the clients join.

        Raises:
            BadArgument: an argument cannot be used.
            StorageError: no folder is given, and the user has no home folder.
            LimitReached: too many launched processes still run, or the process cannot be started.
            PspError: the process ended before the clients were ready, or they were not ready in time.
        """
        _validate_launch(count, folder, server)
        for process in [process for process in self._processes if process.has_ended]:
            self._close(process)
        if len(self._processes) >= LAUNCHES_MAX:
            raise LimitReached(f"{LAUNCHES_MAX} launched processes still run here: stop some clients first")
        name = f"{socket.gethostname()[:40]}-{secrets.token_hex(2)}"
        arguments = ["client", "--server", server, "--dir", folder or default_folder(), "--name", name]
        process = DaemonProcess("clients", [*arguments, "--count", count], None)
        self._processes.append(process)
        asyncio.get_running_loop().add_reader(process.log_pipe, self._read_log, process)
        try:
            return list((await self._wait_ready(process))["names"])
        except BaseException:
            self._close(process)
            raise

    async def _wait_ready(self, process: DaemonProcess) -> dict[str, Any]:
        """Wait until the process is ready; return the contents of its ready line."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(process.output_pipe, ready.set)
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not process.read_ready():
                    ready.clear()
                    await ready.wait()
        except TimeoutError:
            text = f"the {process.title} were not ready after {READY_SECONDS:g} s: {process.last_log_line}"
            raise InternalError(text) from None
        finally:
            loop.remove_reader(process.output_pipe)
        return process.ready_line

    def _read_log(self, process: DaemonProcess) -> None:
        """Empty the pipe from a process's log; at the end of the log, reap the process."""
        if not process.read_log():
            loop = asyncio.get_running_loop()
            loop.remove_reader(process.log_pipe)
            loop.call_later(REAP_SECONDS, lambda: process.has_ended)  # reaps it

    def _close(self, process: DaemonProcess) -> None:
        asyncio.get_running_loop().remove_reader(process.log_pipe)
        process.close()
        self._processes.remove(process)

    async def stop(self) -> None:
        """Stop every process that still runs."""
        if self._processes:
            await asyncio.to_thread(stop_all, self._processes, STOP_SECONDS)
        for process in list(self._processes):
            self._close(process)


def _validate_launch(count: int, folder: str, server: str) -> None:
    """Raise an error if the arguments of a launch cannot be used.

    Args:
        count: how many clients to start.
        folder: the folder in which each client gets its own folder; empty for the default.
        server: the address of the server that the clients join.

    Raises:
        BadArgument: an argument cannot be used.
    """
    if not 1 <= count <= CLIENTS_PER_PROCESS_MAX:
        raise BadArgument(f"cannot launch {count} clients: give 1 to {CLIENTS_PER_PROCESS_MAX} at a time")
    if len(folder) > DIRECTORY_CHARACTERS_MAX:
        raise BadArgument(f"the folder's path has {len(folder)} characters: the most is {DIRECTORY_CHARACTERS_MAX}")
    if "\0" in folder:
        raise BadArgument(f"folder {folder!r} holds a zero byte: name another")
    if folder and not Path(folder).is_absolute():
        raise BadArgument(f"folder {folder!r} is not absolute: give its whole path on the machine that launches")
    if len(server) > ADDRESS_CHARACTERS_MAX:
        raise BadArgument(f"the server's address has {len(server)} characters, the most is {ADDRESS_CHARACTERS_MAX}")
    parse_address(server)
