"""A member of the network: it joins, attends, renews its lease and reports, and joins again after an outage."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from pspd.core.effects.server import Assign, EndCause, EndSession, RemoveFile, StartExchange, VerifyFile
from pspd.core.model.storage import Storage
from pspd.daemon.member.backoff import RejoinBackoff
from pspd.daemon.member.hooks import NO_HOOKS, FileHooks
from pspd.daemon.member.reconciler import FileReconciler
from pspd.daemon.member.reports import Reports
from pspd.daemon.member.route import Route
from pspd.errors import DuplicateInstance, NoDataPath, PspError, StorageError, TimedOut, Unreachable
from pspd.host.addresses import family_of
from pspd.net.faults import Faults
from pspd.rpc.client.answers import Session
from pspd.rpc.client.member import MemberClient
from pspd.rpc.client.retry import RetryPolicy
from pspd.store.digests import blake3_digest

LEAVE_SECONDS = 1.0
"""How long a member that leaves waits for the server."""
RENEWALS_PER_LEASE = 4

TEMPORARY = (Unreachable, TimedOut, DuplicateInstance)
"""Errors of an attempt to join that may pass by themselves."""

log = logging.getLogger(__name__)


class SessionEnded(Exception):
    """The server ended the session; the text says why.

    Attributes:
        cause: why, for programs; None if it is unknown.
    """

    def __init__(self, reason: str, cause: EndCause | None = None) -> None:
        super().__init__(reason)
        self.cause = cause


class ReverificationNeeded(SessionEnded):
    """The member ended the session, to verify files and join again with what it really holds."""


class Stopped(Exception):
    """The server asked the member to stop."""


async def first_of(*awaitables: Awaitable[Any]) -> None:
    """Wait until one of several has ended, cancel the others, and raise the error of the first."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


class MemberDaemon:
    """A client or a source of the network.

    Attributes:
        name: the member's name.
        session: the id of its session; 0 for none.
        ready: set once data could flow in one of its sessions.
        client: its end of the control API.
        files: its files.
    """

    def __init__(
        self,
        route: Route,
        name: str,
        instance_id: bytes,
        storage: Storage,
        *,
        source: bool = False,
        faults: Faults | None = None,
        hooks: FileHooks = NO_HOOKS,
    ) -> None:
        """Prepare a member without a session.

        Args:
            route: the way to its server.
            name: its name.
            instance_id: the identity by which the server recognizes it when it comes back.
            storage: its files.
            source: whether it is a source, which holds a file and wants none.
            faults: faults to inject into the datagrams that it receives.
            hooks: further work for its files.
        """
        self.name = name
        self.session = 0
        self.ready = asyncio.Event()
        self.client = MemberClient(None, route.server, blake3_digest)
        self._reports = Reports(name, self.client)
        self.files = FileReconciler(name, secrets.randbits(64), storage, self._reports, hooks, self._fail, faults)
        self._route = route
        self._instance_id = instance_id
        self._source = source
        self._leaving = False
        self._on_ready: Callable[[], None] = lambda: None
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, connect_seconds: float, on_ready: Callable[[], None]) -> None:
        """Stay a member until asked to stop.

        Args:
            connect_seconds: how long to try to join for the first time, and then for data to pass.
            on_ready: called once, when data can flow.

        Raises:
            Unreachable: no server answered in that time.
            NoDataPath: the server answered, but data does not pass.
            PspError: the server refuses this member, or the store failed.
        """
        self._on_ready = on_ready
        clock = asyncio.get_running_loop().time
        backoff = RejoinBackoff(Random())
        session = await self._join_first(connect_seconds)
        while True:
            joined_at = clock()
            try:
                await self.serve_session(session, None if self.ready.is_set() else connect_seconds)
            except NoDataPath:
                await self.leave()
                raise
            except Stopped:
                log.info("%s: stopping, as `pspctl stop` asked", self.name)
                return
            except SessionEnded as ended:
                if self._leaving:
                    return
                level = logging.WARNING if ended.cause is EndCause.REPLACED else logging.INFO
                log.log(level, "%s: the session ended: %s", self.name, ended)
            except PspError:
                if self._failure.done():
                    raise
                log.info("%s: lost the server: waiting for it to come back", self.name)
            if self._leaving:
                return
            backoff.session_ended(clock() - joined_at)
            await asyncio.sleep(backoff.next_seconds())
            if self.ready.is_set():
                session = await self._rejoin(backoff)
            else:
                session = await self._join_first(connect_seconds)

    async def _join_first(self, connect_seconds: float) -> Session:
        """Join before data has ever passed: errors that do not pass by themselves end the member."""
        policy = RetryPolicy(RejoinBackoff(Random()).next_seconds, connect_seconds)
        policy.note_lost()
        logged = False

        def log_once(error: PspError) -> None:
            nonlocal logged
            if not logged:
                self._log_failed_join(error)
            logged = True

        return await self.join_with(policy, TEMPORARY, log_once)

    async def _rejoin(self, backoff: RejoinBackoff) -> Session:
        """Join after data has passed: only an error of the store ends the member."""
        logged: set[type[PspError]] = {Unreachable, TimedOut}  # the loss of the server has been logged

        def log_each_kind_once(error: PspError) -> None:
            if isinstance(error, StorageError):
                raise error
            log.debug("%s: cannot join: %s", self.name, error)
            if type(error) not in logged:
                self._log_failed_join(error)
                logged.add(type(error))

        session = await self.join_with(RetryPolicy(backoff.next_seconds), (PspError,), log_each_kind_once)
        log.info("%s: joined again", self.name)
        return session

    def _log_failed_join(self, error: PspError) -> None:
        match error:
            case DuplicateInstance():
                log.warning("%s: waiting for the other client to leave: %s", self.name, error)
            case Unreachable() | TimedOut():
                log.info("%s: waiting for the server at %s", self.name, self._route.server)
            case _:
                log.warning("%s: refused, and tries again: %s", self.name, error)

    async def join_with(
        self,
        policy: RetryPolicy,
        retried: tuple[type[PspError], ...],
        on_failure: Callable[[PspError], None],
    ) -> Session:
        """Join; after a failure, try again as long as the policy allows.

        Args:
            policy: decides how long to try, and with which pauses.
            retried: the errors after which to try again.
            on_failure: called with the error of each attempt that is tried again.

        Raises:
            PspError: as in `join`.
        """
        while True:
            try:
                session = await self.join()
            except retried as error:
                pause = policy.pause_after(error)
                on_failure(error)
                await asyncio.sleep(pause)
            else:
                policy.note_answer()
                return session

    async def join(self) -> Session:
        """Join the network, after every file that needs it was verified; return the session.

        Raises:
            StorageError: the file of a source has changed.
            PspError: the server cannot be reached, or refuses.
        """
        try:
            await self.files.reverify()
        except StorageError:
            if self._source:
                raise
        channel, address = await self._route.connect()
        self.client.use(channel)
        held = {} if self._source else self.files.known()
        port = 0
        if not (await self.client.parameters()).kept_links:  # each transfer has a connection of its own
            port = self.files.plane.listen(family_of(address))
        session = await self.client.join(
            self.name, self._instance_id, source=self._source, delivery_port=port, held=held
        )
        self.session = session.session
        self.files.begin_session()
        self.files.plane.join(session.session, (address[0], session.data_port), session.parameters)
        return session

    async def serve_session(self, session: Session, path_seconds: float | None = None) -> None:
        """Follow the server's instructions until the session ends.

        Args:
            session: what the server granted.
            path_seconds: how long to wait for data to pass at the beginning; None not to check.

        Raises:
            SessionEnded: the server ended it.
            NoDataPath: data does not pass.
            Stopped: the member was asked to stop.
            PspError: the server cannot be reached, or the store failed.
        """
        try:
            await first_of(
                self._attend(session),
                self._watch_path(path_seconds),
                self._renew(session),
                self._reports.send(session.session),
                self.files.retry_declined(),
                self.files.watch_finished(),
                self.files.log_reception(),
                self._end_for_reverification(),
                asyncio.shield(self._failure),
            )
        finally:
            self.files.plane.leave()

    async def _watch_path(self, path_seconds: float | None) -> None:
        """Wait until data can flow, report that once, and never return."""
        if path_seconds is not None:
            await self.files.plane.require_path(path_seconds)
            if not self.ready.is_set():
                self.ready.set()
                self._on_ready()
        await asyncio.get_running_loop().create_future()

    async def _attend(self, session: Session) -> None:
        async with contextlib.aclosing(self.client.attend(session.session)) as events:
            async for event in events:
                match event:
                    case Assign(_, manifest, shares, started, division):
                        self.files.take(manifest, shares, started, division)
                    case StartExchange(_, file_id):
                        self.files.start_exchange(file_id)
                    case VerifyFile(_, file_id):
                        self.files.require_reverification(file_id)
                    case RemoveFile(_, file_id):
                        self.files.drop(file_id)
                    case EndSession(_, reason, cause):
                        raise SessionEnded(reason, cause)
                    case None:
                        raise Stopped
        raise SessionEnded("the server closed it")

    async def _renew(self, session: Session) -> None:
        while True:
            await asyncio.sleep(session.lease_seconds / RENEWALS_PER_LEASE)
            try:
                await self.client.renew(session.session)
            except TimedOut:
                log.debug("%s: the server did not answer a renewal", self.name)

    async def _end_for_reverification(self) -> None:
        await self.files.reverification_needed.wait()
        raise ReverificationNeeded("a file may have changed: it is verified again")

    async def leave(self) -> None:
        """Leave the network, if the member has a session; :meth:`run` then ends."""
        self._leaving = True
        session, self.session = self.session, 0
        if session:
            with contextlib.suppress(PspError):
                await self.client.leave(session, LEAVE_SECONDS)

    def close(self) -> None:
        """Close sockets and files."""
        self._failure.cancel()
        self.files.close()

    def _fail(self, error: PspError) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)
