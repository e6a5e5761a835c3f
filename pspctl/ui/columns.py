"""Tables that fit the terminal: names are shortened, optional columns are dropped, all other cells stay whole."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

NAME_WIDTH_COMFORTABLE = 16
"""Optional columns are dropped before names become narrower than this. The unit of widths is one Latin character."""
NAME_WIDTH_MIN = 8
"""Names never become narrower than this; the terminal folds a table that is still too wide."""
GAP_WIDTH = 2
"""The width of the space between two columns."""
ELLIPSIS = "…"


class Kind(Enum):
    """How the cells of a column are shown."""

    TEXT = "in full, aligned to the left"
    NUMBER = "in full, aligned to the right"
    NAME = "shortened if necessary"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        heading: the heading of the column.
        kind: how the column's cells are shown; exactly one column of a table has the kind `NAME`.
        drop_order: the rank of an optional column; the lowest rank is dropped first. 0 for a column that always stays.
    """

    heading: str
    kind: Kind = Kind.TEXT
    drop_order: int = 0


class FittedTable:
    """A table that fits the terminal's width, without lines between the cells.

    If the table is too wide, names are shortened, but not below `NAME_WIDTH_COMFORTABLE`. If that is not enough,
    optional columns are dropped one by one. Then names are shortened further, but not below `NAME_WIDTH_MIN`. All other
    cells are shown in full: a truncated number would be a wrong number.
    """

    def __init__(self, *columns: Column) -> None:
        self._columns = columns
        self._name_index = next(index for index, column in enumerate(columns) if column.kind is Kind.NAME)
        self._rows = [[Text(column.heading, style="bold") for column in columns]]

    def add_row(self, *cells: str | Text) -> None:
        """Add a row: one cell per column."""
        self._rows.append([cell if isinstance(cell, Text) else Text(cell) for cell in cells])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines of the table.

        Args:
            console: the console that draws the table.
            options: rich's options, with the width.
        """
        widths = [max(cell.cell_len for cell in column) for column in zip(*self._rows, strict=True)]
        kept = self._kept_columns(widths, options.max_width)
        remaining_width = _remaining_width(widths, kept, self._name_index, options.max_width)
        name_width = min(widths[self._name_index], max(remaining_width, NAME_WIDTH_MIN))
        widths[self._name_index] = name_width
        for row in self._rows:
            cells = row.copy()
            name = row[self._name_index]
            cells[self._name_index] = Text(shortened(name.plain, name_width), style=name.style)
            yield self._line(cells, kept, widths)

    def _line(self, row: list[Text], kept: list[int], widths: list[int]) -> Text:
        line = Text(no_wrap=True, overflow="ignore")
        for index in kept:
            padding = " " * (widths[index] - row[index].cell_len)
            is_number = self._columns[index].kind is Kind.NUMBER
            line.append(padding if is_number else "").append_text(row[index])
            line.append("" if is_number else padding).append(" " * GAP_WIDTH)
        line.rstrip()
        return line

    def _kept_columns(self, widths: list[int], width_max: int) -> list[int]:
        """Return the indexes of the columns to show; `widths` are the columns' widths without shortening."""
        kept = list(range(len(widths)))
        optional = sorted((column.drop_order, index) for index, column in enumerate(self._columns) if column.drop_order)
        comfortable = min(widths[self._name_index], NAME_WIDTH_COMFORTABLE)
        for _, index in optional:
            if _remaining_width(widths, kept, self._name_index, width_max) >= comfortable:
                break
            kept.remove(index)
        return kept


def _remaining_width(widths: list[int], kept: list[int], name_index: int, width_max: int) -> int:
    """Return the part of `width_max` that the other columns in `kept` leave to the column of names."""
    return width_max - sum(widths[index] + GAP_WIDTH for index in kept if index != name_index)


def shortened(text: str, width_max: int) -> str:
    """Return a text; if it is too long, shorten it in the middle, such as ``very-long-na…v2.iso``.

    A wide character counts as two. A combining character stays with the character that it modifies.

    Args:
        text: the text, of printable characters.
        width_max: the largest width of the result, at least 1.
    """
    if cell_len(text) <= width_max:
        return text
    clusters = _clusters(text)
    tail_width = (width_max - cell_len(ELLIPSIS)) * 2 // 5
    tail = _prefix(clusters[::-1], tail_width)[::-1]
    head_width = width_max - cell_len(ELLIPSIS) - sum(map(cell_len, tail))
    return "".join([*_prefix(clusters, head_width), ELLIPSIS, *tail])


def _prefix(clusters: list[str], width_max: int) -> list[str]:
    """Return as many of the first clusters as fit into `width_max`."""
    taken: list[str] = []
    for cluster in clusters:
        width_max -= cell_len(cluster)
        if width_max < 0:
            break
        taken.append(cluster)
    return taken


def _clusters(text: str) -> list[str]:
    """Return the characters of a text, each with the combining characters that follow it."""
    clusters: list[str] = []
    for char in text:
        if clusters and cell_len(char) == 0:
            clusters[-1] += char
        else:
            clusters.append(char)
    return clusters
