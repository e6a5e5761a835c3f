"""The source: what ``pspctl seed`` is while it seeds. It holds every chunk and wants none (R1, R2)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pspd.core.model.manifest import Manifest
from pspd.core.model.terms import ONE_COPY, Terms, source_is_needed
from pspd.daemon.member.member import Ended, MemberDaemon, Stopped, Suspected
from pspd.daemon.member.route import Route
from pspd.daemon.process import first_of
from pspd.errors import (
    DuplicateInstance,
    NotFound,
    PspError,
    SessionUnknown,
    StorageError,
    TimedOut,
    Unreachable,
    WrongState,
)
from pspd.rpc.client.answers import Session
from pspd.store.digests import blake3_digest
from pspd.store.source.parallel_hash import ParallelHash
from pspd.store.source.source_store import SourceStore, name_of
from pspd.v1 import network_pb2

PROGRESS_SECONDS = 0.2
PROGRESS_SECONDS_PER_CLIENT = 0.004
"""How often the source looks how far the clients are: each of them costs the server some 40 us every time."""
REJOIN_SECONDS = 0.5
PATH_SECONDS = 10.0
"""How long a source waits for data to pass between it and the server."""
PATH_SECONDS_LATER = 60.0
"""The same in a later session, when data has passed before: as long as for a server that is away."""


@dataclass(frozen=True, slots=True)
class SeedProgress:
    """How far a seeding is.

    Attributes:
        phase: "hashing", "waiting" (for clients), "seeding", "staying" (in the exchange), or "reconnecting" to a server
            that was lost.
        done: bytes hashed, clients joined, or chunks of shares held.
        total: the bytes, the clients waited for, or the chunks of all shares.
        file: the file as the server shows it, from when it is divided.
    """

    phase: str
    done: int = 0
    total: int = 0
    file: network_pb2.File | None = None


OnProgress = Callable[[SeedProgress], None]


async def seed(
    server: str,
    path: Path,
    *,
    name: str | None = None,
    client_count: int = 0,
    hold_back: bool = False,
    terms: Terms = ONE_COPY,
    hashing: ParallelHash | None = None,
    on_progress: OnProgress,
) -> bytes:
    """Brings a file into the network and stays until every share is held (R1, R2), or longer. Returns its id.

    Args:
        server: the control API's address.
        path: the file, or the folder.
        name: what clients call it; its own name if None.
        client_count: clients to wait for, and shares to divide into; 0 for those that are there.
        hold_back: hold the exchange back at the seeded moment, until it is released.
        terms: how it is to be seeded. Where every holder answers each broadcast nobody is a last resort, and the
            source does not stay.
        hashing: the digests that other processes are computing of the file.

    Raises:
        PspError: it cannot be read, reached, or is refused.
    """
    store = SourceStore(path, name_of(path) if name is None else name, blake3_digest)
    route = Route(server)
    try:
        manifest = await _built(store, hashing, on_progress)
        identity = f"source-{os.getpid()}-{secrets.token_hex(4)}"
        member = MemberDaemon(route, identity, secrets.token_bytes(16), store, source=True)
        try:
            await _Seeding(member, store, manifest, client_count, hold_back, terms, on_progress).run()
        finally:
            await member.leave()
            member.close()
    finally:
        store.close()
        await route.close()
    return manifest.file_id


async def _built(store: SourceStore, hashing: ParallelHash | None, on_progress: OnProgress) -> Manifest:
    """Reads the file in a thread, which stops soon if this is cancelled."""
    stopping = False

    def tell(done: int) -> None:
        if stopping:
            raise Stopped
        on_progress(SeedProgress("hashing", done, store.size_bytes))

    try:
        return await asyncio.to_thread(store.build, tell, hashing)
    finally:
        stopping = True
        if hashing is not None:
            hashing.stop()


def folder_digest(folder: Path) -> bytes:
    """What is the same for two folders with the same in them, and for no others.

    Raises:
        PspError: it cannot be read, or could not be seeded.
    """
    with contextlib.closing(SourceStore(folder, "folder", blake3_digest)) as store:
        return store.build().file_id


class _Seeding:
    """One file's way from its source to the seeded moment, over as many sessions as it takes."""

    def __init__(
        self,
        member: MemberDaemon,
        store: SourceStore,
        manifest: Manifest,
        client_count: int,
        hold_back: bool,
        terms: Terms,
        on_progress: OnProgress,
    ) -> None:
        self._member = member
        self._store = store
        self._manifest = manifest
        self._client_count = client_count
        self._hold_back = hold_back
        self._terms = terms
        self._on_progress = on_progress
        self._divided_here = False

    async def run(self) -> None:
        """Seeds; joins again when the server was away.

        Raises:
            StorageError: the file is not what it was; part of that may be with clients by now.
            PspError: the server cannot be reached, or refuses.
        """
        try:
            await self._run()
        except StorageError as error:
            if not self._divided_here:
                raise
            file = shlex.quote(self._manifest.name)
            raise StorageError(f"{error}, after `pspctl rm --force {file}`: clients hold part of what it was") from None

    async def _run(self) -> None:
        session = await self._join_again(0.0)  # it was there before the file was read
        while True:
            self._terms = replace(self._terms, stays=self._terms.stays and not session.parameters.all_holders_answer)
            try:
                path_seconds = PATH_SECONDS_LATER if self._member.ready.is_set() else PATH_SECONDS
                await first_of(self._member.serve_session(session, path_seconds), self._work())
                return
            except Stopped:
                raise WrongState("the server asked the source to stop: seed again to finish") from None
            except (Ended, SessionUnknown, Unreachable, TimedOut) as ended:
                if await self._is_over():
                    return
                if not isinstance(ended, Suspected):
                    self._on_progress(SeedProgress("reconnecting"))
            session = await self._join_again(REJOIN_SECONDS)

    async def _join_again(self, delay: float) -> Session:
        while True:
            await asyncio.sleep(delay)
            try:
                return await self._member.join()
            except (Unreachable, TimedOut, DuplicateInstance):
                self._on_progress(SeedProgress("reconnecting"))
            delay = REJOIN_SECONDS

    async def _work(self) -> None:
        """Announces, divides, and watches until the file no longer needs its source.

        A source that cannot send anything announces nothing: the file would stay in the network, stalled.
        """
        await self._member.ready.wait()
        session = self._member.session
        share_count, file = await self._announce(session)
        if share_count:
            self._manifest = await asyncio.to_thread(self._store.divided, share_count)
        self._member.files.machine.hold_whole(self._manifest)
        if share_count:
            await self._member.client.divide(self._manifest, session, self._hold_back)
            self._divided_here = True
            file = await self._file()
        while not _needs_no_source(file, self._terms, divided_here=self._divided_here):
            _refuse_if_nobody_takes(file)
            self._tell_file(file)
            await asyncio.sleep(pause_seconds(len(file.clients)))
            file = await self._file()

    async def _announce(self, session: int) -> tuple[int, network_pb2.File]:
        """Tells of the file, and shows how many clients are there while it is waited for them."""
        call = asyncio.ensure_future(
            self._member.client.announce(self._manifest, session, self._client_count, self._terms)
        )
        try:
            while not (await asyncio.wait([call], timeout=PROGRESS_SECONDS))[0]:
                await self._tell_waiting()
            return call.result()
        finally:
            call.cancel()

    async def _is_over(self) -> bool:
        """Whether the session ended because the source may go: the server lets it go then."""
        try:
            return _needs_no_source(await self._file(), self._terms, divided_here=self._divided_here)
        except PspError:
            return False

    async def _file(self) -> network_pb2.File:
        status = await self._member.client.status(self._manifest.file_id.hex(), with_file_clients=True)
        if not status.files:
            raise NotFound(f"the server no longer knows {self._manifest.name!r}: seed it again")
        return status.files[0]

    async def _tell_waiting(self) -> None:
        status = await self._member.client.status("", with_file_clients=False)
        joined = sum(
            client.state == network_pb2.CLIENT_STATE_CONNECTED and not client.source for client in status.clients
        )
        self._on_progress(SeedProgress("waiting", joined, max(self._client_count, self._terms.replica_count)))

    def _tell_file(self, file: network_pb2.File) -> None:
        if file.seeded:
            self._on_progress(SeedProgress("staying", file=file))
        else:
            held = sum(min(client.held_chunk_count, client.share_chunk_count) for client in file.clients)
            total = max(self._manifest.chunk_count, sum(client.share_chunk_count for client in file.clients))
            self._on_progress(SeedProgress("seeding", held, total, file))


def pause_seconds(client_count: int) -> float:
    """How long a source waits until it looks again."""
    return max(PROGRESS_SECONDS, PROGRESS_SECONDS_PER_CLIENT * client_count)


def _refuse_if_nobody_takes(file: network_pb2.File) -> None:
    refusals = [client for client in file.clients if client.refusal]
    if refusals and len(refusals) == len(file.clients):
        raise WrongState(f"no client takes {file.name!r}; {refusals[0].name} says: {refusals[0].refusal}")


def _needs_no_source(file: network_pb2.File, terms: Terms, *, divided_here: bool) -> bool:
    """Whether the source may go: on the terms on which it came, if it seeded the file, or when it is repaired."""
    return file.seeded and not source_is_needed(
        stays=terms.stays,
        divided_here=divided_here,
        is_complete=file.state == network_pb2.FILE_STATE_COMPLETE,
        min_holder_count=file.min_holder_count,
    )
