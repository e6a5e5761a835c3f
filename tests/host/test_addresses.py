"""Addresses: resolved from names, converted for sockets and for gRPC."""

from __future__ import annotations

import socket

import pytest

from pspd.errors import Unreachable
from pspd.host.addresses import address_of, grpc_target, resolve, sockaddr_of
from pspd.text.addresses import address_text, unmapped


@pytest.mark.parametrize("host", ["nowhere.invalid", "hub..lan", "x" * 300, "fe80::1%nowhere0", "\udcff"])
def test_unknown_host_is_unreachable_and_named(host: str) -> None:
    with pytest.raises(Unreachable) as unknown:
        resolve(host, 7070)
    assert str(unknown.value).startswith(f"unknown host {host!r} (")
    assert str(unknown.value).endswith("): name another with --server")


@pytest.mark.parametrize(("host", "destination"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("127.0.0.1", "127.0.0.1")])
def test_wildcard_host_resolves_to_this_machine(host: str, destination: str) -> None:
    assert resolve(host, 7) == [(destination, 7)]


def test_resolve_keeps_order_and_drops_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [("fd00::1", 7, 0, 0), ("10.0.0.1", 7), ("fd00::1", 7, 0, 0)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", each) for each in found])
    assert resolve("hub", 7) == [("fd00::1", 7), ("10.0.0.1", 7)]


def test_link_local_address_keeps_its_interface() -> None:
    number = socket.if_nametoindex("lo")
    address = ("fe80::1%lo", 7)
    assert sockaddr_of(address) == ("fe80::1", 7, 0, number)
    assert address_of(("fe80::1", 7, 0, number)) == address
    assert resolve(*address) == [address]
    assert address_text(address) == "[fe80::1%lo]:7"
    assert address_of(("fd00::1", 7, 0, 0)) == ("fd00::1", 7)
    assert address_of(("10.0.0.1", 7)) == sockaddr_of(("10.0.0.1", 7)) == ("10.0.0.1", 7)


def test_removed_interface_is_written_as_number() -> None:
    removed = 2**31 - 1
    assert address_of(("fe80::1", 7, 0, removed)) == (f"fe80::1%{removed}", 7)
    assert sockaddr_of((f"fe80::1%{removed}", 7)) == ("fe80::1", 7, 0, removed)


@pytest.mark.parametrize(
    ("addresses", "target"),
    [
        ([("10.0.0.1", 7), ("10.0.0.2", 7)], "ipv4:10.0.0.1:7,10.0.0.2:7"),
        ([("::1", 7)], "ipv6:[::1]:7"),
        ([("::1", 7), ("127.0.0.1", 7)], "ipv6:[::1]:7,[::ffff:127.0.0.1]:7"),
        ([("fe80::1%eth0", 7)], "ipv6:[fe80::1%25eth0]:7"),
    ],
)
def test_grpc_target_keeps_address_order(addresses: list[tuple[str, int]], target: str) -> None:
    assert grpc_target(addresses) == target


def test_ipv4_mapped_host_is_written_as_ipv4() -> None:
    assert unmapped("::ffff:10.0.0.1") == "10.0.0.1"
    assert unmapped("::ffff:a00:1") == "::ffff:a00:1"
    assert address_text(("::ffff:10.0.0.1", 7)) == "10.0.0.1:7"
