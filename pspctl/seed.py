"""``pspctl seed``: brings a file into the network."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pspctl.api import ServerApi
from pspctl.deadline import Deadline
from pspctl.follow import require_all_took, until_complete
from pspctl.options import Command, Settings
from pspctl.output import printer
from pspctl.progress import shown_progress
from pspctl.seeding import PartlySeeded, SeedPlan, seed_file
from pspctl.tables import seed_text
from pspctl.units import count_text, plain_text
from pspctl.views import file_view, seed_view
from pspd.arguments import Count, Seconds
from pspd.core.manifest import SHARE_COUNT_MAX
from pspd.core.terms import SAFE_HOLDERS, Terms
from pspd.daemon.source import own_name
from pspd.errors import StorageError, WrongState


@click.command("seed", cls=Command)
@click.argument("path", metavar="FILE", type=click.Path(exists=True, path_type=Path))
@click.option("--name", help="The name under which clients show it; else the file's own.")
@click.option(
    "--clients",
    "client_count",
    type=Count(1, SHARE_COUNT_MAX),
    metavar="N",
    help="Wait for N clients, then divide.",
)
@click.option(
    "--replicas",
    "replica_count",
    type=Count(1, SHARE_COUNT_MAX),
    default=1,
    metavar="R",
    show_default=True,
    help="On how many clients each share is before FILE counts as seeded.",
)
@click.option("--wait", is_flag=True, help="Return when every client has the file, not when it is seeded.")
@click.option("--timeout", type=Seconds(0, min_open=True), metavar="S", help="Give up after S seconds.")
@click.option(
    "--delete-source", is_flag=True, help="Delete FILE once every client, and more than one, has it. Implies --wait."
)
@click.option("--hold", is_flag=True, help="Hold the exchange back at the seeded moment, until `pspctl release`.")
@click.pass_obj
def command(
    settings: Settings,
    path: Path,
    name: str | None,
    client_count: int | None,
    replica_count: int,
    wait: bool,
    timeout: float | None,
    delete_source: bool,
    hold: bool,
) -> None:
    """Bring FILE, or a folder, into the network.

    Divides FILE into one share per client, gives each client its share, and leaves: from then on the
    clients get the rest through the server, which keeps nothing. With --wait it stays until each chunk is
    on two clients, and sends what nobody else can.

    A folder is brought with all that is in it: paths, modes, and links that stay inside.

    \b
    Examples:
      pspctl seed big.iso --clients 3 --wait
      pspctl seed big.iso --clients 30 --replicas 2
      pspctl seed models/ --clients 3
    """
    if delete_source and path.is_dir():
        raise click.UsageError(f"--delete-source deletes files, and {path} is a folder: delete it yourself")
    if hold and (wait or delete_source):
        option = "--wait" if wait else "--delete-source"
        raise click.UsageError(
            f"{option} with --hold would wait for ever: the exchange starts only at `pspctl release`"
        )
    if client_count is not None and replica_count > client_count:
        raise click.UsageError(f"--replicas {replica_count} needs as many clients: --clients {client_count} is fewer")
    deadline = Deadline(timeout)
    plan = SeedPlan(path, name, client_count or 0, hold, Terms(replica_count, stays=wait or delete_source))
    identity = _identity(path)
    shown_name = plain_text(name or own_name(path))
    with ServerApi(settings.server) as api, shown_progress(settings) as progress:
        known = {view["file_id"]: view["state"] for view in map(file_view, api.files())}
        try:
            file_id = seed_file(api.address, plan, deadline, progress)
        except PartlySeeded as interrupt:
            left = f"{shown_name} is partly seeded: run the same command again to finish"
            raise KeyboardInterrupt(left) from interrupt
        if file_id in known:
            unfinished = known[file_id] in ("seeding", "stalled")
            done = "what it lacked was seeded" if unfinished else "nothing had to be seeded"
            options = {"--clients": client_count, "--replicas": replica_count > 1}
            given = " and ".join(option for option, is_given in options.items() if is_given)
            ignored = f"; {given} was ignored" if given else ""
            progress.note(f"{shown_name} is already in the network: {done}{ignored}")
        if wait or delete_source:
            view = until_complete(api, file_id, deadline, progress, was_there=True)
        else:
            view = file_view(api.status(file_id).files[0])
            progress.exchange(view)
        cache = api.cache()
    if delete_source and not view["declined_client_count"]:
        _delete(path, identity, view["min_holder_count"])
    printer(settings.output).show(seed_view(view, cache), seed_text)
    if wait or delete_source:
        require_all_took(view)


def _identity(path: Path) -> tuple[int, int, int, int]:
    """What changes when somebody writes to a file or puts another one in its place."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _delete(path: Path, identity: tuple[int, int, int, int], holder_count: int) -> None:
    """Deletes the original, unless it is no longer what the clients got, or one lost client would cost it."""
    if holder_count < SAFE_HOLDERS:
        raise WrongState(
            f"{path} was not deleted: only {count_text(holder_count, 'client')} has all of it, and may be lost"
        )
    try:
        if _identity(path) != identity:
            raise WrongState(f"{path} has changed since it was seeded and was not deleted: see what is in it")
        os.unlink(path)
    except OSError as error:
        raise StorageError(f"every client has {path}, but it cannot be deleted: {error.strerror}") from error
