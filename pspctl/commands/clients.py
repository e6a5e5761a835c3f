"""``pspctl clients`` and ``launch``: list clients, and start more on the server's machine or through agents."""

from __future__ import annotations

import click

from pspctl.api import Api, ServerApi
from pspctl.options import Command, Settings
from pspctl.output import show
from pspctl.ui.tables import clients_table
from pspctl.ui.views import client_views
from pspd.cli.arguments import Integer
from pspd.errors import BadArgument, PspError
from pspd.rpc.client.connection import Peer
from pspd.rpc.client.server import AgentClient
from pspd.text.addresses import AGENT_PORT, full_address, parse_address
from pspd.text.plain import plain_text

COUNT_MAX = 2**32 - 1  # the count is a 32-bit field of the message
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


@click.command("clients", cls=Command)
@click.pass_obj
def clients(settings: Settings) -> None:
    """List the clients of the network, by name.

    Lost clients are listed too. Sources are listed last, while they are in the network.

    Example:
      pspctl clients -o json
    """
    with ServerApi(settings.server_address()) as api:
        listed = api.run(api.client.clients())
    views, sources = client_views(listed), client_views(listed, source=True)
    show(settings, {"clients": views, "sources": sources}, lambda: clients_table(views, sources))


@click.command("launch", cls=Command)
@click.argument("count", metavar="N", type=Integer(1, COUNT_MAX))
@click.option(
    "--dir",
    "folder",
    default="",
    metavar="DIR",
    help="Each client gets a folder below DIR, on its machine. Default: clients in the user's data folder.",
)
@click.option(
    "--on", "agents", multiple=True, metavar="HOST[:PORT]", help="Start them through this agent; may be repeated."
)
@click.pass_obj
def launch(settings: Settings, count: int, folder: str, agents: tuple[str, ...]) -> None:
    """Start N clients.

    They start on the server's machine or, with --on, on the machines of the agents named. Clients of an agent
    join the server at the address of --server, which must be reachable from there.

    Examples:
      pspctl launch 3
      pspctl launch 10 --on lab1 --on lab2 --server lab0
    """
    if agents:
        agents = tuple(full_address(agent, AGENT_PORT) for agent in agents)
        started = _launch_through(agents, count, folder, settings.server_address())
    else:
        with ServerApi(settings.server_address()) as api:
            started = [(name, settings.server_address()) for name in api.run(api.client.launch_clients(count, folder))]
    document = {
        "names": [name for name, _ in started],
        "clients": [{"name": name, "address": address, "dir": folder} for name, address in started],
    }
    below = plain_text(folder) or "its default folder"
    lines = [f"{plain_text(name)} started by {address}, below {below}" for name, address in started]
    show(settings, document, lambda: "\n".join(lines))


def _launch_through(agents: tuple[str, ...], count: int, folder: str, server: str) -> list[tuple[str, str]]:
    """Start `count` clients, divided evenly among agents; return each client's name and its agent's address.

    Raises:
        BadArgument: the address of the server is a loopback address, and the address of an agent is not.
        PspError: an agent failed, or could not be reached; the message names the clients that were started before.
    """
    for agent in agents:
        (agent_host, _), (server_host, _) = parse_address(agent), parse_address(server)
        if server_host in LOOPBACK_HOSTS and agent_host not in LOOPBACK_HOSTS:
            raise BadArgument(
                f"clients at {agent} cannot join {server}: give the server's outside address with --server"
            )
    started: list[tuple[str, str]] = []
    for index, agent in enumerate(agents):
        client_count = count * (index + 1) // len(agents) - count * index // len(agents)
        if not client_count:
            continue
        try:
            with Api(AgentClient(Peer.agent(agent))) as api:
                started += [(name, agent) for name in api.run(api.client.launch_clients(client_count, folder, server))]
        except PspError as error:
            if not started:
                raise
            raise type(error)(f"{error} (started before: {', '.join(name for name, _ in started)})") from error
    return started
