"""What strangers named, safe to print."""

from __future__ import annotations


def plain_text(name: str) -> str:
    """A name from the network, safe on a terminal: what does not print is written as an escape."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)
