"""A network on this machine alone: the daemons of ``pspctl run``."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from pspctl.deadline import Deadline
from pspd.errors import InternalError, LimitReached, PspError, TimedOut, WrongState, parse_daemon_error
from pspd.host.command import DAEMON_COMMAND
from pspd.text.plain import plain_text

CLIENTS_PER_PROCESS_MAX = 1000
START_SECONDS = 60.0
STOP_SECONDS = 5.0
CLIENT_NAME = "client"
WORK_FOLDER = ".psp"


class Daemon:
    """One ``pspd`` process. It says on stdout when it is ready; its log is kept, to be quoted if it dies."""

    def __init__(self, title: str, arguments: list[str], log_path: Path, lock: int) -> None:
        """Starts it.

        Args:
            title: what messages call it.
            arguments: of `pspd`.
            log_path: where its log is kept.
            lock: a descriptor that it inherits, and so holds until it ends.

        Raises:
            LimitReached: this machine lets no more processes start.
            OSError: the log cannot be written.
        """
        self.title = title
        self._log_path = log_path
        with log_path.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    [*DAEMON_COMMAND, *arguments],
                    stdin=subprocess.PIPE,  # a leash: it ends with us, even if we are killed
                    env=os.environ | {"PSPD_LEASH": "1"},
                    stdout=subprocess.PIPE,
                    stderr=log,
                    pass_fds=(lock,),
                    # A group of its own: a Ctrl-C at the terminal is for us, and we stop the daemons in order.
                    process_group=0,
                )
            except OSError as error:
                raise LimitReached(f"cannot start the {title}: {error.strerror}: end other processes first") from error

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def ready(self, deadline: Deadline) -> dict[str, Any]:
        """Waits for the line that says it is ready; returns what it says.

        Raises:
            PspError: it died.
            TimedOut: it took too long.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            if not selector.select(deadline.remaining_seconds):
                waited = f"not ready after {deadline.text}"
                raise TimedOut(f"the {self.title} was {waited}: {self._last_words()}")
        line = self._stdout.readline()
        if not line:
            self._process.wait()
            raise self.death()
        try:
            return cast("dict[str, Any]", json.loads(line))
        except ValueError as error:
            raise InternalError(f"the {self.title} wrote {line!r} instead of its ready line") from error

    def death(self) -> PspError:
        """How it ended: with an error of which it told, and with that error's exit code, or otherwise."""
        code, last_words = self._process.returncode, self._last_words()
        told = parse_daemon_error(code, last_words)
        if told is not None:
            return type(told)(f"the {self.title} ended: {told}")
        return InternalError(f"the {self.title} died with exit code {code}: {last_words}")

    def ask_to_stop(self) -> None:
        """Sends SIGTERM."""
        self._process.terminate()

    def wait(self, seconds: float) -> bool:
        """Waits for its end; false if that does not come in time."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> None:
        """Kills it, should it still be there."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    @property
    def _stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _last_words(self) -> str:
        lines = self._log_path.read_text(errors="replace").split("\n")
        return next((plain_text(line.strip()) for line in reversed(lines) if line.strip()), "it logged nothing")


class LocalNetwork:
    """A server and clients. Leaving the ``with`` block stops them and removes the clients' hidden folders.

    Attributes:
        server: the server's address, once it is ready.
    """

    def __init__(self, clients_dir: Path, scratch_dir: Path, lock: int) -> None:
        """Prepare a network without daemons.

        Args:
            clients_dir: each client gets a folder below it, ``client-<i>``.
            scratch_dir: the folder for the server's state and the logs.
            lock: a descriptor that every daemon inherits.
        """
        self.server = ""
        self._lock = lock
        self._clients_dir = clients_dir
        self._scratch_dir = scratch_dir
        self._server_daemon: Daemon | None = None
        self._client_daemons: list[Daemon] = []
        self._client_count = 0

    def __enter__(self) -> Self:
        """Return the network."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all daemons."""
        self.stop()

    def start(self, client_count: int, server_arguments: list[str], deadline: Deadline) -> None:
        """Start the server, then the clients; return when all are ready.

        Args:
            client_count: how many clients to start.
            server_arguments: more arguments for `pspd server`.
            deadline: when to give up; at most `START_SECONDS` from now.

        Raises:
            PspError: a daemon died.
            TimedOut: a daemon was not ready in time.
            LimitReached: the machine cannot start more processes.
        """
        deadline = deadline.at_most(START_SECONDS)
        arguments = ["server", "--listen", "127.0.0.1:0", "--data-port", "0"]
        arguments += ["--state-dir", str(self._scratch_dir / "server"), *server_arguments]
        self._server_daemon = self._daemon("server", arguments)
        self.server = str(self._server_daemon.ready(deadline)["listen"])
        self._client_count = client_count
        for first_index, count in client_groups(client_count, process_count(client_count)):
            arguments = [
                "client",
                "--server",
                self.server,
                "--dir",
                str(self._clients_dir),
                "--name",
                CLIENT_NAME,
            ]
            arguments += ["--count", str(count), "--first-index", str(first_index)]
            self._client_daemons.append(self._daemon(f"client-{first_index}", arguments))
        for daemon in self._client_daemons:
            daemon.ready(deadline)

    def check(self) -> None:
        """Raise PspError with the last line of its log if a daemon died."""
        for daemon in self._daemons:
            if daemon.has_ended:
                raise daemon.death()

    def stop(self) -> None:
        """Stop the clients, then the server; kill daemons that have not ended after `STOP_SECONDS`."""
        deadline = Deadline(STOP_SECONDS)
        try:
            for group in (self._client_daemons, [self._server_daemon] if self._server_daemon else []):
                for daemon in group:
                    daemon.ask_to_stop()
                for daemon in group:
                    daemon.wait(deadline.within(STOP_SECONDS))
        finally:
            for daemon in self._daemons:
                daemon.end()
            for folder in client_folders(self._clients_dir, self._client_count):
                shutil.rmtree(folder / WORK_FOLDER, ignore_errors=True)

    @property
    def _daemons(self) -> list[Daemon]:
        return [*self._client_daemons, *([self._server_daemon] if self._server_daemon else [])]

    def _daemon(self, title: str, arguments: list[str]) -> Daemon:
        return Daemon(title, arguments, self._scratch_dir / f"{title}.log", self._lock)


def client_folders(clients_dir: Path, client_count: int) -> list[Path]:
    """Return the folders of the clients.

    Args:
        clients_dir: the folder above them.
        client_count: how many clients there are.
    """
    return [clients_dir / f"{CLIENT_NAME}-{index}" for index in range(client_count)]


def require_free(clients_dir: Path, client_count: int, name: str) -> None:
    """Make sure that the clients' folders can be used.

    Args:
        clients_dir: the folder above them.
        client_count: how many clients there are.
        name: the name of the file that they are to get.

    Raises:
        WrongState: a folder contains this name, or belongs to another client.
    """
    for folder in client_folders(clients_dir, client_count):
        for path in (folder / name, folder / WORK_FOLDER):
            if os.path.lexists(path):
                raise WrongState(f"{path} already exists: remove it, or name another folder with --to")


def client_count_max() -> int:
    """Return the most clients that a network on this machine may have."""
    return CLIENTS_PER_PROCESS_MAX * core_count()


def core_count() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_count(client_count: int) -> int:
    """Return over how many processes to spread clients: at most one per core."""
    return min(client_count, core_count())


def client_groups(client_count: int, group_count: int) -> list[tuple[int, int]]:
    """Divide clients evenly; return the first index and the size of each group that is not empty.

    Args:
        client_count: how many clients there are.
        group_count: into how many groups to divide them.
    """
    bounds = [client_count * index // group_count for index in range(group_count + 1)]
    return [(start, stop - start) for start, stop in pairwise(bounds) if start < stop]
