"""What both commands take on the command line alike: whole numbers, lengths of time, folders."""

from __future__ import annotations

import os
import re
from math import isnan
from pathlib import Path
from typing import Any

import click


class NamedInErrors(click.Command):
    """A command that is named in the advice of its usage errors, also where click does not say whose they are."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the command line; an error without a context gets this command's."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise


def usage_text(error: click.ClickException, command: str) -> str:
    """Says in one line what is wrong with a command line, and where to read more.

    Args:
        error: what click found.
        command: the command that was typed, such as ``pspctl seed``.
    """
    text = re.sub(r"\. Did you mean (.+)\?$", r" (did you mean \1?)", error.format_message())
    return f"{text.rstrip('.')}: try `{command} --help`"


class Count(click.IntRange):
    """A whole number within bounds."""

    name = "whole number"


class Seconds(click.FloatRange):
    """A length of time within bounds."""

    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Reads it. nan is refused here: it is beyond no bound."""
        seconds: float = super().convert(value, param, ctx)
        if isnan(seconds):
            self.fail(f"{value} is not a valid {self.name}", param, ctx)
        return seconds


class Folder(click.Path):
    """A folder, which need not be there yet."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Reads it. An empty name is most often a variable that nobody set, and would be the current folder."""
        if value == "":
            self.fail("it is empty: name a folder, or . for the current one", param, ctx)
        return super().convert(value, param, ctx)


class Existing(click.Path):
    """A file or folder that is there."""

    def __init__(self) -> None:
        super().__init__(exists=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Reads it. What may not be looked at is not taken for what is not there."""
        try:
            os.stat(value)
        except PermissionError:
            self.fail(f"{os.fsdecode(value)!r} cannot be looked at: Permission denied", param, ctx)
        except (OSError, ValueError):
            pass  # told by those whose work it is
        return super().convert(value, param, ctx)
