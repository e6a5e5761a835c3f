"""One printer per output format. What they print is the answer, alone on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import click
from rich.console import Console, RenderableType

from pspctl.options import Settings
from pspctl.ui.plain import Plain
from pspd.host import streams
from pspd.text.plain import plain_json, plain_text

# Off a terminal nothing is folded: a line stays one line for whoever reads it.
PIPE_WIDTH = 1_000

Document = TypeVar("Document", bound=Mapping[str, Any])


class Printer(Protocol):
    """Prints an answer."""

    def show(self, document: Document, render: Callable[[Document], RenderableType]) -> None:
        """Prints a document; ``render`` makes of it what people read."""


class JsonPrinter:
    """One JSON document per line."""

    def show(self, document: Document, render: Callable[[Document], RenderableType]) -> None:
        """Prints the document itself."""
        print_answer(json_text(document))


class TablePrinter:
    """Tables and sentences."""

    def show(self, document: Document, render: Callable[[Document], RenderableType]) -> None:
        """Prints the document as people read it."""
        canvas = console()
        with canvas.capture() as drawn:
            canvas.print(Plain(render(document)), crop=False)  # the terminal folds what is too wide; nothing is lost
        print_answer("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def json_text(document: Mapping[str, Any]) -> str:
    """A document as one line of JSON, with escapes only where stdout could not take the characters themselves."""
    return plain_json(json.dumps(document, ensure_ascii=not streams.writes_unicode()))


def print_answer(text: str) -> None:
    """Writes lines of an answer to stdout.

    Raises:
        StorageError: stdout does not take them.
        ReaderGone: nobody reads them.
    """
    click.echo(text)


def remark(text: str) -> None:
    """Writes a line to stderr."""
    click.echo(f"pspctl: {plain_text(text)}", err=True)


def note(settings: Settings, text: str) -> None:
    """Writes a note to stderr, for people who want to hear."""
    if not settings.quiet and settings.output == "table":
        remark(text)


def console() -> Console:
    """stdout, as wide as its terminal, or as wide as need be. Names from outside are never read as markup."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, highlight=False, emoji=False)


_PRINTERS: dict[str, type[Printer]] = {"json": JsonPrinter, "table": TablePrinter}


def printer(output: str) -> Printer:
    """The printer of an output format."""
    return _PRINTERS[output]()
