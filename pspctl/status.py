"""``pspctl status``: the network at a glance, once or as it changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click
from rich.console import RenderableType
from rich.live import Live

from pspctl.api import ServerApi
from pspctl.follow import pictures
from pspctl.options import Command, Settings
from pspctl.output import console, printer
from pspctl.tables import file_state_text, file_table, missing_texts, progress_text, status_table
from pspctl.units import plain_text
from pspctl.views import StatusView, status_view


@click.command("status", cls=Command)
@click.argument("file", metavar="[FILE_ID|NAME]", required=False)
@click.option("--watch", is_flag=True, help="Go on showing it as it changes, until Ctrl-C.")
@click.pass_obj
def command(settings: Settings, file: str | None, watch: bool) -> None:
    """Show the network, or one file, at a glance.

    Shows the server, its cache, its clients and its files. With a file's name, its id or the beginning
    of its id, shows that file in full: each client's part, and what the exchange cost beside the ideal.

    \b
    Examples:
      pspctl status
      pspctl status big.iso --watch
    """
    render: Callable[[StatusView], RenderableType] = file_table if file else status_table
    with ServerApi(settings.server) as api:
        if not watch:
            printer(settings.output).show(status_view(api.status(file or "")), render)
            return
        changes = _changes(api, file or "")
        if settings.output == "json":
            for view in changes:
                printer("json").show(view, render)
        elif console().is_terminal:
            _watch_in_place(changes, render)
        else:
            _watch_lines(changes)


def _changes(api: ServerApi, file: str) -> Iterator[StatusView]:
    """The network now, and again whenever something other than the time changed."""
    last: dict[str, object] = {}
    for status in pictures(api, file):
        view = status_view(status)
        timeless = {key: value for key, value in view.items() if key != "server"}
        if timeless != last:
            yield view
        last = timeless


def _watch_in_place(changes: Iterator[StatusView], render: Callable[[StatusView], RenderableType]) -> None:
    with Live(console=console(), auto_refresh=False) as live:
        for view in changes:
            live.update(render(view), refresh=True)


def _watch_lines(changes: Iterator[StatusView]) -> None:
    """One line for each thing that changed, for logs and pipes."""
    last: dict[str, str] = {}
    for view in changes:
        lines = change_lines(view)
        for subject, line in lines.items():
            if last.get(subject) != line:
                click.echo(line)
        last = lines


def change_lines(view: StatusView) -> dict[str, str]:
    """A line for each client and each file, by what it is about."""
    lines = {}
    for client in [*view["clients"], *view["sources"]]:
        lines[f"client {client['name']}"] = f"{plain_text(client['name'])}: {client['state']}"
    for file in view["files"]:
        head = (
            f"{plain_text(file['name'])}: {file_state_text(file)}, {progress_text(file)},"
            f" {file['complete_client_count']} of {file['client_count']} clients complete"
        )
        lines[f"file {file['file_id']}"] = "; ".join([head, *missing_texts(file)])
    return lines
