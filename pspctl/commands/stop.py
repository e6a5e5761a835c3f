"""``pspctl stop``: stop clients or the server."""

from __future__ import annotations

import click

from pspctl.api import ServerApi
from pspctl.deadline import Deadline
from pspctl.drain import Drain
from pspctl.options import Command, Settings
from pspctl.output import show, shown_progress
from pspd.cli.arguments import Seconds
from pspd.text.plain import plain_text

NO_ADDRESS = "\0"
"""The value of ``--server`` without an address; it cannot be typed, so that ``--server ""`` is refused."""


@click.command("stop", cls=Command)
@click.argument("names", metavar="[CLIENT]...", nargs=-1)
@click.option("--all-clients", is_flag=True, help="Stop every client, wherever it runs.")
@click.option("--force", is_flag=True, help="Stop clients even if chunks that only they hold are lost.")
@click.option("--drain", is_flag=True, help="Wait until the clients can be stopped without loss.")
@click.option("--timeout", type=Seconds(0, min_open=True), metavar="S", help="Wait at most S seconds with --drain.")
@click.option(
    "--server",
    "servers",
    is_flag=False,
    flag_value=NO_ADDRESS,
    multiple=True,
    metavar="[HOST[:PORT]]",
    help="Stop the server. Together with clients to stop, only the server's address, as in every command.",
)
@click.pass_obj
def stop(
    settings: Settings,
    names: tuple[str, ...],
    all_clients: bool,
    force: bool,
    drain: bool,
    timeout: float | None,
    servers: tuple[str, ...],
) -> None:
    """Stop the clients named, all clients, or the server.

    A client is not stopped while it alone holds chunks that other clients lack: wait with --drain, or
    lose them with --force. Files stay where they are. When the server stops, clients wait for it to return.

    Examples:
      pspctl stop client-2
      pspctl stop client-2 --drain
      pspctl stop --all-clients
      pspctl stop --server
      pspctl stop --server lab0:7070
    """
    if names and all_clients:
        raise click.UsageError("name clients or give --all-clients, not both")
    stop_clients = bool(names) or all_clients
    stop_server = NO_ADDRESS in servers or (bool(servers) and not stop_clients)
    _require_consistent(stop_clients, stop_server, drain=drain, force=force, has_timeout=timeout is not None)
    address = settings.address(next((server for server in reversed(servers) if server != NO_ADDRESS), None))
    stopped: list[str] = []
    with ServerApi(address) as api:
        if drain:
            with shown_progress(settings) as progress:
                stopped = Drain(api, list(names), Deadline(timeout), progress, all_clients=all_clients).run()
        elif stop_clients:
            stopped = api.stop_clients(list(names), all_clients=all_clients, force=force)
        if stop_server:
            api.stop_server()
    document = {"names": stopped, "server_stopped": stop_server}
    lines = [f"{plain_text(name)} is stopping" for name in stopped]
    lines += [f"the server at {address} is stopping"] if stop_server else []
    show(settings, document, lambda: "\n".join(lines) or "no client is connected: nothing was stopped")


def _require_consistent(stop_clients: bool, stop_server: bool, *, drain: bool, force: bool, has_timeout: bool) -> None:
    """Raise a usage error if there is nothing to stop, or if options contradict each other."""
    if not stop_clients and not stop_server:
        raise click.UsageError("nothing to stop: name clients, or give --all-clients or --server")
    if has_timeout and not drain:
        raise click.UsageError("--timeout limits how long --drain waits: give both")
    if (drain or force) and not stop_clients:
        raise click.UsageError("--drain and --force are for clients: name some, or give --all-clients")
    if drain and force:
        raise click.UsageError("--drain avoids the loss that --force accepts: give one of them")
