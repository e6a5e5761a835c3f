"""How sizes and addresses are written, by people and in files; and how a daemon is started on this machine."""

from __future__ import annotations

import re
import sys
from ipaddress import IPv6Address

from pspd.core.effects import address_text
from pspd.errors import BadArgument, LimitReached

DEFAULT_PORT = 7070
"""The port of a server's control API."""
AGENT_PORT = 7080
"""The port of an agent's control API."""
PORT_MAX = 65535
DEFAULT_LISTEN = f"127.0.0.1:{DEFAULT_PORT}"
DAEMON_COMMAND = (sys.executable, "-P", "-m", "pspd")
"""The daemon of this very installation: -P, so that nothing of the same name in the current folder is taken for it."""

_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
_ADDRESS = re.compile(
    r"(?:\[(?P<bracketed>[^\[\]\s]+)\]|(?P<name>(?!\d+\Z)[^:/\[\]\s]+))(?::(?P<port>\d{1,9}))?", re.ASCII
)
"""A number alone is a port without its host."""
_SIZE = re.compile(r"(\d{1,20})\s*([A-Za-z]*)", re.ASCII)

SIZE_BYTES_MAX = (1 << 63) - 1
"""What fits into every field of the control API; no cache and no file is as large."""


def parse_size(text: str) -> int:
    """Reads a number of bytes, such as ``1024``, ``100KiB`` or ``64MiB``.

    Raises:
        BadArgument: the text is no size.
        LimitReached: it is a size that nothing has.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise BadArgument(f"{text!r} is no size: write a whole number and B, KiB, MiB, GiB or TiB, such as 64MiB")
    size_bytes = int(match[1]) * unit
    if size_bytes > SIZE_BYTES_MAX:
        raise LimitReached(f"{text} is more than there can be: give less than {(SIZE_BYTES_MAX + 1) >> 40}TiB")
    return size_bytes


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> tuple[str, int]:
    """Reads ``host:port`` or ``host``; an IPv6 host has brackets where a port follows.

    Args:
        text: such as ``10.0.0.1``, ``hub:7070``, ``::1``, ``[::1]:7070`` or ``[fe80::1%eth0]:7070``.
        default_port: the port where none is given. Port 0 stands for any free one.

    Raises:
        BadArgument: the text is no address.
    """
    match = _ADDRESS.fullmatch(text)
    bare = text if _is_ipv6(text) else None
    host = bare or (match and (match["bracketed"] or match["name"]))
    if not host or (match and match["bracketed"] and not bare and not _is_ipv6(host)):
        raise BadArgument(f"{text!r} is no address: write HOST:PORT, such as {DEFAULT_LISTEN}")
    port = default_port if bare or match is None or match["port"] is None else int(match["port"])
    if port > PORT_MAX:
        raise BadArgument(f"{text!r} has no such port: name one from 0 to {PORT_MAX}")
    if _is_ipv6(host) and IPv6Address(host).is_link_local and "%" not in host:
        shown = address_text((f"{host}%eth0", port))
        raise BadArgument(f"{text!r} is link-local: name its interface too, such as {shown}")
    return host, port


def full_address(text: str, default_port: int = DEFAULT_PORT) -> str:
    """Returns an address with its port, and with brackets where it needs them.

    Args:
        text: as ``parse_address`` reads it.
        default_port: the port where none is given.

    Raises:
        BadArgument: the text is no address.
    """
    return address_text(parse_address(text, default_port))


def _is_ipv6(host: str) -> bool:
    try:
        return bool(IPv6Address(host))
    except ValueError:
        return False
