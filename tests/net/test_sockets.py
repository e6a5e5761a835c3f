"""Ports that are taken, and how streams are tuned."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from pspd.errors import PortTaken
from pspd.net.sockets import DEAD_PEER_MS, bind_datagrams, bind_listener, bind_pair, limit_silence, tune_kept

HOST = "127.0.0.1"


def port_of(bound: socket.socket) -> int:
    return int(bound.getsockname()[1])


def free_pair() -> int:
    """A number that is free for both TCP and UDP."""
    listener, datagrams = bind_pair(HOST, 0)
    with listener, datagrams:
        return port_of(listener)


def test_a_pair_has_one_number() -> None:
    listener, datagrams = bind_pair(HOST, 0)
    with listener, datagrams:
        assert port_of(listener) == port_of(datagrams) > 0
        assert not listener.getblocking()
        assert not datagrams.getblocking()
        with socket.create_connection((HOST, port_of(listener)), 5):
            pass


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_of_which_either_half_is_taken_is_refused(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        port = free_pair()
        taken.bind((HOST, port))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        with pytest.raises(PortTaken) as refused:
            bind_pair(HOST, port)
        protocol = {socket.SOCK_STREAM: "TCP", socket.SOCK_DGRAM: "UDP"}[kind]
        told = f"cannot listen on {protocol} {HOST}:{port}: it is taken: choose another port with --data-port"
        assert str(refused.value) == told
        # Nothing of the pair is left behind: the other half is still to be had.
        other = bind_datagrams if kind is socket.SOCK_STREAM else bind_listener
        other(HOST, port).close()


def test_any_port_passes_over_those_whose_other_half_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def refuse_twice(host: str, port: int) -> socket.socket:
        tried.append(port)
        if len(tried) < 3:
            raise PortTaken("taken")
        return bind_datagrams(host, port)

    monkeypatch.setattr("pspd.net.sockets.bind_datagrams", refuse_twice)
    listener, datagrams = bind_pair(HOST, 0)
    with listener, datagrams:
        assert port_of(listener) == port_of(datagrams) == tried[2]


def test_any_port_is_given_up_when_none_is_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(host: str, port: int) -> socket.socket:
        raise PortTaken("taken")

    monkeypatch.setattr("pspd.net.sockets.bind_datagrams", refuse)
    with pytest.raises(PortTaken, match="--data-port"):
        bind_pair(HOST, 0)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", ""])
@pytest.mark.parametrize("bind", [bind_listener, bind_datagrams])
def test_an_address_that_is_not_ours_is_refused(bind: Callable[[str, int], socket.socket], host: str) -> None:
    with pytest.raises(PortTaken) as refused:
        bind(host, 0)
    assert f"{host}:0" in str(refused.value)


def test_a_listener_takes_the_place_of_one_that_just_ended() -> None:
    """Connections of the one before, not yet forgotten by the kernel, do not keep a server from starting again."""
    with bind_listener(HOST, 0) as before:
        port = port_of(before)
        client = socket.create_connection((HOST, port), 5)
        before.setblocking(True)
        before.accept()[0].close()
        client.close()
    bind_listener(HOST, port).close()


def test_ipv6_is_spoken() -> None:
    try:
        listener, datagrams = bind_pair("::1", 0)
    except PortTaken:
        pytest.skip("this machine has no IPv6")
    with listener, datagrams:
        assert listener.family == datagrams.family == socket.AF_INET6


def test_a_stream_sends_at_once_and_notices_a_dead_peer() -> None:
    with socket.socket() as stream:
        limit_silence(stream)
        tune_kept(stream)
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == DEAD_PEER_MS
