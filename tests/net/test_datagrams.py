"""Datagrams over a real UDP socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from pspd.core.wire.datagrams import DATAGRAM_BYTES_MAX
from pspd.net.datagrams import DATAGRAMS_PER_WAKEUP, DatagramSocket, note_local_end
from pspd.net.faults import Faults
from pspd.net.sockets import UDP_BUFFER_BYTES, bind_datagrams
from pspd.text.addresses import Address
from tests.support.loops import faults_expected, on_loop, until

pytestmark = pytest.mark.usefixtures("each_loop")


@dataclass
class Received:
    """Records datagrams."""

    datagrams: list[tuple[bytes, Address]] = field(default_factory=list)

    def __call__(self, data: bytes, source: Address) -> None:
        self.datagrams.append((data, source))

    @property
    def data(self) -> list[bytes]:
        return [data for data, _ in self.datagrams]


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    """A plain UDP socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        opened.settimeout(5)
        yield opened


def open_socket(received: Received, faults: Faults | None = None) -> DatagramSocket:
    return DatagramSocket(bind_datagrams("127.0.0.1", 0), received, faults)


@on_loop
async def test_datagrams_are_sent_and_received(peer: socket.socket) -> None:
    received = Received()
    near = open_socket(received)
    near.send(b"there", peer.getsockname())
    data, source = peer.recvfrom(100)
    assert (data, source) == (b"there", ("127.0.0.1", near.port))
    peer.sendto(b"back", source)
    await until("it is received", lambda: received.datagrams)
    assert received.datagrams == [(b"back", peer.getsockname())]
    near.close()


@on_loop
async def test_burst_is_received_over_several_wakeups(peer: socket.socket) -> None:
    received = Received()
    near = open_socket(received)
    sent = [b"%d" % number for number in range(2 * DATAGRAMS_PER_WAKEUP + 5)]
    for data in sent:
        peer.sendto(data, ("127.0.0.1", near.port))
    await until("all are received", lambda: len(received.data) == len(sent))
    assert received.data == sent
    near.close()


@on_loop
async def test_oversized_and_empty_datagrams_are_received(peer: socket.socket) -> None:
    received = Received()
    near = open_socket(received)
    for length in (DATAGRAM_BYTES_MAX, 9000, 0):
        peer.sendto(bytes(length), ("127.0.0.1", near.port))
    await until("all are received", lambda: len(received.data) == 3)
    assert list(map(len, received.data)) == [DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MAX + 1, 0]
    near.close()


@on_loop
async def test_datagram_refused_by_kernel_is_counted(peer: socket.socket) -> None:
    near = open_socket(Received())
    near.send(bytes(70_000), peer.getsockname())
    assert near.unsent_count == 1
    near.send(b"fine", peer.getsockname())
    assert (peer.recv(100), near.unsent_count) == (b"fine", 1)
    near.close()


@on_loop
async def test_closed_peer_does_not_break_socket(peer: socket.socket) -> None:
    """The kernel may report it by an error of the next call; later datagrams are received nevertheless."""
    received = Received()
    near = open_socket(received)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        unused = closed.getsockname()
    for _ in range(3):
        near.send(b"anyone?", unused)
    peer.sendto(b"I am", ("127.0.0.1", near.port))
    await until("it is received", lambda: received.data == [b"I am"])
    near.close()


@on_loop
async def test_socket_may_be_closed_by_receiver(peer: socket.socket) -> None:
    taken: list[bytes] = []

    def take(data: bytes, _source: Address) -> None:
        taken.append(data)
        near.close()

    near = DatagramSocket(bind_datagrams("127.0.0.1", 0), take, None)
    for data in (b"one", b"two"):
        peer.sendto(data, ("127.0.0.1", near.port))
    await until("one is received", lambda: taken)
    near.close()
    near.send(b"late", peer.getsockname())
    assert (taken, near.unsent_count) == ([b"one"], 1)


@on_loop
async def test_faults_apply_to_received_datagrams(peer: socket.socket) -> None:
    received = Received()
    near = open_socket(received, Faults(duplicate=1.0))
    peer.sendto(b"twice", ("127.0.0.1", near.port))
    await until("it is received", lambda: received.data == [b"twice"] * 2)
    near.close()


def test_buffers_are_larger_than_default() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as usual, bind_datagrams("127.0.0.1", 0) as ours:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            size = ours.getsockopt(socket.SOL_SOCKET, option)
            assert usual.getsockopt(socket.SOL_SOCKET, option) <= size <= 2 * UDP_BUFFER_BYTES


@pytest.mark.parametrize("bound", ["0.0.0.0", "::"])
@on_loop
async def test_reply_comes_from_address_written_to(bound: str) -> None:
    received = Received()
    near = DatagramSocket(bind_datagrams(bound, 0), received, None, is_wildcard=True)
    hosts = ["127.0.0.5", "127.0.0.6"] + (["::1"] if bound == "::" else [])
    for host in [*hosts, *hosts]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as far:
            far.settimeout(5)
            far.sendto(b"there", (host, near.port))
            await until("it is received", lambda: received.datagrams)
            near.send(b"back", received.datagrams.pop()[1])
            assert far.recvfrom(100)[1][:2] == (host, near.port)
    assert near.unsent_count == 0
    near.close()


def test_local_end_of_oldest_peer_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pspd.net.datagrams.PEERS_MAX", 2)
    paths: dict[Address, str] = {}
    for port, path in ((1, "a"), (2, "b"), (1, "c"), (3, "d")):
        note_local_end(paths, ("10.0.0.1", port), path)
    assert [paths.get(("10.0.0.1", port)) for port in (1, 2, 3, 4)] == [None, "b", "d", None]


@faults_expected()
@on_loop
async def test_error_about_datagram_does_not_stop_next(peer: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    received: list[bytes] = []

    def receive(data: bytes, _: Address) -> None:
        if data == b"bad":
            raise RuntimeError("bad")
        received.append(data)

    near = DatagramSocket(bind_datagrams("127.0.0.1", 0), receive, None)
    for data in (b"bad", b"good"):
        peer.sendto(data, ("127.0.0.1", near.port))
    await until("the next is received", lambda: received == [b"good"])
    assert "RuntimeError: bad" in caplog.text
    near.close()
