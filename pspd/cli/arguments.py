"""The types of arguments, and the usage errors that name the command, for ``pspd`` and ``pspctl``."""

from __future__ import annotations

import os
import re
from math import isnan
from pathlib import Path
from typing import Any

import click


class NamedInErrors(click.Command):
    """A command whose usage errors name it, including those that click raises without a context."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line. A usage error that has no context gets the context of this command.

        Args:
            ctx: the command's context.
            args: the words of the command line.
        """
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise


def usage_text(error: click.ClickException, command: str) -> str:
    """Return one line that describes a usage error and names the command's help.

    Args:
        error: click's error.
        command: the command as typed, such as ``pspctl seed``.
    """
    text = re.sub(r"\. Did you mean (.+)\?$", r" (did you mean \1?)", error.format_message())
    return f"{text.rstrip('.')}: try `{command} --help`"


class Integer(click.IntRange):
    """A whole number within bounds."""

    name = "whole number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert the text, and refuse digits that are not ASCII, which Python accepts.

        Args:
            value: the text, or a default.
            param: the parameter that gets the value.
            ctx: the command's context.
        """
        if not str(value).isascii():
            self.fail(f"{value!r} is not a valid {self.name}", param, ctx)
        return super().convert(value, param, ctx)


class Seconds(click.FloatRange):
    """A duration in seconds, within bounds."""

    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert the text, and refuse NaN, which no bound excludes, and digits that are not ASCII.

        Args:
            value: the text.
            param: the parameter that gets the value.
            ctx: the command's context.
        """
        seconds: float = super().convert(value, param, ctx)
        if isnan(seconds) or not str(value).isascii():
            self.fail(f"{value} is not a valid {self.name}", param, ctx)
        return seconds


class Folder(click.Path):
    """A folder, which need not exist yet."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert the text, and refuse an empty one: an unset variable must not mean the current folder.

        Args:
            value: the text.
            param: the parameter that gets the value.
            ctx: the command's context.
        """
        if value == "":
            self.fail("it is empty: name a folder, or . for the current one", param, ctx)
        return super().convert(value, param, ctx)


class ExistingPath(click.Path):
    """A file or folder that exists."""

    def __init__(self) -> None:
        super().__init__(exists=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert the text. If a folder above the path may not be searched, do not report the path as missing.

        Args:
            value: the text.
            param: the parameter that gets the value.
            ctx: the command's context.
        """
        try:
            os.stat(value)
        except PermissionError:
            self.fail(f"{os.fsdecode(value)!r} cannot be looked at: Permission denied", param, ctx)
        except (OSError, ValueError):
            pass  # reported below, or when the path is used
        return super().convert(value, param, ctx)
