"""``pspctl wait``: returns when every client has a file (R10)."""

from __future__ import annotations

import click

from pspctl.api import ServerApi
from pspctl.deadline import Deadline
from pspctl.follow import require_a_taker, require_all_took, require_holders, until_complete
from pspctl.options import Command, Settings, file_name
from pspctl.ui.output import printer
from pspctl.ui.progress import shown_progress
from pspctl.ui.tables import seed_text
from pspctl.ui.views import seed_view
from pspd.cli.arguments import Seconds


@click.command("wait", cls=Command)
@click.argument("file", metavar="FILE_ID|NAME", type=file_name)
@click.option("--timeout", type=Seconds(0, min_open=True), metavar="S", help="Give up after S seconds.")
@click.pass_obj
def command(settings: Settings, file: str, timeout: float | None) -> None:
    """Wait until every client has a file.

    A file is named by its name, its id, or the beginning of its id. Clients that are lost are not waited for; if all
    are, or chunks went with them that nobody else has, wait gives them a lease (30 s), or with --timeout that long,
    to come back.

    \b
    Example:
      pspctl wait big.iso --timeout 600
    """
    deadline = Deadline(timeout)
    with ServerApi(settings.server) as api:
        with shown_progress(settings) as progress:
            view = until_complete(api, file, deadline, progress)
        cache = api.cache()
    printer(settings.output).show(seed_view(view, cache), seed_text)
    require_all_took(view)
    require_a_taker(view, deadline)
    require_holders(view)
