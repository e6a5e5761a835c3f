"""Fits a status to one screen of a terminal: active files and clients with problems come first, the rest is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from pspctl.ui import tables
from pspctl.ui.units import count_text
from pspctl.ui.views import ClientView, FileClientView, FileView, StatusView

LOST_ROWS_MAX = 3
"""The largest number of lost clients above the other clients with problems: hundreds of clients may stay lost."""
SOURCE_ROWS_MAX = 2
TEXT_LINES_MAX = 4
"""The largest number of lines about stalled files, and about the problems of clients."""
CLIENT_ROWS_MIN = 3
"""If lines are scarce, this many clients with problems have priority over a second file, and this many clients of a
file over the table of its exchange."""

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Screen:
    """A status, shortened to the height of the terminal.

    Attributes:
        status: the status of the network.
        shows_one_file: whether to show the only file of the status in full, instead of the whole network.
        note: the line to show above everything else; empty for none.
    """

    status: StatusView
    shows_one_file: bool
    note: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the parts of the screen from top to bottom.

        Args:
            console: the console that draws the parts; its height limits the number of lines.
            options: rich's options, with the width.
        """
        head = [Text(self.note, style="yellow")] if self.note else []
        head.append(tables.status_header(self.status))
        # The last line stays free: the terminal echoes ^C there.
        free_lines = console.size.height - 1 - _height(console, options, head)
        yield from head
        if self.shows_one_file:
            for file in self.status["files"]:
                yield from _file_parts(file, free_lines, console, options)
        else:
            yield from _network_parts(self.status, free_lines, console, options)


def _height(console: Console, options: ConsoleOptions, parts: Sequence[RenderableType]) -> int:
    return sum(len(console.render_lines(part, options.update(height=None), pad=False)) for part in parts)


def _network_parts(
    status: StatusView, free_lines: int, console: Console, options: ConsoleOptions
) -> Sequence[RenderableType]:
    """Return a table of files, the sentences about stalled files, and a table of clients and sources.

    A line counts the omitted files, and another line the omitted clients. Omitted sources are not counted.
    """
    active = [file for file in status["files"] if file["state"] != "complete"]
    files = [*active, *(file for file in status["files"] if file["state"] == "complete")]
    stalls = [line for file in active for line in tables.stall_lines(file)][:TEXT_LINES_MAX]
    conditions = _conditions(status)
    progress = _progress_of(status["files"])
    clients = _ranked_clients(status, conditions, progress)
    problem_count = sum(conditions[client["name"]] != "complete" for client in clients)
    sources = status["sources"][:SOURCE_ROWS_MAX]
    # Each table has a blank line above it, and a line of headings.
    free_lines -= 2 * 2 + len(sources) + _height(console, options, stalls)
    file_rows, client_rows = _row_counts(free_lines, (len(active), len(files)), (problem_count, len(clients)))
    parts: list[RenderableType] = ["", tables.files_table(files[:file_rows]) if files else tables.NO_FILE]
    parts += [*_omitted_line(files[file_rows:], "file", lambda file: file["state"]), *stalls, ""]
    if client_rows or sources:
        parts.append(tables.clients_table(clients[:client_rows], sources, progress=progress))
    elif not clients:
        parts.append(tables.NO_CLIENT)
    parts += _omitted_line(clients[client_rows:], "client", lambda client: conditions[client["name"]])
    return parts


def _row_counts(free_lines: int, files: tuple[int, int], clients: tuple[int, int]) -> tuple[int, int]:
    """Return how many files and how many clients to show.

    Args:
        free_lines: the number of lines for both, including the two lines that count omitted files and clients.
        files: the number of active files and of all files.
        clients: the number of clients with a problem and of all clients.
    """
    (active, all_files), (problem_count, all_clients) = files, clients
    if all_files + all_clients <= free_lines:
        return all_files, all_clients
    free_lines -= 2
    file_rows = max(min(1, all_files), min(active, free_lines - min(problem_count, CLIENT_ROWS_MIN)))
    client_rows = max(0, min(problem_count, free_lines - file_rows))
    file_rows = min(all_files, max(file_rows, free_lines - client_rows))
    if file_rows == all_files:  # no line has to count omitted files
        free_lines += 1
    return file_rows, min(all_clients, max(0, free_lines - file_rows))


def _file_parts(file: FileView, free_lines: int, console: Console, options: ConsoleOptions) -> Sequence[RenderableType]:
    """Return the parts for one file: its row, its problems, its clients, and its exchange if it fits.

    The clients without the whole file come first, in ascending order of the number of chunks that they hold.
    """
    top: list[RenderableType] = ["", tables.files_table([file])]
    top += [*tables.stall_lines(file)[:TEXT_LINES_MAX], *tables.safety_lines(file)]
    bottom: list[RenderableType] = [*tables.problem_lines(file)[:TEXT_LINES_MAX]]
    exchange = tables.exchange_parts(file)
    clients = sorted(file["clients"], key=lambda client: (client["complete"], client["held_chunk_count"]))
    free_lines -= 2 + _height(console, options, [*top, *bottom])
    if min(len(clients), CLIENT_ROWS_MIN) + 1 + _height(console, options, exchange) <= free_lines:
        bottom += exchange
        free_lines -= _height(console, options, exchange)
    rows = len(clients) if len(clients) <= free_lines else max(1, free_lines - 1)
    rest = _omitted_line(clients[rows:], "client", _file_client_condition)
    return [*top, "", tables.file_clients_table(file, clients[:rows]), *rest, *bottom]


def _omitted_line(rows: Sequence[Row], noun: str, condition_of: Callable[[Row], str]) -> list[RenderableType]:
    """Return a list of one line, such as ``and 22 more clients, all complete``; empty if no row is omitted.

    Args:
        rows: the omitted rows.
        noun: the noun for one row.
        condition_of: the function that returns the condition of a row in one word.
    """
    if not rows:
        return []
    counts = Counter(map(condition_of, rows))
    if len(counts) == 1:
        kinds = f", all {next(iter(counts))}" if len(rows) > 1 else f", {next(iter(counts))}"
    else:
        kinds = ": " + ", ".join(f"{count} {condition}" for condition, count in counts.most_common())
    return [Text(f"and {count_text(len(rows), f'more {noun}')}{kinds}", style="dim")]


def _file_client_condition(client: FileClientView) -> str:
    if client["refusal"]:
        return "declined"
    return "complete" if client["complete"] else "incomplete"


def _conditions(status: StatusView) -> dict[str, str]:
    """Return the condition of each client, by the client's name.

    The condition is ``lost`` if the client is lost. Otherwise it is ``incomplete`` if the client has not completed a
    file that it accepts, or else ``declined`` if it declined a file, or else ``complete``.
    """
    conditions = {client["name"]: "complete" for client in status["clients"]}
    for file in status["files"]:
        for client in file["clients"]:
            condition = _file_client_condition(client)
            if condition == "incomplete" or (condition == "declined" and conditions.get(client["name"]) == "complete"):
                conditions[client["name"]] = condition
    conditions.update({client["name"]: "lost" for client in status["clients"] if client["state"] == "lost"})
    return conditions


def _ranked_clients(
    status: StatusView, conditions: dict[str, str], progress: dict[str, tuple[int, int]]
) -> list[ClientView]:
    """Return the clients sorted by condition: lost, incomplete, declined, complete.

    Incomplete clients are in ascending order of the number of chunks that they hold. Lost clients beyond the first
    `LOST_ROWS_MAX` come after the clients that declined a file.
    """
    groups: dict[str, list[ClientView]] = {"lost": [], "incomplete": [], "declined": [], "complete": []}
    for client in status["clients"]:
        groups[conditions[client["name"]]].append(client)
    lost = groups["lost"]
    incomplete = sorted(groups["incomplete"], key=lambda client: progress.get(client["name"], (0, 0)))
    return [*lost[:LOST_ROWS_MAX], *incomplete, *groups["declined"], *lost[LOST_ROWS_MAX:], *groups["complete"]]


def _progress_of(files: Sequence[FileView]) -> dict[str, tuple[int, int]]:
    """Return, by client name, how many chunks of its accepted files a client holds, and how many these files have."""
    progress: dict[str, tuple[int, int]] = {}
    for file in files:
        for client in file["clients"]:
            if not client["refusal"]:
                held, whole = progress.get(client["name"], (0, 0))
                progress[client["name"]] = held + client["held_chunk_count"], whole + file["chunk_count"]
    return progress
