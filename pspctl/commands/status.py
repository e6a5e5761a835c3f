"""``pspctl status``: show the network once, or as it changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click
from rich.console import RenderableType
from rich.live import Live

from pspctl.api import ServerApi
from pspctl.deadline import NEVER
from pspctl.options import Command, Settings, parse_file_reference
from pspctl.outage import OutagePolicy, follow_status
from pspctl.output import console, show, show_json, shown_progress
from pspctl.ui.file_text import declined_text, file_state_text, missing_chunks_texts, progress_text
from pspctl.ui.plain import Plain
from pspctl.ui.progress import Progress
from pspctl.ui.screen import Screen
from pspctl.ui.tables import file_table, status_table
from pspctl.ui.units import count_text
from pspctl.ui.views import StatusView, status_view
from pspd.errors import Exit
from pspd.host import streams
from pspd.text.plain import plain_text


@click.command("status", cls=Command)
@click.argument("file", metavar="[FILE_ID|NAME]", type=parse_file_reference, required=False)
@click.option("--watch", is_flag=True, help="Show the status again at every change, until Ctrl-C.")
@click.pass_obj
def status(settings: Settings, file: str | None, watch: bool) -> None:
    """Show the network, or one file.

    Shows the server, its cache, its clients and its files. With a file's name, its id or the first digits
    of its id, shows that file in full: how much each client has, and how much the exchange moved, beside the ideal.
    With --watch on a terminal, shows as much as fits, active files and clients with problems first.

    Examples:
      pspctl status
      pspctl status big.iso --watch
    """
    render: Callable[[StatusView], RenderableType] = file_table if file else status_table
    with ServerApi(settings.server_address()) as api:
        if not watch:
            view = status_view(api.run(api.client.status(file or "")))
            show(settings, view, lambda: render(view))
            return
        try:
            _watch(settings, api, file or "")
        except KeyboardInterrupt as interrupt:
            if settings.ended_by:  # Ctrl-C is the usual end of a watch; another signal is reported
                raise
            raise click.exceptions.Exit(Exit.INTERRUPTED) from interrupt


def _watch(settings: Settings, api: ServerApi, file: str) -> None:
    """Show the network or one file at every change until the user interrupts the command."""
    if settings.output == "table" and console().is_terminal:
        with Live(console=console(), auto_refresh=False) as live:
            screen = _LiveScreen(live, shows_one_file=bool(file))
            for view in _watched_views(api, file, screen):
                screen.show(view)
        return
    with shown_progress(settings) as progress:
        views = _watched_views(api, file, progress)
        if settings.output == "json":
            for view in _distinct_views(views):
                show_json(view)
        else:
            _print_state_changes(views)


def _watched_views(api: ServerApi, file: str, progress: Progress) -> Iterator[StatusView]:
    """Yield each status of `follow_status` as a view; raise ReaderGone once stdout has no reader."""
    for status in follow_status(OutagePolicy(api, NEVER, progress), file):
        streams.require_reader()
        yield status_view(status)


def _distinct_views(views: Iterator[StatusView]) -> Iterator[StatusView]:
    """Yield the first status, then each status that differs from the last one in more than the server's entry."""
    last: dict[str, object] = {}
    for view in views:
        timeless = {key: value for key, value in view.items() if key != "server"}
        if timeless != last:
            yield view
        last = timeless


class _LiveScreen(Progress):
    """A screen that is updated in place. A note stays above the last status until the next status is shown."""

    def __init__(self, live: Live, *, shows_one_file: bool) -> None:
        """Start with nothing shown.

        Args:
            live: rich's display, which draws the screen.
            shows_one_file: whether to show one file in full instead of the whole network.
        """
        self._live = live
        self._shows_one_file = shows_one_file
        self._last: StatusView | None = None

    def show(self, view: StatusView, note: str = "") -> None:
        """Show a status.

        Args:
            view: the status.
            note: the line to show above the status; empty for none.
        """
        self._last = view
        self._live.update(Plain(Screen(view, self._shows_one_file, note)), refresh=True)

    def show_note(self, text: str) -> None:
        """Show a note above the last status; before the first status, do nothing."""
        if self._last is not None:
            self.show(self._last, text)


def _print_state_changes(views: Iterator[StatusView]) -> None:
    """Print one line for each client, source or file whose state has changed or that is gone."""
    last: dict[Subject, str] = {}
    for view in views:
        states = states_of(view)
        changed = [(subject, state) for subject, state in states.items() if last.get(subject) != state]
        gone = [(subject, "gone") for subject in last if subject not in states]
        for (_, _, name), state in [*gone, *changed]:
            click.echo(f"{plain_text(name)}: {state}")
        last = states


Subject = tuple[str, str, str]
"""The kind (``file``, or ``client`` for clients and sources), the unique key and the name of something shown."""


def states_of(view: StatusView) -> dict[Subject, str]:
    """Return the state of each client, source and file in words."""
    states: dict[Subject, str] = {}
    for client in [*view["clients"], *view["sources"]]:
        states["client", client["name"], client["name"]] = client["state"]
    for file in view["files"]:
        state = (
            f"{file_state_text(file)}, {progress_text(file)},"
            f" {file['complete_client_count']} of {count_text(file['client_count'], 'client')} complete"
            f"{declined_text(file)}"
        )
        states["file", file["file_id"], file["name"]] = "; ".join([state, *missing_chunks_texts(file)])
    return states
