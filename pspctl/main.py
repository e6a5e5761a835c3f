"""The command line of ``pspctl``: finds and runs the command, reports an error, and sets the exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

import click

from pspctl.options import Group, Settings
from pspd.cli.arguments import usage_text
from pspd.errors import Exit, PspError
from pspd.host import streams
from pspd.host.encoding import ensure_utf8
from pspd.host.environment import environment_error
from pspd.host.streams import ReaderGone
from pspd.text.plain import plain_lines, plain_text

COMMANDS = (
    *("run", "seed", "status", "files", "clients", "cache", "launch", "stop", "wait", "release", "rm"),
    *("context", "simulate", "version"),
)
"""The commands in the order of the help text."""
MODULE_NAMES = {"release": "files", "rm": "files", "launch": "clients"}
"""The module in `pspctl.commands` of each command whose module has another name than the command."""
SIGNAL_OUTCOMES = {
    signal.SIGINT: ("interrupted", Exit.INTERRUPTED),
    signal.SIGTERM: ("terminated", Exit.TERMINATED),
    signal.SIGHUP: ("hung up", Exit.HUNG_UP),
}
"""The message and exit code of a command that a signal ended, by signal."""


class Root(Group):
    """The group of all commands. Each command ends with an exit code of `pspd.errors.Exit`.

    A command's module is imported when the command is used, so that no command waits for another command's imports.
    """

    def main(self, *arguments: Any, **attributes: Any) -> NoReturn:
        """Run a command line, report an error, and exit; the arguments are those of `click.Command.main`."""
        settings: Settings = attributes.setdefault("obj", Settings())
        attributes["standalone_mode"] = False
        try:
            # click returns an exit code after --help or `click.exceptions.Exit`; commands return None.
            code = super().main(*arguments, **attributes) or Exit.OK
        except (Exception, click.exceptions.Abort) as error:
            if settings.debug:
                click.echo(plain_lines(traceback.format_exc()), err=True, nl=False)
            code = report_error(error, settings.ended_by)
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command; raise click's Abort if a signal interrupts it."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            if sys.stderr.isatty():
                click.echo(err=True)  # ends the line on which the terminal echoed ^C
            raise click.exceptions.Abort(*interrupt.args) from interrupt

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order of the help text."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; return None if no command has this name.

        Args:
            ctx: the context of the group.
            cmd_name: the command's name.
        """
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"pspctl.commands.{MODULE_NAMES.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, cmd_name)
        return command


def report_error(error: BaseException, ended_by: signal.Signals | None = None) -> Exit:
    """Write an error to stderr in one line; return its exit code.

    If the reader of stdout has gone, write nothing. If a group was called without a command, write the group's help.

    Args:
        error: the error that ended the command.
        ended_by: the signal other than SIGINT that interrupted the command; None for no such signal.
    """
    match error:
        case ReaderGone():
            return Exit.READER_GONE
        case click.exceptions.NoArgsIsHelpError():
            error.show()
            return Exit.USAGE
        case click.UsageError():
            command = error.ctx.command_path if error.ctx else "pspctl"
            text, code = usage_text(error, command), Exit.USAGE
        case click.ClickException():
            text, code = error.format_message(), Exit.USAGE
        case click.exceptions.Abort():
            event, code = SIGNAL_OUTCOMES[ended_by or signal.SIGINT]
            text = "; ".join([event, *map(str, error.args)])
        case PspError():
            text, code = str(error), error.exit_code
        case UnicodeEncodeError():  # gRPC transmits only valid Unicode
            text, code = f"{error.object!r} is not valid Unicode: every name in the network must be", Exit.USAGE
        case _ if known := environment_error(error):
            text, code = str(known), known.exit_code
        case _:
            text = f"{type(error).__name__}: {error}: this is a bug; --debug shows where"
            code = Exit.FAILED
    click.echo(f"pspctl: error: {plain_text(' '.join(text.split()))}", err=True)
    return code


@click.version_option(package_name="psp-network", prog_name="pspctl", message="%(prog)s %(version)s")
@click.group("pspctl", cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Distribute a file to every machine of a group, through a server that stores no copy of it.

    Example on this machine alone:
      pspctl run big.iso --clients 5 --to /tmp/copies

    Example with several machines:
      pspd server --listen ADDRESS:7070               # on one machine, whose address is ADDRESS
      pspd client --server ADDRESS:7070 --dir DIR     # on each machine that should get the file
      pspctl seed big.iso --server ADDRESS:7070 --wait
      pspctl status --server ADDRESS:7070 --watch
    """


def main() -> NoReturn:
    """Run ``pspctl``.

    SIGTERM and, except under nohup, SIGHUP are handled like Ctrl-C, so that the command cleans up. The message and the
    exit code differ.
    """
    ensure_utf8()
    streams.prepare()
    for name in ("COLUMNS", "LINES"):  # a terminal size of 0 means unknown, but rich would show nothing
        if not os.environ.get(name, "80").strip("0"):
            del os.environ[name]
    settings = Settings()
    # Discard what the source logs: the command prints its own messages.
    logging.getLogger("pspd").addHandler(logging.NullHandler())

    def interrupt(number: int, frame: FrameType | None) -> None:
        settings.ended_by = signal.Signals(number)
        handler = signal.getsignal(signal.SIGINT)
        # A command that a shell without job control started in the background ignores SIGINT: `handler` is SIG_IGN.
        # SIGTERM or SIGHUP must interrupt it nevertheless.
        (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)

    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup makes its command ignore SIGHUP
        signal.signal(signal.SIGHUP, interrupt)
    cli.main(prog_name="pspctl", obj=settings)
