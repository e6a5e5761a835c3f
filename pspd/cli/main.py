"""The command ``pspd``: the daemons, each in the foreground."""

from __future__ import annotations

import asyncio
import os
import sys
import tomllib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from pspd import __version__
from pspd.cli.arguments import Folder, Integer, NamedInErrors, Seconds, usage_text
from pspd.core.model.manifest import CHUNK_BYTES
from pspd.core.model.parameters import PROFILES, SECOND_NS, Order, Parameters, default_cache_chunks
from pspd.core.model.tuning import SERVER_TUNING
from pspd.errors import BadArgument, Exit, PspError
from pspd.host import streams
from pspd.host.command import CLIENTS_PER_PROCESS_MAX
from pspd.host.encoding import ensure_utf8
from pspd.host.environment import environment_error, no_home_error, user_folder
from pspd.host.streams import ReaderGone
from pspd.text.addresses import AGENT_PORT, DEFAULT_SERVER, PORT_MAX, full_address
from pspd.text.plain import plain_text
from pspd.text.sizes import parse_size, size_text

AGENT_LISTEN = f"127.0.0.1:{AGENT_PORT}"
CONNECT_SECONDS_DEFAULT = 10.0
CONFIG_BYTES_MAX = 64 * 1024

REACH_SECONDS_MIN = 6
REACH_SECONDS_MAX = 24 * 3600
"""Bounds of ``--reach``. With less than the minimum, the loss of a few hellos would make a client unreachable."""
FAULTS_HELP = (
    "For tests and lessons: inject faults into received datagrams, e.g. loss=0.3,duplicate=0.1,reorder=0.1,seed=7."
)


def _read_config(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Use the settings in a file as defaults of the options; the command line takes precedence."""
    if path is None:
        return
    known = {option.name for option in context.command.params} - {parameter.name}
    try:
        with path.open("rb") as file:
            text = file.read(CONFIG_BYTES_MAX + 1)
        if len(text) > CONFIG_BYTES_MAX:
            raise ValueError(f"it has more than {size_text(CONFIG_BYTES_MAX)}")
        settings = tomllib.loads(text.decode())
    except (OSError, ValueError, RecursionError) as error:
        raise BadArgument(f"cannot read {path}: {error}: give a TOML file of options") from None
    unknown = settings.keys() - known
    mistyped = [name for name, value in settings.items() if type(value) not in (str, int, float)]
    if unknown:
        names = ", ".join(sorted(filter(None, known)))
        raise BadArgument(f"{path}: {min(unknown)!r} is not an option: known are {names}")
    if mistyped:
        raise BadArgument(f"{path}: {mistyped[0]!r} is neither text nor a number: write it as on the command line")
    context.default_map = {name: str(value) for name, value in settings.items()}


class Root(click.Group):
    """The group of the daemons' commands. An error line begins with the name of the command."""

    command_class = NamedInErrors

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen daemon; if it cannot start, print the error in one line and exit with the error's code."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            known = error if isinstance(error, PspError) else environment_error(error)
            if known is None:
                raise
            print(plain_text(f"pspd {ctx.invoked_subcommand}: error: {known}"), file=sys.stderr)
            ctx.exit(known.exit_code)


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="pspd")
def cli() -> None:
    """The daemons of a PSP network, each in the foreground.

    One machine runs `pspd server`, every machine that receives files `pspd client --server HOST:7070`;
    then run `pspctl seed FILE` on any machine. Logs go to stderr. A daemon that is ready writes one line of JSON to
    stdout. SIGTERM stops a daemon cleanly; a second SIGTERM stops it at once.
    """


@cli.command()
@click.option("--listen", default=DEFAULT_SERVER, metavar="HOST[:PORT]", help="Address of the control API.")
@click.option(
    "--data-port", type=Integer(0, PORT_MAX), metavar="PORT", help="UDP and TCP port for data.  [default: --listen + 1]"
)
@click.option(
    "--state-dir",
    type=Folder(path_type=Path, file_okay=False),
    help="Folder for the records of files and clients, which the next start reads; never file data.",
)
@click.option("--cache", metavar="SIZE", help="Size of the cache, such as 64MiB; auto: 1 KiB per client.")
@click.option("--profile", type=click.Choice(sorted(PROFILES)), default="fast", help="Set of protocol parameters.")
@click.option(
    "--order", type=click.Choice([order.value for order in Order]), help="Order in which clients request chunks."
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    callback=_read_config,
    is_eager=True,
    expose_value=False,
    help="TOML file with values for these options, whose names have _ for -.",
)
@click.option(
    "--reach",
    type=Seconds(REACH_SECONDS_MIN, REACH_SECONDS_MAX),
    default=SERVER_TUNING.reachability_ns / SECOND_NS,
    metavar="S",
    help="Seconds after which a client is unreachable if it does not confirm that datagrams arrive.",
)
@click.option("--faults", metavar="SPEC", help=FAULTS_HELP)
def server(
    listen: str,
    data_port: int | None,
    state_dir: Path | None,
    cache: str | None,
    profile: str,
    order: str | None,
    reach: float,
    faults: str | None,
) -> None:
    """Run the server, which keeps no file data except its cache.

    Example: pspd server --listen 0.0.0.0:7070 --cache 64MiB
    """
    from pspd.daemon.server.daemon import run_server
    from pspd.net.faults import Faults

    parameters, cache_chunks = _parameters(profile, order, cache)
    listen = full_address(listen)
    injected = Faults.parse(faults) if faults else None
    folder = state_dir or user_folder("state")
    if folder is None:
        raise no_home_error("state", "--state-dir")
    folder.absolute()  # raises OSError if the path is relative and the current folder was deleted
    _run(
        "server",
        lambda stopping: run_server(stopping, listen, data_port, folder, parameters, cache_chunks, injected, reach),
    )


@cli.command()
@click.option("--server", default=DEFAULT_SERVER, metavar="HOST[:PORT]", help="The server's address.")
@click.option(
    "--dir", "folder", type=Folder(path_type=Path, file_okay=False), default=Path(), help="Folder for received files."
)
@click.option("--name", help="The client's name, unique in the network.  [default: the host's name]")
@click.option("--count", type=Integer(1, CLIENTS_PER_PROCESS_MAX), metavar="N", help="Run N clients, in DIR/NAME-i.")
@click.option("--max-bytes", metavar="SIZE", help="Decline files that would bring a client's folder above SIZE.")
@click.option("--verify", is_flag=True, help="Verify all files at the start, and fetch damaged ones again.")
@click.option(
    "--require-mount",
    "mount_point",
    is_flag=False,
    flag_value="",
    metavar="[PATH]",
    help="Do not start unless a disk is mounted at PATH; without PATH: at DIR or a folder above it, except /.",
)
@click.option("--first-index", type=Integer(0), default=0, metavar="I", help="With --count: the first client's number.")
@click.option(
    "--connect-timeout",
    type=Seconds(0),
    default=CONNECT_SECONDS_DEFAULT,
    metavar="S",
    help="How long to try to reach the server at the start, and then to wait until UDP and TCP work.",
)
@click.option("--faults", metavar="SPEC", help=FAULTS_HELP)
def client(
    server: str,
    folder: Path,
    name: str | None,
    count: int | None,
    max_bytes: str | None,
    verify: bool,
    mount_point: str | None,
    first_index: int,
    connect_timeout: float,
    faults: str | None,
) -> None:
    """Run a client, which receives every file of the network and sends it to the others.

    Example: pspd client --server server.example:7070 --dir /srv/files
    """
    import socket

    from pspd.daemon.client.daemon import StorageOptions, plan_clients, require_mounts, run_clients
    from pspd.net.faults import Faults

    if first_index and count is None:
        raise click.UsageError("--first-index numbers the clients of --count: give both")
    server = full_address(server)
    folder.absolute()  # as for the server
    plans = plan_clients(socket.gethostname() if name is None else name, folder, count, first_index)
    injected = Faults.parse(faults) if faults else None
    options = StorageOptions(None if max_bytes is None else parse_size(max_bytes), verify)
    if options.max_bytes == 0:
        raise BadArgument("--max-bytes 0 accepts no file: give more")
    if mount_point is not None:
        require_mounts(plans, Path(mount_point) if mount_point else None)
    _run("client", lambda stopping: run_clients(stopping, server, plans, connect_timeout, injected, options))


@cli.command()
@click.option("--listen", default=AGENT_LISTEN, metavar="HOST[:PORT]", help="Address of the control API.")
def agent(listen: str) -> None:
    """Run an agent, which launches clients on this machine for `pspctl launch --on`.

    Example: pspd agent --listen 0.0.0.0:7080
    """
    from pspd.daemon.agent import run_agent

    listen = full_address(listen, AGENT_PORT)
    _run("agent", lambda stopping: run_agent(stopping, listen))


def _parameters(profile: str, order: str | None, cache: str | None) -> tuple[Parameters, int | None]:
    """Return the protocol's parameters and the size of the cache in chunks, which is None for "auto"."""
    parameters = PROFILES[profile]
    if order is not None:
        parameters = replace(parameters, order=Order(order))
    if cache is None:
        return parameters, default_cache_chunks(parameters)
    if cache == "auto":
        return parameters, None
    cache_chunks = parse_size(cache) // CHUNK_BYTES
    if cache_chunks < 1:
        raise BadArgument(f"a cache of {cache!r} holds no chunk: give 1KiB or more")
    return parameters, cache_chunks


def _run(role: str, main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run a daemon, and exit with its exit code."""
    from pspd.daemon.process import run

    sys.exit(run(f"pspd {role}", main))


def _report_usage(error: click.ClickException) -> int:
    """Print a usage error in one line, or the help if a command is missing; return the exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context else "pspd"
    print(plain_text(f"{command}: error: {usage_text(error, command)}"), file=sys.stderr)
    return error.exit_code


def main() -> int:
    """Run the command line; print an error in one line, and return the exit code."""
    ensure_utf8()
    streams.prepare()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # keep gRPC's own lines off stderr
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # no gRPC fork handlers when an agent launches a client
    try:
        return int(cli.main(prog_name="pspd", standalone_mode=False) or 0)
    except click.ClickException as error:
        return _report_usage(error)
    except click.Abort:
        return Exit.INTERRUPTED
    except ReaderGone:
        return Exit.READER_GONE
    except PspError as error:  # an error of stdout while click prints help
        print(plain_text(f"pspd: error: {error}"), file=sys.stderr)
        return error.exit_code
