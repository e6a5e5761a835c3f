"""Launched clients: real processes, or scripts in their place."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pspd.core.model.parameters import FAST
from pspd.daemon import spawn as launcher_module
from pspd.daemon.spawn import Launcher, default_folder
from pspd.errors import BadArgument, LimitReached, PspError, Unreachable
from pspd.host.command import CLIENTS_PER_PROCESS_MAX, DAEMON_COMMAND
from pspd.rpc.limits import ADDRESS_CHARACTERS_MAX, DIRECTORY_CHARACTERS_MAX
from tests.daemon.members import in_process
from tests.support.loops import on_loop, until

SERVER = "127.0.0.1:1"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a script that is started in place of Python and records its pid and arguments; the test writes it."""
    script = tmp_path / "stand-in"
    monkeypatch.setattr(launcher_module, "DAEMON_COMMAND", (str(script), *DAEMON_COMMAND[1:]))
    return script


def write(script: Path, *lines: str) -> None:
    note = script.parent / "arguments"
    script.write_text("\n".join(["#!/bin/sh", f'echo $$ "$@" >> {note}', *lines, ""]))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)


def noted(script: Path) -> list[list[str]]:
    """Return the pid and the arguments of each process that was started."""
    note = script.parent / "arguments"
    return [line.split() for line in note.read_text().splitlines()]


def is_running(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("count", [-1, 0, CLIENTS_PER_PROCESS_MAX + 1])
@on_loop
async def test_count_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(BadArgument, match=f"^cannot launch {count} clients"):
        await Launcher().launch(count, "", SERVER)


@on_loop
async def test_relative_folder_is_refused() -> None:
    with pytest.raises(BadArgument, match="'here'"):
        await Launcher().launch(1, "here", SERVER)


@pytest.mark.parametrize("folder", ["/" + "x" * DIRECTORY_CHARACTERS_MAX, "/a\0b"])
@on_loop
async def test_impossible_folder_is_refused(folder: str) -> None:
    with pytest.raises(BadArgument, match="folder"):
        await Launcher().launch(1, folder, SERVER)


@pytest.mark.parametrize("server", ["x" * ADDRESS_CHARACTERS_MAX + ":1", "host:port", "host:70000"])
@on_loop
async def test_unusable_server_address_is_refused(server: str) -> None:
    with pytest.raises(BadArgument):
        await Launcher().launch(1, "/srv", server)


@on_loop
async def test_running_launches_are_bounded(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher_module, "LAUNCHES_MAX", 1)
    write(stand_in, """echo '{"ready": true, "names": ["x"]}'""", "exec cat > /dev/null")
    launcher = Launcher()
    await launcher.launch(1, "/srv/files", SERVER)
    with pytest.raises(LimitReached, match="still run"):
        await launcher.launch(1, "/srv/files", SERVER)
    await launcher.stop()
    await launcher.launch(1, "/srv/files", SERVER)
    await launcher.stop()


@on_loop
async def test_launch_returns_the_names_of_the_ready_line(stand_in: Path) -> None:
    write(stand_in, """echo '{"ready": true, "names": ["x-0", "x-1"]}'""", "exec cat /dev/zero > /dev/null")
    launcher = Launcher()
    assert await launcher.launch(2, "/srv/files", SERVER) == ["x-0", "x-1"]
    ((pid, *arguments),) = noted(stand_in)
    assert is_running(pid)
    assert arguments[:8] == ["-P", "-m", "pspd", "client", "--server", SERVER, "--dir", "/srv/files"]
    assert arguments[-2:] == ["--count", "2"]
    await launcher.stop()
    assert not is_running(pid)


@on_loop
async def test_each_launch_has_its_own_names(stand_in: Path) -> None:
    write(stand_in, """echo '{"names": []}'""")
    launcher = Launcher()
    await launcher.launch(1, "", SERVER)
    await launcher.launch(1, "", SERVER)
    first, second = (dict(zip(words[5::2], words[6::2], strict=False)) for words in noted(stand_in))
    assert first["--dir"] == second["--dir"] == str(default_folder())
    assert first["--name"] != second["--name"]
    await launcher.stop()


@on_loop
async def test_process_that_ends_at_once_is_quoted(stand_in: Path) -> None:
    write(stand_in, "echo first >&2", "echo 'the disk is on fire' >&2", "echo >&2", "exit 1")
    with pytest.raises(PspError, match=r"^the clients did not start: the disk is on fire \(exit code 1\)$"):
        await Launcher().launch(1, "", SERVER)


@pytest.mark.parametrize("line", ["[]", "{}", "5", "null", "hello"])
@on_loop
async def test_other_first_line_is_refused(stand_in: Path, line: str) -> None:
    write(stand_in, f"echo '{line}'")
    with pytest.raises(PspError, match=r"^the clients wrote .* instead of a ready line$"):
        await Launcher().launch(1, "", SERVER)


@on_loop
async def test_reported_error_keeps_its_type(stand_in: Path) -> None:
    write(stand_in, "echo 'pspd client: error: no server answers' >&2", "exit 5")
    with pytest.raises(Unreachable, match=r"^the clients did not start: no server answers$"):
        await Launcher().launch(1, "", SERVER)


@on_loop
async def test_silent_process_is_killed(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher_module, "READY_SECONDS", 0.2)
    write(stand_in, "exec sleep 1000")
    with pytest.raises(PspError, match=r"not ready after 0\.2 s: it logged nothing"):
        await Launcher().launch(1, "", SERVER)
    assert not any(is_running(pid) for pid, *_ in noted(stand_in))


@on_loop
async def test_process_that_ignores_sigterm_is_killed(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher_module, "STOP_SECONDS", 0.1)
    write(stand_in, "trap '' TERM", """echo '{"names": []}'""", "while :; do read _ < /dev/zero; done")
    launcher = Launcher()
    await launcher.launch(1, "", SERVER)
    await launcher.stop()
    assert not any(is_running(pid) for pid, *_ in noted(stand_in))


@on_loop
async def test_stop_without_processes() -> None:
    await Launcher().stop()


@on_loop
async def test_real_clients_join_and_leave(tmp_path: Path) -> None:
    async with in_process(FAST) as network:
        names = await network.server.launch(2, str(tmp_path / "launched"))
        await until("both are heard", lambda: network.connected() == sorted(names))
        assert sorted(os.listdir(tmp_path / "launched")) == sorted(names)
        network.server.stop_clients([], all_clients=True)
        await until("they have left", lambda: network.connected() == [])
