"""Names with several addresses, and link-local addresses: data goes where the control API answered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.network import Lab
from tests.support.daemons import BIN, Network
from tests.support.files import random_file
from tests.support.hosts import Host

pytestmark = pytest.mark.lab

CLIENTS = ("c1",)
PORT = 7070
EACH_PROFILE = pytest.mark.parametrize("profile", ["fast", "classic"])


def interface(host: Host) -> dict[str, object]:
    """Return a host's only interface, as ``ip`` shows it."""
    shown = json.loads(host.run(["ip", "-json", "addr", "show", "up"]).stdout)
    return next(each for each in shown if each["ifname"] != "lo")


def link_local(host: Host, seen_from: Host) -> str:
    """Return a host's link-local address, with the interface of another host that reaches it."""
    addresses = interface(host)["addr_info"]
    assert isinstance(addresses, list)
    local = next(each["local"] for each in addresses if each["scope"] == "link" and each["family"] == "inet6")
    return f"{local}%{interface(seen_from)['ifname']}"


@pytest.fixture
def hub(here: Lab) -> Iterator[str]:
    """Provide a name that every host resolves to an IPv6 and an IPv4 address of the first, in this order."""
    folders = []
    for index, host in enumerate(here.hosts, 1):
        host.run(["ip", "addr", "add", f"fd77::{index}/64", "dev", str(interface(host)["ifname"]), "nodad"])
        folder = Path("/etc/netns") / host.enter[-1]
        folder.mkdir(parents=True)
        folders.append(folder)
        lines = ["127.0.0.1 localhost", "::1 localhost", "fd77::1 hub", f"{here.hosts[0].address} hub"]
        (folder / "hosts").write_text("\n".join(lines) + "\n")
    yield "hub"
    for folder in folders:
        shutil.rmtree(folder)


def distribute(network: Network, host: Host, server: str, folder: Path) -> str:
    """Distribute a file to a client on ``host`` that uses the address ``server``; return the client's address."""
    network.address = server
    network.client("c1", host=host)
    source = random_file(folder / "file.bin", 300_000)
    done = host.run(
        [BIN / "pspctl", "seed", source, "--server", server, "--wait", "--timeout", "20"],
        timeout=30,
        env=network.environment,
    )
    assert done.returncode == 0, done.stderr
    network.await_copies(source, CLIENTS)
    return str(network.status()["clients"][0]["address"])


@EACH_PROFILE
@pytest.mark.parametrize(
    ("listen", "reached"),
    [("10.77.0.1", "10.77."), ("0.0.0.0", "[fd77::"), ("::", "[fd77::"), ("hub", "[fd77::"), ("[fd77::1]", "[fd77::")],
)
def test_name_resolves_to_an_address_that_accepts_data(
    here: Lab, network: Network, hub: str, tmp_path: Path, profile: str, listen: str, reached: str
) -> None:
    network.server("--profile", profile, listen=f"{listen}:{PORT}" if listen != "::" else f"[::]:{PORT}")
    assert distribute(network, here.hosts[1], f"{hub}:{PORT}", tmp_path).startswith(reached)


def test_localhost_resolves_to_an_address_that_accepts_data(
    here: Lab, network: Network, hub: str, tmp_path: Path
) -> None:
    network.server(listen=f"localhost:{PORT}")
    assert distribute(network, here.hosts[0], f"localhost:{PORT}", tmp_path).startswith("[::1]")


@EACH_PROFILE
def test_link_local_address_carries_data(here: Lab, network: Network, tmp_path: Path, profile: str) -> None:
    server, client = here.hosts
    network.until("the address is usable", lambda: "tentative" not in json.dumps(interface(server)))
    network.server("--profile", profile, listen=f"[{link_local(server, server)}]:{PORT}")
    address = distribute(network, client, f"[{link_local(server, client)}]:{PORT}", tmp_path)
    assert address.startswith("[fe80:")
    assert "%" in address


def test_server_answers_from_the_address_written_to(here: Lab, network: Network, tmp_path: Path) -> None:
    """The server has two addresses in one network, and the kernel prefers the first for answers."""
    server, client = here.hosts
    server.run(["ip", "addr", "add", "10.77.0.99/24", "dev", str(interface(server)["ifname"])])
    network.server(listen=f"0.0.0.0:{PORT}")
    distribute(network, client, f"10.77.0.99:{PORT}", tmp_path)
