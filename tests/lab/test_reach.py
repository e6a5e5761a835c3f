"""A client with a working control connection but no data path is unreachable, and recovers by itself (R12)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.network import Lab
from tests.support.daemons import Network
from tests.support.files import random_file

pytestmark = pytest.mark.lab

CLIENTS = ("c1", "c2")
REACH_SECONDS = 7
"""How long a client stays reachable without a sign of life; the default is longer."""
NOTICED_SECONDS = 60


def states(network: Network) -> dict[str, str]:
    """Return the state of each client at the server."""
    return {client["name"]: client["state"] for client in network.status()["clients"]}


def test_client_without_data_path_is_lost_until_it_returns(here: Lab, network: Network, tmp_path: Path) -> None:
    data_port = network.server("--reach", REACH_SECONDS).ready_line["data_port"]
    for name, host in zip(CLIENTS, here.hosts[1:], strict=True):
        network.client(name, host=host)
    source = random_file(tmp_path / "file.bin", 1_000_000)
    network.ctl("seed", source, "--clients", len(CLIENTS), "--hold")
    cut_off = here.hosts[1]

    def data_loss(percent: int) -> None:
        for protocol in ("udp", "tcp"):
            here.loss(cut_off, percent, protocol=protocol, port=data_port)

    data_loss(100)
    network.ctl("release", source.name)
    network.until("the client is lost", lambda: states(network) == {"c1": "lost", "c2": "connected"}, NOTICED_SECONDS)
    file = network.file(source.name)
    missing = file["missing_ranges"]
    assert file["state"] == "stalled"
    assert [(each["start"], each["stop"], each["last_holder"]) for each in missing] == [
        (0, file["chunk_count"] // 2, "c1")
    ]
    assert not any(network.copy(name, source.name).exists() for name in CLIENTS)

    data_loss(0)
    network.await_copies(source, CLIENTS)
    network.until("the file is complete", lambda: network.file(source.name)["state"] == "complete")
    assert set(states(network).values()) == {"connected"}
