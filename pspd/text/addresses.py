"""Addresses as text: their formatting and parsing."""

from __future__ import annotations

import re
from ipaddress import IPv6Address

from pspd.errors import BadArgument

Address = tuple[str, int]
"""Host and port. A link-local host includes its interface: ``fe80::1%eth0``."""

MAPPED_PREFIX = "::ffff:"
"""The prefix of IPv4 hosts on a dual-stack socket (RFC 4291, section 2.5.5.2)."""


def unmapped(host: str) -> str:
    """Return the IPv4 host of an IPv4-mapped IPv6 host, and any other host unchanged."""
    return host[len(MAPPED_PREFIX) :] if host.startswith(MAPPED_PREFIX) and "." in host else host


def address_text(address: Address | None) -> str:
    """Return an address as ``host:port`` or ``[host]:port``; an empty text for None.

    An IPv4-mapped host is written as an IPv4 host.
    """
    if address is None:
        return ""
    host, port = unmapped(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


DEFAULT_PORT = 7070
"""The default port of a server's control API."""
AGENT_PORT = 7080
"""The default port of an agent's control API."""

PORT_MAX = 65535
DEFAULT_SERVER = f"127.0.0.1:{DEFAULT_PORT}"
"""The default address of a server's control API."""

_ADDRESS = re.compile(
    r"(?:\[(?P<bracketed>[^\[\]\s]+)\]|(?P<name>(?!\d+\Z)[^:/\[\]\s]+))(?::(?P<port>\d{1,9}))?", re.ASCII
)
"""The pattern of an address, except an IPv6 host without brackets. A number alone is not an address."""


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> Address:
    """Parse ``host:port`` or ``host``; return the host and the port. An IPv6 host with a port is in brackets.

    Args:
        text: an address such as ``10.0.0.1``, ``hub:7070``, ``::1``, ``[::1]:7070`` or ``[fe80::1%eth0]:7070``.
        default_port: the port if the text has none. Port 0 means any free port.

    Raises:
        BadArgument: the text is not an address, its port is too large, or a link-local host has no interface.
    """
    match = _ADDRESS.fullmatch(text)
    bare = text if _is_ipv6(text) else None
    host = bare or (match and (match["bracketed"] or match["name"]))
    if not host or not text.isprintable() or (match and match["bracketed"] and not bare and not _is_ipv6(host)):
        raise BadArgument(f"{text!r} is not an address: write HOST:PORT, such as {DEFAULT_SERVER}")
    port = default_port if bare or match is None or match["port"] is None else int(match["port"])
    if port > PORT_MAX:
        raise BadArgument(f"{text!r} has a port that is too large: name one from 0 to {PORT_MAX}")
    if _is_ipv6(host) and IPv6Address(host).is_link_local and "%" not in host:
        shown = address_text((f"{host}%eth0", port))
        raise BadArgument(f"{text!r} is link-local: name its interface too, such as {shown}")
    return host, port


def full_address(text: str, default_port: int = DEFAULT_PORT) -> str:
    """Return an address with its port, and with brackets if it needs them.

    Args:
        text: an address that :func:`parse_address` accepts.
        default_port: the port if the text has none.

    Raises:
        BadArgument: :func:`parse_address` does not accept the text.
    """
    return address_text(parse_address(text, default_port))


def _is_ipv6(host: str) -> bool:
    try:
        return bool(IPv6Address(host))
    except ValueError:
        return False
