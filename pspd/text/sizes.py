"""Sizes in bytes as text: their parsing and formatting."""

from __future__ import annotations

import re

from pspd.errors import BadArgument, LimitReached

_UNIT_BYTES = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}

_SIZE = re.compile(r"(\d{1,20})\s*([A-Za-z]*)", re.ASCII)

SIZE_BYTES_MAX = (1 << 63) - 1
"""The largest size: a larger one does not fit into a signed 64-bit integer."""


def parse_size(text: str) -> int:
    """Parse a size such as ``1024``, ``100KiB`` or ``64MiB``; return the number of bytes.

    Raises:
        BadArgument: the text is not a size.
        LimitReached: the size is too large.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = _UNIT_BYTES.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise BadArgument(f"{text!r} is not a size: write a whole number and B, KiB, MiB, GiB or TiB, such as 64MiB")
    size_bytes = int(match[1]) * unit
    if size_bytes > SIZE_BYTES_MAX:
        raise LimitReached(f"{text} is too large: give less than {(SIZE_BYTES_MAX + 1) >> 40}TiB")
    return size_bytes


_UNIT_NAMES = ("B", "KiB", "MiB", "GiB", "TiB")


def size_text(size_bytes: float) -> str:
    """Return a size in the largest unit in which it is at least 1, such as ``1.5 MiB``; in bytes if it is below 1."""
    value, unit = float(size_bytes), 0
    while value >= 1024 and unit < len(_UNIT_NAMES) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {_UNIT_NAMES[unit]}"
