"""A member of the network: it joins, handles the server's events, renews its lease, and rejoins after outages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from pspd.core.effects.server import Assign, EndCause, EndSession, RemoveFile, StartExchange, VerifyFile
from pspd.core.model.storage import Storage
from pspd.daemon.member.reconciler import NO_HOOKS, FileHooks, FileReconciler
from pspd.daemon.member.reports import Reports
from pspd.daemon.member.route import Route
from pspd.errors import DuplicateInstance, NoDataPath, PspError, StorageError, TimedOut, Unreachable
from pspd.host.addresses import family_of
from pspd.net.backoff import Backoff
from pspd.net.faults import Faults
from pspd.rpc.client.member import MemberClient, Session
from pspd.rpc.client.retry import RetryPolicy
from pspd.store.digests import blake3_digest

LEAVE_SECONDS = 1.0
"""How long a member that leaves waits for the server's answer."""
RENEWALS_PER_LEASE = 4
REJOIN_SECONDS_MIN = 0.1
REJOIN_SECONDS_MAX = 2.0
"""Bounds of the delay until a member joins again, without jitter."""
STABLE_SESSION_SECONDS = 30.0
"""A session of at least this length resets the delay. Until then, the delay doubles from attempt to attempt."""

RETRY_ERRORS = (Unreachable, TimedOut, DuplicateInstance)
"""Errors in joining after which a later attempt may succeed."""

log = logging.getLogger(__name__)


class RejoinBackoff(Backoff):
    """Delays that double from attempt to attempt, up to a maximum, until a session lasts `STABLE_SESSION_SECONDS`.

    Args:
        random: the source of jitter.
    """

    def __init__(self, random: Random) -> None:
        super().__init__(REJOIN_SECONDS_MIN, REJOIN_SECONDS_MAX, random)

    def note_session(self, seconds: float) -> None:
        """Start again with the first delay if the session lasted `STABLE_SESSION_SECONDS` or longer."""
        if seconds >= STABLE_SESSION_SECONDS:
            self.reset()


class SessionEnded(Exception):
    """The session has ended; the message says why.

    Attributes:
        cause: the machine-readable cause; None if it is unknown.
    """

    def __init__(self, reason: str, cause: EndCause | None = None) -> None:
        super().__init__(reason)
        self.cause = cause


class ReverificationNeeded(SessionEnded):
    """The member ends the session to verify files, and rejoins with the chunks that it really holds."""


class Stopped(Exception):
    """The server asked the member to stop."""


async def first_of(*awaitables: Awaitable[Any]) -> None:
    """Wait until one awaitable ends, then cancel the others. Raise the error of the one that ended, if it has one."""
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

    Args:
        route: the route to the server.
        name: the member's name.
        instance_id: the identity by which the server recognizes the member when it joins again.
        storage: the store of the member's files.
        source: whether the member is a source, which holds one file and requests none.
        faults: the faults to inject into received datagrams; None for none.
        hooks: the functions that unpack a verified file, flush a finished one, and find external changes of files.

    Attributes:
        name: the member's name.
        session_number: the number of the member's last session; 0 before the first one and after ``leave``.
        ready: set when data can flow for the first time, and never cleared.
        client: the client of the control API.
        reconciler: the reconciler of the member's files.
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
        self.name = name
        self.session_number = 0
        self.ready = asyncio.Event()
        self.client = MemberClient(None, route.server, blake3_digest)
        self._reports = Reports(name, self.client)
        self.reconciler = FileReconciler(name, storage, self._reports, hooks, self._on_store_failure, faults)
        self._route = route
        self._instance_id = instance_id
        self._storage = storage
        self._source = source
        self._leaving = False
        self._on_ready: Callable[[], None] = lambda: None
        self._store_failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, connect_seconds: float, on_ready: Callable[[], None]) -> None:
        """Join, and stay a member until the server asks the member to stop or ``leave`` is called; rejoin if needed.

        Args:
            connect_seconds: how long to try to join, and then to wait until data can flow. After data has flowed once,
                there is no limit.
            on_ready: called once, when data can flow.

        Raises:
            Unreachable: no server answered within `connect_seconds`.
            NoDataPath: the server answered, but data cannot flow.
            PspError: the server refuses this member, or the store failed.
        """
        self._on_ready = on_ready
        clock = asyncio.get_running_loop().time
        backoff = RejoinBackoff(Random())
        while True:
            seconds_max = None if self.ready.is_set() else connect_seconds
            session = await self._join_and_log(backoff, seconds_max)
            joined_at = clock()
            try:
                await self.run_session(session, seconds_max)
            except NoDataPath:
                await self.leave()
                raise
            except Stopped:
                log.info("%s: stopping: a `pspctl stop` command asked it to stop", self.name)
                return
            except SessionEnded as ended:
                if self._leaving:
                    return
                level = logging.WARNING if ended.cause is EndCause.REPLACED else logging.INFO
                log.log(level, "%s: the session ended: %s", self.name, ended)
            except PspError:
                if self._store_failure.done():
                    raise
                log.info("%s: lost the server: waiting for it to come back", self.name)
            if self._leaving:
                return
            backoff.note_session(clock() - joined_at)
            await asyncio.sleep(backoff.next_seconds())

    async def _join_and_log(self, backoff: RejoinBackoff, seconds_max: float | None) -> Session:
        """Join, and log each kind of failure once; return the session.

        Until data has flowed for the first time, only temporary errors lead to another attempt. Afterwards, all errors
        do, except the store's.

        Args:
            backoff: the delays between attempts after the first session with data.
            seconds_max: how long to try, if data has never flowed; otherwise None, for no limit.
        """
        before_first_data = seconds_max is not None
        logged: set[type[PspError]] = (
            set() if before_first_data else {Unreachable, TimedOut}
        )  # the loss has been logged
        pauses = RejoinBackoff(Random()) if before_first_data else backoff  # rejoins begin with short pauses
        policy = RetryPolicy(pauses.next_seconds, seconds_max)
        policy.note_lost()

        def log_each_kind_once(error: PspError) -> None:
            if isinstance(error, StorageError):
                raise error
            log.debug("%s: cannot join: %s", self.name, error)
            if type(error) in logged:
                return
            logged.add(type(error))
            match error:
                case DuplicateInstance():
                    log.warning("%s: waiting for the other client to leave: %s", self.name, error)
                case Unreachable() | TimedOut():
                    log.info("%s: waiting for the server at %s", self.name, self._route.server)
                    logged.update((Unreachable, TimedOut))
                case _:
                    log.warning("%s: the server refused it; trying again: %s", self.name, error)

        session = await self.join_retrying(
            policy, RETRY_ERRORS if before_first_data else (PspError,), log_each_kind_once
        )
        if not before_first_data:
            log.info("%s: joined again", self.name)
        return session

    async def join_retrying(
        self, policy: RetryPolicy, retried: tuple[type[PspError], ...], on_failure: Callable[[PspError], None]
    ) -> Session:
        """Join; after a failure, try again as long as the policy allows. Return the session.

        Args:
            policy: the policy that decides how long to try, and with which pauses.
            retried: the errors after which to try again.
            on_failure: called with the error of each failed attempt that another attempt follows.

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
        """Verify the files that need it, join the network, and open the sockets for data; return the session.

        Raises:
            StorageError: the file of a source has changed, or cannot be read.
            PspError: the server cannot be reached, or refuses the member.
        """
        try:
            await self.reconciler.reverify()
        except StorageError:
            if self._source:
                raise
        channel, address = await self._route.connect()
        self.client.use(channel)
        held = {} if self._source else self._storage.known()
        port = 0
        if not (await self.client.parameters()).kept_links:  # each transfer has its own connection
            port = self.reconciler.plane.listen(family_of(address))
        session = await self.client.join(
            self.name, self._instance_id, source=self._source, delivery_port=port, held=held
        )
        self.session_number = session.number
        self.reconciler.begin_session()
        self.reconciler.plane.join(session.number, (address[0], session.data_port), session.parameters)
        return session

    async def run_session(self, session: Session, path_seconds: float | None = None) -> None:
        """Handle the server's events until the session ends; then close the sockets for data.

        Args:
            session: the session that the server granted.
            path_seconds: how long to wait at the beginning until data can flow; None to skip this check.

        Raises:
            SessionEnded: the server ended the session, or the member must verify files.
            NoDataPath: data cannot flow.
            Stopped: the member was asked to stop.
            PspError: the server cannot be reached or does not know the session, or the store failed.
        """
        try:
            await first_of(
                self._follow_instructions(session),
                self._watch_path(path_seconds),
                self._renew(session),
                self._reports.send(session.number),
                self.reconciler.retry_declined(),
                self.reconciler.watch_finished(),
                self.reconciler.log_reception(),
                self._end_for_reverification(),
                asyncio.shield(self._store_failure),
            )
        finally:
            self.reconciler.plane.leave()

    async def _watch_path(self, path_seconds: float | None) -> None:
        """Wait until data can flow, unless `path_seconds` is None; call `on_ready` the first time. Never return."""
        if path_seconds is not None:
            await self.reconciler.plane.wait_for_data_path(path_seconds)
            if not self.ready.is_set():
                self.ready.set()
                self._on_ready()
        await asyncio.get_running_loop().create_future()

    async def _follow_instructions(self, session: Session) -> None:
        """Follow the server's instructions; raise SessionEnded when the server ends the session, Stopped if it asks."""
        async with contextlib.aclosing(self.client.attend(session.number)) as events:
            async for event in events:
                match event:
                    case Assign(_, manifest, shares, exchange_started, division):
                        self.reconciler.take(manifest, shares, exchange_started, division)
                    case StartExchange(_, file_id):
                        self.reconciler.start_exchange(file_id)
                    case VerifyFile(_, file_id):
                        self.reconciler.require_reverification(file_id)
                    case RemoveFile(_, file_id):
                        self.reconciler.drop(file_id)
                    case EndSession(_, reason, cause):
                        raise SessionEnded(reason, cause)
                    case None:  # STOP_ASKED
                        raise Stopped
        raise SessionEnded("the server closed it")

    async def _renew(self, session: Session) -> None:
        while True:
            await asyncio.sleep(session.lease_seconds / RENEWALS_PER_LEASE)
            try:
                await self.client.renew(session.number)
            except TimedOut:
                log.debug("%s: the server did not answer a renewal", self.name)

    async def _end_for_reverification(self) -> None:
        await self.reconciler.reverification_needed.wait()
        raise ReverificationNeeded("a file may have changed: it is verified again")

    async def leave(self) -> None:
        """Leave the network, if the member has a session. `run` ends when the session has ended."""
        self._leaving = True
        number, self.session_number = self.session_number, 0
        if number:
            with contextlib.suppress(PspError):
                await self.client.leave(number, LEAVE_SECONDS)

    def close(self) -> None:
        """Close sockets and files."""
        self._store_failure.cancel()
        self.reconciler.close()

    def _on_store_failure(self, error: PspError) -> None:
        if not self._store_failure.done():
            self._store_failure.set_exception(error)
