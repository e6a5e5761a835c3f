"""Distribution of folders from a source to every client."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.store.stores import filled_folder, seen_in
from tests.support.daemons import Network
from tests.support.files import random_file

BIG_BYTES = 30_000_000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = filled_folder(tmp_path / "data")
    random_file(folder / "big.bin", BIG_BYTES)
    return folder


def await_folders(network: Network, source: Path, names: list[str]) -> None:
    for name in names:
        copy = network.copy(name, source.name)
        network.until(f"{copy} is there", copy.exists)
        assert seen_in(copy) == seen_in(source)


@pytest.mark.parametrize("profile", ["fast", "classic"])
def test_every_client_gets_folder_even_late_joiner(network: Network, tmp_path: Path, profile: str) -> None:
    folder = filled_folder(tmp_path / "data")
    network.server("--profile", profile)
    names = network.clients(2)
    file = network.json("seed", f"{folder}/", "--clients", 2, "--wait")["file"]
    assert (file["name"], file["folder"], file["state"]) == ("data", True, "complete")
    assert "data/ " in network.ctl("status").stdout
    network.client("late")
    network.ctl("wait", "data/")
    await_folders(network, folder, [*names, "late"])


def test_killed_client_resumes_folder(network: Network, source: Path) -> None:
    before = network.server()
    network.client("a")
    killed = network.client("b")
    network.ctl("seed", source, "--clients", 2)
    killed.kill()
    before.kill()
    network.restarted_server(before)
    network.client("b")
    network.ctl("wait", "data")
    await_folders(network, source, ["a", "b"])


def test_archive_serves_others_after_restart(network: Network, source: Path) -> None:
    network.server()
    client = network.client("a")
    network.ctl("seed", source, "--clients", 1, "--wait")
    (network.copy("a", "data") / "run.sh").write_text("mine now")
    client.stop()
    network.client("a")
    network.client("b")
    network.until("b has it too", lambda: network.file("data")["complete_client_count"] == 2)
    await_folders(network, source, ["b"])


def test_client_with_another_folder_of_that_name_declines(network: Network, source: Path) -> None:
    network.server()
    mine = network.folder / "a" / "data" / "mine"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    network.client("a")
    network.client("b")
    network.ctl("seed", source, "--clients", 2)
    network.until("b has it", lambda: network.file("data")["complete_client_count"] == 1)
    assert network.file("data")["declined_client_count"] == 1
    assert os.listdir(mine.parent) == ["mine"]
    await_folders(network, source, ["b"])


def test_folder_removed_while_unpacked_leaves_nothing(network: Network, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    for index in range(5000):
        (folder / str(index % 50)).mkdir(parents=True, exist_ok=True)
        (folder / str(index % 50) / str(index)).write_bytes(b"x")
    network.server()
    network.client("a")
    network.ctl("seed", folder, "--clients", 1)
    work = network.folder / "a" / ".psp"
    copy = network.copy("a", "many")
    network.until("it is being unpacked, or was", lambda: copy.exists() or bool(list(work.glob("*.unpack*"))))
    network.ctl("rm", "many", "--force")
    network.until(
        "nothing is left of it", lambda: {path.name for path in work.iterdir()} == {"lock", "instance", "boot"}
    )


def test_run_distributes_and_verifies_folders(network: Network, source: Path, tmp_path: Path) -> None:
    answer = network.json("run", source, "--clients", 3, "--to", tmp_path / "to")
    assert answer["verified_client_count"] == 3
    for index in range(3):
        assert seen_in(tmp_path / "to" / f"client-{index}" / "data") == seen_in(source)


def test_folder_that_changes_while_seeded_is_refused(network: Network, source: Path) -> None:
    network.server()
    with network.start_ctl("seed", source, "--clients", 1) as seed:
        network.until("it waits for a client", lambda: bool(network.status()["files"]))
        (source / "big.bin").write_bytes(b"other")
        network.client("a")
        assert seed.wait(30) == 1
    assert not network.copy("a", "data").exists()
