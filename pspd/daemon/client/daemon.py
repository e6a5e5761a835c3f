"""``pspd client``: runs one client of the network, or many in one process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pspd.core.model.manifest import FileId
from pspd.core.server.sessions import validate_client_name
from pspd.daemon.member.member import MemberDaemon, first_of
from pspd.daemon.member.reconciler import FileHooks
from pspd.daemon.member.route import Route
from pspd.daemon.process import open_files_per_client, write_ready_line
from pspd.net.faults import Faults
from pspd.store.digests import blake3_digest
from pspd.store.files.disk import DiskStore
from pspd.store.filesystem.mounts import require_mount

log = logging.getLogger(__name__)

_FLUSH_EXECUTOR = ThreadPoolExecutor(1, "flush")
"""Flushes one file at a time for all clients of the process, as a disk does not flush two files faster in parallel."""


@dataclass(frozen=True, slots=True)
class ClientPlan:
    """The name and the folder of a client to run."""

    name: str
    folder: Path


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """Options of the clients' stores.

    Attributes:
        max_bytes: the most bytes that the files of the network may take in one client's folder; None for no limit.
        verifies: whether a client verifies all its files when it starts.
    """

    max_bytes: int | None = None
    verifies: bool = False


def plan_clients(name: str, folder: Path, count: int | None, first_index: int) -> list[ClientPlan]:
    """Return the plan of one client in `folder`, or the plans of several numbered clients in folders below `folder`.

    Args:
        name: the client's name, or the part of it before the number.
        folder: the client's folder, or the folder that contains the folders of all clients.
        count: how many clients to plan; None for one client without a number in its name.
        first_index: the number of the first client.

    Raises:
        BadArgument: a name is not allowed.
    """
    if count is None:
        return [ClientPlan(validate_client_name(name), folder)]
    names = [validate_client_name(f"{name}-{index}") for index in range(first_index, first_index + count)]
    return [ClientPlan(numbered, folder / numbered) for numbered in names]


def require_mounts(plans: list[ClientPlan], mount_point: Path | None) -> None:
    """Raise an error unless each client's folder is on a mounted disk. Call this before anything is written.

    Args:
        plans: the clients.
        mount_point: where the disk must be mounted; None for anywhere at or above a client's folder except ``/``.

    Raises:
        PspError: no disk is mounted there, or a client's folder is neither the mount point nor below it.
    """
    for plan in plans:
        require_mount(plan.folder, mount_point)


async def run_clients(
    stopping: asyncio.Event,
    server: str,
    plans: list[ClientPlan],
    connect_seconds: float,
    faults: Faults | None,
    options: StorageOptions = StorageOptions(),
) -> None:
    """Run clients until all of them have been asked to stop. If one of them fails, end them all.

    Args:
        stopping: the event that is set to stop all clients.
        server: the server's address.
        plans: the clients.
        connect_seconds: how long to wait until the server answers, and then until data can flow.
        faults: the faults to inject into received datagrams; None for none.
        options: options of the clients' stores.

    Raises:
        Unreachable: no server answers.
        NoDataPath: the server answers, but data cannot flow between it and a client.
        StorageError: a folder cannot be used, or a disk failed.
        PspError: the server refuses a client.
    """
    route = Route(server)
    members: list[MemberDaemon] = []
    unready_count = len(plans)

    def on_ready() -> None:
        nonlocal unready_count
        unready_count -= 1
        if unready_count == 0:
            write_ready_line(role="client", names=[plan.name for plan in plans], server=server)

    try:
        for plan in plans:
            store = DiskStore(
                plan.folder,
                blake3_digest,
                options.max_bytes,
                trusts_records=not options.verifies,
                open_files_max=open_files_per_client(len(plans)),
            )
            hooks = FileHooks(store.unpack_job, _flusher(store, plan.name), store.external_changes)
            members.append(MemberDaemon(route, plan.name, store.instance_id, store, faults=faults, hooks=hooks))
        all_runs = asyncio.gather(*(member.run(connect_seconds, on_ready) for member in members))
        await first_of(all_runs, _leave_on_stop(stopping, members))
    finally:
        for member in members:
            member.close()
        await route.close()


async def _leave_on_stop(stopping: asyncio.Event, members: list[MemberDaemon]) -> None:
    await stopping.wait()
    await asyncio.gather(*(member.leave() for member in members))


def _flusher(store: DiskStore, name: str) -> Callable[[FileId], None]:
    """Return a function that begins to flush a finished file to the disk in a thread, as a large file takes seconds.

    After the flush, the store records that the file is on the disk. An error is only logged.

    Args:
        store: the client's store.
        name: the client's name.
    """
    flushes: set[asyncio.Task[None]] = set()

    async def flush(file_id: FileId) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(_FLUSH_EXECUTOR, store.flush_job(file_id))
            store.record_flushed(file_id)
        except Exception as error:  # any error concerns only this file
            log.debug("%s: cannot flush a file: traceback:", name, exc_info=error)
            log.warning("%s: %s: the file is verified again after the next start of the machine", name, error)

    def begin(file_id: FileId) -> None:
        task = asyncio.ensure_future(flush(file_id))
        flushes.add(task)
        task.add_done_callback(flushes.discard)

    return begin
