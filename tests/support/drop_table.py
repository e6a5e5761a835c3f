"""Read the tables of ``docs/protocol.md`` about drops and the reasons under which they are counted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"

_SECTION = re.compile(r"^## What is dropped, and why\n(.*?)^## ", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| `(\w+)` \| (.+?) \| (server|client|both) \|(?: (.+?) \|)?$", re.MULTILINE)
_SIZE = re.compile(r"^### (.+): (\d+)(?: \+ (\d+)r)? bytes$", re.MULTILINE)


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        reason: the reason under which the drop is counted.
        what: a description of the dropped datagram or frame.
        side: "server" or "client".
        then: what happens to the connection; empty for datagrams.
    """

    reason: str
    what: str
    side: str
    then: str


class Size(NamedTuple):
    """The length of a datagram in bytes: a fixed part, and one per range."""

    fixed: int
    per_range: int


def rows() -> list[Row]:
    """Return the rows of both tables; a row about both sides is returned once for each."""
    section = _SECTION.search(PAGE.read_text())
    assert section, "the page has no section on what is dropped"
    return [
        Row(reason, what, side, then)
        for reason, what, sides, then in _ROW.findall(section[1])
        for side in (("server", "client") if sides == "both" else (sides,))
    ]


def datagram_rows() -> list[Row]:
    """Return the rows about datagrams."""
    return [row for row in rows() if not row.then]


def connection_rows() -> list[Row]:
    """Return the rows about connections and frames."""
    return [row for row in rows() if row.then]


def sizes() -> dict[str, Size]:
    """Return the lengths of datagrams by name, from the headings."""
    found = _SIZE.findall(PAGE.read_text())
    return {name: Size(int(fixed), int(each or 0)) for names, fixed, each in found for name in names.split(" and ")}
