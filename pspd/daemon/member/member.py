"""A member's life: join, attend, renew, report; and join again when the server was away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from random import Random

from pspd.core.effects.server import Assign, EndCause, EndSession, RemoveFile, StartExchange, VerifyFile
from pspd.core.model.storage import Storage
from pspd.daemon.client.reconciler import NO_CARE, Care, Keeper
from pspd.daemon.member.backoff import REJOIN_SECONDS_MAX, REJOIN_SECONDS_MIN, RejoinBackoff
from pspd.daemon.member.reports import Reports
from pspd.daemon.member.route import Route
from pspd.daemon.process import first_of
from pspd.errors import DuplicateInstance, NoDataPath, PspError, StorageError, TimedOut, Unreachable
from pspd.host.addresses import family_of
from pspd.net.faults import Faults
from pspd.rpc.client.answers import Session
from pspd.rpc.client.member import MemberClient
from pspd.store.digests import blake3_digest

LEAVE_SECONDS = 1.0
RENEWALS_PER_LEASE = 4

log = logging.getLogger(__name__)


class Ended(Exception):
    """The server ended the session; its text says why.

    Attributes:
        cause: why, as a program reads it; None if that is not known.
    """

    def __init__(self, reason: str, cause: EndCause | None = None) -> None:
        super().__init__(reason)
        self.cause = cause


class Suspected(Ended):
    """This side ended it, to begin anew with the truth of what is held."""


class Stopped(Exception):
    """The member was asked to stop."""


class MemberDaemon:
    """A client or a source of the network.

    Args:
        route: its way to the server.
        name: the member's name.
        instance_id: who comes back under its name is known by it.
        storage: its files.
        source: it holds a file whole and wants none.
        care: what is to be done for its files besides.

    Attributes:
        session: its session; 0 for none.
        ready: set once data could flow in one of its sessions.
        client: what it says to the server.
        files: what becomes of its files.
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
        care: Care = NO_CARE,
    ) -> None:
        self.name = name
        self.session = 0
        self.ready = asyncio.Event()
        self.client = MemberClient(None, route.server, blake3_digest)
        self._reports = Reports(name, self.client)
        self.files = Keeper(name, secrets.randbits(64), storage, self._reports, care, self._fail, faults)
        self._route = route
        self._instance_id = instance_id
        self._source = source
        self._leaving = False
        self._on_ready: Callable[[], None] = lambda: None
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, connect_seconds: float, on_ready: Callable[[], None]) -> None:
        """Stays a member until asked to stop.

        Args:
            connect_seconds: how long to try for the first session, and then for data to pass in it.
            on_ready: called once, when data can flow.

        Raises:
            Unreachable: no server answered in that time.
            NoDataPath: a server did, but data does not pass.
            PspError: the server does not take this member, or the store failed.
        """
        self._on_ready = on_ready
        clock = asyncio.get_running_loop().time
        session = await self._join_first(connect_seconds)
        backoff = RejoinBackoff(Random())
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
            except Ended as ended:
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
            if self.ready.is_set():
                session = await self._join_again(backoff)
            else:
                await asyncio.sleep(backoff.next_seconds())
                session = await self._join_first(connect_seconds)

    async def _join_first(self, connect_seconds: float) -> Session:
        deadline = asyncio.get_running_loop().time() + connect_seconds
        delay = REJOIN_SECONDS_MIN
        while True:
            try:
                return await self.join()
            except (Unreachable, TimedOut, DuplicateInstance) as error:
                if asyncio.get_running_loop().time() + delay > deadline:
                    raise
                if delay == REJOIN_SECONDS_MIN:
                    self._tell_waiting(error)
            await asyncio.sleep(delay)
            delay = min(2 * delay, REJOIN_SECONDS_MAX)

    def _tell_waiting(self, error: PspError) -> None:
        match error:
            case DuplicateInstance():
                log.warning("%s: waiting for the other client to go: %s", self.name, error)
            case Unreachable() | TimedOut():
                log.info("%s: waiting for the server at %s", self.name, self._route.server)
            case _:
                log.warning("%s: refused, and tries again: %s", self.name, error)

    async def _join_again(self, backoff: RejoinBackoff) -> Session:
        told: type[PspError] | None = None
        while True:
            await asyncio.sleep(backoff.next_seconds())
            try:
                session = await self.join()
            except StorageError:
                raise
            except PspError as error:
                log.debug("%s: cannot join: %s", self.name, error)
                if type(error) is not told and not isinstance(error, Unreachable | TimedOut):
                    self._tell_waiting(error)
                    told = type(error)
            else:
                log.info("%s: joined again", self.name)
                return session

    async def join(self) -> Session:
        """Becomes a member; where each transfer has a connection of its own, with a port to take deliveries on.

        Raises:
            StorageError: the file of a source is not what it was.
            PspError: the server cannot be reached, or refuses.
        """
        try:
            await self.files.verify_suspects()
        except StorageError:
            if self._source:
                raise
        channel, address = await self._route.connect()
        self.client.use(channel)
        held = {} if self._source else self.files.known()
        port = 0
        if not (await self.client.parameters()).kept_links:
            port = self.files.plane.listen(family_of(address))
        session = await self.client.join(
            self.name, self._instance_id, source=self._source, delivery_port=port, held=held
        )
        self.session = session.session
        self.files.begin_session()
        self.files.plane.join(session.session, (address[0], session.data_port), session.parameters)
        return session

    async def serve_session(self, session: Session, path_seconds: float | None = None) -> None:
        """Does what the server asks, for as long as the session lasts.

        Args:
            session: what the server granted.
            path_seconds: how long data may not pass at the beginning; None for any time.

        Raises:
            Ended: the server ended it.
            NoDataPath: data does not pass.
            Stopped: the member was asked to stop.
            PspError: the server cannot be reached, or the store failed.
        """
        try:
            await first_of(
                self._attend(session),
                self._watch_path(path_seconds),
                self._renew(session),
                self._reports.tell(session.session),
                self.files.take_refused(),
                self.files.look_after_finished(),
                self.files.log_reception(),
                self._end_on_suspicion(),
                asyncio.shield(self._failure),
            )
        finally:
            self.files.plane.leave()

    async def _watch_path(self, path_seconds: float | None) -> None:
        """Waits until data can flow, says so once, and never returns."""
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
                        self.files.suspect(file_id)
                    case RemoveFile(_, file_id):
                        self.files.drop(file_id)
                    case EndSession(_, reason, cause):
                        raise Ended(reason, cause)
                    case None:
                        raise Stopped
        raise Ended("the server closed it")

    async def _renew(self, session: Session) -> None:
        while True:
            await asyncio.sleep(session.lease_seconds / RENEWALS_PER_LEASE)
            try:
                await self.client.renew(session.session)
            except TimedOut:
                log.debug("%s: a renewal got no answer", self.name)

    async def _end_on_suspicion(self) -> None:
        await self.files.suspicion.wait()
        raise Suspected("a file is not what it was: it is verified anew")

    async def leave(self) -> None:
        """Says goodbye, if there is anyone to say it to; :meth:`run` then ends."""
        self._leaving = True
        session, self.session = self.session, 0
        if session:
            with contextlib.suppress(PspError):
                await self.client.leave(session, LEAVE_SECONDS)

    def close(self) -> None:
        """Closes sockets and files."""
        self._failure.cancel()
        self.files.close()

    def _fail(self, error: PspError) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)
