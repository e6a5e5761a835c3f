"""Seeds a file for ``pspctl seed``. The source is a member that holds every chunk and requests none (R1, R2)."""

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
from pspd.daemon.member.member import RETRY_ERRORS, MemberDaemon, ReverificationNeeded, SessionEnded, Stopped, first_of
from pspd.daemon.member.route import Route
from pspd.errors import NotFound, PspError, SessionUnknown, StorageError, TimedOut, Unreachable, WrongState
from pspd.rpc.client.retry import RetryPolicy
from pspd.store.digests import blake3_digest
from pspd.store.source.parallel_hash import ParallelHash
from pspd.store.source.source_store import SourceStore, name_of
from pspd.v1 import network_pb2

POLL_SECONDS_MIN = 0.2
POLL_SECONDS_PER_CLIENT = 0.004
"""The pause between two polls of the progress, at least and per client. A poll costs the server about 40 us per client,
so polling takes at most 1 % of its time."""
REJOIN_SECONDS = 0.5
"""The pause before the source joins again."""
FIRST_PATH_SECONDS = 10.0
"""How long a source waits until data can flow, if no data could flow in an earlier session."""
LATER_PATH_SECONDS = 60.0
"""How long a source waits until data can flow, if data could flow in an earlier session: time for an outage to end."""


@dataclass(frozen=True, slots=True)
class SeedProgress:
    """The progress of a seeding.

    Attributes:
        phase: "hashing", "waiting" (for clients), "seeding", "staying" (in the exchange), or "reconnecting" (after the
            loss of the server).
        done: the number of bytes hashed, of clients joined, or of chunks of shares held, depending on the phase; 0
            in the phases "staying" and "reconnecting".
        total: the number of all bytes, of clients to wait for, or of chunks of all shares; 0 in the
            phases "staying" and "reconnecting".
        file: the server's status of the file; None before the division and in "reconnecting".
    """

    phase: str
    done: int = 0
    total: int = 0
    file: network_pb2.File | None = None


RECONNECTING = SeedProgress("reconnecting")
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
    """Seed a file, and stay at least until every share is held (R1, R2); return the file's id.

    Args:
        server: the address of the control API.
        path: the file or folder.
        name: the file's name in the network; None for the last part of `path`.
        client_count: how many clients to wait for, and into how many shares to divide the file; 0 for one client per
            replica, and one share for each reachable client.
        hold_back: whether the exchange waits for `pspctl release`.
        terms: the terms of the seeding. `Terms.source_stays` has no effect in a profile in which every holder answers
            each broadcast, because the source cannot be the holder of last resort there.
        hashing: the processes that compute the digests of the file in advance; None for none.
        on_progress: called often with the progress; during the hashing, in another thread.

    Raises:
        PspError: the file cannot be read, or the server cannot be reached or refuses.
    """
    store = SourceStore(path, name_of(path) if name is None else name, blake3_digest)
    route = Route(server)
    try:
        manifest = await _build_manifest(store, hashing, on_progress)
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


async def _build_manifest(store: SourceStore, hashing: ParallelHash | None, on_progress: OnProgress) -> Manifest:
    """Build the file's manifest in a thread, which stops soon if this call is cancelled; return the manifest.

    Args:
        store: the source's store, which reads the file.
        hashing: the processes that compute the digests of the file in advance; None for none.
        on_progress: called often with the progress, in the thread.
    """
    stopping = False

    def report(done: int) -> None:
        if stopping:
            raise asyncio.CancelledError
        on_progress(SeedProgress("hashing", done, store.size_bytes))

    try:
        return await asyncio.to_thread(store.build_manifest, report, hashing)
    finally:
        stopping = True
        if hashing is not None:
            hashing.kill()


def folder_digest(folder: Path) -> bytes:
    """Return a digest of a folder's contents.

    Raises:
        PspError: the folder cannot be read, or has contents that cannot be seeded.
    """
    with contextlib.closing(SourceStore(folder, "folder", blake3_digest)) as store:
        return store.build_manifest().file_id


@dataclass(slots=True)
class _Seeding:
    """The seeding of one file, in one or more sessions.

    Attributes:
        member: the source.
        store: the source's store, which reads the file.
        manifest: the file's manifest, without shares until this source divides the file.
        client_count: how many clients to wait for; 0 for one per replica.
        hold_back: whether the exchange waits for `pspctl release`.
        terms: the terms of the seeding.
        on_progress: called often with the progress.
        divided_here: whether this source has divided the file. Otherwise the source only repairs an earlier seeding.
    """

    member: MemberDaemon
    store: SourceStore
    manifest: Manifest
    client_count: int
    hold_back: bool
    terms: Terms
    on_progress: OnProgress
    divided_here: bool = False

    async def run(self) -> None:
        """Seed the file; join again after an outage of the server.

        Raises:
            StorageError: the file has changed, or cannot be read.
            PspError: the server cannot be reached, or refuses.
        """
        try:
            await self._run()
        except StorageError as error:
            if not self.divided_here:
                raise
            file = shlex.quote(self.manifest.name)
            advice = f"after `pspctl rm --force {file}`: clients have parts of its old bytes"
            raise StorageError(f"{error}, {advice}") from None

    async def _run(self) -> None:
        """Join and seed, in one session after another, until the file needs no source."""
        policy = RetryPolicy(lambda: REJOIN_SECONDS)  # the command limits the length of an outage
        while True:
            session = await self.member.join_retrying(policy, RETRY_ERRORS, lambda _: self.on_progress(RECONNECTING))
            stays = self.terms.source_stays and not session.parameters.all_holders_answer
            self.terms = replace(self.terms, source_stays=stays)
            try:
                path_seconds = LATER_PATH_SECONDS if self.member.ready.is_set() else FIRST_PATH_SECONDS
                await first_of(self.member.run_session(session, path_seconds), self._seed_in_session())
                return
            except Stopped:
                raise WrongState("the server asked the source to stop: seed again to finish") from None
            except (SessionEnded, SessionUnknown, Unreachable, TimedOut) as ended:
                if not await self._needs_this_source():
                    return
                if not isinstance(ended, ReverificationNeeded):
                    self.on_progress(RECONNECTING)
            await asyncio.sleep(REJOIN_SECONDS)

    async def _seed_in_session(self) -> None:
        """Wait until data can flow, announce the file, divide it if needed, and wait until it needs no source.

        Without the first wait, a source that cannot send data would leave a stalled file in the network.
        """
        await self.member.ready.wait()
        session = self.member.session_number
        share_count, file = await self._announce(session)
        if share_count:
            self.manifest = await asyncio.to_thread(self.store.divide, share_count)
        self.member.reconciler.machine.contribute_as_source(self.manifest)
        if share_count:
            await self.member.client.divide(self.manifest, session, self.hold_back)
            self.divided_here = True
            file = await self._file_status()
        while _needs_source(file, self.terms, divided_here=self.divided_here):
            _require_accepting_client(file)
            self._report_file(file)
            await asyncio.sleep(poll_seconds(len(file.clients)))
            file = await self._file_status()

    async def _announce(self, session: int) -> tuple[int, network_pb2.File]:
        """Announce the file; return the number of shares (0 if it is divided already) and the file's status.

        During the call, report the number of clients.
        """
        call = asyncio.ensure_future(self.member.client.announce(self.manifest, session, self.client_count, self.terms))
        try:
            while not (await asyncio.wait([call], timeout=POLL_SECONDS_MIN))[0]:
                await self._report_waiting()
            return call.result()
        finally:
            call.cancel()

    async def _needs_this_source(self) -> bool:
        """Return whether the file still needs this source; True also if this is unknown."""
        try:
            return _needs_source(await self._file_status(), self.terms, divided_here=self.divided_here)
        except PspError:
            return True

    async def _file_status(self) -> network_pb2.File:
        status = await self.member.client.status(self.manifest.file_id.hex(), with_file_clients=True)
        if not status.files:
            raise NotFound(f"the server no longer knows {self.manifest.name!r}: seed it again")
        return status.files[0]

    async def _report_waiting(self) -> None:
        """Report how many clients have joined."""
        status = await self.member.client.status("", with_file_clients=False)
        joined = sum(
            client.state == network_pb2.CLIENT_STATE_CONNECTED and not client.source for client in status.clients
        )
        self.on_progress(SeedProgress("waiting", joined, max(self.client_count, self.terms.replica_count)))

    def _report_file(self, file: network_pb2.File) -> None:
        if file.seeded:
            self.on_progress(SeedProgress("staying", file=file))
        else:
            held = sum(min(client.held_chunk_count, client.share_chunk_count) for client in file.clients)
            total = max(self.manifest.chunk_count, sum(client.share_chunk_count for client in file.clients))
            self.on_progress(SeedProgress("seeding", held, total, file))


def poll_seconds(client_count: int) -> float:
    """Return the pause between two polls of the progress, in seconds."""
    return max(POLL_SECONDS_MIN, POLL_SECONDS_PER_CLIENT * client_count)


def _require_accepting_client(file: network_pb2.File) -> None:
    """Raise an error if every client has declined the file."""
    refusals = [client for client in file.clients if client.refusal]
    if refusals and len(refusals) == len(file.clients):
        raise WrongState(f"no client takes {file.name!r}; {refusals[0].name} says: {refusals[0].refusal}")


def _needs_source(file: network_pb2.File, terms: Terms, *, divided_here: bool) -> bool:
    """Return whether a file still needs its source.

    Args:
        file: the server's status of the file.
        terms: the terms of the seeding.
        divided_here: whether this source has divided the file.
    """
    return not file.seeded or source_is_needed(
        terms,
        divided_here=divided_here,
        is_complete=file.state == network_pb2.FILE_STATE_COMPLETE,
        min_holder_count=file.min_holder_count,
    )
