"""Text from other machines, made safe to print.

Terminals interpret control characters: ESC and C1 (0x80-0x9f) begin sequences, others move the cursor, and
bidirectional controls (U+202A to U+202E, U+2066 to U+2069) change the order of the text. None of them is printable.
"""

from __future__ import annotations

import json


def plain_text(text: str) -> str:
    """Return a text as one line, with every character that is not printable escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def plain_lines(text: str) -> str:
    """Return a text with every character that is not printable, except newlines, escaped."""
    return "\n".join(map(plain_text, text.split("\n")))


def plain_json(document: str) -> str:
    """Return an equivalent JSON document, with every character that is not printable escaped.

    Args:
        document: the JSON document, in one line.
    """
    if document.isprintable():
        return document
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in document)
