"""``pspctl release``: start an exchange that was held back at the seeded moment."""

from __future__ import annotations

import click
from rich.text import Text

from pspctl.api import ServerApi
from pspctl.options import Command, Settings, file_name
from pspctl.ui.output import printer
from pspctl.ui.views import SCHEMA_VERSION, file_view
from pspd.text.plain import plain_text


@click.command("release", cls=Command)
@click.argument("file", metavar="FILE_ID|NAME", type=file_name)
@click.pass_obj
def command(settings: Settings, file: str) -> None:
    """Start the exchange of a file seeded with --hold.

    Example:
      pspctl seed big.iso --hold
      pspctl status big.iso        # every client holds its share, the server nothing
      pspctl release big.iso
    """
    with ServerApi(settings.server) as api:
        view = file_view(api.release_file(file))
    document = {"schema_version": SCHEMA_VERSION, "file": view}
    printer(settings.output).show(document, lambda _: Text(f"{plain_text(view['name'])}: the exchange has started"))
