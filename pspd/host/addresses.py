"""Addresses: from host names, for sockets, and for gRPC.

Inside the program an address is a host literal and a port. A link-local host carries its interface, as in
``fe80::1%eth0``: without it the kernel cannot tell on which link the host is.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from pspd.errors import Unreachable
from pspd.text.addresses import MAPPED_PREFIX, Address, address_text

ANY_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""The unspecified hosts, and the host of this machine that each stands for as a destination."""


def resolve(host: str, port: int, option: str = "--server") -> list[Address]:
    """Returns the addresses to which a host name leads, in the order in which to try them (RFC 6724).

    It blocks as long as the resolver does.

    Args:
        host: a name or a literal; an unspecified host stands for this machine.
        port: the port of all addresses.
        option: where the user can name another host.

    Raises:
        Unreachable: the name leads nowhere.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise Unreachable(f"unknown host {host!r} ({why}): name another with {option}") from None
    addresses = [address_of(entry[4]) for entry in found]
    return list(dict.fromkeys((ANY_HOSTS.get(literal, literal), number) for literal, number in addresses))


def address_of(sockaddr: tuple[Any, ...]) -> Address:
    """Returns the address that a socket names, with the interface of a link-local host."""
    host, port = sockaddr[:2]
    scope = sockaddr[3] if len(sockaddr) > 3 else 0
    if not scope or "%" in host:
        return host, port
    try:
        return f"{host}%{socket.if_indextoname(scope)}", port
    except OSError:  # the interface has just gone
        return f"{host}%{scope}", port


def sockaddr_of(address: Address) -> tuple[Any, ...]:
    """Returns an address as sockets take it.

    Raises:
        OSError: its interface does not exist.
    """
    host, port = address
    plain, mark, scope = host.partition("%")
    if not mark:
        return host, port
    return plain, port, 0, int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)


def family_of(address: Address) -> socket.AddressFamily:
    """Returns the address family of a literal."""
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def grpc_target(addresses: Sequence[Address]) -> str:
    """Returns the gRPC target that tries these addresses in their order.

    A target has one scheme, so IPv4 addresses among IPv6 ones are written IPv4-mapped.
    """
    if all(family_of(address) is socket.AF_INET for address in addresses):
        return "ipv4:" + ",".join(map(address_text, addresses))
    literals = [(host if ":" in host else MAPPED_PREFIX + host, port) for host, port in addresses]
    return "ipv6:" + ",".join(f"[{host}]:{port}" for host, port in literals).replace("%", "%25")
