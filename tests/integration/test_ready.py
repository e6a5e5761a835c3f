"""A member is ready only when data can flow; otherwise it ends and names the blocked port."""

from __future__ import annotations

from pathlib import Path

import pytest

from pspd.errors import Unreachable
from tests.support.daemons import Network
from tests.support.files import random_file

LOST = "loss=1"


def blocked_text(network: Network, data_port: int) -> str:
    return f"no answer from {network.host.address}:{data_port} by UDP: is UDP port {data_port} open?"


def test_member_that_receives_nothing_reports_it(network: Network, tmp_path: Path) -> None:
    """The server receives no datagram, but its control API works."""
    data_port = network.server("--faults", LOST).ready_line["data_port"]
    client = network.launch_client("a", "--connect-timeout", 1)
    assert client.wait(30) == 5
    with pytest.raises(Unreachable, match="did not start"):
        client.read_ready()
    assert client.log_text().splitlines()[-1] == f"pspd client: error: {blocked_text(network, data_port)}"

    launched = network.ctl("launch", 1, "--dir", tmp_path / "launched", code=5)
    assert f"the clients did not start: {blocked_text(network, data_port)}" in launched.stderr

    seeded = network.ctl("seed", random_file(tmp_path / "f.bin", 5000), code=5)
    assert seeded.stderr.splitlines()[-1] == f"pspctl: error: {blocked_text(network, data_port)}"


def test_source_that_cannot_send_announces_nothing(network: Network, tmp_path: Path) -> None:
    """If the source announced the file, the file would stay in the network and stall."""
    network.server("--faults", LOST)
    network.launch_client("a", "--connect-timeout", 60)
    network.until("it has joined", lambda: any(each["name"] == "a" for each in network.status()["clients"]))
    network.ctl("seed", random_file(tmp_path / "f.bin", 5000), code=5)
    assert network.status()["files"] == []


def test_starting_client_waits_for_restarted_server(network: Network) -> None:
    """The first server receives no datagrams; the restarted one does."""
    server = network.server("--faults", LOST)
    client = network.launch_client("a", "--connect-timeout", 20)
    network.until("it has joined", lambda: any(each["name"] == "a" for each in network.status()["clients"]))
    assert not client.read_ready()
    server.stop()
    network.restarted_server(server)
    network.until("it is ready", client.read_ready)
