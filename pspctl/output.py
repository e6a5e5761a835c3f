"""One printer per output format. What they print is the answer, alone on stdout."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import click
from rich.console import Console, RenderableType

from pspctl.options import Settings
from pspd.errors import StorageError

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
        print_answer(json.dumps(document, ensure_ascii=False))


class TablePrinter:
    """Tables and sentences."""

    def show(self, document: Document, render: Callable[[Document], RenderableType]) -> None:
        """Prints the document as people read it."""
        canvas = console()
        with _answering(), canvas.capture() as drawn:
            canvas.print(render(document), crop=False)  # the terminal folds what is too wide; nothing is lost
        print_answer("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def print_answer(text: str) -> None:
    """Writes lines of an answer to stdout.

    Raises:
        StorageError: stdout does not take them.
    """
    with _answering():
        click.echo(text)


@contextmanager
def _answering() -> Iterator[None]:
    """Makes an error of our own of one that stdout gives."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # a reader that has seen enough
        # What is buffered still would only fail again at the end.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        raise StorageError(f"cannot write the answer: {error.strerror}") from error


def note(settings: Settings, text: str) -> None:
    """Writes a note to stderr, for people who want to hear."""
    if not settings.quiet and settings.output == "table":
        click.echo(f"pspctl: {text}", err=True)


def console() -> Console:
    """stdout, as wide as its terminal, or as wide as need be. Names from outside are never read as markup."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, highlight=False, emoji=False)


_PRINTERS: dict[str, type[Printer]] = {"json": JsonPrinter, "table": TablePrinter}


def printer(output: str) -> Printer:
    """The printer of an output format."""
    return _PRINTERS[output]()
