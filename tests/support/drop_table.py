"""The tables of ``docs/protocol.md`` that say what is dropped, and under which reason it is counted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"

_SECTION = re.compile(r"^## What is dropped, and why\n(.*?)^## ", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| `(\w+)` \| (.+?) \| (server|client|both) \|(?: (.+?) \|)?$", re.MULTILINE)
_SIZE = re.compile(r"^### (.+): (\d+)(?: \+ (\d+)r)? bytes$", re.MULTILINE)


class Row(NamedTuple):
    """A line of a table.

    Attributes:
        reason: under which it is counted.
        what: what is dropped.
        side: "server" or "client".
        then: what becomes of the connection; empty for datagrams.
    """

    reason: str
    what: str
    side: str
    then: str


class Size(NamedTuple):
    """How long a datagram is: so many bytes, and so many more for each range."""

    fixed: int
    per_range: int


def rows() -> list[Row]:
    """Every line of both tables, once for each side that it is about."""
    section = _SECTION.search(PAGE.read_text())
    assert section, "the page has no such section"
    return [
        Row(reason, what, side, then)
        for reason, what, sides, then in _ROW.findall(section[1])
        for side in (("server", "client") if sides == "both" else (sides,))
    ]


def datagram_rows() -> list[Row]:
    """Those about datagrams."""
    return [row for row in rows() if not row.then]


def connection_rows() -> list[Row]:
    """Those about connections and frames."""
    return [row for row in rows() if row.then]


def sizes() -> dict[str, Size]:
    """How long each kind of datagram is, by name, as the headings say."""
    found = _SIZE.findall(PAGE.read_text())
    return {name: Size(int(fixed), int(each or 0)) for names, fixed, each in found for name in names.split(" and ")}
