"""Starts client daemons as processes of their own on this machine, and ends them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
from pathlib import Path

from pspd.daemon.process import EXIT_WITH_PARENT
from pspd.errors import BadArgument, LimitReached, PspError, parse_daemon_error
from pspd.host.command import DAEMON_COMMAND
from pspd.host.environment import no_home_error, user_folder
from pspd.rpc.limits import ADDRESS_CHARACTERS_MAX, DIRECTORY_CHARACTERS_MAX
from pspd.text.addresses import parse_address

LAUNCH_MAX = 1000
LAUNCHES_MAX = 100
"""Launches whose clients still run: each is a process."""
READY_SECONDS = 30.0
STOP_SECONDS = 5.0
READ_BYTES = 64 * 1024


def default_folder() -> Path:
    """Where launched clients keep their files when nobody says otherwise.

    Raises:
        StorageError: the user has no home folder.
    """
    folder = user_folder("data")
    if folder is None:
        raise no_home_error("data", "--dir")
    return folder / "clients"


class Launcher:
    """The client processes that this daemon started; they end with it."""

    def __init__(self) -> None:
        self._processes: set[asyncio.subprocess.Process] = set()

    async def launch(self, count: int, folder: str, server: str) -> list[str]:
        """Starts ``count`` clients in one process. Returns their names when they are ready.

        Raises:
            BadArgument: the number is out of range, the folder is not absolute, or an argument cannot be used.
            LimitReached: too many launched processes still run, or the machine starts no more.
            PspError: the process ended before it was ready; with the error that it told, or its last line.
        """
        _validate(count, folder, server)
        self._processes = {process for process in self._processes if process.returncode is None}
        if len(self._processes) >= LAUNCHES_MAX:
            raise LimitReached(f"{LAUNCHES_MAX} launched processes still run here: stop some clients first")
        name = f"{socket.gethostname()[:40]}-{secrets.token_hex(2)}"
        arguments = ["client", "--server", server, "--dir", folder or str(default_folder())]
        try:
            process = await asyncio.create_subprocess_exec(
                *DAEMON_COMMAND,
                *arguments,
                "--name",
                name,
                "--count",
                str(count),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=os.environ | {EXIT_WITH_PARENT: "1"},
            )
        except OSError as error:
            raise LimitReached(f"cannot start clients: {error.strerror}: end other processes there first") from error
        self._processes.add(process)
        return await self._ready(process)

    async def _ready(self, process: asyncio.subprocess.Process) -> list[str]:
        assert process.stdout is not None
        assert process.stderr is not None
        last = _LastLine(process.stderr)
        try:
            line = await asyncio.wait_for(process.stdout.readline(), READY_SECONDS)
        except TimeoutError:
            line = b""
        if not line:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await last.done()
            self._processes.discard(process)
            told = parse_daemon_error(process.returncode, last.text) or PspError(last.text or "no word from them")
            raise type(told)(f"the clients did not start: {told}")
        return list(json.loads(line)["names"])

    async def stop(self) -> None:
        """Ends every process that still runs, kindly first."""
        running = [process for process in self._processes if process.returncode is None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        if running:
            waits = [asyncio.ensure_future(process.wait()) for process in running]
            await asyncio.wait(waits, timeout=STOP_SECONDS)
        for process in running:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _validate(count: int, folder: str, server: str) -> None:
    if not 1 <= count <= LAUNCH_MAX:
        raise BadArgument(f"cannot launch {count} clients: give 1 to {LAUNCH_MAX} at a time")
    if len(folder) > DIRECTORY_CHARACTERS_MAX:
        raise BadArgument(f"the folder's path has {len(folder)} characters: the most is {DIRECTORY_CHARACTERS_MAX}")
    if "\0" in folder:
        raise BadArgument(f"folder {folder!r} holds a zero byte: name another")
    if folder and not Path(folder).is_absolute():
        raise BadArgument(f"folder {folder!r} is not absolute: give its whole path on the machine that launches")
    if len(server) > ADDRESS_CHARACTERS_MAX:
        raise BadArgument(f"the server's address has {len(server)} characters, the most is {ADDRESS_CHARACTERS_MAX}")
    parse_address(server)


class _LastLine:
    """Reads a stream to its end, so that it never fills, and keeps its last line."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self.text = ""
        self._task = asyncio.ensure_future(self._read(stream))

    async def _read(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        while part := await stream.read(READ_BYTES):
            *lines, rest = (rest[-READ_BYTES:] + part).split(b"\n")
            for line in filter(None, map(bytes.strip, [*lines, rest])):
                self.text = line.decode(errors="replace")

    async def done(self) -> None:
        """Waits for the end of the stream."""
        await self._task
