"""Where output goes: the answer to stdout, in the format asked for; notes and progress to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import click
from rich.console import Console, RenderableType

from pspctl.options import Settings
from pspctl.ui.line_progress import LineProgress
from pspctl.ui.plain import Plain
from pspctl.ui.progress import NullProgress, Progress
from pspd.host import streams
from pspd.text.plain import plain_json, plain_text

PIPE_WIDTH = 1_000
"""The width where stdout is no terminal: wide enough that no line is folded."""

Document = TypeVar("Document", bound=Mapping[str, Any])


class Printer(Protocol):
    """Prints an answer."""

    def show(self, document: Document, render: Callable[[Document], RenderableType]) -> None:
        """Print an answer.

        Args:
            document: the answer as JSON data.
            render: makes the table or text for people.
        """


class JsonPrinter:
    """Prints one JSON document per line."""

    def show(self, document: Document, render: Callable[[Document], RenderableType]) -> None:
        """Print the document; arguments as in `Printer`."""
        print_answer(json_text(document))


class TablePrinter:
    """Prints tables and sentences."""

    def show(self, document: Document, render: Callable[[Document], RenderableType]) -> None:
        """Print what `render` returns; arguments as in `Printer`."""
        canvas = console()
        with canvas.capture() as drawn:
            canvas.print(Plain(render(document)), crop=False)  # the terminal folds lines that are too wide
        print_answer("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def json_text(document: Mapping[str, Any]) -> str:
    """Return a document as one line of JSON; characters that stdout cannot encode become escapes."""
    return plain_json(json.dumps(document, ensure_ascii=not streams.writes_unicode()))


def print_answer(text: str) -> None:
    """Write lines of an answer to stdout.

    Raises:
        StorageError: stdout cannot be written.
        ReaderGone: the reader of the pipe has ended.
    """
    click.echo(text)


def remark(text: str) -> None:
    """Write a line to stderr."""
    click.echo(f"pspctl: {plain_text(text)}", err=True)


def note(settings: Settings, text: str) -> None:
    """Write a note to stderr.

    Args:
        settings: with JSON output or ``--quiet``, nothing is written.
        text: the note.
    """
    if not settings.quiet and settings.output == "table":
        remark(text)


def console() -> Console:
    """Return stdout as a console, which interprets no markup: names come from other machines."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, highlight=False, emoji=False)


_PRINTERS: dict[str, type[Printer]] = {"json": JsonPrinter, "table": TablePrinter}


def printer(output: str) -> Printer:
    """Return the printer of an output format: ``table`` or ``json``."""
    return _PRINTERS[output]()


@contextmanager
def shown_progress(settings: Settings) -> Iterator[Progress]:
    """Show progress on stderr inside the ``with`` block, as the settings and the terminal ask."""
    if settings.quiet or settings.output == "json":
        yield NullProgress()
    elif not sys.stderr.isatty():
        yield LineProgress()
    else:
        from pspctl.ui.bars import shown_bars  # imports rich's bars: only where they are shown

        with shown_bars() as progress:
            yield progress
