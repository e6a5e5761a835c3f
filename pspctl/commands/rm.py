"""``pspctl rm``: remove files from the network."""

from __future__ import annotations

import click
from rich.text import Text

from pspctl.api import ServerApi
from pspctl.options import Command, Settings, file_name
from pspctl.ui.output import printer, remark
from pspctl.ui.views import SCHEMA_VERSION, file_view
from pspd.errors import PspError
from pspd.text.plain import plain_text


@click.command("rm", cls=Command)
@click.argument("files", metavar="FILE_ID|NAME...", type=file_name, nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Remove a file even if some clients do not have it yet.")
@click.pass_obj
def command(settings: Settings, files: tuple[str, ...], force: bool) -> None:
    """Remove files from the network.

    Clients no longer receive them, and their names are free. Finished copies stay; unfinished ones are deleted.

    Examples:
      pspctl rm big.iso
      pspctl rm 3f9a --force
    """
    views = []
    with ServerApi(settings.server) as api:
        for file in dict.fromkeys(files):
            try:
                views.append(file_view(api.remove_file(file, force=force)))
            except PspError:
                for view in views:  # report the files that were removed before the error
                    remark(f"{view['name']} is removed")
                raise
    document = {"schema_version": SCHEMA_VERSION, "files": views}
    lines = [f"{plain_text(view['name'])} is removed" for view in views]
    printer(settings.output).show(document, lambda _: Text("\n".join(lines)))
