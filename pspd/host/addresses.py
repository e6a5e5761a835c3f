"""Addresses: their resolution from host names, and their conversion for sockets and for gRPC.

Inside the program an address is a host literal and a port. A link-local host includes its interface, as in
``fe80::1%eth0``: without the interface, the kernel does not know which network the host is on.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from pspd.errors import Unreachable
from pspd.text.addresses import MAPPED_PREFIX, Address, address_text

WILDCARD_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""The wildcard hosts, each with the loopback host that replaces it as a destination."""


def resolve(host: str, port: int, option: str = "--server") -> list[Address]:
    """Return the addresses of a host name, in the order in which to try them (RFC 6724).

    The call blocks until the resolver answers.

    Args:
        host: a name or a literal; a wildcard host means this machine.
        port: the port of all addresses.
        option: the command-line option that the error message names.

    Raises:
        Unreachable: the name cannot be resolved.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise Unreachable(f"unknown host {host!r} ({why}): name another with {option}") from None
    addresses = [address_of(entry[4]) for entry in found]
    return list(dict.fromkeys((WILDCARD_HOSTS.get(literal, literal), number) for literal, number in addresses))


def address_of(sockaddr: tuple[Any, ...]) -> Address:
    """Convert a socket address of Python to an address, with the interface of a link-local host."""
    host, port = sockaddr[:2]
    scope = sockaddr[3] if len(sockaddr) > 3 else 0
    if not scope or "%" in host:
        return host, port
    try:
        return f"{host}%{socket.if_indextoname(scope)}", port
    except OSError:  # the interface was removed
        return f"{host}%{scope}", port


def sockaddr_of(address: Address) -> tuple[Any, ...]:
    """Convert an address to a socket address of Python.

    Raises:
        OSError: the interface does not exist.
    """
    host, port = address
    plain, percent, scope = host.partition("%")
    if not percent:
        return host, port
    return plain, port, 0, int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)


def family_of(address: Address) -> socket.AddressFamily:
    """Return the address family of an address."""
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def grpc_target(addresses: Sequence[Address]) -> str:
    """Return a target with which gRPC tries the addresses in order.

    A target has one scheme, so in a mixed list IPv4 addresses become IPv4-mapped IPv6 addresses.
    """
    if all(family_of(address) is socket.AF_INET for address in addresses):
        return "ipv4:" + ",".join(map(address_text, addresses))
    literals = [(host if ":" in host else MAPPED_PREFIX + host, port) for host, port in addresses]
    return "ipv6:" + ",".join(f"[{host}]:{port}" for host, port in literals).replace("%", "%25")
