"""Datagrams over a real UDP socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from pspd.core.wire.datagrams import DATAGRAM_BYTES_MAX
from pspd.net.datagrams import DATAGRAMS_PER_WAKEUP, DatagramSocket, ReplyPaths
from pspd.net.faults import Faults
from pspd.net.sockets import UDP_BUFFER_BYTES, bind_datagrams
from pspd.text.addresses import Address
from tests.support.loops import faults_expected, on_loop, until

pytestmark = pytest.mark.usefixtures("each_loop")


@dataclass
class Received:
    """Takes datagrams in."""

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
async def test_datagrams_go_there_and_back(peer: socket.socket) -> None:
    received = Received()
    near = open_socket(received)
    near.send(b"there", peer.getsockname())
    data, source = peer.recvfrom(100)
    assert (data, source) == (b"there", ("127.0.0.1", near.port))
    peer.sendto(b"back", source)
    await until("it has come", lambda: received.datagrams)
    assert received.datagrams == [(b"back", peer.getsockname())]
    near.close()


@on_loop
async def test_a_flood_is_taken_in_over_several_wakeups(peer: socket.socket) -> None:
    received = Received()
    near = open_socket(received)
    sent = [b"%d" % number for number in range(2 * DATAGRAMS_PER_WAKEUP + 5)]
    for data in sent:
        peer.sendto(data, ("127.0.0.1", near.port))
    await until("all have come", lambda: len(received.data) == len(sent))
    assert received.data == sent
    near.close()


@on_loop
async def test_one_that_is_too_long_is_seen_to_be_and_an_empty_one_too(peer: socket.socket) -> None:
    received = Received()
    near = open_socket(received)
    for length in (DATAGRAM_BYTES_MAX, 9000, 0):
        peer.sendto(bytes(length), ("127.0.0.1", near.port))
    await until("all have come", lambda: len(received.data) == 3)
    assert list(map(len, received.data)) == [DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MAX + 1, 0]
    near.close()


@on_loop
async def test_what_the_kernel_does_not_take_is_lost_and_counted(peer: socket.socket) -> None:
    near = open_socket(Received())
    near.send(bytes(70_000), peer.getsockname())
    assert near.unsent_count == 1
    near.send(b"fine", peer.getsockname())
    assert (peer.recv(100), near.unsent_count) == (b"fine", 1)
    near.close()


@on_loop
async def test_a_peer_that_is_gone_does_no_harm(peer: socket.socket) -> None:
    """The kernel may tell of it by an error on the next call; later datagrams come all the same."""
    received = Received()
    near = open_socket(received)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        nowhere = gone.getsockname()
    for _ in range(3):
        near.send(b"anyone?", nowhere)
    peer.sendto(b"I am", ("127.0.0.1", near.port))
    await until("it has come", lambda: received.data == [b"I am"])
    near.close()


@on_loop
async def test_it_may_be_closed_while_it_hands_a_datagram_over(peer: socket.socket) -> None:
    taken: list[bytes] = []

    def take(data: bytes, _source: Address) -> None:
        taken.append(data)
        near.close()

    near = DatagramSocket(bind_datagrams("127.0.0.1", 0), take)
    for data in (b"one", b"two"):
        peer.sendto(data, ("127.0.0.1", near.port))
    await until("one has come", lambda: taken)
    near.close()
    near.send(b"late", peer.getsockname())
    assert (taken, near.unsent_count) == ([b"one"], 1)


@on_loop
async def test_faults_spoil_what_comes_in(peer: socket.socket) -> None:
    received = Received()
    near = open_socket(received, Faults(duplicate=1.0))
    peer.sendto(b"twice", ("127.0.0.1", near.port))
    await until("it has come", lambda: received.data == [b"twice"] * 2)
    near.close()


def test_the_buffers_are_larger_than_usual() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as usual, bind_datagrams("127.0.0.1", 0) as ours:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            size = ours.getsockopt(socket.SOL_SOCKET, option)
            assert usual.getsockopt(socket.SOL_SOCKET, option) <= size <= 2 * UDP_BUFFER_BYTES


@pytest.mark.parametrize("bound", ["0.0.0.0", "::"])
@on_loop
async def test_reply_comes_from_the_address_written_to(bound: str) -> None:
    received = Received()
    near = DatagramSocket(bind_datagrams(bound, 0), received, keeps_local=True)
    hosts = ["127.0.0.5", "127.0.0.6"] + (["::1"] if bound == "::" else [])
    for host in [*hosts, *hosts]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as far:
            far.settimeout(5)
            far.sendto(b"there", (host, near.port))
            await until("it has come", lambda: received.datagrams)
            near.send(b"back", received.datagrams.pop()[1])
            assert far.recvfrom(100)[1][:2] == (host, near.port)
    assert near.unsent_count == 0
    near.close()


def test_reply_paths_forget_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pspd.net.datagrams.REPLY_PATHS_MAX", 2)
    paths: ReplyPaths[str] = ReplyPaths()
    for port, path in ((1, "a"), (2, "b"), (1, "c"), (3, "d")):
        paths.note(("10.0.0.1", port), path)
    assert [paths.of(("10.0.0.1", port)) for port in (1, 2, 3, 4)] == [None, "b", "d", None]


@faults_expected()
@on_loop
async def test_error_about_one_datagram_leaves_the_next_their_turn(
    peer: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bytes] = []

    def receive(data: bytes, _: Address) -> None:
        if data == b"bad":
            raise RuntimeError("bad")
        heard.append(data)

    near = DatagramSocket(bind_datagrams("127.0.0.1", 0), receive)
    for data in (b"bad", b"good"):
        peer.sendto(data, ("127.0.0.1", near.port))
    await until("the next is heard", lambda: heard == [b"good"])
    assert "RuntimeError: bad" in caplog.text
    near.close()
