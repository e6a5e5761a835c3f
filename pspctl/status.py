"""``pspctl status``: the network at a glance, once or as it changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click
from rich.console import RenderableType
from rich.live import Live

from pspctl.api import ServerApi
from pspctl.follow import pictures
from pspctl.options import Command, Settings, file_name
from pspctl.output import console, print_answer, printer
from pspctl.tables import declined_text, file_state_text, file_table, missing_texts, progress_text, status_table
from pspctl.units import count_text
from pspctl.views import StatusView, status_view
from pspd.errors import Exit
from pspd.text import plain_text


@click.command("status", cls=Command)
@click.argument("file", metavar="[FILE_ID|NAME]", type=file_name, required=False)
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
        try:
            _watch(settings, map(status_view, pictures(api, file or "")), render)
        except KeyboardInterrupt as interrupt:
            # Ctrl-C is how one ends watching.
            if settings.terminated:
                raise
            raise click.exceptions.Exit(Exit.INTERRUPTED) from interrupt


def _watch(settings: Settings, views: Iterator[StatusView], render: Callable[[StatusView], RenderableType]) -> None:
    """Shows the network until the end."""
    if settings.output == "json":
        for view in _changes(views):
            printer("json").show(view, render)
    elif console().is_terminal:
        _watch_in_place(views, render)
    else:
        _watch_lines(views)


def _changes(views: Iterator[StatusView]) -> Iterator[StatusView]:
    """The network now, and again whenever something other than the time changed."""
    last: dict[str, object] = {}
    for view in views:
        timeless = {key: value for key, value in view.items() if key != "server"}
        if timeless != last:
            yield view
        last = timeless


def _watch_in_place(views: Iterator[StatusView], render: Callable[[StatusView], RenderableType]) -> None:
    with Live(console=console(), auto_refresh=False) as live:
        for view in views:
            live.update(render(view), refresh=True)


def _watch_lines(views: Iterator[StatusView]) -> None:
    """One line for each thing that changed, for logs and pipes."""
    last: dict[Subject, str] = {}
    for view in views:
        states = states_of(view)
        changed = [(subject, state) for subject, state in states.items() if last.get(subject) != state]
        gone = [(subject, "gone") for subject in last if subject not in states]
        for (_, _, name), state in [*gone, *changed]:
            print_answer(f"{plain_text(name)}: {state}")
        last = states


Subject = tuple[str, str, str]
"""What a line is about: its kind, what names it for good, and the name that people know it by."""


def states_of(view: StatusView) -> dict[Subject, str]:
    """The state of each client and each file, in words."""
    states: dict[Subject, str] = {}
    for client in [*view["clients"], *view["sources"]]:
        states["client", client["name"], client["name"]] = client["state"]
    for file in view["files"]:
        state = (
            f"{file_state_text(file)}, {progress_text(file)},"
            f" {file['complete_client_count']} of {count_text(file['client_count'], 'client')} complete"
            f"{declined_text(file)}"
        )
        states["file", file["file_id"], file["name"]] = "; ".join([state, *missing_texts(file)])
    return states
