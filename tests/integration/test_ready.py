"""Ready means that data can flow: clients, launched ones and sources end with what does not pass."""

from __future__ import annotations

from pathlib import Path

from tests.support.daemons import Network
from tests.support.files import random_file

LOST = "loss=1"


def told(network: Network, data_port: int) -> str:
    return f"no datagram from {network.host.address}:{data_port} passes: is UDP port {data_port} open?"


def test_whoever_hears_nothing_says_so(network: Network, tmp_path: Path) -> None:
    """A server that hears no datagram, while its control API works."""
    data_port = network.server("--faults", LOST).ready["data_port"]
    client = network.launch_client("a", "--connect-timeout", 1)
    assert client.wait(30) == 5
    assert not client.read_ready()
    assert client.log_text().splitlines()[-1] == f"pspd client: error: {told(network, data_port)}"

    launched = network.ctl("launch", 1, "--dir", tmp_path / "launched", code=5)
    assert f"the clients did not start: {told(network, data_port)}" in launched.stderr

    seeded = network.ctl("seed", random_file(tmp_path / "f.bin", 5000), code=5)
    assert seeded.stderr.splitlines()[-1] == f"pspctl: error: {told(network, data_port)}"


def test_source_that_cannot_send_announces_nothing(network: Network, tmp_path: Path) -> None:
    """A file that was announced in vain would stay in the network, stalled."""
    network.server("--faults", LOST)
    network.launch_client("a", "--connect-timeout", 60)
    network.until("it has joined", lambda: any(each["name"] == "a" for each in network.status()["clients"]))
    network.ctl("seed", random_file(tmp_path / "f.bin", 5000), code=5)
    assert network.status()["files"] == []


def test_client_waits_for_a_server_that_is_restarted_at_its_start(network: Network) -> None:
    """Data does not pass at first; the next server lets it."""
    server = network.server("--faults", LOST)
    client = network.launch_client("a", "--connect-timeout", 20)
    network.until("it has joined", lambda: any(each["name"] == "a" for each in network.status()["clients"]))
    assert not client.read_ready()
    server.stop()
    network.restarted_server(server)
    network.until("it is ready", client.read_ready)
