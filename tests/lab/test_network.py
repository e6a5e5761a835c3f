"""The laboratory itself: are its hosts apart, is its loss real, and is nothing left of it?"""

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
datagrams.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE: what is lost must not be lost here
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
"""Counts the datagrams that came before the first TCP connection."""

SENDER = """
import socket, sys
address, count = (sys.argv[1], 7000), int(sys.argv[2])
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(count):
    datagrams.sendto(b"x", address)  # raises if the loss were told to the sender
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
    """Runs a few lines of Python on a host."""
    return host.run([sys.executable, "-c", program, *args], timeout=30)


def start(host: Host, program: str) -> subprocess.Popen[str]:
    """Starts a few lines of Python on a host; returns when they say that they are ready."""
    process = host.popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def reaches(sender: Host, receiver: Host, seconds: float = 0.3) -> bool:
    """Whether a TCP connection can be had."""
    return python(sender, PING, receiver.address, seconds).returncode == 0


def arrived(sender: Host, receiver: Host, count: int) -> int:
    """How many of ``count`` datagrams get from one host to another."""
    with start(receiver, COUNTER) as counter:
        done = python(sender, SENDER, receiver.address, count)
        assert done.returncode == 0, done.stderr
        return int(counter.communicate(timeout=10)[0])


@pytest.mark.parametrize(
    ("direction", "to_lossy", "from_lossy"), [("in", 0.7, 1.0), ("out", 1.0, 0.7), ("both", 0.7, 0.7)]
)
def test_loss_has_its_rate_and_its_direction(
    lab: LabMaker, direction: Direction, to_lossy: float, from_lossy: float
) -> None:
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
def test_loss_may_be_that_of_one_port_alone(lab: LabMaker, direction: Direction) -> None:
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


def test_a_partition_cuts_and_heals(lab: LabMaker) -> None:
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


def test_a_cable_has_its_speed(lab: LabMaker) -> None:
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
    """The interfaces in the machine's own network."""
    return sorted(link.name for link in Path("/sys/class/net").iterdir())


def spaces(prefix: str) -> list[str]:
    """The network namespaces whose name begins so."""
    return [space.name for space in Path("/run/netns").iterdir() if space.name.startswith(prefix)]


@pytest.mark.usefixtures("laboratory")
def test_nothing_is_left() -> None:
    """Neither namespaces nor programs; and nothing ever shows in the machine's own network."""
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
def test_what_a_killed_run_left_is_swept_away() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", ABANDON], cwd=root, stdout=subprocess.PIPE, check=False)
    left = f"psplab-{int(done.stdout)}-"
    assert spaces(left)
    with Lab(1):
        assert not spaces(left)


def test_making_one_is_quick(lab: LabMaker) -> None:
    begin = time.monotonic()
    lab(20)
    assert time.monotonic() - begin < 10
