"""``pspctl run`` with files of all boundary sizes, in both profiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemons import Network
from tests.support.files import random_file, sha256, visible_files

SIZES = [
    # Empty, less than a chunk, chunk boundaries, fewer chunks than clients, block boundaries, several blocks.
    (0, 2, "fast"),
    (0, 2, "classic"),
    (1, 3, "classic"),
    (1023, 2, "fast"),
    (1024, 2, "classic"),
    (1025, 3, "fast"),
    (3000, 7, "classic"),
    (65_536, 1, "fast"),
    (50_000, 5, "classic"),
    (1_000_003, 20, "fast"),
    (5_000_000, 4, "fast"),
]


@pytest.mark.parametrize(("size_bytes", "client_count", "profile"), SIZES)
def test_run_delivers_file_to_every_client(
    network: Network, tmp_path: Path, size_bytes: int, client_count: int, profile: str
) -> None:
    source = random_file(tmp_path / "source" / "file.bin", size_bytes)
    to = tmp_path / "to"
    args = ("--clients", client_count, "--to", to, "--profile", profile, "--timeout", 30)
    answer = network.json("run", source, *args)

    copies = visible_files(to)
    assert [copy.name for copy in copies] == ["file.bin"] * client_count
    assert {sha256(copy) for copy in copies} == {sha256(source)}
    file, cache = answer["file"], answer["cache"]
    assert answer["verified_client_count"] == file["complete_client_count"] == client_count
    assert file["state"] == "complete"
    assert file["chunk_count"] == -(-size_bytes // 1024)
    assert file["cached_bytes_when_seeded"] == 0
    assert cache["high_water_bytes"] <= cache["capacity_bytes"]
    if profile == "classic":
        assert cache["capacity_bytes"] == client_count * 1024


def test_small_cache_is_enough(network: Network, tmp_path: Path) -> None:
    source = random_file(tmp_path / "file.bin", 2_000_000)
    answer = network.json("run", source, "--clients", 5, "--to", tmp_path / "to", "--cache", "100KiB")
    assert answer["verified_client_count"] == 5
    assert answer["cache"]["capacity_bytes"] == 100 * 1024
    assert answer["cache"]["high_water_bytes"] <= 100 * 1024


@pytest.mark.parametrize("name", ["-a name with blanks.txt", "ein Umlaut ä"])
def test_names_and_bytes_are_preserved(network: Network, tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    source.write_bytes(b"\r\n\0END\nACK\n" * 500)
    network.json("run", source, "--clients", 2, "--to", tmp_path / "to")
    assert [copy.read_bytes() for copy in visible_files(tmp_path / "to")] == [source.read_bytes()] * 2
