"""The command ``pspctl``: its subcommands, and the one place where an error becomes an exit code."""

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
"""The commands in the order in which people meet them; each is a module of :mod:`pspctl.commands`."""
SIGNAL_ENDS = {
    signal.SIGINT: ("interrupted", Exit.INTERRUPTED),
    signal.SIGTERM: ("terminated", Exit.TERMINATED),
    signal.SIGHUP: ("hung up", Exit.HUNG_UP),
}
"""What a command that a signal ended says, and its exit code."""


class Root(Group):
    """The group of all commands. It ends every one of them with an exit code of `pspd.errors.Exit`.

    A command's module is imported when the command is asked for: what one of them needs costs no other one time.
    """

    def main(self, *arguments: Any, **attributes: Any) -> NoReturn:
        """Runs a command line and exits."""
        settings: Settings = attributes.setdefault("obj", Settings())
        attributes["standalone_mode"] = False
        try:
            # click returns the code of its own exits, such as --help's; commands return None.
            code = super().main(*arguments, **attributes) or Exit.OK
        except (Exception, click.exceptions.Abort) as error:
            if settings.debug:
                click.echo(plain_lines(traceback.format_exc()), err=True, nl=False)
            code = report(error, settings.ended_by)
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command that was chosen."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            if sys.stderr.isatty():
                click.echo(err=True)  # closes the terminal's ^C
            raise click.exceptions.Abort(*interrupt.args) from interrupt

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name; None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"pspctl.commands.{cmd_name}").command
        return command


def report(error: BaseException, ended_by: signal.Signals | None = None) -> Exit:
    """Tells of an error in one line on stderr; returns the exit code that goes with it.

    Args:
        error: what ended the command.
        ended_by: the signal that did, if it was another than SIGINT.
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
            how, code = SIGNAL_ENDS[ended_by or signal.SIGINT]
            text = "; ".join([how, *map(str, error.args)])
        case PspError():
            text, code = str(error), error.exit_code
        case UnicodeEncodeError():  # gRPC carries nothing else
            text, code = f"{error.object!r} is not valid Unicode: no name in the network is so", Exit.USAGE
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
    """Distribute a file to every machine of a group, through a server that keeps nothing.

    Example, all on this machine:
      pspctl run big.iso --clients 5 --to /tmp/copies

    Example, machine by machine:
      pspd server --listen ADDRESS:7070               # on one of them; ADDRESS is its own
      pspd client --server ADDRESS:7070 --dir DIR     # on each that wants the file
      pspctl seed big.iso --server ADDRESS:7070 --wait
      pspctl status --server ADDRESS:7070 --watch
    """


def main() -> NoReturn:
    """The entry point of ``pspctl``.

    SIGTERM and SIGHUP take the way of Ctrl-C, so that whatever was begun is cleaned up; only the code differs.
    """
    ensure_utf8()
    streams.prepare()
    _forget_empty_size()
    settings = Settings()
    logging.getLogger("pspd").addHandler(logging.NullHandler())  # what a daemon logs, a command says in its own words

    def end(number: int, frame: FrameType | None) -> None:
        settings.ended_by = signal.Signals(number)
        interrupt = signal.getsignal(signal.SIGINT)
        # A shell without job control has its background commands ignore SIGINT.
        (interrupt if callable(interrupt) else signal.default_int_handler)(signal.SIGINT, frame)

    signal.signal(signal.SIGTERM, end)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, end)
    cli.main(prog_name="pspctl", obj=settings)


def _forget_empty_size() -> None:
    """Takes a size of 0 for one that is not known, as terminals without a size have it: else nothing would be shown."""
    for name in ("COLUMNS", "LINES"):
        if not os.environ.get(name, "80").strip("0"):
            del os.environ[name]


if __name__ == "__main__":
    main()
