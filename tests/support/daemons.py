"""Real daemons as processes, for tests that run a whole network: on loopback or in network namespaces.

Every wait has a condition and a deadline, and fails at once if a daemon ends unexpectedly.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from pspd.daemon.spawn import DaemonProcess
from tests.support.files import sha256
from tests.support.hosts import LOCAL, Host, kill_group

Json = dict[str, Any]

BIN = Path(sys.executable).parent
READY_SECONDS = 30
STOP_SECONDS = 10
POLL_SECONDS = 0.02
LOG_LINES_SHOWN = 40

_MARK = "PSP_TEST_NETWORK"


class Daemon(DaemonProcess):
    """One ``pspd`` process of a test, on any host."""

    def __init__(self, name: str, host: Host, args: Iterable[object], log: Path, env: Mapping[str, str]) -> None:
        """Start the daemon.

        Args:
            name: the daemon's name in messages.
            host: the machine to start it on.
            args: the arguments after ``pspd``.
            log: the file to append its log to; its folder becomes the daemon's working directory.
            env: the environment.
        """
        self.name = name
        self.host = host
        self.args = list(args)
        self._end_expected = False
        super().__init__(
            name, self.args, log, command=[BIN / "pspd"], environment=env, start=host.popen, cwd=log.parent
        )

    @property
    def alive(self) -> bool:
        """Whether the daemon runs."""
        return not self.has_ended

    @property
    def died(self) -> bool:
        """Whether the daemon ended without being asked to."""
        return self.has_ended and not self._end_expected

    def read_ready(self) -> bool:
        """Read the part of the ready line that has arrived; return whether the line is complete."""
        if super().read_ready():
            assert self.ready_line["ready"] is True, self.ready_line
            assert self.ready_line["pid"] == self.pid, self.ready_line
        return bool(self.ready_line)

    def log_tail(self) -> str:
        """Return the end of the daemon's log."""
        return "\n".join(self.log_text().splitlines()[-LOG_LINES_SHOWN:])

    def signal(self, number: signal.Signals) -> None:
        """Send the daemon a signal; it may end from now on."""
        self._end_expected = True
        super().signal(number)

    def expect_end(self) -> None:
        """Allow the daemon to end from now on."""
        self._end_expected = True

    def pause(self) -> None:
        """Pause the daemon with SIGSTOP."""
        super().signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the daemon after a pause."""
        super().signal(signal.SIGCONT)

    def await_end(self, seconds: float = STOP_SECONDS) -> int:
        """Wait until the daemon ends; return its exit code, negative for a signal."""
        self._end_expected = True
        code = self.wait(seconds)
        assert code is not None, f"{self.name} has not ended after {seconds} s"
        return code

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """Send SIGTERM and wait until the daemon ends; return its exit code."""
        self.signal(signal.SIGTERM)
        return self.await_end(seconds)

    def kill(self) -> None:
        """Kill the daemon and every process in its group."""
        self._end_expected = True
        kill_group(self._process)


class Network:
    """A server and its clients, as a context manager that ends all their processes.

    Attributes:
        folder: the folder for all state and logs of the network; a client's folder in it has the client's name.
        address: the server's control address, once it is ready.
    """

    def __init__(self, folder: Path, host: Host = LOCAL) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.host = host
        self.address: str | None = None
        self._daemons: list[Daemon] = []
        self._mark = uuid.uuid4().hex

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for daemon in self._daemons:
            daemon.close()
        self._kill_strays()
        # pytest shows this output only for failed tests.
        for daemon in self._daemons:
            print(f"--- {daemon.name}: pspd {' '.join(map(str, daemon.args))}\n{daemon.log_tail()}")
        raised = [daemon.name for daemon in self._daemons if "Traceback" in daemon.log_text()]
        assert error is not None or not raised, f"unknown errors were logged by {raised}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every process: without the user's PSP settings, and with this network's mark."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PSP")}
        home = {"HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder / "config")}
        server = {"PSPCTL_SERVER": self.address} if self.address else {}
        return kept | home | server | {_MARK: self._mark}

    def server(self, *args: object, listen: str | None = None, data_port: int = 0) -> Daemon:
        """Start the server and wait until it is ready. Without ``listen``, the system chooses the ports."""
        bound = ("--listen", listen or f"{self.host.address}:0", "--data-port", data_port)
        daemon = self._start("server", self.host, ("server", *bound, "--state-dir", self.folder / "server", *args))
        self.address = daemon.ready_line["listen"]
        return daemon

    def restarted_server(self, before: Daemon, *args: object) -> Daemon:
        """Start a server that has ended again, with the same ports and state."""
        return self.server(*args, listen=before.ready_line["listen"], data_port=before.ready_line["data_port"])

    def client(self, name: str, *args: object, host: Host | None = None) -> Daemon:
        """Start a client and wait until it has joined. The name of a client that has ended starts that client again."""
        joins = ("--server", self.address, "--dir", self.folder / name, "--name", name)
        return self._start(name, host or self.host, ("client", *joins, *args))

    def launch_client(self, name: str, *args: object, host: Host | None = None) -> Daemon:
        """Start a client without waiting."""
        joins = ("--server", self.address, "--dir", self.folder / name, "--name", name)
        return self._launch(name, host or self.host, ("client", *joins, *args))

    def clients(self, count: int, *args: object) -> list[str]:
        """Start clients ``c0``, ``c1``, ... at the same time, wait until all are ready, and return their names."""
        names = [f"c{index}" for index in range(count)]
        for name in names:
            self.launch_client(name, *args)
        self.until(f"{count} clients are ready", lambda: all(d.ready_line or d.read_ready() for d in self._daemons))
        return names

    def agent(self, host: Host | None = None) -> Daemon:
        """Start an agent and wait until it is ready."""
        where = host or self.host
        return self._start("agent", where, ("agent", "--listen", f"{where.address}:0"))

    def pspd(self, *args: object, code: int | None) -> subprocess.CompletedProcess[str]:
        """Run a daemon that ends by itself; unless ``code`` is None, the exit code must equal it. Return the output."""
        done = self.host.run([BIN / "pspd", *args], timeout=READY_SECONDS, cwd=self.folder, env=self.environment)
        said = f"pspd {' '.join(map(str, args))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        assert code is None or done.returncode == code, said
        assert "Traceback" not in done.stderr, said
        return done

    def ctl(self, *args: object, code: int | None = 0, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run ``pspctl`` on the server's host; unless ``code`` is None, the exit code must equal it."""
        done = self.host.run([BIN / "pspctl", *args], timeout=timeout, cwd=self.folder, env=self.environment)
        said = f"pspctl {' '.join(map(str, args))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        assert code is None or done.returncode == code, said
        assert "Traceback" not in done.stderr, said
        return done

    def start_ctl(self, *args: object) -> subprocess.Popen[bytes]:
        """Start ``pspctl`` in the background, with a pipe for its stderr."""
        arguments = [BIN / "pspctl", *args]
        return self.host.popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=self.environment)

    def json(self, *args: object, timeout: float = 60) -> Json:
        """Return the JSON output of a ``pspctl`` command."""
        answer: Json = json.loads(self.ctl("-o", "json", *args, timeout=timeout).stdout)
        assert answer["schema_version"] == 1
        return answer

    def status(self) -> Json:
        """Return the status of the network from the server."""
        return self.json("status")

    def file(self, name: str) -> Json:
        """Return the status of one file from the server."""
        return next(file for file in self.status()["files"] if file["name"] == name)

    def copy(self, client: str, name: str) -> Path:
        """Return the path of a finished file in a client's folder."""
        return self.folder / client / name

    def await_copies(self, source: Path, clients: Iterable[str], seconds: float = 60, name: str = "") -> None:
        """Wait until every client has the finished file; each copy must equal the source byte for byte."""
        copies = [self.copy(client, name or source.name) for client in clients]
        for copy in copies:
            self.until(f"{copy.relative_to(self.folder)} is there", copy.exists, seconds)
        expected = sha256(source)
        different = [str(copy.relative_to(self.folder)) for copy in copies if sha256(copy) != expected]
        assert not different, f"copies that differ from {source.name}: {different}"

    def until(self, what: str, condition: Callable[[], bool], seconds: float = READY_SECONDS) -> None:
        """Wait until a condition is true.

        Raises:
            AssertionError: it is not true after ``seconds``, or a daemon ended unexpectedly.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            dead = [daemon.name for daemon in self._daemons if daemon.died]
            assert not dead, f"while waiting until {what}: {dead} ended unexpectedly"
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            time.sleep(POLL_SECONDS)

    def _launch(self, name: str, host: Host, args: Iterable[object]) -> Daemon:
        daemon = Daemon(name, host, args, self.folder / f"{name}.log", self.environment)
        for ended in [other for other in self._daemons if other.name == name and not other.alive]:
            ended.close()
            self._daemons.remove(ended)
        self._daemons.append(daemon)
        return daemon

    def _start(self, name: str, host: Host, args: Iterable[object]) -> Daemon:
        daemon = self._launch(name, host, args)
        self.until(f"{name} is ready", daemon.read_ready)
        return daemon

    def _kill_strays(self) -> None:
        """Kill every process with this network's mark, also those outside the daemons' process groups."""
        mark = f"{_MARK}={self._mark}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            # A process may end meanwhile, or belong to another user.
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)
