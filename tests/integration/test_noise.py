"""Random bytes on the ports of a network do not disturb it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tests.support.daemons import Network
from tests.support.files import random_file

DATAGRAM_COUNT = 300
CONNECTION_COUNT = 20


def noise_datagrams(port: int, seed: int) -> None:
    """Send datagrams of random bytes and lengths, including an empty one."""
    random = Random(seed)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for length in (0, *(random.randrange(1, 1400) for _ in range(DATAGRAM_COUNT))):
            sender.sendto(random.randbytes(length), ("127.0.0.1", port))


def noise_connections(port: int, seed: int) -> Iterator[socket.socket]:
    """Open connections that send random bytes, or nothing, and then stay open."""
    random = Random(seed)
    for length in (0, *(random.randrange(1, 70_000) for _ in range(CONNECTION_COUNT))):
        stranger = socket.create_connection(("127.0.0.1", port), 5)
        # The other side may close the connection at any time.
        try:
            stranger.sendall(random.randbytes(length))
        except OSError:
            stranger.close()
        else:
            yield stranger


def test_network_works_despite_noise_on_every_port(network: Network, tmp_path: Path) -> None:
    server = network.server()
    names = network.clients(2)
    api_port = int(server.ready_line["listen"].rpartition(":")[2])
    data_port = server.ready_line["data_port"]
    client_ports = [int(client["address"].rpartition(":")[2]) for client in network.status()["clients"]]

    for number, port in enumerate((data_port, *client_ports)):
        noise_datagrams(port, number)
    # The connections stay open: idle unknown connections must not keep clients out.
    strangers = [link for port in (data_port, api_port) for link in noise_connections(port, port)]
    try:
        source = random_file(tmp_path / "file.bin", 1_000_000)
        network.ctl("seed", source, "--clients", 2, "--wait", timeout=30)
        network.await_copies(source, names)
    finally:
        for stranger in strangers:
            stranger.close()
    dropped = network.status()["server"]["dropped_counts"]
    assert dropped["bad_magic"] > 0, "drops are counted by reason"
    assert server.stop() == 0


def test_classic_client_works_despite_noise(network: Network, tmp_path: Path) -> None:
    """In the classic profile, clients listen for connections of the server."""
    network.server("--profile", "classic")
    client = network.client("a")
    network.client("b")
    strangers = [link for port in listening_ports(client.pid) for link in noise_connections(port, port)]
    try:
        assert strangers, "a classic client listens on no TCP port"
        source = random_file(tmp_path / "file.bin", 60_000)
        network.ctl("seed", source, "--clients", 2, "--wait", timeout=30)
        network.await_copies(source, "ab")
    finally:
        for stranger in strangers:
            stranger.close()


def listening_ports(pid: int) -> list[int]:
    """Return the TCP ports on which a process listens."""
    process = Path(f"/proc/{pid}")
    inodes = set()
    for descriptor in (process / "fd").iterdir():
        target = descriptor.readlink().name if descriptor.is_symlink() else ""
        if target.startswith("socket:["):
            inodes.add(target[len("socket:[") : -1])
    ports = []
    for table in ("tcp", "tcp6"):
        for line in (process / "net" / table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                ports.append(int(fields[1].rpartition(":")[2], 16))
    return ports
