"""The options that all commands share, and the classes that add them to each command.

``pspctl --server X status`` and ``pspctl status --server X`` mean the same: every command and group has these options,
and each option stores its value in the one `Settings`. If an option is given several times, the last value counts.
``stop`` has its own ``--server``, which it reads itself.
"""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass
from typing import Any

import click

from pspctl import contexts
from pspd.cli.arguments import NamedInErrors
from pspd.errors import BadArgument
from pspd.text.addresses import DEFAULT_SERVER, full_address
from pspd.text.sizes import parse_size

SERVER_VARIABLE = "PSPCTL_SERVER"


@dataclass(slots=True)
class Settings:
    """The values of the shared options.

    Attributes:
        server_option: the address given with ``--server``; None without it.
        output: ``table`` or ``json``.
        quiet: whether to suppress progress and notes.
        debug: whether to show the stack trace of an error.
        ended_by: the signal other than SIGINT that interrupted the command; None for no such signal.
    """

    server_option: str | None = None
    output: str = "table"
    quiet: bool = False
    debug: bool = False
    ended_by: signal.Signals | None = None

    def server_address(self, option: str | None = None) -> str:
        """Return the server's address with port.

        The first of these that is set counts: `option`, `server_option`, the environment variable, the current context,
        the default.

        Args:
            option: the address given with the command's own ``--server``; None without it.

        Raises:
            BadArgument: the chosen text is not an address.
            StorageError: as in `contexts.load`.
        """
        option = self.server_option if option is None else option
        if option is not None:
            return full_address(option)
        address, origin = os.environ.get(SERVER_VARIABLE), SERVER_VARIABLE
        if not address:
            known = contexts.load()
            address, origin = known.current_address or DEFAULT_SERVER, f"context {known.current}"
        try:
            return full_address(address)
        except BadArgument as error:  # the user did not type this address now: say where it comes from
            raise BadArgument(f"{origin}: {error}") from None


class SharedOption(click.Option):
    """An option that all commands share; its value is stored in `Settings`."""

    def __init__(self, *declarations: str, field: str, **attributes: Any) -> None:
        """Make the option.

        Args:
            declarations: the option's names, as in `click.Option`.
            field: the field of `Settings` that stores the option's value.
            attributes: further arguments of `click.Option`.
        """

        def store(ctx: click.Context, _: click.Parameter, value: Any) -> None:
            if value is not None:
                setattr(ctx.obj, field, value)

        super().__init__([*declarations], default=None, expose_value=False, callback=store, **attributes)


def shared_options() -> list[click.Parameter]:
    """Return new instances of the shared options, for one command."""
    return [
        SharedOption(
            "--server",
            metavar="HOST[:PORT]",
            field="server_option",
            help=f"The server's address. Default: {SERVER_VARIABLE}, then the current context, then {DEFAULT_SERVER}.",
        ),
        SharedOption(
            "-o",
            "--output",
            field="output",
            type=click.Choice(["table", "json"]),
            help="The format of the answer.",
        ),
        SharedOption("-q", "--quiet", field="quiet", is_flag=True, help="Show no progress and no notes on stderr."),
        SharedOption("--debug", field="debug", is_flag=True, help="Show the stack trace of an error."),
    ]


class Command(NamedInErrors):
    """A command with the shared options, except those that it declares itself.

    Its help lists the shared options after its own, and keeps the line breaks of examples.
    """

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        """Make the command; the arguments are those of `click.Command`."""
        super().__init__(*arguments, **attributes)
        # click does not rewrap a paragraph whose first line consists of a backspace (\b).
        self.help = self.help and re.sub(r"^( *)(?=Examples?\b.*:$)", "\\1\b\n\\1", self.help, flags=re.MULTILINE)
        own_options = {option for parameter in self.params for option in parameter.opts}
        self.params += [option for option in shared_options() if own_options.isdisjoint(option.opts)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, then the shared ones.

        Args:
            ctx: the command's context.
            formatter: the formatter that collects the help text.
        """
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


class Group(Command, click.Group):
    """A group with the shared options; its commands have them too."""

    command_class = Command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the commands.

        Args:
            ctx: the group's context.
            formatter: the formatter that collects the help text.
        """
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


def parse_file_reference(text: str) -> str:
    """Return a file's name, its id or the first digits of its id as typed, without one slash at the end.

    Raises:
        BadArgument: the text is empty, which would mean every file, or has only slashes.
    """
    if not text.strip("/"):
        raise BadArgument("the name of the file is empty: give one that `pspctl files` shows")
    return text.removesuffix("/")


def parse_cache_size(text: str) -> int | str:
    """Parse the size of a cache; return it in bytes, or ``auto`` unchanged.

    Raises:
        BadArgument: the text is neither a size nor ``auto``.
        LimitReached: the size is too large.
    """
    try:
        return text if text == "auto" else parse_size(text)
    except BadArgument as error:
        raise BadArgument(f"{error}, or auto") from None
