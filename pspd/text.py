"""What people read: names of strangers, safe to print, and sizes.

A terminal obeys control characters: ESC and C1 (0x80-0x9f) begin sequences, others move the cursor, and bidirectional
controls (U+202A to U+202E, U+2066 to U+2069) show text in another order. None of them is printable, and neither is any
other character without a shape of its own.
"""

from __future__ import annotations

import json

_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size_text(size_bytes: float) -> str:
    """A size in the largest unit that leaves at least 1: ``1.5 MiB``."""
    value, unit = float(size_bytes), 0
    while value >= 1024 and unit < len(_BYTE_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {_BYTE_UNITS[unit]}"


def plain_text(text: str) -> str:
    """A text as one line that a terminal shows and does not obey: what is not printable is written as an escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def plain_lines(text: str) -> str:
    """As :func:`plain_text`, but lines stay lines."""
    return "\n".join(map(plain_text, text.split("\n")))


def plain_json(document: str) -> str:
    """A JSON document that means the same: what is not printable is written as JSON's own escape."""
    if document.isprintable():
        return document
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in document)
