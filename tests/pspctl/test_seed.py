"""``pspctl seed`` with a fake source."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pspctl import outage
from pspctl.ui.progress import Progress
from pspd.core.model.terms import ONE_COPY, Terms
from pspd.daemon.source import SeedProgress
from pspd.errors import NameTaken
from pspd.v1 import network_pb2, status_service_pb2
from tests.pspctl.conftest import FakeSource, Pspctl
from tests.pspctl.fakes import FakeServer, file


@pytest.fixture
def original(tmp_path: Path) -> Path:
    path = tmp_path / "big.iso"
    path.write_bytes(bytes(8192))
    return path


@pytest.fixture
def completing(fake: FakeServer) -> None:
    """Let every client have the file at the first change."""
    fake.changes = [status_service_pb2.WatchStatusResponse(files=[file(held=(8, 8))])]


def test_seed_returns_when_file_is_seeded(pspctl: Pspctl, source: FakeSource, original: Path) -> None:
    source.file = file(state=network_pb2.FILE_STATE_SEEDED)
    result = pspctl("seed", original)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith("big.iso (8.0 KiB, ")
    assert result.stdout.endswith("was seeded to 2 clients in 0.5 s; it is now seeded\n")
    assert source.arguments == {
        "server": source.fake.address,
        "path": original,
        "name": None,
        "client_count": 0,
        "hold_back": False,
        "terms": ONE_COPY,
        "hashing": None,
    }


def test_seed_command_imports_grpc_late() -> None:
    loaded = (
        "import sys, pspctl.commands.seed; sys.exit(any(name in sys.modules for name in ('grpc', 'asyncio', 'rich')))"
    )
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0


def test_seed_passes_options_to_source(pspctl: Pspctl, source: FakeSource, original: Path) -> None:
    assert pspctl("seed", original, "--name", "x", "--clients", 3, "--hold").exit_code == 0
    assert (source.arguments["name"], source.arguments["client_count"], source.arguments["hold_back"]) == ("x", 3, True)


@pytest.mark.usefixtures("completing")
@pytest.mark.parametrize(
    ("options", "terms"),
    [
        (["--replicas", "2"], Terms(2)),
        (["--wait"], Terms(source_stays=True)),
        (["--clients", "2", "--replicas", "2", "--wait"], Terms(2, source_stays=True)),
    ],
)
def test_seed_passes_terms_to_source(
    pspctl: Pspctl, source: FakeSource, original: Path, options: list[str], terms: Terms
) -> None:
    assert pspctl("seed", original, *options).exit_code == 0
    assert source.arguments["terms"] == terms


def test_replicas_need_as_many_clients(pspctl: Pspctl, source: FakeSource, original: Path) -> None:
    result = pspctl("seed", original, "--replicas", 3, "--clients", 2)
    assert result.exit_code == 2
    assert "--replicas 3 needs as many clients: --clients 2 is fewer" in result.stderr
    assert source.arguments == {}


@pytest.mark.usefixtures("completing")
def test_seed_wait_shows_exchange_while_source_stays(pspctl: Pspctl, source: FakeSource, original: Path) -> None:
    stalled = [network_pb2.MissingRange(range=network_pb2.ChunkRange(start=0, stop=1), last_holder="anna")]
    source.steps += [SeedProgress("staying", file=file(state=network_pb2.FILE_STATE_STALLED, missing_ranges=stalled))]
    result = pspctl("seed", original, "--wait")
    assert result.exit_code == 0
    assert "last held by anna" in result.stderr


def test_original_is_kept_if_one_client_has_it(pspctl: Pspctl, source: FakeSource, original: Path) -> None:
    source.file = file(held=(8,), state=network_pb2.FILE_STATE_COMPLETE)
    result = pspctl("seed", original, "--delete-source")
    assert result.exit_code == 4
    assert result.stderr == f"pspctl: error: {original} was not deleted: some chunks are on only 1 client\n"
    assert original.exists()


@pytest.mark.usefixtures("completing")
def test_seed_wait_returns_when_every_client_has_file(pspctl: Pspctl, source: FakeSource, original: Path) -> None:
    document = json.loads(pspctl("seed", original, "--wait", "-o", "json").stdout)
    assert document.keys() >= {"schema_version", "file", "seconds", "cache"}
    assert document["file"]["state"] == "complete"
    assert document["seconds"] == {"seeding": 0.5, "exchange": 1.5}
    assert original.exists()


@pytest.mark.usefixtures("completing")
def test_original_is_deleted_when_every_client_has_it(pspctl: Pspctl, source: FakeSource, original: Path) -> None:
    result = pspctl("seed", original, "--delete-source")
    assert result.exit_code == 0
    assert "complete on 2 of 2 clients" in result.stdout
    assert not original.exists()


def test_original_is_kept_if_a_client_is_incomplete(pspctl: Pspctl, source: FakeSource, original: Path) -> None:
    source.fake.stream_stays = True
    assert pspctl("seed", original, "--delete-source", "--timeout", "0.5").exit_code == 6
    assert original.exists()


@pytest.mark.usefixtures("completing")
def test_changed_original_is_kept(
    pspctl: Pspctl, source: FakeSource, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change_the_original(progress: Progress, step: SeedProgress) -> None:
        original.write_bytes(b"something else")

    monkeypatch.setattr(Progress, "show_step", change_the_original)
    result = pspctl("seed", original, "--delete-source", "-q")
    assert result.exit_code == 4
    assert "has changed since it was seeded" in result.stderr
    assert original.exists()


@pytest.mark.parametrize(
    ("steps", "so_far"),
    [
        ([], "seeding had not begun"),
        ([SeedProgress("hashing", 1024, 8192)], "1.0 KiB of 8.0 KiB were hashed"),
        ([SeedProgress("waiting", 1, 3)], "1 of 3 clients had joined: start more, or name fewer with --clients"),
        ([SeedProgress("seeding", 5, 8)], "clients held 5 of 8 chunks: see `pspctl status`"),
    ],
    ids=["not begun", "hashing", "waiting", "seeding"],
)
def test_timeout_error_says_how_far_seeding_was(
    pspctl: Pspctl, source: FakeSource, original: Path, steps: list[SeedProgress], so_far: str
) -> None:
    source.steps, source.stays = steps, True
    result = pspctl("seed", original, "--timeout", "0.2")
    assert (result.exit_code, result.stdout) == (6, "")
    assert result.stderr.splitlines()[-1] == f"pspctl: error: big.iso was not seeded after 0.2 s: {so_far}"
    assert source.has_left


@pytest.mark.parametrize(
    ("options", "wanted", "advice"),
    [
        ((), 1, "start one with `pspd client`"),
        (("--clients", 3), 3, "start more, or name fewer with --clients"),
        (("--replicas", 3), 3, "start more, or name fewer with --replicas"),
        (("--replicas", 3, "--clients", 3), 3, "start more, or name fewer with --clients"),
    ],
    ids=str,
)
def test_timeout_error_advises_on_missing_clients(
    pspctl: Pspctl, source: FakeSource, original: Path, options: tuple[object, ...], wanted: int, advice: str
) -> None:
    source.steps, source.stays = [SeedProgress("waiting", 0, wanted)], True
    assert pspctl("seed", original, "--timeout", "0.2", *options).stderr.endswith(f" had joined: {advice}\n")


def test_waiting_for_clients_is_noted(pspctl: Pspctl, source: FakeSource, original: Path) -> None:
    source.steps = [SeedProgress("waiting", done, 3) for done in (0, 0, 1, 3)]
    assert pspctl("seed", original).stderr == "pspctl: waiting for clients: 0 of 3 have joined\n"
    assert pspctl("seed", original, "-q").stderr == ""


def test_lost_server_is_noted_and_named_at_timeout(pspctl: Pspctl, source: FakeSource, original: Path) -> None:
    source.steps, source.stays = [SeedProgress("seeding", 2, 8), *[SeedProgress("reconnecting", 0, 0)] * 2], True
    result = pspctl("seed", original, "--timeout", "0.2")
    assert result.exit_code == 6
    note, error = result.stderr.splitlines()
    assert note == f"pspctl: lost the server at {source.fake.address}: waiting for it to come back"
    assert f"the server at {source.fake.address} was lost and has not come back" in error


def test_seed_ends_if_server_does_not_return(
    pspctl: Pspctl, source: FakeSource, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "OUTAGE_SECONDS_MAX", 0.0)
    source.steps, source.stays = [SeedProgress("seeding", 2, 8), SeedProgress("reconnecting")], True
    result = pspctl("seed", original)
    assert result.exit_code == 5
    assert "was lost and has not come back for 0 s" in result.stderr


@pytest.mark.parametrize(
    ("phase", "left"),
    [("hashing", ""), ("seeding", "; big.iso is partly seeded: run the same command again to finish")],
)
def test_interrupt_says_that_file_is_partly_seeded(
    pspctl: Pspctl, source: FakeSource, original: Path, phase: str, left: str
) -> None:
    source.steps, source.is_interrupted = [SeedProgress(phase, 2, 8)], True
    result = pspctl("seed", original)
    assert result.exit_code == 130
    assert result.stderr == f"pspctl: error: interrupted{left}\n"


@pytest.mark.parametrize("option", ["--wait", "--delete-source"])
def test_hold_excludes_wait(pspctl: Pspctl, source: FakeSource, original: Path, option: str) -> None:
    result = pspctl("seed", original, "--hold", option)
    assert result.exit_code == 2
    assert f"{option} with --hold would wait forever" in result.stderr
    assert source.arguments == {}


def seeding_with_idle_client() -> Any:
    """Return a file that is being seeded, with client-1 idle before it holds its share."""
    found = file(held=(4, 1), state=network_pb2.FILE_STATE_SEEDING)
    found.clients[0].share_held = True
    found.clients[1].share_idle_seconds = 37.0
    return found


IDLE = "waiting for client-1: share incomplete, no request for 37.0 s"


def test_timeout_error_names_client_that_delays_seeding(pspctl: Pspctl, source: FakeSource, original: Path) -> None:
    source.steps, source.stays = [SeedProgress("seeding", 5, 8, seeding_with_idle_client())] * 2, True
    result = pspctl("seed", original, "--timeout", "0.2")
    assert result.exit_code == 6
    assert result.stderr.splitlines() == [
        f"pspctl: big.iso: {IDLE}",
        f"pspctl: error: big.iso was not seeded after 0.2 s: clients held 5 of 8 chunks; {IDLE}: see `pspctl status`",
    ]


def test_status_names_client_that_delays_seeding(pspctl: Pspctl, source: FakeSource) -> None:
    source.fake.files = [seeding_with_idle_client()]
    assert IDLE in pspctl("status", "big.iso").stdout
    (shown,) = json.loads(pspctl("status", "big.iso", "-o", "json").stdout)["files"]
    states = [(each["share_held"], each["share_idle_seconds"]) for each in shown["clients"]]
    assert states == [(True, None), (False, 37.0)]


@pytest.mark.parametrize("option", ["--wait", "--delete-source"])
def test_original_is_kept_if_a_client_declined(pspctl: Pspctl, source: FakeSource, original: Path, option: str) -> None:
    source.file = file(held=(8, 8))
    source.file.clients.add(name="way2", refusal="no space left")
    result = pspctl("seed", original, option)
    assert result.exit_code == 4
    assert "complete on 2 of 2 clients, 1 declined" in result.stdout
    assert result.stderr == "pspctl: error: way2 declined it: no space left\n"
    assert original.exists()


def test_seed_notes_that_file_is_in_the_network(pspctl: Pspctl, source: FakeSource, original: Path) -> None:
    source.fake.files = [source.file]
    result = pspctl("seed", original)
    assert result.exit_code == 0
    assert result.stderr == "pspctl: big.iso is already in the network: nothing had to be seeded\n"
    assert " in 0.5 s" not in result.stdout  # the time of the earlier run
    assert pspctl("seed", original, "--clients", 2).stderr.endswith("; ignored --clients\n")
    both = pspctl("seed", original, "--clients", 2, "--replicas", 2)
    assert both.stderr.endswith("; ignored --clients and --replicas\n")


def test_name_in_use_is_a_conflict(pspctl: Pspctl, source: FakeSource, original: Path) -> None:
    source.refusal = NameTaken("big.iso is another file of the network: give it another --name")
    result = pspctl("seed", original)
    assert result.exit_code == 4
    assert result.stderr == f"pspctl: error: {source.refusal}\n"


def test_missing_file_is_a_usage_error(pspctl: Pspctl, tmp_path: Path) -> None:
    for command in (
        ["seed", tmp_path / "nope"],
        ["run", tmp_path / "nope", "--clients", 1, "--to", tmp_path],
    ):
        result = pspctl(*command)
        assert result.exit_code == 2
        assert "does not exist" in result.stderr
        assert result.stderr.count("\n") == 1


def test_missing_server_is_reported_before_file_is_read(
    lone_pspctl: Pspctl, source: FakeSource, original: Path
) -> None:
    result = lone_pspctl("seed", original, "--server", "127.0.0.1:1")
    assert result.exit_code == 5
    assert source.arguments == {}


class TestOriginalIsKept:
    """`--delete-source` keeps the original if it is not sure that all clients have a copy."""

    @pytest.mark.usefixtures("completing")
    def test_if_file_was_in_network_before(self, pspctl: Pspctl, source: FakeSource, original: Path) -> None:
        source.file = file(held=(8, 8))
        source.fake.files = [source.file]
        result = pspctl("seed", original, "--delete-source")
        assert result.exit_code == 4
        assert "big.iso was in the network before" in result.stderr
        assert original.exists()

    def test_if_client_left_before_division(self, pspctl: Pspctl, source: FakeSource, original: Path) -> None:
        source.file = file(held=(8, 8))
        result = pspctl("seed", original, "--clients", 3, "--delete-source")
        assert result.exit_code == 4
        assert "1 of 3 clients left before big.iso was divided" in result.stderr
        assert f"; {original} was not deleted\n" in result.stderr
        assert original.exists()

    def test_if_it_is_a_link(self, pspctl: Pspctl, source: FakeSource, original: Path) -> None:
        link = original.with_name("link")
        link.symlink_to(original)
        assert pspctl("seed", link, "--delete-source").exit_code == 2
        assert link.is_symlink()
        assert source.arguments == {}

    def test_if_it_is_a_copy_of_a_client(self, pspctl: Pspctl, source: FakeSource, original: Path) -> None:
        (original.parent / ".psp").mkdir()
        result = pspctl("seed", original, "--delete-source")
        assert result.exit_code == 2
        assert "would delete a client's own copy" in result.stderr
        assert original.exists()
        assert source.arguments == {}


def test_seed_reports_stall_after_sole_holder_left(pspctl: Pspctl, source: FakeSource, original: Path) -> None:
    gone = network_pb2.MissingRange(range=network_pb2.ChunkRange(start=0, stop=4), last_holder="anna")
    source.file = file(state=network_pb2.FILE_STATE_STALLED, missing_ranges=[gone])
    result = pspctl("seed", original)
    assert result.exit_code == 4
    assert "was seeded, but is stalled now: chunks [0, 4) have no reachable holder, last held by anna" in result.stderr
    assert "keep the original, and seed it again if these clients do not come back" in result.stderr


def missing(*names: str, given_up: bool = True) -> list[Any]:
    return [network_pb2.MissingClient(name=name, away_seconds=31, given_up=given_up) for name in names]


@pytest.mark.parametrize("options", [(), ("-q",), ("-o", "json")], ids=str)
def test_seed_wait_names_clients_lost_for_a_lease(
    pspctl: Pspctl, source: FakeSource, original: Path, options: tuple[str, ...]
) -> None:
    source.file = file(held=(8, 8), missing_clients=missing("anna", "bert", given_up=False), recipient_count=4)
    lost = file(held=(8, 8), missing_clients=missing("anna", "bert"), recipient_count=4)
    source.fake.changes = [status_service_pb2.WatchStatusResponse(files=[lost])]
    result = pspctl("seed", original, "--clients", 4, "--wait", *options)
    assert result.exit_code == 4
    note = "pspctl: waiting for anna (lost 31.0 s ago), bert (lost 31.0 s ago)\n"
    assert result.stderr == (note if not options else "") + (
        "pspctl: error: big.iso did not reach anna (lost 31.0 s ago), bert (lost 31.0 s ago):"
        " start them again, and they get it\n"
    )
    if "json" in options:
        assert [client["name"] for client in json.loads(result.stdout)["file"]["missing_clients"]] == ["anna", "bert"]


def test_seed_waits_for_lost_clients_until_timeout(pspctl: Pspctl, source: FakeSource, original: Path) -> None:
    source.file, source.fake.stream_stays = file(held=(8, 8), missing_clients=missing("anna")), True
    result = pspctl("seed", original, "--wait", "--timeout", "0.5", "-o", "json")
    assert result.exit_code == 6
    assert "did not reach anna (lost 31.0 s ago) within 0.5 s" in result.stderr
    assert json.loads(result.stdout)["file"]["missing_clients"][0]["name"] == "anna"


def test_seed_succeeds_when_lost_clients_return(pspctl: Pspctl, source: FakeSource, original: Path) -> None:
    source.file = file(held=(8, 8), missing_clients=missing("anna", given_up=False))
    source.fake.changes = [status_service_pb2.WatchStatusResponse(files=[file(held=(8, 8, 8))])]
    result = pspctl("seed", original, "--wait")
    assert (result.exit_code, result.stderr) == (0, "pspctl: waiting for anna (lost 31.0 s ago)\n")


def test_seed_ends_when_all_clients_are_lost_for_good(pspctl: Pspctl, source: FakeSource, original: Path) -> None:
    lost = file(held=(), state=network_pb2.FILE_STATE_SEEDING, missing_clients=missing("anna", "bert"))
    source.steps, source.stays = [SeedProgress("seeding", 0, 8, lost)], True
    result = pspctl("seed", original)
    assert result.exit_code == 4
    note, error = result.stderr.splitlines()
    assert note == "pspctl: big.iso: no client is connected: waiting for one"
    assert "all clients of big.iso are lost: anna (lost 31.0 s ago), bert" in error


@pytest.mark.parametrize("options", [("--name", "other.iso"), ()])
def test_seed_messages_use_name_in_the_network(
    pspctl: Pspctl, source: FakeSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.chdir(folder)
    source.stays = True
    result = pspctl("seed", ".", "--timeout", "0.2", *options)
    assert result.exit_code == 6
    name = "other.iso" if options else "models"
    assert f"pspctl: error: {name} was not seeded after 0.2 s: " in result.stderr


def test_seed_of_present_file_fails_if_all_clients_are_lost(pspctl: Pspctl, source: FakeSource, original: Path) -> None:
    source.file = file(held=(), state=network_pb2.FILE_STATE_DISTRIBUTING, missing_clients=missing("anna"))
    source.fake.files = [source.file]
    result = pspctl("seed", original, "--wait")
    assert result.exit_code == 4
    assert result.stderr.endswith("big.iso did not reach anna (lost 31.0 s ago): start them again, and they get it\n")


def test_original_is_kept_if_a_client_was_lost(pspctl: Pspctl, source: FakeSource, original: Path) -> None:
    source.file = file(held=(8, 8), missing_clients=missing("anna"))
    result = pspctl("seed", original, "--delete-source")
    assert result.exit_code == 4
    assert result.stderr.endswith(f"start them again, and they get it; {original} was not deleted\n")
    assert original.exists()


def test_inaccessible_file_is_reported(
    pspctl: Pspctl, source: FakeSource, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.stat

    def refuse(path: object, *args: Any, **options: Any) -> os.stat_result:
        if str(path) == str(original):
            raise PermissionError(errno.EACCES, "Permission denied")
        return stat(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", refuse)
    result = pspctl("seed", original)
    assert result.exit_code == 2
    assert "cannot be looked at: Permission denied" in result.stderr
    assert source.arguments == {}
