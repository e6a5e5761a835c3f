"""Text from strangers, made safe to print.

A terminal obeys control characters: ESC and C1 (0x80-0x9f) begin sequences, others move the cursor, and bidirectional
controls (U+202A to U+202E, U+2066 to U+2069) show text in another order. None of them is printable, and neither is any
other character without a shape of its own.
"""

from __future__ import annotations

import json


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
