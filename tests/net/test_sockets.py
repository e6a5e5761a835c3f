"""Binding ports, and tuning streams."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from pspd.errors import PortTaken
from pspd.net.sockets import (
    USER_TIMEOUT_MS,
    PortRefused,
    bind_datagrams,
    bind_listener,
    bind_pairs,
    configure_persistent,
    resolve_listen_hosts,
    set_user_timeout,
)
from pspd.text.addresses import address_text

HOST = "127.0.0.1"


def port_of(bound: socket.socket) -> int:
    return int(bound.getsockname()[1])


def free_pair() -> int:
    """Return a port that is free for both TCP and UDP."""
    ((listener, datagrams),) = bind_pairs([HOST], 0)
    with listener, datagrams:
        return port_of(listener)


def test_pair_has_one_port() -> None:
    ((listener, datagrams),) = bind_pairs([HOST], 0)
    with listener, datagrams:
        assert port_of(listener) == port_of(datagrams) > 0
        assert not listener.getblocking()
        assert not datagrams.getblocking()
        with socket.create_connection((HOST, port_of(listener)), 5):
            pass


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_port_taken_for_tcp_or_udp_is_refused(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        port = free_pair()
        taken.bind((HOST, port))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        with pytest.raises(PortTaken) as refused:
            bind_pairs([HOST], port)
        protocol = {socket.SOCK_STREAM: "TCP", socket.SOCK_DGRAM: "UDP"}[kind]
        message = f"cannot listen on {protocol} {HOST}:{port}: it is taken: choose another port with --data-port"
        assert str(refused.value) == message
        # The other half was closed again.
        other = bind_datagrams if kind is socket.SOCK_STREAM else bind_listener
        other(HOST, port).close()


def test_any_port_is_free_for_tcp_and_udp(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def refuse_twice(host: str, port: int) -> socket.socket:
        tried.append(port)
        if len(tried) < 3:
            raise PortRefused("taken")
        return bind_datagrams(host, port)

    monkeypatch.setattr("pspd.net.sockets.bind_datagrams", refuse_twice)
    ((listener, datagrams),) = bind_pairs([HOST], 0)
    with listener, datagrams:
        assert port_of(listener) == port_of(datagrams) == tried[2]


def test_search_for_any_port_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(host: str, port: int) -> socket.socket:
        raise PortRefused("taken")

    monkeypatch.setattr("pspd.net.sockets.bind_datagrams", refuse)
    with pytest.raises(PortTaken, match="--data-port"):
        bind_pairs([HOST], 0)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
@pytest.mark.parametrize("bind", [bind_listener, bind_datagrams])
def test_address_of_another_machine_is_refused(bind: Callable[[str, int], socket.socket], host: str) -> None:
    with pytest.raises(PortTaken) as refused:
        bind(host, 0)
    assert address_text((host, 0)) in str(refused.value)


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid", "fe80::1%nowhere0", ""])
def test_resolve_listen_hosts_refuses_host_of_another_machine(host: str) -> None:
    with pytest.raises(PortTaken) as refused:
        resolve_listen_hosts(host, 0)
    assert host in str(refused.value)


def resolver(*addresses: tuple[str, int]) -> Callable[..., object]:
    """Return a resolver that has these addresses for every name."""

    def find(host: str, port: int, **_: object) -> object:
        return [(None, None, 0, "", (address, port)) for address, _ in addresses]

    return find


def test_resolve_listen_hosts_returns_all_addresses_of_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolver(("127.0.0.2", 0), ("127.0.0.3", 0), ("192.0.2.1", 0)))
    hosts, port = resolve_listen_hosts("hub", 0)
    assert hosts == ["127.0.0.2", "127.0.0.3"]  # this machine does not have the third
    assert port > 0  # the same for both
    pairs = bind_pairs(hosts, 0)
    assert {bound.getsockname() for pair in pairs for bound in pair} == {(host, port_of(pairs[0][0])) for host in hosts}
    for pair in pairs:
        for bound in pair:
            bound.close()


def test_resolve_listen_hosts_refuses_name_if_one_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolver(("127.0.0.2", 0), ("127.0.0.3", 0)))
    with bind_listener("127.0.0.3", 0) as taken, pytest.raises(PortTaken, match=r"127\.0\.0\.3.* taken"):
        resolve_listen_hosts("hub", port_of(taken))


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_any_host_means_both_address_families(host: str) -> None:
    hosts, port = resolve_listen_hosts(host, 0)
    assert port == 0
    ((listener, datagrams),) = bind_pairs(hosts, 0)
    with listener, datagrams:
        families = [("127.0.0.1", socket.AF_INET)]
        if listener.family == socket.AF_INET6:
            families.append(("::1", socket.AF_INET6))
        for reached, family in families:
            with socket.socket(family) as stream:
                stream.connect((reached, port_of(listener)))


def test_listener_may_reuse_port_at_once() -> None:
    """Connections of an earlier server that are in TIME_WAIT do not block the port."""
    with bind_listener(HOST, 0) as before:
        port = port_of(before)
        client = socket.create_connection((HOST, port), 5)
        before.setblocking(True)
        before.accept()[0].close()
        client.close()
    bind_listener(HOST, port).close()


def test_ipv6_is_supported() -> None:
    try:
        ((listener, datagrams),) = bind_pairs(["::1"], 0)
    except PortTaken:
        pytest.skip("this machine has no IPv6")
    with listener, datagrams:
        assert listener.family == datagrams.family == socket.AF_INET6


def test_persistent_stream_is_tuned() -> None:
    with socket.socket() as stream:
        set_user_timeout(stream)
        configure_persistent(stream)
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == USER_TIMEOUT_MS
