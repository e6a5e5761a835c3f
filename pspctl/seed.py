"""``pspctl seed``: brings a file into the network."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pspctl.api import ServerApi
from pspctl.deadline import Deadline
from pspctl.follow import until_complete
from pspctl.options import Command, Settings
from pspctl.output import printer
from pspctl.progress import Progress, shown_progress
from pspctl.seeding import SeedPlan, seed_file
from pspctl.tables import seed_text
from pspctl.units import plain_text
from pspctl.views import FileView, file_view, seed_view
from pspd.errors import StorageError, WrongState


@click.command("seed", cls=Command)
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="The name under which clients show it; else the file's own.")
@click.option("--clients", "client_count", type=click.IntRange(1), metavar="N", help="Wait for N clients, then divide.")
@click.option("--wait", is_flag=True, help="Return when every client has the file, not when it is seeded.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), metavar="S", help="Give up after S seconds.")
@click.option("--delete-source", is_flag=True, help="Delete FILE once every client has it. Implies --wait.")
@click.option("--hold", is_flag=True, help="Hold the exchange back at the seeded moment, until `pspctl release`.")
@click.pass_obj
def command(
    settings: Settings,
    path: Path,
    name: str | None,
    client_count: int | None,
    wait: bool,
    timeout: float | None,
    delete_source: bool,
    hold: bool,
) -> None:
    """Bring FILE into the network.

    Divides FILE into one share per client, gives each client its share, and leaves: from then on the
    clients get the rest through the server, which keeps nothing.

    \b
    Example:
      pspctl seed big.iso --clients 3 --wait
    """
    deadline = Deadline(timeout)
    plan = SeedPlan(path, name, client_count or 0, hold)
    identity = _identity(path)
    with ServerApi(settings.server) as api, shown_progress(settings) as progress:
        known = {view["file_id"]: view["state"] for view in map(file_view, api.files())}
        file_id = seed_file(api.address, plan, deadline, progress)
        if file_id in known:
            unfinished = known[file_id] in ("seeding", "stalled")
            done = "what it lacked was seeded" if unfinished else "nothing had to be seeded"
            progress.note(f"{plain_text(name or path.name)} is already in the network: {done}")
        view = _followed(api, file_id, deadline, progress, wait=wait or delete_source)
        cache = api.cache()
    if delete_source:
        _delete(path, identity)
    printer(settings.output).show(seed_view(view, cache), seed_text)


def _followed(api: ServerApi, file_id: str, deadline: Deadline, progress: Progress, *, wait: bool) -> FileView:
    view = file_view(api.status(file_id).files[0])
    for client in view["clients"]:
        if client["refusal"]:
            progress.note(f"{plain_text(client['name'])} does not take it: {plain_text(client['refusal'])}")
    if not wait:
        return view
    if view["held_back"]:
        progress.note(f"the exchange is held back: start it with `pspctl release {file_id[:12]}`")
    return until_complete(api, file_id, deadline, progress)


def _identity(path: Path) -> tuple[int, int, int, int]:
    """What changes when somebody writes to a file or puts another one in its place."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _delete(path: Path, identity: tuple[int, int, int, int]) -> None:
    """Deletes the original, unless it is no longer what the clients got."""
    try:
        if _identity(path) != identity:
            raise WrongState(f"{path} has changed since it was seeded and was not deleted: see what is in it")
        os.unlink(path)
    except OSError as error:
        raise StorageError(f"every client has {path}, but it cannot be deleted: {error.strerror}") from error
