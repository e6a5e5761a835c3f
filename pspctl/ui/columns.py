"""Tables that fit the terminal: names are shortened, optional columns are dropped, all other cells stay whole."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

NAME_CELLS_COMFORTABLE = 16
"""Optional columns are dropped before names are shortened to fewer cells than this."""
NAME_CELLS_MIN = 8
"""Names are never shortened to fewer cells than this; the terminal folds a table that is still too wide."""
GAP_CELLS = 2
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

    When the table is too wide, names are shortened, but not below `NAME_CELLS_COMFORTABLE` cells. If that is not
    enough, optional columns are dropped one by one. Then names are shortened further, but not below `NAME_CELLS_MIN`
    cells. All other cells are shown in full: a truncated number would be a wrong number.
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
        name_cells_left = _name_cells_left(widths, kept, self._name_index, options.max_width)
        name_cells = min(widths[self._name_index], max(name_cells_left, NAME_CELLS_MIN))
        widths[self._name_index] = name_cells
        for row in self._rows:
            cells = row.copy()
            name = row[self._name_index]
            cells[self._name_index] = Text(shortened(name.plain, name_cells), style=name.style)
            yield self._line(cells, kept, widths)

    def _line(self, row: list[Text], kept: list[int], widths: list[int]) -> Text:
        line = Text(no_wrap=True, overflow="ignore")
        for index in kept:
            padding = " " * (widths[index] - row[index].cell_len)
            is_number = self._columns[index].kind is Kind.NUMBER
            line.append(padding if is_number else "").append_text(row[index])
            line.append("" if is_number else padding).append(" " * GAP_CELLS)
        line.rstrip()
        return line

    def _kept_columns(self, widths: list[int], max_width: int) -> list[int]:
        """Return the indexes of the columns to show; `widths` are the columns' widths without shortening."""
        kept = list(range(len(widths)))
        optional = sorted((column.drop_order, index) for index, column in enumerate(self._columns) if column.drop_order)
        comfortable = min(widths[self._name_index], NAME_CELLS_COMFORTABLE)
        for _, index in optional:
            if _name_cells_left(widths, kept, self._name_index, max_width) >= comfortable:
                break
            kept.remove(index)
        return kept


def _name_cells_left(widths: list[int], kept: list[int], name_index: int, max_width: int) -> int:
    """Return how many of `max_width` cells the other columns in `kept` leave to the name column."""
    return max_width - sum(widths[index] + GAP_CELLS for index in kept if index != name_index)


def shortened(text: str, cells: int) -> str:
    """Return a text; if it is too long, shorten it in the middle, such as ``very-long-na…v2.iso``.

    Wide characters take two cells. A combining character stays with the character that it modifies.

    Args:
        text: the text, of printable characters.
        cells: the largest number of terminal cells that the result may take, at least 1.
    """
    if cell_len(text) <= cells:
        return text
    clusters = _clusters(text)
    tail_cells = (cells - cell_len(ELLIPSIS)) * 2 // 5
    tail = _prefix(clusters[::-1], tail_cells)[::-1]
    rest = cells - cell_len(ELLIPSIS) - sum(map(cell_len, tail))
    return "".join([*_prefix(clusters, rest), ELLIPSIS, *tail])


def _prefix(clusters: list[str], cells: int) -> list[str]:
    """Return as many of the first clusters as fit into `cells`."""
    taken: list[str] = []
    for cluster in clusters:
        cells -= cell_len(cluster)
        if cells < 0:
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
