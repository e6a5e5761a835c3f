"""Files that somebody changes in a client's folder while it runs: nothing wrong is ever shown as finished."""

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
    """The bytes of the one file that a client has begun and not finished."""
    (part,) = (network.folder / client / ".psp").glob("*.part")
    return part


def garble(path: Path, offset: int) -> None:
    """Changes a byte of a file; its size stays as it was."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0xFF]))


def garble_unseen(path: Path, offset: int) -> None:
    """Changes a byte of a file, and not the time at which it was last changed."""
    state = path.stat()
    garble(path, offset)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def refusal(network: Network, client: str) -> str:
    """Why a client does not take the file; empty if it does."""
    clients: list[Json] = network.file("file.bin")["clients"]
    return next((each["refusal"] for each in clients if each["name"] == client), "")


def lacks(network: Network) -> tuple[int, int, set[str]]:
    """The first chunk that nobody holds, the one after the last, and who had them."""
    missing: list[Json] = network.file("file.bin")["missing_ranges"]
    starts, stops = [each["start"] for each in missing], [each["stop"] for each in missing]
    return min(starts, default=0), max(stops, default=0), {each["last_holder"] for each in missing}


@pytest.fixture
def clients(network: Network) -> dict[str, Daemon]:
    """A server's clients, by name."""
    network.server()
    return {name: network.client(name) for name in "ab"}


@pytest.fixture
def held_back(network: Network, clients: dict[str, Daemon], tmp_path: Path) -> Path:
    """A file whose shares ``a`` and ``b`` hold, its exchange held back: each chunk has one holder."""
    source = random_file(tmp_path / "file.bin", SIZE_BYTES)
    network.ctl("seed", source, "--clients", 2, "--hold")
    return source


def release_and_repair(network: Network, source: Path, expected: tuple[int, int, set[str]]) -> None:
    """Releases the file, which must stall for want of these chunks, and seeds it again."""
    network.ctl("release", source.name)
    network.until(
        f"nobody holds {expected}",
        lambda: network.file(source.name)["state"] == "stalled" and lacks(network) == expected,
    )
    assert not any(network.copy(name, source.name).exists() for name in "ab")
    network.ctl("seed", source, "--wait")
    network.await_copies(source, "ab")
    network.until("the file is complete", lambda: network.file(source.name)["state"] == "complete")


def test_a_garbled_part_is_missed_and_seeding_again_mends_it(network: Network, held_back: Path) -> None:
    garble(part_of(network, "a"), 100 * CHUNK_BYTES + 1)
    release_and_repair(network, held_back, (100, 101, {"a"}))


def test_a_part_that_was_emptied_is_missed_and_seeding_again_mends_it(network: Network, held_back: Path) -> None:
    os.truncate(part_of(network, "a"), 0)
    chunk_count = -(-SIZE_BYTES // CHUNK_BYTES)
    release_and_repair(network, held_back, (0, chunk_count // 2, {"a"}))


@pytest.fixture
def distributed(network: Network, clients: dict[str, Daemon], tmp_path: Path) -> Path:
    """A file that ``a`` and ``b`` have, each of whom was given half of it by its source; nothing of it is cached."""
    source = random_file(tmp_path / "file.bin", SIZE_BYTES)
    network.ctl("seed", source, "--clients", 2, "--wait")
    network.await_copies(source, "ab")
    network.until("the file is complete", lambda: network.file(source.name)["state"] == "complete")
    network.ctl("cache", "clear")
    return source


@pytest.mark.parametrize("change", [garble, garble_unseen], ids=["seen-by-its-time", "seen-by-its-digest"])
def test_a_finished_file_that_was_garbled_is_had_from_others(
    network: Network, distributed: Path, change: Callable[[Path, int], None]
) -> None:
    altered = network.copy("a", distributed.name)
    change(altered, 100 * CHUNK_BYTES)
    garbled = sha256(altered)
    network.client("late")
    network.await_copies(distributed, ["b", "late"])
    network.until("it is known that one refuses it", lambda: bool(refusal(network, "a")))
    assert "another file named 'file.bin'" in refusal(network, "a")
    assert sha256(altered) == garbled


def test_the_last_holder_of_what_was_garbled_is_mended_by_seeding_again(
    network: Network, clients: dict[str, Daemon], distributed: Path
) -> None:
    assert clients["b"].stop() == 0
    garble_unseen(network.copy("a", distributed.name), 100 * CHUNK_BYTES)
    network.client("late")
    network.until("the file is stalled", lambda: network.file(distributed.name)["state"] == "stalled")
    assert not network.copy("late", distributed.name).exists()
    # What the other one's user has there now is not overwritten: it is not a copy, and the command says so.
    network.ctl("seed", distributed, "--wait", code=4)
    network.await_copies(distributed, ["late"])


def test_a_copy_that_is_changed_or_removed_while_its_client_runs_counts_no_more(
    network: Network, distributed: Path
) -> None:
    assert "safe: " in network.ctl("status", distributed.name).stdout
    altered, removed = (network.copy(name, distributed.name) for name in "ab")
    garble(altered, 100 * CHUNK_BYTES)
    network.until("one refuses it", lambda: "another file named" in refusal(network, "a"))
    removed.unlink()
    network.until("the other has removed it", lambda: f"{removed} was removed" in refusal(network, "b"))
    network.until("nobody has all of it", lambda: network.file(distributed.name)["state"] == "stalled")
    assert not removed.exists()
    network.client("late")
    network.ctl("seed", distributed, "--wait", code=4)
    network.await_copies(distributed, ["late"])
    assert not removed.exists()
