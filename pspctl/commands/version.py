"""``pspctl version``: show the versions of pspctl and of the server."""

from __future__ import annotations

from importlib import metadata

import click

from pspctl.api import ServerApi
from pspctl.options import Command, Settings
from pspctl.output import show
from pspd.errors import PspError
from pspd.text.plain import plain_text


@click.command("version", cls=Command)
@click.pass_obj
def version(settings: Settings) -> None:
    """Show the versions of pspctl and of the server.

    Example:
      pspctl version
    """
    own_version = metadata.version("psp-network")
    address = settings.server_address()
    try:
        with ServerApi(address) as api:
            server_version = str(api.run(api.client.status(with_file_clients=False)).server.version)
        server_line = f"server {server_version} at {address}"
    except PspError as error:
        server_version, server_line = None, f"server unknown: {error}"
    document = {"pspctl": own_version, "server": server_version}
    show(settings, document, lambda: f"pspctl {own_version}\n{plain_text(server_line)}")
