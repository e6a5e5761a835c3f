"""A firewall between a client and its server: clients and sources report what it blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from pspd.errors import Unreachable
from tests.lab.network import Direction, Lab
from tests.support.daemons import BIN, Network
from tests.support.files import random_file

pytestmark = pytest.mark.lab

CLIENTS = ("c1",)
CONNECT_SECONDS = 3
END_SECONDS = 60
MESSAGES = {
    ("udp",): "no answer from {} by UDP: is UDP port {} open?",
    ("tcp",): "cannot connect to {} by TCP (no answer): is TCP port {} open?",
    ("udp", "tcp"): "cannot reach {} by UDP or TCP (no answer): are UDP and TCP port {} open?",
}


def message(network: Network, data_port: int, blocked: tuple[str, ...]) -> str:
    return MESSAGES[blocked].format(f"{network.host.address}:{data_port}", data_port)


@pytest.mark.parametrize("blocked", MESSAGES, ids="+".join)
@pytest.mark.parametrize("direction", ["in", "out"])
@pytest.mark.parametrize("profile", ["fast", "classic"])
def test_client_reports_what_is_blocked(
    here: Lab, network: Network, profile: str, direction: Direction, blocked: tuple[str, ...]
) -> None:
    data_port = network.server("--profile", profile).ready_line["data_port"]
    host = here.hosts[1]
    for protocol in blocked:
        here.loss(host, 100, direction, protocol, data_port)
    client = network.launch_client("c1", "--connect-timeout", CONNECT_SECONDS, host=host)
    assert client.wait(END_SECONDS) == 5
    with pytest.raises(Unreachable, match="did not start"):
        client.read_ready()
    assert client.log_text().splitlines()[-1] == f"pspd client: error: {message(network, data_port, blocked)}"
    network.until(
        "the client has left", lambda: all(each["state"] != "connected" for each in network.status()["clients"])
    )

    for protocol in blocked:
        here.loss(host, 0, direction, protocol, data_port)
    network.client("c1", host=host)


@pytest.mark.parametrize("blocked", MESSAGES, ids="+".join)
def test_source_reports_what_is_blocked(here: Lab, network: Network, tmp_path: Path, blocked: tuple[str, ...]) -> None:
    data_port = network.server().ready_line["data_port"]
    network.client("c1")
    host = here.hosts[1]
    for protocol in blocked:
        here.loss(host, 100, protocol=protocol, port=data_port)
    seed = [BIN / "pspctl", "seed", random_file(tmp_path / "file.bin", 10_000)]
    done = host.run(seed, timeout=END_SECONDS, env=network.environment)
    assert done.returncode == 5
    assert done.stderr.splitlines()[-1] == f"pspctl: error: {message(network, data_port, blocked)}"


def test_ready_client_survives_a_block(here: Lab, network: Network, tmp_path: Path) -> None:
    server = network.server()
    data_port = server.ready_line["data_port"]
    client = network.client("c1", "--connect-timeout", 1, host=here.hosts[1])
    for protocol in ("udp", "tcp"):
        here.loss(here.hosts[1], 100, protocol=protocol, port=data_port)
    server.stop()
    network.restarted_server(server)
    network.until("the client has joined again", lambda: "joined again" in client.log_text())
    network.until("the dial is logged", lambda: "no TCP connection to" in client.log_text(), 60)
    for protocol in ("udp", "tcp"):
        here.loss(here.hosts[1], 0, protocol=protocol, port=data_port)
    source = random_file(tmp_path / "file.bin", 100_000)
    network.ctl("seed", source, "--wait", timeout=90)
    network.await_copies(source, CLIENTS)
    assert client.alive
