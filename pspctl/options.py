"""The options every command shares, and the classes that give them to every command.

``pspctl --server X status`` and ``pspctl status --server X`` mean the same: each command and group has
the same options, each writes what it was given into the one `Settings`, and the later one wins.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any

import click

from pspctl import contexts
from pspd.cli.arguments import NamedInErrors
from pspd.errors import BadArgument
from pspd.text.addresses import DEFAULT_LISTEN, full_address
from pspd.text.sizes import parse_size

SERVER_VARIABLE = "PSPCTL_SERVER"


@dataclass(slots=True)
class Settings:
    """What the shared options say, and which signal asked the command to end, besides SIGINT."""

    server_option: str | None = None
    output: str = "table"
    quiet: bool = False
    debug: bool = False
    ended_by: signal.Signals | None = None

    @property
    def server(self) -> str:
        """The server's address, with its port: the option's, else the environment's, the context's, the default.

        Raises:
            BadArgument: it is no address.
        """
        if self.server_option is not None:
            return full_address(self.server_option)
        address, origin = os.environ.get(SERVER_VARIABLE), SERVER_VARIABLE
        if not address:
            known = contexts.load()
            address, origin = known.current_address or DEFAULT_LISTEN, f"context {known.current}"
        try:
            return full_address(address)
        except BadArgument as error:  # nobody has typed it just now: say where it is from
            raise BadArgument(f"{origin}: {error}") from None


class SharedOption(click.Option):
    """An option of every command; its value goes into `Settings`, not to the command."""

    def __init__(self, *declarations: str, field: str, **attributes: Any) -> None:
        def note(ctx: click.Context, _: click.Parameter, value: Any) -> None:
            if value is not None:
                setattr(ctx.obj, field, value)

        super().__init__([*declarations], default=None, expose_value=False, callback=note, **attributes)


def shared_options() -> list[click.Parameter]:
    """The shared options, made anew for each command."""
    return [
        SharedOption(
            "--server",
            metavar="HOST[:PORT]",
            field="server_option",
            help=f"The server; else {SERVER_VARIABLE}, the current context's, or {DEFAULT_LISTEN}.",
        ),
        SharedOption(
            "-o",
            "--output",
            field="output",
            type=click.Choice(["table", "json"]),
            help="How to print the answer.",
        ),
        SharedOption("-q", "--quiet", field="quiet", is_flag=True, help="No progress and no notes on stderr."),
        SharedOption("--debug", field="debug", is_flag=True, help="Show the stack trace of an error."),
    ]


class _Shared(NamedInErrors):
    """Adds the shared options, and lists them apart from the command's own."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        own_options = {option for parameter in self.params for option in parameter.opts}
        self.params += [option for option in shared_options() if own_options.isdisjoint(option.opts)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                (shared if isinstance(parameter, SharedOption) else own).append(record)
        for title, records in (("Options", own), ("Options of every command", shared)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class Command(_Shared):
    """A command with the shared options."""


class Group(_Shared, click.Group):
    """A group with the shared options, and whose commands have them too."""

    command_class = Command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


def file_name(text: str) -> str:
    """Reads what names a file of the network: its name (a folder's may have a slash), its id, or the beginning of that.

    Raises:
        BadArgument: it is empty, which would stand for every file.
    """
    if not text.strip("/"):
        raise BadArgument("the name of the file is empty: give one that `pspctl files` shows")
    return text.removesuffix("/")


def size(text: str) -> int | str:
    """Reads a size such as ``64MiB``, in bytes; or ``auto``, one KiB for each client.

    Raises:
        BadArgument: it is neither.
    """
    try:
        return text if text == "auto" else parse_size(text)
    except BadArgument as error:
        raise BadArgument(f"{error}, or auto") from None
