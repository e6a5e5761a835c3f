"""``pspctl wait``: wait until every client has a file (R10)."""

from __future__ import annotations

import click

from pspctl.api import ServerApi
from pspctl.completion import (
    WaitPolicy,
    require_connected_client,
    require_none_declined,
    require_not_stalled,
    wait_until_complete,
)
from pspctl.deadline import Deadline
from pspctl.options import Command, Settings, parse_file_reference
from pspctl.outage import OutagePolicy
from pspctl.output import show, shown_progress
from pspctl.ui.exchange import seed_text
from pspctl.ui.views import seed_view
from pspd.cli.arguments import Seconds


@click.command("wait", cls=Command)
@click.argument("file", metavar="FILE_ID|NAME", type=parse_file_reference)
@click.option("--timeout", type=Seconds(0, min_open=True), metavar="S", help="Give up after S seconds.")
@click.pass_obj
def wait(settings: Settings, file: str, timeout: float | None) -> None:
    """Wait until every client has a file.

    Name the file by its name, its id, or the first digits of its id. The command does not wait for lost clients,
    except if all clients are lost, or if lost clients hold chunks that no other client has. Then it gives them one
    lease (30 s) to return or, with --timeout, until the timeout.

    Example:
      pspctl wait big.iso --timeout 600
    """
    deadline = Deadline(timeout)
    with ServerApi(settings.server_address()) as api:
        with shown_progress(settings) as progress:
            view = wait_until_complete(OutagePolicy(api, deadline, progress), file, WaitPolicy(deadline))
        cache = api.run(api.client.cache())
    answer = seed_view(view, cache)
    show(settings, answer, lambda: seed_text(answer))
    require_none_declined(view)
    require_connected_client(view, deadline)
    require_not_stalled(view)
