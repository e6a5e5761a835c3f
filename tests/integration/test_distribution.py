"""Distribution while clients join late, crash and return, and while other files are distributed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemons import Daemon, Network
from tests.support.files import random_file, sha256

BIG_BYTES = 40_000_000
"""A file large enough that events happen during its distribution."""


def test_server_keeps_nothing_after_seeding(network: Network, tmp_path: Path) -> None:
    """R2: at the seeded moment the shares are disjoint and exhaustive, and the server holds nothing."""
    network.server()
    names = network.clients(3)
    source = random_file(tmp_path / "file.bin", 1_000_000)
    network.ctl("seed", source, "--clients", 3, "--hold")

    status = network.status()
    file = status["files"][0]
    assert (file["state"], file["held_back"]) == ("seeded", True)
    assert file["cached_bytes"] == file["cached_bytes_when_seeded"] == status["cache"]["used_bytes"] == 0
    held = [client["held_chunk_count"] for client in file["clients"]]
    assert sum(held) == file["chunk_count"]
    assert max(held) - min(held) <= 1
    assert file["min_holder_count"] == 1
    assert not any(network.copy(name, "file.bin").exists() for name in names)

    network.ctl("release", "file.bin")
    network.await_copies(source, names)


@pytest.mark.parametrize("profile", ["fast", "classic"])
def test_late_joiner_gets_the_file(network: Network, tmp_path: Path, profile: str) -> None:
    network.server("--profile", profile)
    names = network.clients(2)
    source = random_file(tmp_path / "file.bin", 3_000_000 if profile == "fast" else 100_000)
    network.ctl("seed", source, "--clients", 2, "--wait")
    network.await_copies(source, names)
    network.client("late")
    network.await_copies(source, ["late"])


def test_killed_client_resumes(network: Network, tmp_path: Path) -> None:
    network.server()
    network.client("a")
    killed = network.client("b")
    source = random_file(tmp_path / "file.bin", BIG_BYTES)
    network.ctl("seed", source, "--clients", 2)
    killed.kill()
    network.client("b")
    network.await_copies(source, "ab")


def test_lost_share_stalls_file_until_client_returns(network: Network, tmp_path: Path) -> None:
    network.server()
    network.client("a")
    holder = network.client("b")
    source = random_file(tmp_path / "file.bin", 1_000_000)
    network.ctl("seed", source, "--clients", 2, "--hold")
    holder.kill()
    network.ctl("release", "file.bin")

    network.until("the file is stalled", lambda: network.file("file.bin")["state"] == "stalled", 60)
    file = network.file("file.bin")
    assert {missing["last_holder"] for missing in file["missing_ranges"]} == {"b"}
    lacking = sum(missing["stop"] - missing["start"] for missing in file["missing_ranges"])
    assert 0 < lacking <= -(-file["chunk_count"] // 2)
    assert file["min_holder_count"] == 0

    network.client("b")
    network.await_copies(source, "ab")
    network.until("the file is complete", lambda: network.file("file.bin")["state"] == "complete")


def test_seeding_continues_after_server_is_killed(network: Network, tmp_path: Path) -> None:
    before = network.server()
    names = network.clients(3)
    source = random_file(tmp_path / "file.bin", BIG_BYTES)
    with network.start_ctl("seed", source, "--wait", "-q") as seed:
        network.until("it is being seeded", lambda: bool(network.status()["files"]))
        before.kill()
        network.restarted_server(before)
        assert seed.wait(60) == 0
    network.await_copies(source, names)


def test_exchange_continues_after_server_is_killed(network: Network, tmp_path: Path) -> None:
    before = network.server()
    names = network.clients(3)
    source = random_file(tmp_path / "file.bin", BIG_BYTES)
    network.ctl("seed", source, "--clients", 3, "--hold")
    before.kill()
    network.restarted_server(before)
    assert network.file("file.bin")["state"] == "seeded"
    network.ctl("release", "file.bin")
    network.await_copies(source, names)
    network.until("the file is complete", lambda: network.file("file.bin")["state"] == "complete")


def test_two_replicas_survive_loss_of_a_client(network: Network, tmp_path: Path) -> None:
    network.server()
    clients = {name: network.client(name) for name in "abc"}
    source = random_file(tmp_path / "file.bin", 1_000_000)
    network.ctl("seed", source, "--clients", 3, "--replicas", 2, "--hold")
    file = network.file("file.bin")
    assert (file["min_holder_count"], file["cached_bytes_when_seeded"]) == (2, 0)
    assert sum(client["held_chunk_count"] for client in file["clients"]) == 2 * file["chunk_count"]
    assert "safe: each chunk is on at least 2 clients" in network.ctl("status", "file.bin").stdout
    clients["b"].kill()
    network.ctl("release", "file.bin")
    network.await_copies(source, "ac")
    network.ctl("wait", "file.bin")


def test_waiting_source_replaces_lost_holder(network: Network, tmp_path: Path) -> None:
    """A source that waits sends the share of a lost client again if no other client has it."""
    network.server()
    clients = {name: network.client(name) for name in "ab"}
    slow = network.client("c", "--faults", "loss=0.9")
    source = random_file(tmp_path / "file.bin", BIG_BYTES)
    with network.start_ctl("seed", source, "--clients", 3, "--wait", "-q") as seed:
        network.until("it is seeded", lambda: any(file["state"] != "seeding" for file in network.status()["files"]))
        slow.kill()
        network.await_copies(source, clients)
        network.client("c")
        assert seed.wait(60) == 0
    network.await_copies(source, "c")


@pytest.mark.parametrize("restart", [Daemon.kill, Daemon.stop], ids=["killed", "stopped"])
def test_wait_and_drain_survive_server_restart(
    network: Network, tmp_path: Path, restart: Callable[[Daemon], object]
) -> None:
    before = network.server()
    names = network.clients(2)
    source = random_file(tmp_path / "file.bin", BIG_BYTES)
    network.ctl("seed", source, "--hold")
    with network.start_ctl("wait", "file.bin") as wait, network.start_ctl("stop", names[0], "--drain") as drain:
        for command in (wait, drain):
            assert command.stderr is not None
            assert command.stderr.readline(), "it says why it waits"
        restart(before)
        network.restarted_server(before)
        network.ctl("release", "file.bin")
        assert wait.wait(60) == 0
        assert drain.wait(60) == 0
    network.await_copies(source, names[1:])  # the first client stops as soon as no data is lost by that


def test_server_that_lost_its_state_learns_file_by_seeding(network: Network, tmp_path: Path) -> None:
    """The clients report their chunks, so seeding again continues from there."""
    before = network.server()
    names = network.clients(3)
    source = random_file(tmp_path / "file.bin", BIG_BYTES)
    network.ctl("seed", source, "--clients", 3)
    before.kill()
    for path in (network.folder / "server").iterdir():
        path.unlink()
    network.restarted_server(before)
    assert network.status()["files"] == []
    network.ctl("seed", source, "--clients", 3, "--wait")
    network.await_copies(source, names)


def test_restarted_server_counts_clients_as_holders(network: Network, tmp_path: Path) -> None:
    before = network.server("--reach", 6)
    clients = {name: network.client(name) for name in "abc"}
    source = random_file(tmp_path / "file.bin", 300_000)
    network.ctl("seed", source, "--clients", 3, "--hold")
    before.kill()
    clients["c"].kill()
    network.restarted_server(before, "--reach", 6)
    network.ctl("release", "file.bin")
    network.until(
        "the file is stalled without the client that does not return",
        lambda: network.file("file.bin")["state"] == "stalled",
    )
    [missing] = network.file("file.bin")["missing_ranges"]
    assert missing["last_holder"] == "c"
    network.client("c")
    network.await_copies(source, "abc")


def test_client_retries_declined_file(network: Network, tmp_path: Path) -> None:
    network.server()
    names = network.clients(2)
    in_the_way = network.copy("c0", "file.bin")
    in_the_way.write_bytes(b"another file")
    source = random_file(tmp_path / "file.bin", 300_000)
    network.ctl("seed", source, "--clients", 2)
    network.until("it is declined", lambda: network.file("file.bin")["declined_client_count"] == 1)
    in_the_way.rename(in_the_way.with_name("mine"))
    network.await_copies(source, names)
    network.until("nobody declines it", lambda: network.file("file.bin")["declined_client_count"] == 0)
    assert network.copy("c0", "mine").read_bytes() == b"another file"


def test_client_respects_max_bytes(network: Network, tmp_path: Path) -> None:
    network.server()
    network.client("a"), network.client("b", "--max-bytes", "1MiB")
    small, large = random_file(tmp_path / "small", 800_000), random_file(tmp_path / "large", 400_000, seed=2)
    network.ctl("seed", small, "--clients", 2, "--wait")
    assert "b declined it: 'large' needs 390.6 KiB" in network.ctl("seed", large, "--wait", code=4).stderr
    network.await_copies(large, "a")
    network.ctl("rm", "small")
    network.await_copies(large, "ab")


def test_rm_removes_file(network: Network, tmp_path: Path) -> None:
    before = network.server()
    names = network.clients(3)
    gone, held, kept = (
        random_file(tmp_path / name, BIG_BYTES, seed=seed) for seed, name in enumerate(("gone", "held", "kept"))
    )
    network.ctl("seed", gone, "--wait")
    network.ctl("seed", held, "--hold")
    network.ctl("rm", "held", code=4)
    network.ctl("rm", "gone")
    network.ctl("rm", "held", "--force")
    network.ctl("rm", "held", "--force", code=3)
    assert network.status()["files"] == []
    parts = [network.folder / name / ".psp" for name in names]
    network.until("nothing of it is left", lambda: not any(path for part in parts for path in part.glob("*.part")))
    network.await_copies(gone, names)
    network.ctl("seed", kept, "--name", "held", "--wait")
    network.await_copies(kept, names, name="held")
    before.kill()
    network.restarted_server(before)
    assert [file["name"] for file in network.status()["files"]] == ["held"]


def test_two_files_at_once(network: Network, tmp_path: Path) -> None:
    network.server("--cache", "1MiB")
    names = network.clients(3)
    sources = [random_file(tmp_path / f"file{index}.bin", 5_000_000, seed=index) for index in range(2)]
    seeds = [network.start_ctl("seed", source, "--wait", "-q") for source in sources]
    for seed in seeds:
        with seed:
            assert seed.wait(60) == 0
    for source in sources:
        network.await_copies(source, names)


def test_seeding_same_file_twice_is_harmless(network: Network, tmp_path: Path) -> None:
    network.server()
    names = network.clients(2)
    source = random_file(tmp_path / "file.bin", 200_000)
    first = network.json("seed", source, "--wait")
    second = network.json("seed", source, "--wait")
    assert first["file"]["file_id"] == second["file"]["file_id"]
    assert len(network.status()["files"]) == 1
    network.await_copies(source, names)


def test_name_belongs_to_one_file(network: Network, tmp_path: Path) -> None:
    network.server()
    names = network.clients(2)
    source = random_file(tmp_path / "file.bin", 200_000)
    other = random_file(tmp_path / "other" / "file.bin", 200_000, seed=1)
    network.ctl("seed", source, "--wait")
    refused = network.ctl("seed", other, "--wait", code=4)
    assert refused.stdout == ""
    assert len(refused.stderr.strip().splitlines()) == 1
    network.ctl("seed", other, "--name", "other.bin", "--wait")
    network.await_copies(source, names)
    network.await_copies(other, names, name="other.bin")


def test_users_own_file_is_not_overwritten(network: Network, tmp_path: Path) -> None:
    """A client whose folder has another file of that name declines; it retries once that file is moved away."""
    network.server()
    network.client("a")
    source = random_file(tmp_path / "file.bin", 100_000)
    network.ctl("seed", source, "--wait")
    own = random_file(network.copy("late", "file.bin"), 100)
    late = network.client("late")
    network.until("the client says so", lambda: "file.bin" in late.log_text())
    assert own.stat().st_size == 100
    own.rename(own.with_name("mine.bin"))
    assert late.stop() == 0
    network.client("late")
    network.await_copies(source, ["late"])


def test_delete_source_deletes_original(network: Network, tmp_path: Path) -> None:
    network.server()
    names = network.clients(2)
    source = random_file(tmp_path / "file.bin", 500_000)
    digest = sha256(source)
    network.ctl("seed", source, "--clients", 2, "--delete-source")
    assert not source.exists()
    assert {sha256(network.copy(name, "file.bin")) for name in names} == {digest}
