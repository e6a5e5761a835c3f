"""``pspctl clients``: list the clients of the network."""

from __future__ import annotations

import click

from pspctl.api import ServerApi
from pspctl.options import Command, Settings
from pspctl.ui.output import printer
from pspctl.ui.tables import clients_table
from pspctl.ui.views import SCHEMA_VERSION, client_views


@click.command("clients", cls=Command)
@click.pass_obj
def command(settings: Settings) -> None:
    """List the clients of the network, by name.

    Sources are listed last, while they seed.

    Example:
      pspctl clients -o json
    """
    with ServerApi(settings.server) as api:
        listed = api.clients()
    clients, sources = client_views(listed), client_views(listed, source=True)
    document = {"schema_version": SCHEMA_VERSION, "clients": clients, "sources": sources}
    printer(settings.output).show(document, lambda _: clients_table(clients, sources))
