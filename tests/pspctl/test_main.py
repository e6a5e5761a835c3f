"""The shared options, errors and exit codes; and ``pspctl`` as a process."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from pspctl.main import cli
from pspd import errors
from pspd.rpc.conventions import REASON_KEY
from tests.pspctl.conftest import Pspctl
from tests.pspctl.fakes import AgentServicer, FakeServer, file

PSPCTL = Path(sys.executable).with_name("pspctl")


@pytest.mark.parametrize("error_class", errors.error_classes().values(), ids=lambda cls: cls.reason)
def test_every_reason_has_its_exit_code(pspctl: Pspctl, fake: FakeServer, error_class: type[errors.PspError]) -> None:
    fake.refusal = error_class("what happened:\n  what to do")
    result = pspctl("status")
    assert (result.exit_code, result.stdout) == (fake.refusal.exit_code, "")
    assert result.stderr == "pspctl: error: what happened: what to do\n"
    assert REASON_KEY == "psp-reason"


def test_option_without_its_value_names_the_command(pspctl: Pspctl) -> None:
    result = pspctl("status", "--server")
    told = "pspctl: error: Option '--server' requires an argument: try `pspctl status --help`\n"
    assert (result.exit_code, result.stderr) == (2, told)


def test_missing_server_fails_fast(lone_pspctl: Pspctl) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = lone_pspctl("--server", address, "status")
    assert result.exit_code == 5
    assert result.stderr == (
        f"pspctl: error: no server answers at {address}: start one with `pspd server` or name another with --server\n"
    )


def test_silent_listener_is_unreachable(lone_pspctl: Pspctl) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        result = lone_pspctl("status", "--server", f"127.0.0.1:{mute.getsockname()[1]}")
    assert result.exit_code == 5
    assert time.monotonic() - began < 5


def test_other_service_is_unreachable(
    lone_pspctl: Pspctl, start_agent: Callable[[], tuple[AgentServicer, str]]
) -> None:
    result = lone_pspctl("status", "--server", start_agent()[1])
    assert result.exit_code == 5
    assert "does not know this request" in result.stderr


def test_shared_option_before_or_after_command(lone_pspctl: Pspctl, fake: FakeServer) -> None:
    options = ["--server", fake.address, "-o", "json", "-q"]
    for arguments in (
        [*options, "status"],
        ["status", *options],
        [*options, "cache", "show"],
        ["cache", *options],
        ["cache", *options, "show"],
        ["cache", "show", *options],
    ):
        result = lone_pspctl(*arguments)
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["cache"]["hit_count"] == 3


def test_last_option_wins(lone_pspctl: Pspctl, fake: FakeServer) -> None:
    result = lone_pspctl("--server", "127.0.0.1:1", "-o", "json", "clients", "--server", fake.address, "-o", "table")
    assert result.exit_code == 0
    assert result.stdout.startswith("CLIENT")


def test_option_takes_precedence_over_environment(pspctl: Pspctl, fake: FakeServer) -> None:
    assert pspctl("clients").exit_code == 0
    assert pspctl("--server", "127.0.0.1:1", "clients").exit_code == 5


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["status", "--nonsense"],
        ["wait"],
        ["wait", "f", "--timeout", "0"],
        ["wait", "f", "--timeout", "nan"],
        ["wait", ""],
        ["status", ""],
        ["release", ""],
        ["rm", "f", ""],
        ["status", "f\udcff"],
        ["launch", "0"],
        ["status", "-o", "xml"],
        ["status", "--server", "7070"],
        ["status", "--server", ""],
        ["stop", "--server", ""],
        ["version", "--server", "lab:port"],
        ["cache", "resize", "64XB"],
        ["cache", "resize", "9" * 5000],
        ["run", __file__, "--clients", "2", "--to", ""],
        ["seed", __file__, "--clients", "100001"],
        ["stop"],
        ["stop", "client-0", "--all-clients"],
    ],
    ids=" ".join,
)
def test_usage_error_is_one_line_with_code_2(lone_pspctl: Pspctl, arguments: list[str]) -> None:
    result = lone_pspctl(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("pspctl: error: ")
    assert result.stderr.count("\n") == 1


def test_excessive_size_is_a_limit_error(lone_pspctl: Pspctl) -> None:
    result = lone_pspctl("cache", "resize", "9999999TiB")
    assert result.exit_code == 8
    assert result.stderr == "pspctl: error: 9999999TiB is too large: give less than 8388608TiB\n"


def test_invalid_address_error_names_its_origin(
    lone_pspctl: Pspctl, config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_dir.mkdir()
    (config_dir / "contexts.json").write_text('{"current": "lab", "contexts": {"lab": "lab:"}}')
    assert "error: context lab: 'lab:' is not an address" in lone_pspctl("status").stderr
    monkeypatch.setenv("PSPCTL_SERVER", ":7070")
    assert "error: PSPCTL_SERVER: ':7070' is not an address" in lone_pspctl("status").stderr


@pytest.mark.parametrize(
    "arguments",
    [
        *(["status"], ["files"], ["clients"], ["cache"], ["launch", "1"], ["wait", "f"], ["rm", "f"], ["release", "f"]),
        *(["seed", __file__], ["stop", "anna"], ["stop", "--all-clients"]),
    ],
    ids=" ".join,
)
def test_unknown_host_is_reported(lone_pspctl: Pspctl, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setenv("PSPCTL_SERVER", "nowhere.invalid")
    result = lone_pspctl(*arguments)
    assert (result.exit_code, result.stdout) == (5, "")
    assert re.fullmatch(
        r"pspctl: error: unknown host 'nowhere\.invalid' \(.+\): name another with --server\n", result.stderr
    )


def test_unknown_agent_host_is_reported(pspctl: Pspctl) -> None:
    result = pspctl("launch", "1", "--on", "nowhere.invalid", "--server", "10.0.0.1")
    assert result.exit_code == 5
    assert re.fullmatch(
        r"pspctl: error: unknown host 'nowhere\.invalid' \(.+\): name another with --on\n", result.stderr
    )


def test_server_without_port_uses_default_port(lone_pspctl: Pspctl) -> None:
    result = lone_pspctl("status", "--server", "127.9.9.9")
    assert result.exit_code == 5
    assert "no server answers at 127.9.9.9:7070" in result.stderr


def test_bug_is_one_line_and_a_trace_with_debug(pspctl: Pspctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pspctl.commands.clients.ServerApi", None)
    result = pspctl("clients")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "Traceback" in pspctl("clients", "--debug").stderr


def commands(group: click.Group) -> Iterator[click.Command]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield command
        if isinstance(command, click.Group):
            yield from commands(command)


@pytest.mark.parametrize("command", list(commands(cli)), ids=lambda command: command.name)
def test_every_help_has_an_example(command: click.Command) -> None:
    assert "Example" in (command.help or "")
    assert "pspctl" in (command.help or "")


def environment(fake: FakeServer) -> dict[str, str]:
    return os.environ | {"PSPCTL_SERVER": fake.address, "COLUMNS": "120", "TERM": "xterm"}


@pytest.mark.parametrize(
    ("number", "code", "error"),
    [
        (signal.SIGINT, 130, b""),
        (signal.SIGTERM, 143, b"pspctl: error: terminated\n"),
        (signal.SIGHUP, 129, b"pspctl: error: hung up\n"),
    ],
    ids=["interrupt", "terminate", "hang-up"],
)
def test_signal_ends_watch_with_its_code(fake: FakeServer, number: signal.Signals, code: int, error: bytes) -> None:
    fake.stream_stays = True
    with subprocess.Popen(
        [PSPCTL, "status", "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(fake),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"client-0: connected\n"
        process.send_signal(number)
        assert process.wait(10) == code
        assert process.stderr.read() == error


@pytest.mark.parametrize("arguments", [["files"], ["status", "-o", "json"], ["status", "--watch"]], ids=" ".join)
def test_unwritable_answer_is_an_error(fake: FakeServer, arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        process = subprocess.run([PSPCTL, *arguments], stdout=full, stderr=subprocess.PIPE, env=environment(fake))
    assert process.returncode == 1
    assert process.stderr == b"pspctl: error: cannot write to stdout: No space left on device\n"


def test_closed_pipe_is_silent(fake: FakeServer) -> None:
    fake.files = [file(f"file-{index}") for index in range(20)]
    for output in ("table", "json"):
        reading, writing = os.pipe()
        os.close(reading)
        process = subprocess.run(
            [PSPCTL, "status", "-o", output], stdout=writing, stderr=subprocess.PIPE, env=environment(fake)
        )
        os.close(writing)
        assert process.stderr == b""


def test_progress_to_terminal_and_answer_to_stdout(fake: FakeServer) -> None:
    fake.files = [file(held=(8, 8))]
    screen, terminal = pty.openpty()
    with open(screen, "rb", buffering=0) as shown:
        process = subprocess.run(
            [PSPCTL, "wait", "big.iso"], stdout=subprocess.PIPE, stderr=terminal, env=environment(fake)
        )
        os.close(terminal)
        picture = shown.read(65536)
    assert process.returncode == 0
    assert process.stdout.startswith(b"big.iso (8.0 KiB, ")
    assert process.stdout.count(b"\n") == 1
    for text in (b"exchange", b"client-1", b"100%", b"16.0 KiB / 16.0 KiB"):
        assert text in picture
