"""``pspctl files``: list the files of the network."""

from __future__ import annotations

import click

from pspctl.api import ServerApi
from pspctl.options import Command, Settings
from pspctl.ui.output import printer
from pspctl.ui.tables import files_table
from pspctl.ui.views import SCHEMA_VERSION, file_view


@click.command("files", cls=Command)
@click.pass_obj
def command(settings: Settings) -> None:
    """List the files of the network, oldest first.

    Example:
      pspctl files -o json
    """
    with ServerApi(settings.server) as api:
        files = [file_view(file) for file in api.status().files]
    document = {"schema_version": SCHEMA_VERSION, "files": files}
    printer(settings.output).show(document, lambda _: files_table(files))
