"""``pspctl launch``: starts clients on the server's machine, or where agents run."""

from __future__ import annotations

import click
from rich.text import Text

from pspctl.api import AgentApi, ServerApi
from pspctl.options import Command, Settings
from pspctl.ui.output import printer
from pspctl.ui.views import SCHEMA_VERSION
from pspd.cli.arguments import Count
from pspd.errors import BadArgument, PspError
from pspd.text.addresses import AGENT_PORT, full_address, parse_address
from pspd.text.plain import plain_text

_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


@click.command("launch", cls=Command)
@click.argument("count", metavar="N", type=Count(1))
@click.option("--dir", "folder", default="", metavar="DIR", help="Each client gets a folder below it, on its machine.")
@click.option("--on", "agents", multiple=True, metavar="HOST[:PORT]", help="Spread them over agents; may be repeated.")
@click.pass_obj
def command(settings: Settings, count: int, folder: str, agents: tuple[str, ...]) -> None:
    """Start N clients.

    They start on the server's machine, or spread over the agents named with --on. Agents have their
    clients join the address of --server: it must be right as seen from there.

    \b
    Examples:
      pspctl launch 3
      pspctl launch 10 --on lab1 --on lab2 --server lab0
    """
    if agents:
        agents = tuple(full_address(agent, AGENT_PORT) for agent in agents)
        places = _launch_on(agents, count, folder, settings.server)
    else:
        with ServerApi(settings.server) as api:
            places = [(name, settings.server) for name in api.launch_clients(count, folder)]
    document = {
        "schema_version": SCHEMA_VERSION,
        "names": [name for name, _ in places],
        "clients": [{"name": name, "address": address, "dir": folder} for name, address in places],
    }
    below = plain_text(folder) or "its default folder"
    lines = [f"{plain_text(name)} started by {address}, below {below}" for name, address in places]
    printer(settings.output).show(document, lambda _: Text("\n".join(lines)))


def _launch_on(agents: tuple[str, ...], count: int, folder: str, server: str) -> list[tuple[str, str]]:
    """Starts the clients; returns the name of each, and the address of its agent."""
    for agent in agents:
        _require_common_sight(agent, server)
    places: list[tuple[str, str]] = []
    for index, agent in enumerate(agents):
        part = count * (index + 1) // len(agents) - count * index // len(agents)
        if not part:
            continue
        try:
            with AgentApi(agent) as api:
                places += [(name, agent) for name in api.launch_clients(part, folder, server)]
        except PspError as error:
            if not places:
                raise
            raise type(error)(f"{error} (started before: {', '.join(name for name, _ in places)})") from error
    return places


def _require_common_sight(agent: str, server: str) -> None:
    """A loopback server is only there for agents of its own machine."""
    (agent_host, _), (server_host, _) = parse_address(agent), parse_address(server)
    if server_host in _LOOPBACK_HOSTS and agent_host not in _LOOPBACK_HOSTS:
        raise BadArgument(f"clients at {agent} cannot join {server}: give the server's outside address with --server")
