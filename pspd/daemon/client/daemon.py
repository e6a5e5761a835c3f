"""``pspd client``: one client of the network, or many in one process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pspd.core.model.manifest import FileId
from pspd.core.server.member import validate_client_name
from pspd.daemon.client.reconciler import Care
from pspd.daemon.descriptors import files_each
from pspd.daemon.member.member import MemberDaemon
from pspd.daemon.member.route import Route
from pspd.daemon.process import first_of, say_ready
from pspd.net.faults import Faults
from pspd.store.digests import blake3_digest
from pspd.store.files.disk import DiskStore
from pspd.store.filesystem.mounts import require_mount

log = logging.getLogger(__name__)

_FLUSHING = ThreadPoolExecutor(1, "flush")
"""One file after the other, of all clients of the process: more would not be faster, and wait in nobody's way."""


@dataclass(frozen=True, slots=True)
class ClientPlan:
    """A client to be run: its name and its folder."""

    name: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Keeping:
    """How clients keep their files.

    Attributes:
        max_bytes: how much of its folder a client takes at most; None for all that comes.
        verifies: whether it reads all that is there at its start.
    """

    max_bytes: int | None = None
    verifies: bool = False


def plan_clients(name: str, folder: Path, count: int | None, first_index: int) -> list[ClientPlan]:
    """One client in ``folder`` itself, or ``count`` of them in folders below it, numbered."""
    if count is None:
        return [ClientPlan(validate_client_name(name), folder)]
    names = [validate_client_name(f"{name}-{index}") for index in range(first_index, first_index + count)]
    return [ClientPlan(numbered, folder / numbered) for numbered in names]


def require_mounts(plans: list[ClientPlan], mount_point: Path | None) -> None:
    """Makes sure that the disk of each client is mounted, before anything is written.

    Args:
        plans: the clients.
        mount_point: where it is to be mounted; None for anywhere at or above their folders, but ``/``.

    Raises:
        PspError: it is not, or a client's folder is not below the mount point.
    """
    for plan in plans:
        require_mount(plan.folder, mount_point)


async def run_clients(
    stopping: asyncio.Event,
    server: str,
    plans: list[ClientPlan],
    connect_seconds: float,
    faults: Faults | None,
    keeping: Keeping = Keeping(),
) -> None:
    """Runs clients until they are told to stop.

    Raises:
        Unreachable: no server answers, or data does not pass.
        StorageError: a folder cannot be used, or a disk failed.
        PspError: the server refuses a client.
    """
    route = Route(server)
    members: list[MemberDaemon] = []
    waiting = len(plans)

    def on_ready() -> None:
        nonlocal waiting
        waiting -= 1
        if waiting == 0:
            say_ready(role="client", names=[plan.name for plan in plans], server=server)

    try:
        for plan in plans:
            members.append(_open(route, plan, faults, keeping, files_each(len(plans))))
        everyone = asyncio.gather(*(member.run(connect_seconds, on_ready) for member in members))
        await first_of(everyone, _leave_when(stopping, members))
    finally:
        for member in members:
            member.close()
        await route.close()


async def _leave_when(stopping: asyncio.Event, members: list[MemberDaemon]) -> None:
    await stopping.wait()
    await asyncio.gather(*(member.leave() for member in members))


def _open(
    route: Route,
    plan: ClientPlan,
    faults: Faults | None,
    keeping: Keeping,
    open_files_max: int,
) -> MemberDaemon:
    store = DiskStore(
        plan.folder, blake3_digest, keeping.max_bytes, verifies=keeping.verifies, open_files_max=open_files_max
    )
    return MemberDaemon(
        route,
        plan.name,
        store.instance_id,
        store,
        faults=faults,
        care=Care(store.unpack_job, _flusher(store, plan.name), store.external_changes),
    )


def _flusher(store: DiskStore, name: str) -> Callable[[FileId], None]:
    """What brings each finished file to the disk, in a thread: a large one takes seconds, and others wait for us."""
    flushes: set[asyncio.Task[None]] = set()

    async def flush(file_id: FileId) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(_FLUSHING, store.flush_job(file_id))
            store.record_flushed(file_id)
        except Exception as error:  # whatever it is, it is this file's
            log.debug("%s: cannot flush a file: where:", name, exc_info=error)
            log.warning("%s: %s: it is verified after the next start of the machine", name, error)

    def begin(file_id: FileId) -> None:
        task = asyncio.ensure_future(flush(file_id))
        flushes.add(task)
        task.add_done_callback(flushes.discard)

    return begin
