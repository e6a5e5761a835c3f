"""Tables that fit the terminal: only the name column is shortened, no other cell is ever cut."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

NAME_CELLS_COMFORTABLE = 16
"""Optional columns are dropped before names become narrower than this."""
NAME_CELLS_MIN = 8
"""Names never become narrower than this; the terminal folds a table that is still too wide."""
GAP_CELLS = 2
ELLIPSIS = "…"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        heading: its heading.
        is_number: whether its cells are aligned to the right.
        is_name: whether its cells may be shortened; exactly one column of a table is so.
        drop_order: optional columns are dropped in this order, lowest first; 0 for a column that always stays.
    """

    heading: str
    is_number: bool = False
    is_name: bool = False
    drop_order: int = 0


class FittedTable:
    """A table that fits its width, without lines between the cells.

    When it is too wide, the name column is shortened first. Below `NAME_CELLS_COMFORTABLE` cells, optional columns are
    dropped one by one. Every other cell is shown in full: a truncated number would be a wrong number.
    """

    def __init__(self, *columns: Column) -> None:
        """Make a table without rows."""
        self._columns = columns
        self._rows: list[list[Text]] = []

    def add_row(self, *cells: str | Text) -> None:
        """Add a row: one cell per column."""
        self._rows.append([cell if isinstance(cell, Text) else Text(cell) for cell in cells])

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the width that rich is to give the table."""
        width = self._width(list(range(len(self._columns))))
        return Measurement(min(width, options.max_width), width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines of the table."""
        kept = self._kept(options.max_width)
        name_cells = self._name_cells(kept, options.max_width)
        headings = [Text(column.heading, style="bold") for column in self._columns]
        for row in [headings, *self._rows]:
            yield self._line(row, kept, name_cells)

    def _line(self, row: list[Text], kept: list[int], name_cells: int) -> Text:
        line = Text(no_wrap=True, overflow="ignore")
        for index in kept:
            column, cell = self._columns[index], row[index]
            cells = name_cells if column.is_name else self._cells(index)
            if column.is_name:
                cell = Text(shortened(cell.plain, cells), style=cell.style)
            padding = " " * (cells - cell.cell_len)
            line.append(padding if column.is_number else "").append_text(cell)
            line.append("" if column.is_number else padding).append(" " * GAP_CELLS)
        line.rstrip()
        return line

    def _kept(self, max_width: int) -> list[int]:
        """Return the indexes of the columns that are shown at this width."""
        kept = list(range(len(self._columns)))
        optional = sorted((column.drop_order, index) for index, column in enumerate(self._columns) if column.drop_order)
        comfortable = min(self._natural_name_cells, NAME_CELLS_COMFORTABLE)
        for _, index in optional:
            if self._room_for_name(kept, max_width) >= comfortable:
                break
            kept.remove(index)
        return kept

    def _name_cells(self, kept: list[int], max_width: int) -> int:
        room = self._room_for_name(kept, max_width)
        natural = self._natural_name_cells
        return min(natural, max(room, min(natural, NAME_CELLS_MIN)))

    def _room_for_name(self, kept: list[int], max_width: int) -> int:
        others = [index for index in kept if not self._columns[index].is_name]
        return max_width - sum(map(self._cells, others)) - GAP_CELLS * (len(kept) - 1)

    @property
    def _natural_name_cells(self) -> int:
        return next(self._cells(index) for index, column in enumerate(self._columns) if column.is_name)

    def _width(self, kept: list[int]) -> int:
        return sum(map(self._cells, kept)) + GAP_CELLS * (len(kept) - 1)

    def _cells(self, index: int) -> int:
        """Return the width of a column whose cells are shown in full."""
        return max(cell_len(self._columns[index].heading), *(row[index].cell_len for row in self._rows), 0)


def shortened(text: str, cells: int) -> str:
    """Return a text shortened in the middle, such as ``very-long-na…v2.iso``.

    Wide characters take two cells. A combining character stays with the one that it modifies.

    Args:
        text: printable characters.
        cells: the most cells of a terminal that the result may take, at least 1.
    """
    if cell_len(text) <= cells:
        return text
    clusters = _clusters(text)
    tail_cells = (cells - cell_len(ELLIPSIS)) * 2 // 5
    tail = _prefix(clusters[::-1], tail_cells)[::-1]
    rest = cells - cell_len(ELLIPSIS) - sum(map(cell_len, tail))
    return "".join([*_prefix(clusters, rest), ELLIPSIS, *tail])


def _prefix(clusters: list[str], cells: int) -> list[str]:
    """Return as many of the first clusters as fit."""
    taken: list[str] = []
    for cluster in clusters:
        cells -= cell_len(cluster)
        if cells < 0:
            break
        taken.append(cluster)
    return taken


def _clusters(text: str) -> list[str]:
    """Return the characters of a text, each with the combining ones that follow it."""
    clusters: list[str] = []
    for char in text:
        if clusters and cell_len(char) == 0:
            clusters[-1] += char
        else:
            clusters.append(char)
    return clusters
