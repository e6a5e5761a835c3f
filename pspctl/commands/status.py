"""``pspctl status``: the network at a glance, once or as it changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click
from rich.console import RenderableType
from rich.live import Live

from pspctl.api import ServerApi
from pspctl.deadline import NEVER
from pspctl.follow import pictures
from pspctl.options import Command, Settings, file_name
from pspctl.outage import Absence
from pspctl.ui.output import console, json_text, print_answer, printer
from pspctl.ui.plain import Plain
from pspctl.ui.progress import Progress, Silence, shown_progress
from pspctl.ui.screen import Screen
from pspctl.ui.tables import declined_text, file_state_text, file_table, missing_texts, progress_text, status_table
from pspctl.ui.units import count_text
from pspctl.ui.views import StatusView, status_view
from pspd.errors import Exit
from pspd.host import streams
from pspd.text.plain import plain_text


@click.command("status", cls=Command)
@click.argument("file", metavar="[FILE_ID|NAME]", type=file_name, required=False)
@click.option("--watch", is_flag=True, help="Go on showing it as it changes, until Ctrl-C.")
@click.pass_obj
def command(settings: Settings, file: str | None, watch: bool) -> None:
    """Show the network, or one file, at a glance.

    Shows the server, its cache, its clients and its files. With a file's name, its id or the beginning
    of its id, shows that file in full: each client's part, and what the exchange cost beside the ideal.
    With --watch it shows what fits the terminal: what is active or in trouble comes first.

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
            _watch(settings, api, file or "")
        except KeyboardInterrupt as interrupt:
            # Ctrl-C is how one ends watching.
            if settings.ended_by:
                raise
            raise click.exceptions.Exit(Exit.INTERRUPTED) from interrupt


def _watch(settings: Settings, api: ServerApi, file: str) -> None:
    """Shows the network until the end, also through a restart of the server."""
    if settings.output == "table" and console().is_terminal:
        _watch_in_place(api, file)
        return
    with shown_progress(settings) as progress:
        views = _views(api, file, progress)
        if settings.output == "json":
            for view in _changes(views):
                print_answer(json_text(view))
        else:
            _watch_lines(views)


def _views(api: ServerApi, file: str, progress: Progress) -> Iterator[StatusView]:
    """The network now, and again after each change; a server that is lost is waited for as `pspctl wait` does."""
    absence = Absence(api.address, NEVER, progress)
    for status in pictures(api, file, on_loss=lambda error: absence.bear(api, error)):
        absence.end()
        streams.require_reader()
        yield status_view(status)


def _changes(views: Iterator[StatusView]) -> Iterator[StatusView]:
    """The network now, and again whenever something other than the time changed."""
    last: dict[str, object] = {}
    for view in views:
        timeless = {key: value for key, value in view.items() if key != "server"}
        if timeless != last:
            yield view
        last = timeless


class _Watched(Silence):
    """The last status on a screen that is updated in place; a note stands above it until the next status."""

    def __init__(self, live: Live, *, in_full: bool) -> None:
        self._live = live
        self._in_full = in_full
        self._last: StatusView | None = None

    def show(self, view: StatusView) -> None:
        """Shows the network."""
        self._last = view
        self._live.update(Plain(Screen(view, in_full=self._in_full)), refresh=True)

    def note(self, text: str) -> None:
        """Shows the note above what was seen last."""
        if self._last is not None:
            self._live.update(Plain(Screen(self._last, in_full=self._in_full, note=text)), refresh=True)


def _watch_in_place(api: ServerApi, file: str) -> None:
    with Live(console=console(), auto_refresh=False) as live:
        watched = _Watched(live, in_full=bool(file))
        for view in _views(api, file, watched):
            watched.show(view)


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
