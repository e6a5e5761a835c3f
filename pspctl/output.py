"""Writes the answer to stdout, as a table or as JSON, and notes and progress to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console, RenderableType

from pspctl.options import Settings
from pspctl.ui.plain import Plain
from pspctl.ui.progress import LineProgress, Progress
from pspctl.ui.views import SCHEMA_VERSION
from pspd.host import streams
from pspd.text.plain import plain_json, plain_text

PIPE_WIDTH = 1_000
"""The width in characters if stdout is not a terminal: wide enough that normally no line is folded."""


def show(settings: Settings, document: Mapping[str, Any], render: Callable[[], RenderableType]) -> None:
    """Print an answer in the format that the user chose.

    Args:
        settings: the shared options.
        document: the answer as JSON data.
        render: the function that returns the same answer as a table or as text.

    Raises:
        StorageError: stdout cannot be written.
        ReaderGone: the reader of stdout has closed it.
    """
    if settings.output == "json":
        show_json(document)
        return
    canvas = console()
    with canvas.capture() as drawn:
        canvas.print(Plain(render()), crop=False)  # the terminal folds lines that are too wide
    click.echo("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def show_json(document: Mapping[str, Any]) -> None:
    """Print a document with its schema version as one line of JSON.

    Unprintable characters become escapes; if the encoding of stdout is not UTF-8, so do all characters beyond ASCII.
    """
    text = json.dumps({"schema_version": SCHEMA_VERSION, **document}, ensure_ascii=not streams.writes_unicode())
    click.echo(plain_json(text))


def print_note(text: str) -> None:
    """Write a note to stderr as one line."""
    click.echo(f"pspctl: {plain_text(text)}", err=True)


def console() -> Console:
    """Return a console for stdout that interprets no markup, because names come from other machines."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, highlight=False, emoji=False)


@contextmanager
def shown_progress(settings: Settings) -> Iterator[Progress]:
    """Yield an object that shows progress on stderr: bars on a terminal, else lines; nothing if quiet or with JSON."""
    if settings.quiet or settings.output == "json":
        yield Progress()
    elif not sys.stderr.isatty():
        yield LineProgress()
    else:
        from pspctl.ui.bars import shown_bars  # imports rich's bars, so import it only if bars are shown

        with shown_bars() as progress:
            yield progress
