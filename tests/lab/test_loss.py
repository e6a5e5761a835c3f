"""Despite loss, partitions and slow links between hosts, every client gets the file (R11, R12)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.network import Direction, Lab
from tests.support.daemons import Network
from tests.support.files import random_file

pytestmark = pytest.mark.lab

CLIENTS = ("c1", "c2", "c3")


def start(here: Lab, network: Network, *args: object) -> None:
    """Start the server, and one client on each other host."""
    network.server(*args)
    for name, host in zip(CLIENTS, here.hosts[1:], strict=True):
        network.client(name, host=host)


@pytest.mark.parametrize(("percent", "direction"), [(10, "both"), (30, "in"), (30, "out"), (30, "both"), (50, "both")])
def test_loss_only_takes_time(here: Lab, network: Network, tmp_path: Path, percent: int, direction: Direction) -> None:
    start(here, network)
    for host in here.hosts[1:]:
        here.loss(host, percent, direction)
    source = random_file(tmp_path / "file.bin", 1_000_000)
    network.ctl("seed", source, "--clients", len(CLIENTS), "--wait", timeout=100)
    network.await_copies(source, CLIENTS)


def test_loss_only_takes_time_in_the_classic_profile(here: Lab, network: Network, tmp_path: Path) -> None:
    start(here, network, "--profile", "classic")
    for host in here.hosts[1:]:
        here.loss(host, 30)
    source = random_file(tmp_path / "file.bin", 30_000)
    network.ctl("seed", source, "--clients", len(CLIENTS), "--wait", timeout=100)
    network.await_copies(source, CLIENTS)


def test_partitioned_client_gets_the_file_after_healing(here: Lab, network: Network, tmp_path: Path) -> None:
    start(here, network)
    source = random_file(tmp_path / "file.bin", 3_000_000)
    network.ctl("seed", source, "--clients", len(CLIENTS), "--hold")
    cut_off = here.hosts[1]
    here.partition(cut_off)
    network.ctl("release", source.name)
    network.until("the file is stalled", lambda: network.file(source.name)["state"] == "stalled", 60)
    missing = network.file(source.name)["missing_ranges"]
    assert {each["last_holder"] for each in missing} == {CLIENTS[0]}
    here.heal(cut_off)
    network.await_copies(source, CLIENTS)


def test_slow_client_delays_nobody(here: Lab, network: Network, tmp_path: Path) -> None:
    start(here, network)
    slow, *fast = CLIENTS
    here.shape(here.hosts[1], 20)
    source = random_file(tmp_path / "file.bin", 12_000_000)
    network.ctl("seed", source, "--clients", len(CLIENTS))
    network.await_copies(source, fast)
    assert not network.copy(slow, source.name).exists()
    network.await_copies(source, [slow])
