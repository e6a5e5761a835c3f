"""``pspctl`` with closed, full and unread standard streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pspctl.fakes import FakeServer, client

BIN = Path(sys.executable).parent
COMMANDS = ["status", "status -o json", "files", "clients", "cache", "version", "context ls", "--help", "seed --help"]
NO_SPACE = "pspctl: error: cannot write to stdout: No space left on device\n"


def shell(fake: FakeServer, line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which ``pspctl`` talks to the fake server."""
    environment = os.environ | {"PSPCTL_SERVER": fake.address, "PATH": f"{BIN}:{os.environ['PATH']}"} | variables
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, encoding="utf-8", env=environment
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", COMMANDS)
def test_closed_stream_keeps_exit_code(fake: FakeServer, command: str, closed: str) -> None:
    done = shell(fake, f"pspctl {command} {closed}")
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (">&-" not in closed.replace("2>&-", ""))


@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full", ">&- 2>&-"])
def test_unwritable_error_keeps_exit_code(fake: FakeServer, closed: str) -> None:
    assert shell(fake, f"pspctl conquer {closed}").returncode == 2
    assert shell(fake, f"pspctl status --server 127.0.0.1:1 {closed}").returncode == 5


@pytest.mark.parametrize("command", [*COMMANDS, "--version", "status --watch"])
def test_full_stdout_is_one_line(fake: FakeServer, command: str) -> None:
    done = shell(fake, f"pspctl {command} > /dev/full")
    assert (done.returncode, done.stderr) == (1, NO_SPACE)


@pytest.mark.parametrize("command", [*COMMANDS, "--version"])
def test_closed_reader_ends_command_silently(fake: FakeServer, command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [BIN / "pspctl", *command.split()],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=os.environ | {"PSPCTL_SERVER": fake.address},
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_watch_ends_with_its_reader(fake: FakeServer) -> None:
    fake.clients, fake.stream_breaks = [client("only")], 1_000  # the watch is renewed, and nothing changes
    done = shell(fake, "pspctl status --watch | head -1")
    assert (done.returncode, done.stdout, done.stderr) == (141, "only: connected\n", "")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_names_are_shown_in_every_encoding(fake: FakeServer, encoding: str) -> None:
    fake.clients = [client("日本-é")]
    table = shell(fake, "pspctl clients | iconv -f latin1 -t utf8", PYTHONIOENCODING=encoding)
    assert (table.returncode, table.stderr) == (0, "")
    answer = shell(fake, "pspctl clients -o json", PYTHONIOENCODING=encoding)
    assert json.loads(answer.stdout)["clients"][0]["name"] == "日本-é"


def test_latin1_terminal_shows_escapes(fake: FakeServer) -> None:
    fake.clients = [client("日本-é")]
    done = shell(fake, "pspctl clients | iconv -f latin1 -t utf8", PYTHONIOENCODING="latin-1")
    assert "\\u65e5\\u672c-é" in done.stdout


def test_terminal_size_of_zero_is_ignored(fake: FakeServer) -> None:
    done = shell(fake, "script -qec 'pspctl clients' /dev/null </dev/null", COLUMNS="0", LINES="0")
    assert "client-0" in done.stdout
