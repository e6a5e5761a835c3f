"""Changing files in a running client's folder: no corrupt byte is distributed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemons import Daemon, Json, Network
from tests.support.files import random_file, sha256

CHUNK_BYTES = 1024
SIZE_BYTES = 1_000_000


def part_of(network: Network, client: str) -> Path:
    """Return the path of the one unfinished file of a client."""
    (part,) = (network.folder / client / ".psp").glob("*.part")
    return part


def garble(path: Path, offset: int) -> None:
    """Change one byte of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0xFF]))


def garble_unseen(path: Path, offset: int) -> None:
    """Change one byte of a file, and keep its modification time."""
    state = path.stat()
    garble(path, offset)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def refusal(network: Network, client: str) -> str:
    """Return the reason why a client declined the file; empty if it did not decline."""
    clients: list[Json] = network.file("file.bin")["clients"]
    return next((each["refusal"] for each in clients if each["name"] == client), "")


def missing_chunks(network: Network) -> tuple[int, int, set[str]]:
    """Return the first missing chunk, one past the last, and the last clients that had them."""
    missing: list[Json] = network.file("file.bin")["missing_ranges"]
    starts, stops = [each["start"] for each in missing], [each["stop"] for each in missing]
    return min(starts, default=0), max(stops, default=0), {each["last_holder"] for each in missing}


@pytest.fixture
def clients(network: Network) -> dict[str, Daemon]:
    """Start a server and clients; return the clients by name."""
    network.server()
    return {name: network.client(name) for name in "ab"}


@pytest.fixture
def held_back(network: Network, clients: dict[str, Daemon], tmp_path: Path) -> Path:
    """Seed a file to ``a`` and ``b`` with --hold, so that each chunk has one holder; return the original."""
    source = random_file(tmp_path / "file.bin", SIZE_BYTES)
    network.ctl("seed", source, "--clients", 2, "--hold")
    return source


def release_and_repair(network: Network, source: Path, expected: tuple[int, int, set[str]]) -> None:
    """Release the file, wait until it stalls because the given chunks are missing, and seed it again."""
    network.ctl("release", source.name)
    network.until(
        f"{expected} are missing",
        lambda: network.file(source.name)["state"] == "stalled" and missing_chunks(network) == expected,
    )
    assert not any(network.copy(name, source.name).exists() for name in "ab")
    network.ctl("seed", source, "--wait")
    network.await_copies(source, "ab")
    network.until("the file is complete", lambda: network.file(source.name)["state"] == "complete")


def test_garbled_part_is_repaired_by_seeding_again(network: Network, held_back: Path) -> None:
    garble(part_of(network, "a"), 100 * CHUNK_BYTES + 1)
    release_and_repair(network, held_back, (100, 101, {"a"}))


def test_emptied_part_is_repaired_by_seeding_again(network: Network, held_back: Path) -> None:
    os.truncate(part_of(network, "a"), 0)
    chunk_count = -(-SIZE_BYTES // CHUNK_BYTES)
    release_and_repair(network, held_back, (0, chunk_count // 2, {"a"}))


@pytest.fixture
def distributed(network: Network, clients: dict[str, Daemon], tmp_path: Path) -> Path:
    """Distribute a file to ``a`` and ``b``, and clear the cache; return the original."""
    source = random_file(tmp_path / "file.bin", SIZE_BYTES)
    network.ctl("seed", source, "--clients", 2, "--wait")
    network.await_copies(source, "ab")
    network.until("the file is complete", lambda: network.file(source.name)["state"] == "complete")
    network.ctl("cache", "clear")
    return source


@pytest.mark.parametrize("change", [garble, garble_unseen], ids=["found by its time", "found by its digest"])
def test_late_joiner_gets_garbled_file_from_others(
    network: Network, distributed: Path, change: Callable[[Path, int], None]
) -> None:
    altered = network.copy("a", distributed.name)
    change(altered, 100 * CHUNK_BYTES)
    garbled = sha256(altered)
    network.client("late")
    network.await_copies(distributed, ["b", "late"])
    network.until("one declines it", lambda: bool(refusal(network, "a")))
    assert "another file named 'file.bin'" in refusal(network, "a")
    assert sha256(altered) == garbled


def test_file_garbled_at_last_holder_is_repaired_by_seeding(
    network: Network, clients: dict[str, Daemon], distributed: Path
) -> None:
    assert clients["b"].stop() == 0
    garble_unseen(network.copy("a", distributed.name), 100 * CHUNK_BYTES)
    network.client("late")
    network.until("the file is stalled", lambda: network.file(distributed.name)["state"] == "stalled")
    assert not network.copy("late", distributed.name).exists()
    # The garbled file is not overwritten, so its client declines, and the command reports that.
    network.ctl("seed", distributed, "--wait", code=4)
    network.await_copies(distributed, ["late"])


def test_changed_or_removed_copy_no_longer_counts(network: Network, distributed: Path) -> None:
    assert "safe: " in network.ctl("status", distributed.name).stdout
    altered, removed = (network.copy(name, distributed.name) for name in "ab")
    garble(altered, 100 * CHUNK_BYTES)
    network.until("one declines it", lambda: "another file named" in refusal(network, "a"))
    removed.unlink()
    network.until("the other reports that it was removed", lambda: f"{removed} was removed" in refusal(network, "b"))
    network.until("the file is stalled", lambda: network.file(distributed.name)["state"] == "stalled")
    assert not removed.exists()
    network.client("late")
    network.ctl("seed", distributed, "--wait", code=4)
    network.await_copies(distributed, ["late"])
    assert not removed.exists()
