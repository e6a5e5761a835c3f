"""One printer per output format. What they print is the answer, alone on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import click
from rich.console import Console, RenderableType

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
        click.echo(json.dumps(document, ensure_ascii=False))


class TablePrinter:
    """Tables and sentences."""

    def show(self, document: Document, render: Callable[[Document], RenderableType]) -> None:
        """Prints the document as people read it."""
        console().print(render(document))


def console() -> Console:
    """stdout, as wide as its terminal, or as wide as need be. Names from outside are never read as markup."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, highlight=False, emoji=False)


_PRINTERS: dict[str, type[Printer]] = {"json": JsonPrinter, "table": TablePrinter}


def printer(output: str) -> Printer:
    """The printer of an output format."""
    return _PRINTERS[output]()
