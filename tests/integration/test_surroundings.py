"""Daemons and commands without standard streams, a home folder or a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile

import pytest

from tests.support.daemons import BIN, Network

NOBODY = 54321
"""A user id without an entry in the user database."""
AS_NOBODY = (
    *("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"),
    # The interpreter and the checkout may be in a folder that only root can read.
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
    *("env", "-i", f"PATH={BIN}:/usr/bin:/bin"),
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


def started(network: Network, line: str) -> subprocess.Popen[bytes]:
    """Start a bash command line in the network's folder; its stderr goes to the file ``stderr`` there."""
    with open(network.folder / "stderr", "wb") as errors:
        return network.host.popen(
            ["bash", "-c", line],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd=network.folder,
            env=network.environment | {"PATH": f"{BIN}:{os.environ['PATH']}"},
        )


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full"])
def test_server_runs_without_its_streams(network: Network, streams: str) -> None:
    process = started(network, f"exec pspd server --listen 127.0.0.1:0 --data-port 0 --state-dir state {streams}")
    network.until("the server runs", lambda: any((network.folder / "state").glob("server-*.db")))
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert b"Traceback" not in (network.folder / "stderr").read_bytes()


def test_server_outlives_reader_of_its_log(network: Network) -> None:
    server = "pspd server --listen 127.0.0.1:0 --data-port 0 --state-dir state 2>&1"
    reader = "{ head -1 >first; exec <&-; echo left >left; }"
    process = started(network, f"({server} & echo $! >pid; wait $!; echo $? >code) | {reader}")
    network.until("the reader has left", (network.folder / "left").exists)
    pid = int((network.folder / "pid").read_text())
    os.kill(pid, signal.SIGTERM)  # the server logs that it stops
    network.until("the server has ended", (network.folder / "code").exists)
    assert (network.folder / "code").read_text() == "0\n"
    process.wait(10)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_daemon_stops_cleanly_at(network: Network, number: signal.Signals) -> None:
    server = network.server()
    client = network.client("a")
    for daemon in (client, server):
        daemon.signal(number)
        assert daemon.await_end() == 0, daemon.log_tail()
        assert f"stopping ({number.name})" in daemon.log_text()


def test_daemon_under_nohup_ignores_hangup(network: Network) -> None:
    process = started(network, "exec nohup pspd server --listen 127.0.0.1:0 --data-port 0 --state-dir state")
    network.until("the server runs", lambda: any((network.folder / "state").glob("server-*.db")))
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    log = (network.folder / "stderr").read_text()
    assert "stopping (SIGTERM)" in log
    assert "SIGHUP" not in log


@as_root
@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "pspd server",
            "pspd server: error: no state folder: user {} has no home: set HOME, or name a folder with --state-dir",
        ),
        (
            "pspctl context add lab 127.0.0.1:1",
            "pspctl: error: no config folder: user {} has no home: set HOME, or name a folder with PSPCTL_CONFIG_DIR",
        ),
    ],
)
@pytest.mark.parametrize("home", ["", "HOME=", "HOME=relative"])
def test_user_without_home_is_told_what_to_name(network: Network, command: str, message: str, home: str) -> None:
    done = network.host.run([*AS_NOBODY, *home.split(), *command.split()], cwd=network.folder)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message.format(NOBODY) + "\n")


@as_root
def test_commands_work_without_a_home(network: Network) -> None:
    server = network.server()
    network.folder.chmod(0o755)
    for command in ("status", "context ls", "version", "files -o json"):
        variable = f"PSPCTL_SERVER={server.ready_line['listen']}"
        done = network.host.run([*AS_NOBODY, variable, "pspctl", *command.split()], cwd="/")
        assert (done.returncode, done.stderr) == (0, ""), command


@as_root
def test_launch_without_home_says_what_to_name(network: Network) -> None:
    with tempfile.TemporaryDirectory() as state:  # other users cannot read pytest's folders
        os.chown(state, NOBODY, NOBODY)
        line = ["pspd", "server", "--listen", "127.0.0.1:0", "--data-port", "0", "--state-dir", state]
        with network.host.popen([*AS_NOBODY, *line], stdout=subprocess.PIPE, cwd="/") as process:
            assert process.stdout is not None
            network.address = json.loads(process.stdout.readline())["listen"]
            done = network.ctl("launch", 1, code=1)
            process.terminate()
    message = f"no data folder: user {NOBODY} has no home: set HOME, or name a folder with --dir"
    assert done.stderr == f"pspctl: error: {message}\n"
