"""What both commands take on the command line alike: whole numbers, lengths of time, folders."""

from __future__ import annotations

from math import isnan
from typing import Any

import click


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
