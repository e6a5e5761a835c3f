"""``pspctl files``, ``release`` and ``rm``: the files of the network."""

from __future__ import annotations

import click

from pspctl.api import ServerApi
from pspctl.options import Command, Settings, parse_file_reference
from pspctl.output import print_note, show
from pspctl.ui.tables import files_table
from pspctl.ui.views import file_view
from pspd.errors import PspError
from pspd.text.plain import plain_text


@click.command("files", cls=Command)
@click.pass_obj
def files(settings: Settings) -> None:
    """List the files of the network, oldest first.

    Example:
      pspctl files -o json
    """
    with ServerApi(settings.server_address()) as api:
        views = [file_view(file) for file in api.run(api.client.status()).files]
    show(settings, {"files": views}, lambda: files_table(views))


@click.command("release", cls=Command)
@click.argument("file", metavar="FILE_ID|NAME", type=parse_file_reference)
@click.pass_obj
def release(settings: Settings, file: str) -> None:
    """Start the exchange of a file seeded with --hold.

    If the file is still being seeded, its exchange starts as soon as it is seeded.

    Example:
      pspctl seed big.iso --hold
      pspctl status big.iso        # every client holds its share, the server holds no file data
      pspctl release big.iso
    """
    with ServerApi(settings.server_address()) as api:
        view = file_view(api.run(api.client.release_file(file)))
    show(settings, {"file": view}, lambda: f"{plain_text(view['name'])} is no longer held back")


@click.command("rm", cls=Command)
@click.argument("names", metavar="FILE_ID|NAME...", type=parse_file_reference, nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Remove a file even if some clients do not have it yet.")
@click.pass_obj
def rm(settings: Settings, names: tuple[str, ...], force: bool) -> None:
    """Remove files from the network.

    Clients stop receiving them, and their names become free. Finished copies stay; unfinished ones are deleted.

    Examples:
      pspctl rm big.iso
      pspctl rm 3f9a --force
    """
    views = []
    with ServerApi(settings.server_address()) as api:
        for name in dict.fromkeys(names):
            try:
                views.append(file_view(api.run(api.client.remove_file(name, force=force))))
            except PspError:
                for view in views:  # report the files that were removed before the error
                    print_note(f"{view['name']} is removed")
                raise
    show(settings, {"files": views}, lambda: "\n".join(f"{plain_text(view['name'])} is removed" for view in views))
