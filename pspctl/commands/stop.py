"""``pspctl stop``: stops clients, or the server."""

from __future__ import annotations

import itertools
import time
from functools import partial

import click
from rich.text import Text

from pspctl.api import ServerApi
from pspctl.deadline import Deadline
from pspctl.follow import MAX_REFUSALS
from pspctl.options import Command, Settings
from pspctl.outage import Absence
from pspctl.ui.output import printer
from pspctl.ui.progress import Progress, shown_progress
from pspctl.ui.tables import hold_text, missing_text, refusal_texts
from pspctl.ui.views import SCHEMA_VERSION, FileView, file_view
from pspd.cli.arguments import Seconds
from pspd.errors import NotFound, TimedOut, Unreachable, WrongState
from pspd.text.plain import plain_text
from pspd.v1 import network_pb2

# What ``--server`` stands for when no address follows it: nothing that can be typed, so that --server "" is refused.
BARE = "\0"
LOOK_SECONDS = 0.2
"""How often a drain looks whether the clients may go."""
LOOKS_PER_STATUS = 10
"""In how many of these looks it looks once whether that can still come to an end."""


@click.command("stop", cls=Command)
@click.argument("names", metavar="[CLIENT]...", nargs=-1)
@click.option("--all-clients", is_flag=True, help="Stop every client, wherever it runs.")
@click.option("--force", is_flag=True, help="Also if others lack what nobody else holds.")
@click.option("--drain", is_flag=True, help="Wait until nothing is lost without them.")
@click.option("--timeout", type=Seconds(0, min_open=True), metavar="S", help="Give up waiting after S seconds.")
@click.option(
    "--server",
    "servers",
    is_flag=False,
    flag_value=BARE,
    multiple=True,
    metavar="[HOST[:PORT]]",
    help="Stop the server. With an address and clients to stop: only the address, as in every command.",
)
@click.pass_obj
def command(
    settings: Settings,
    names: tuple[str, ...],
    all_clients: bool,
    force: bool,
    drain: bool,
    timeout: float | None,
    servers: tuple[str, ...],
) -> None:
    """Stop the clients named, all clients, or the server.

    Clients are not stopped while they alone hold what others lack: wait for
    that to end with --drain, or lose it with --force. Clients that lose their
    server wait for it to come back; their files stay.

    \b
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
    stop_server = BARE in servers or (bool(servers) and not stop_clients)
    if not stop_clients and not stop_server:
        raise click.UsageError("nothing to stop: name clients, or give --all-clients or --server")
    settings.server_option = next((server for server in reversed(servers) if server != BARE), settings.server_option)
    if timeout is not None and not drain:
        raise click.UsageError("--timeout is how long --drain waits: give both")
    if (drain or force) and not stop_clients:
        raise click.UsageError("--drain and --force are for clients: name some, or give --all-clients")
    if drain and force:
        raise click.UsageError("--drain waits for what --force does not care about: give one of them")
    with ServerApi(settings.server) as api:
        stopped = []
        if drain:
            with shown_progress(settings) as progress:
                stopped = _drain(api, list(names), all_clients, Deadline(timeout), progress)
        elif stop_clients:
            stopped = api.stop_clients(list(names), all_clients=all_clients, force=force)
        if stop_server:
            api.stop_server()
    document = {"schema_version": SCHEMA_VERSION, "names": stopped, "server_stopped": stop_server}
    lines = [f"{plain_text(name)} is stopping" for name in stopped]
    lines += [f"the server at {settings.server} is stopping"] if stop_server else []
    printer(settings.output).show(document, lambda _: Text("\n".join(lines) or "no client was there to stop"))


def _drain(api: ServerApi, names: list[str], all_clients: bool, deadline: Deadline, progress: Progress) -> list[str]:
    """Stops clients as soon as nothing is lost without them; returns the names of those that were asked."""
    absence = Absence(api.address, deadline, progress)
    attempt = partial(api.stop_clients, names, all_clients=all_clients)
    has_waited = False
    for look in itertools.count():
        try:
            return attempt()
        except WrongState as error:
            absence.end()
            # All files with all clients are much to ask for each time.
            files = absence.through(api, api.status).files if look % LOOKS_PER_STATUS == 0 else []
            views = list(map(file_view, files))
            for file in views:
                if deadline.timeout_seconds is None:
                    _require_takers(file, names, all_clients=all_clients)
            if not has_waited:
                progress.note(f"waiting: {error}")
                for file in filter(hold_text, views):
                    progress.note(f"{plain_text(file['name'])}: {hold_text(file)}")
                # Whoever was named wrongly is told at once; who leaves from now on is no longer to be stopped.
                has_waited, attempt = True, attempt if all_clients else partial(_stop_who_is_left, api, names)
            if deadline.passed:
                raise TimedOut(f"still so after {deadline.text}: {error}") from error
            time.sleep(LOOK_SECONDS)
        except (TimedOut, Unreachable) as error:
            absence.bear(api, error)
    raise AssertionError("the loop ends with an answer or an error")


def _require_takers(file: FileView, names: list[str], *, all_clients: bool) -> None:
    """Makes sure that somebody may still take what the clients to be stopped hold of a file.

    Raises:
        WrongState: all others have declined it, or have been lost for a full lease.
    """
    others = [client for client in file["clients"] if not (all_clients or client["name"] in names)]
    if others and len(others) < len(file["clients"]) and all(client["refusal"] for client in others):
        raise WrongState(
            f"nobody else takes {plain_text(file['name'])!r}: {'; '.join(refusal_texts(file)[:MAX_REFUSALS])}:"
            " make room for it, or lose it with --force"
        )
    missing = file["missing_clients"]
    are_lost = missing and all(client["given_up"] for client in missing)
    if file["state"] == "stalled" and not others and are_lost:
        raise WrongState(
            f"nobody is left to complete {plain_text(file['name'])!r}: lost are {missing_text(file)}: start them again,"
            " or stop with --force"
        )


def _stop_who_is_left(api: ServerApi, names: list[str]) -> list[str]:
    try:
        return api.stop_clients(names)
    except NotFound:
        left = _connected(api, names)
        return api.stop_clients(left) if left else []


def _connected(api: ServerApi, names: list[str]) -> list[str]:
    """Those who are still there: others may have left by themselves."""
    there = {client.name for client in api.clients() if client.state == network_pb2.CLIENT_STATE_CONNECTED}
    return [name for name in names if name in there]
