"""How sizes and addresses are written, by people and in files; and how a daemon is started on this machine."""

from __future__ import annotations

import re
import sys

from pspd.errors import BadArgument, LimitReached

DEFAULT_LISTEN = "127.0.0.1:7070"
DAEMON_COMMAND = (sys.executable, "-P", "-m", "pspd")
"""The daemon of this very installation: -P, so that nothing of the same name in the current folder is taken for it."""

_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
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


def parse_address(text: str) -> tuple[str, int]:
    """Reads ``host:port``, or ``[host]:port`` for an IPv6 host; port 0 stands for any free one.

    Raises:
        BadArgument: the text is no address.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not colon or not host or (":" in host and not bracketed) or not (port.isascii() and port.isdecimal()):
        raise BadArgument(f"{text!r} is no address: write HOST:PORT, such as {DEFAULT_LISTEN}")
    if int(port) > 65535:
        raise BadArgument(f"{text!r} has no such port: name one from 0 to 65535")
    return host, int(port)
