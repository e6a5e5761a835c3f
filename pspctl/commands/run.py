"""``pspctl run``: run a whole network on this machine, and verify every copy."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
from blake3 import blake3

from pspctl.api import ServerApi
from pspctl.completion import WaitPolicy, require_none_declined, wait_until_complete
from pspctl.deadline import Deadline
from pspctl.local import LocalNetwork, RunFolder, client_count_max
from pspctl.options import Command, Settings, parse_cache_size
from pspctl.outage import OutagePolicy
from pspctl.output import show, shown_progress
from pspctl.seeding import SeedPlan, run_source
from pspctl.ui.exchange import run_text
from pspctl.ui.progress import Progress
from pspctl.ui.units import size_text
from pspctl.ui.views import RunView, seed_view
from pspd.cli.arguments import ExistingPath, Folder, Integer, Seconds
from pspd.core.model.manifest import CHUNK_BYTES
from pspd.daemon.source import folder_digest
from pspd.errors import BadArgument, IntegrityError, PspError, StorageError
from pspd.host.command import CLIENTS_PER_PROCESS_MAX
from pspd.net.loop import loop_factory
from pspd.store.source.source_store import name_of

READ_BYTES = 1 << 20


@click.command("run", cls=Command)
@click.argument("path", metavar="FILE", type=ExistingPath())
@click.option("--clients", "client_count", type=Integer(1), metavar="N", required=True, help="The number of clients.")
@click.option(
    "--to",
    "folder",
    type=Folder(file_okay=False, path_type=Path),
    metavar="DIR",
    required=True,
    help="Each client gets a folder below DIR: DIR/client-0, DIR/client-1, ...",
)
@click.option(
    "--profile", type=click.Choice(["fast", "classic"]), help="The set of protocol parameters. Default: fast."
)
@click.option(
    "--cache",
    type=parse_cache_size,
    metavar="SIZE",
    help="The size of the server's cache, such as 64MiB; auto means one KiB per client. Default: the profile's.",
)
@click.option("--timeout", type=Seconds(0, min_open=True), metavar="S", help="Give up after S seconds.")
@click.pass_obj
def run(
    settings: Settings,
    path: Path,
    client_count: int,
    folder: Path,
    profile: str | None,
    cache: int | str | None,
    timeout: float | None,
) -> None:
    """Distribute FILE, or a folder, to N clients, all on this machine.

    Starts a server and N clients, seeds FILE, waits until every client has it, verifies every copy, and
    stops everything. The copies stay.

    Example:
      pspctl run big.iso --clients 5 --to /tmp/copies
    """
    server_arguments = ["--profile", profile] if profile else []
    server_arguments += ["--cache", str(cache)] if cache is not None else []
    _require_possible(client_count, cache)
    if _is_inside(folder, path):
        raise BadArgument(f"{folder} is in {path}, and would be distributed with it: name another folder with --to")
    with shown_progress(settings) as progress:
        view = _run(path, RunFolder(folder, client_count), server_arguments, Deadline(timeout), progress)
    show(settings, view, lambda: run_text(view))
    wrong_count = client_count - view["file"]["declined_client_count"] - view["verified_client_count"]
    if wrong_count:
        raise IntegrityError(
            f"{wrong_count} of {client_count} copies in {folder} are missing or differ from {path}: do not use them"
        )
    require_none_declined(view["file"])


def _is_inside(folder: Path, path: Path) -> bool:
    """Return whether `path` is a folder, and `folder` is this folder or below it."""
    resolved = Path(os.path.realpath(folder))
    return path.is_dir() and Path(os.path.realpath(path)) in (resolved, *resolved.parents)


def _require_possible(client_count: int, cache: int | str | None) -> None:
    """Raise BadArgument if there are too many clients for this machine, or the cache is smaller than a chunk."""
    if client_count > (most := client_count_max()):
        raise BadArgument(
            f"{client_count} clients are too many for this machine: give --clients 1 to {most},"
            f" {CLIENTS_PER_PROCESS_MAX} for each core"
        )
    if isinstance(cache, int) and cache < CHUNK_BYTES:
        raise BadArgument(f"a cache of {size_text(cache)} is smaller than a chunk: give --cache 1KiB or more")


def _run(path: Path, folder: RunFolder, server_arguments: list[str], deadline: Deadline, progress: Progress) -> RunView:
    """Create the folder of the copies, and run the network in it; return the answer.

    After an error, if this call created the folder, remove it and the clients' folders, if they are empty.
    """
    copies_dir = folder.copies_dir
    was_absent = not os.path.lexists(copies_dir)
    try:
        copies_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot create the folder {copies_dir}: {error.strerror}: name another with --to"
        ) from error
    try:
        with folder:
            folder.claim_client_folders(name_of(path))
            with contextlib.closing(LocalNetwork(folder)) as network:
                return _distribute(path, network, server_arguments, deadline, progress)
    except BaseException:
        for created in [*folder.client_folders, copies_dir] if was_absent else []:
            with contextlib.suppress(OSError):  # the folder is not empty, or was never created
                created.rmdir()
        raise


def _distribute(
    path: Path, network: LocalNetwork, server_arguments: list[str], deadline: Deadline, progress: Progress
) -> RunView:
    """Start the network, seed the file, wait until every client has it, and verify the copies; return the answer."""
    client_count = network.folder.client_count
    try:
        network.start(server_arguments, deadline)
        with ServerApi(network.server_address, loop_factory()) as api:
            outage = OutagePolicy(api, deadline, progress)
            file_id = run_source(SeedPlan(path, client_count=client_count), outage, network.require_running)
            file = wait_until_complete(outage, file_id, WaitPolicy(deadline, client_count), network.require_running)
            cache = api.run(api.client.cache())
    except PspError:
        network.require_running()  # if a daemon died, its error is the cause
        raise
    copies = [folder / name_of(path) for folder in network.folder.client_folders]
    return {**seed_view(file, cache), "verified_client_count": verified_count(path, copies)}


def verified_count(original: Path, copies: list[Path]) -> int:
    """Return how many copies have the original's digest.

    Args:
        original: the file or folder that was distributed.
        copies: the paths of the copies; missing or unreadable copies do not count.

    Raises:
        StorageError: the original can no longer be read.
    """
    with ThreadPoolExecutor() as threads:
        digests = list(threads.map(_digest, [original, *copies]))
    if digests[0] is None:
        raise StorageError(f"cannot read {original} any more: no copy was verified")
    return digests.count(digests[0]) - 1


def _digest(path: Path) -> bytes | None:
    """Return the digest of a file or folder; None if it cannot be read."""
    if path.is_dir():
        try:
            return folder_digest(path)
        except PspError:
            return None
    try:
        with path.open("rb", buffering=0) as file:
            hasher, buffer = blake3(), memoryview(bytearray(READ_BYTES))
            while length := file.readinto(buffer):
                hasher.update(buffer[:length])
            return hasher.digest()
    except OSError:
        return None
