"""``pspctl seed``: bring a file into the network."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from pspctl.deadline import Deadline
from pspctl.options import Command, Settings
from pspd.cli.arguments import ExistingPath, Integer, Seconds
from pspd.core.model.manifest import SHARE_COUNT_MAX, STORE_FOLDER
from pspd.core.model.terms import Terms
from pspd.store.digests import blake3_digest
from pspd.store.source.parallel_hash import ParallelHash


@click.command("seed", cls=Command)
@click.argument("path", metavar="FILE", type=ExistingPath())
@click.option("--name", help="The file's name in the network. Default: its own name.")
@click.option(
    "--clients",
    "client_count",
    type=Integer(1, SHARE_COUNT_MAX),
    metavar="N",
    help="Wait for N clients, then divide FILE among them. Default: all connected clients, at least one.",
)
@click.option(
    "--replicas",
    "replica_count",
    type=Integer(1, SHARE_COUNT_MAX),
    default=1,
    metavar="R",
    show_default=True,
    help="Give each share to R clients: then any R-1 may be lost.",
)
@click.option("--wait", is_flag=True, help="Return when every client has all of FILE.")
@click.option("--timeout", type=Seconds(0, min_open=True), metavar="S", help="Give up after S seconds.")
@click.option(
    "--delete-source",
    is_flag=True,
    help="Delete FILE when all clients, at least two, report that they have it (not verified). Implies --wait.",
)
@click.option("--hold", is_flag=True, help="Hold the exchange back until `pspctl release`.")
@click.pass_obj
def seed(
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

    Divides FILE into one share per client, gives each client its share, and returns. From then on the clients
    get the rest from each other through the server, which stores no copy. With --wait, returns when every
    client has all of FILE.

    A folder keeps its paths, its modes, and the symbolic links that stay inside it.

    Examples:
      pspctl seed big.iso --clients 3 --wait
      pspctl seed big.iso --clients 30 --replicas 2
      pspctl seed models/ --clients 3
    """
    _require_deletable(path, delete_source=delete_source)
    if hold and (wait or delete_source):
        option = "--wait" if wait else "--delete-source"
        raise click.UsageError(f"{option} with --hold would wait forever: the exchange starts only at `pspctl release`")
    if client_count is not None and replica_count > client_count:
        raise click.UsageError(f"--replicas {replica_count} needs as many clients: --clients {client_count} is fewer")
    waits = wait or delete_source
    terms = Terms(replica_count, source_stays=waits)
    with ParallelHash.start(path, blake3_digest) or contextlib.nullcontext() as hashing:
        # This import loads most of the program; meanwhile the child processes hash the file.
        from pspctl.seeding import SeedPlan, seed_file

        plan = SeedPlan(path, name, client_count or 0, hold, waits, terms, hashing)
        seed_file(settings, plan, Deadline(timeout), delete_source=delete_source)


def _require_deletable(path: Path, *, delete_source: bool) -> None:
    """Raise a usage error if `delete_source` is set for a folder, a symbolic link, or a client's own copy."""
    if delete_source and path.is_dir():
        raise click.UsageError(f"--delete-source deletes files, and {path} is a folder: delete it yourself")
    if delete_source and path.is_symlink():
        raise click.UsageError(f"--delete-source would delete only the link {path}: name the file itself")
    if delete_source and any((folder / STORE_FOLDER).is_dir() for folder in path.resolve().parents):
        raise click.UsageError(f"--delete-source would delete a client's own copy: {path} is in the folder of one")
