"""Distribution while the daemons lose, duplicate and reorder datagrams on purpose (R11)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemons import Network
from tests.support.files import random_file

FAULTS = "loss=0.3,duplicate=0.1,reorder=0.1,seed={}"


@pytest.mark.parametrize(("profile", "size_bytes"), [("fast", 2_000_000), ("classic", 30_000)])
def test_every_client_gets_file_despite_faults(network: Network, tmp_path: Path, profile: str, size_bytes: int) -> None:
    network.server("--profile", profile, "--faults", FAULTS.format(7))
    names = network.clients(3, "--faults", FAULTS.format(8))
    source = random_file(tmp_path / "file.bin", size_bytes)
    answer = network.json("seed", source, "--clients", 3, "--wait")
    network.await_copies(source, names)
    assert answer["file"]["traffic"]["retransmit_count"] > 0
