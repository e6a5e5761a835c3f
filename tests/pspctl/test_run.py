"""``pspctl run`` with fake daemons."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pspctl import local
from pspctl.local import client_groups
from pspd.daemon import spawn
from pspd.errors import NameTaken
from pspd.v1 import status_service_pb2
from tests.pspctl.conftest import FakeSource, Pspctl
from tests.pspctl.fakes import FakeServer, file

CLIENT_COUNT = 3


@pytest.fixture
def original(tmp_path: Path, fake: FakeServer, source: FakeSource, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file to distribute, with fake daemons and a network without faults."""
    path = tmp_path / "big.iso"
    path.write_bytes(bytes(range(256)) * 32)
    pretender = Path(__file__).with_name("fake_pspd.py")
    monkeypatch.setattr(spawn, "DAEMON_COMMAND", (sys.executable, str(pretender)))
    monkeypatch.setenv("FAKE_LISTEN", fake.address)
    monkeypatch.setenv("FAKE_CONTENT", str(path))
    monkeypatch.setenv("FAKE_ENDS", str(tmp_path / "ends"))
    source.file = file(held=(8, 0, 0))
    fake.changes = [status_service_pb2.WatchStatusResponse(files=[file(held=(8, 8, 8))])]
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "copies"


def ends(tmp_path: Path) -> list[str]:
    """Return a line for each daemon that was stopped, in order."""
    return (tmp_path / "ends").read_text().splitlines()


def test_run_distributes_verifies_and_stops(
    lone_pspctl: Pspctl, source: FakeSource, original: Path, target: Path, tmp_path: Path
) -> None:
    result = lone_pspctl(
        *("run", original, "--clients", CLIENT_COUNT, "--to", target),
        *("--profile", "classic", "--cache", "100KiB", "-o", "json"),
    )
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert document.keys() >= {"schema_version", "file", "seconds", "cache", "verified_client_count"}
    assert document["verified_client_count"] == CLIENT_COUNT
    assert source.arguments["client_count"] == CLIENT_COUNT
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*")) == sorted(
        name for index in range(CLIENT_COUNT) for name in (f"client-{index}", f"client-{index}/big.iso")
    )
    assert ends(tmp_path)[-1] == "server classic 102400"
    assert set(ends(tmp_path)[:-1]) == {"client None None"}


def test_run_prints_result_as_text(lone_pspctl: Pspctl, original: Path, target: Path) -> None:
    result = lone_pspctl("run", original, "--clients", CLIENT_COUNT, "--to", target)
    assert "complete on 3 of 3 clients" in result.stdout
    assert "verified 3 of 3 copies" in result.stdout


def test_differing_copy_is_an_integrity_error(
    lone_pspctl: Pspctl, original: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAULT", "corrupt")
    result = lone_pspctl("run", original, "--clients", CLIENT_COUNT, "--to", target, "-o", "json")
    assert result.exit_code == 7
    assert json.loads(result.stdout)["verified_client_count"] == CLIENT_COUNT - 1
    assert "1 of 3 copies" in result.stderr


@pytest.mark.parametrize("role", ["server", "client"])
def test_error_quotes_daemon_that_died(
    lone_pspctl: Pspctl, original: Path, target: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    monkeypatch.setenv("FAKE_FAULT", f"{role}-dies")
    result = lone_pspctl("run", original, "--clients", CLIENT_COUNT, "--to", target)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"pspctl: error: the {role}")
    assert "the disk is on fire (exit code 1)" in result.stderr


def test_daemon_that_never_gets_ready_times_out(
    lone_pspctl: Pspctl, original: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAULT", "mute")
    monkeypatch.setattr(local, "START_SECONDS", 0.2)
    result = lone_pspctl("run", original, "--clients", CLIENT_COUNT, "--to", target)
    assert result.exit_code == 6
    assert "the server was not ready after 0.2 s: it logged nothing" in result.stderr


def test_timeout_leaves_no_hidden_folders(
    lone_pspctl: Pspctl, source: FakeSource, original: Path, target: Path
) -> None:
    source.stays = True
    result = lone_pspctl("run", original, "--clients", CLIENT_COUNT, "--to", target, "--timeout", "0.2")
    assert (result.exit_code, result.stdout) == (6, "")
    assert not list(target.rglob(".psp"))


@pytest.mark.parametrize(("error", "code"), [(None, 130), (NameTaken("not that name"), 4), (OSError("a bug"), 1)])
def test_every_failure_stops_all_daemons(
    lone_pspctl: Pspctl,
    source: FakeSource,
    original: Path,
    target: Path,
    tmp_path: Path,
    error: Exception | None,
    code: int,
) -> None:
    source.refusal, source.is_interrupted = error, error is None
    result = lone_pspctl("run", original, "--clients", CLIENT_COUNT, "--to", target)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (code, "", 1)
    assert len(ends(tmp_path)) == 1 + min(CLIENT_COUNT, local.core_count())
    assert not list(target.rglob(".psp"))


def test_failed_run_removes_folders_it_created(
    lone_pspctl: Pspctl, original: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAULT", "server-dies")
    assert lone_pspctl("run", original, "--clients", 1, "--to", target).exit_code == 1
    assert not target.exists()
    target.mkdir()
    assert lone_pspctl("run", original, "--clients", 1, "--to", target).exit_code == 1
    assert target.exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--clients", "2001"], "2001 clients are too many for this machine: give --clients 1 to 2000"),
        (["--clients", "1", "--cache", "0"], "a cache of 0 B is smaller than a chunk: give --cache 1KiB or more"),
        (["--clients", "1", "--cache", "1.5GiB"], "write a whole number and B, KiB, MiB, GiB or TiB"),
    ],
)
def test_invalid_arguments_are_refused_before_start(
    lone_pspctl: Pspctl,
    original: Path,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    text: str,
) -> None:
    monkeypatch.setattr(local, "core_count", lambda: 2)
    result = lone_pspctl("run", original, "--to", target, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert text in result.stderr
    assert not target.exists()


@pytest.mark.parametrize("found", ["big.iso", ".psp"])
def test_existing_files_are_left_alone(lone_pspctl: Pspctl, original: Path, target: Path, found: str) -> None:
    (target / "client-2").mkdir(parents=True)
    (target / "client-2" / found).write_text("precious")
    result = lone_pspctl("run", original, "--clients", CLIENT_COUNT, "--to", target)
    assert result.exit_code == 4
    assert f"{target}/client-2/{found} already exists" in result.stderr
    assert (target / "client-2" / found).read_text() == "precious"


@pytest.mark.parametrize(
    ("client_count", "group_count", "groups"),
    [(1, 1, [(0, 1)]), (5, 2, [(0, 2), (2, 3)]), (2, 4, [(0, 1), (1, 1)])],
)
def test_clients_are_spread_evenly(client_count: int, group_count: int, groups: list[tuple[int, int]]) -> None:
    assert client_groups(client_count, group_count) == groups
