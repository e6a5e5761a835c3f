"""The lab itself: loss, partitions and link speeds, and what remains of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.network import Direction, Lab
from tests.support.hosts import Host

pytestmark = pytest.mark.lab

LabMaker = Callable[[int], Lab]

COUNTER = """
import socket
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE: the buffer itself must lose nothing
datagrams.bind(("0.0.0.0", 7000))
with socket.create_server(("0.0.0.0", 7000)) as server:
    print("ready", flush=True)
    server.accept()[0].close()
datagrams.setblocking(False)
count = 0
try:
    while datagrams.recv(100):
        count += 1
except BlockingIOError:
    print(count)
"""
"""Counts the datagrams received before the first TCP connection."""

SENDER = """
import socket, sys
address, count = (sys.argv[1], 7000), int(sys.argv[2])
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(count):
    datagrams.sendto(b"x", address)  # would raise if the loss were reported to the sender
socket.create_connection(address, 10).close()
"""

SINK = """
import socket
with socket.create_server(("0.0.0.0", 7000)) as server:
    print("ready", flush=True)
    with server.accept()[0] as link:
        while link.recv(1 << 20):
            pass
"""

SOURCE = """
import socket, sys, time
begin = time.monotonic()
with socket.create_connection((sys.argv[1], 7000), 10) as link:
    link.sendall(bytes(int(sys.argv[2])))
    link.shutdown(socket.SHUT_WR)
    link.recv(1)
print(time.monotonic() - begin)
"""

PING = """
import socket, sys
socket.create_connection((sys.argv[1], 7000), float(sys.argv[2])).close()
"""

LISTENER = """
import socket
with socket.create_server(("0.0.0.0", 7000)) as server:
    print("ready", flush=True)
    while True:
        server.accept()[0].close()
"""


def python(host: Host, program: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run a Python program on a host."""
    return host.run([sys.executable, "-c", program, *args], timeout=30)


def start(host: Host, program: str) -> subprocess.Popen[str]:
    """Start a Python program on a host, and wait until it prints "ready"."""
    process = host.popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def reaches(sender: Host, receiver: Host, seconds: float = 0.3) -> bool:
    """Return whether a TCP connection can be opened."""
    return python(sender, PING, receiver.address, seconds).returncode == 0


def arrived(sender: Host, receiver: Host, count: int) -> int:
    """Return how many of ``count`` datagrams arrive."""
    with start(receiver, COUNTER) as counter:
        done = python(sender, SENDER, receiver.address, count)
        assert done.returncode == 0, done.stderr
        return int(counter.communicate(timeout=10)[0])


@pytest.mark.parametrize(
    ("direction", "to_lossy", "from_lossy"), [("in", 0.7, 1.0), ("out", 1.0, 0.7), ("both", 0.7, 0.7)]
)
def test_loss_has_rate_and_direction(lab: LabMaker, direction: Direction, to_lossy: float, from_lossy: float) -> None:
    count = 3000
    here = lab(3)
    lossy, other, third = here.hosts
    here.loss(lossy, 30, direction)
    # Six standard deviations of 3000 draws at 0.3 are 0.05.
    assert arrived(other, lossy, count) / count == pytest.approx(to_lossy, abs=0.05)
    assert arrived(lossy, other, count) / count == pytest.approx(from_lossy, abs=0.05)
    assert arrived(other, third, count) == count
    here.loss(lossy, 0)
    assert arrived(other, lossy, count) == count


@pytest.mark.parametrize("direction", ["in", "out", "both"])
def test_loss_may_affect_one_port_only(lab: LabMaker, direction: Direction) -> None:
    here = lab(2)
    server, client = here.hosts
    with start(server, LISTENER) as listener:
        here.loss(client, 100, direction, "tcp", 7001)
        assert reaches(client, server)
        here.loss(client, 100, direction, "tcp", 7000)
        assert not reaches(client, server)
        here.loss(client, 0, direction, "tcp", 7000)
        assert reaches(client, server, 5)
        listener.kill()


def test_partition_disconnects_until_it_heals(lab: LabMaker) -> None:
    here = lab(3)
    first, second, third = here.hosts
    with start(first, LISTENER) as listener:
        assert reaches(second, first)
        here.partition(second)
        assert not reaches(second, first)
        assert reaches(third, first)
        here.heal(second)
        assert reaches(second, first, 5)
        listener.kill()


def test_link_speed_is_limited(lab: LabMaker) -> None:
    here = lab(2)
    near, far = here.hosts
    here.shape(far, 40)
    with start(near, SINK):
        seconds = float(python(far, SOURCE, near.address, 2_000_000).stdout)
    assert 2_000_000 * 8 / 40e6 * 0.8 < seconds < 2


ABANDON = """
import os
from tests.lab.network import Lab
Lab(1).__enter__()
print(os.getpid(), flush=True)
os._exit(1)
"""


def own_links() -> list[str]:
    """Return the interfaces in the machine's own network."""
    return sorted(link.name for link in Path("/sys/class/net").iterdir())


def spaces(prefix: str) -> list[str]:
    """Return the network namespaces with a prefix."""
    return [space.name for space in Path("/run/netns").iterdir() if space.name.startswith(prefix)]


@pytest.mark.usefixtures("laboratory")
def test_lab_leaves_no_namespace_and_no_program() -> None:
    """The machine's own network never changes."""
    before = own_links()
    with Lab(2) as here:
        process = start(here.hosts[0], LISTENER)
        prefix = here.hosts[0].enter[-1].removesuffix("h0")
        assert len(spaces(prefix)) == 3
        assert own_links() == before
    with process:
        assert process.wait(timeout=5) == -signal.SIGKILL
    assert not spaces(prefix)


@pytest.mark.usefixtures("laboratory")
def test_namespaces_of_a_killed_run_are_removed() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", ABANDON], cwd=root, stdout=subprocess.PIPE, check=False)
    left = f"psplab-{int(done.stdout)}-"
    assert spaces(left)
    with Lab(1):
        assert not spaces(left)


def test_large_lab_is_built_quickly(lab: LabMaker) -> None:
    begin = time.monotonic()
    lab(20)
    assert time.monotonic() - begin < 10
