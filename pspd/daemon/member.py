"""A member's life: join, attend, renew, report; and join again when the server was away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from random import Random

import grpc

from pspd.config import parse_address
from pspd.core.client import ClientMachine
from pspd.core.effects import (
    Address,
    Assign,
    EndSession,
    FileSuspected,
    FinishFile,
    InputDropped,
    RemoveFile,
    ReportMilestone,
    ServerHeard,
    StartExchange,
)
from pspd.core.manifest import FileId, Manifest
from pspd.core.storage import Storage
from pspd.daemon.process import first_of
from pspd.daemon.reports import Reports
from pspd.errors import IntegrityError, PspError, StorageError, TimedOut, Unreachable
from pspd.net.client import ClientPlane
from pspd.net.driver import now_ns
from pspd.net.faults import Faults
from pspd.rpc.client import MemberClient, Session
from pspd.rpc.translate import Declined
from pspd.store.digests import blake3_digest
from pspd.store.disk import Touched

REJOIN_SECONDS_MIN = 0.1
REJOIN_SECONDS_MAX = 2.0
LEAVE_SECONDS = 1.0
RENEWALS_PER_LEASE = 4
REFUSED_SECONDS_MIN = 5.0
REFUSED_SECONDS_MAX = 300.0
"""After so long a client tries again to take a file that it could not take, as somebody may have made room: later and
later, for to look at a large file that is in the way takes time."""

LOOK_SECONDS = 5.0
"""How often a client looks whether its finished files are still there, and still what they were."""

_UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "::1"}

log = logging.getLogger(__name__)


class Ended(Exception):
    """The server ended the session; its text says why."""


class Suspected(Ended):
    """This side ended it, to begin anew with the truth of what is held."""


class Stopped(Exception):
    """The member was asked to stop."""


class _Refused:
    """A file that could not be taken, whether its exchange has started, and when it is tried again."""

    __slots__ = ("delay", "manifest", "started", "try_at")

    def __init__(self, manifest: Manifest, started: bool, now: float) -> None:
        self.manifest = manifest
        self.started = started
        self.delay = REFUSED_SECONDS_MIN
        self.try_at = now + self.delay

    def put_off(self, now: float) -> None:
        self.delay = min(2 * self.delay, REFUSED_SECONDS_MAX)
        self.try_at = now + self.delay


class MemberDaemon:
    """A client or a source of the network.

    Args:
        server: the control API's address.
        name: the member's name.
        instance_id: who comes back under its name is known by it.
        storage: its files.
        source: it holds a file whole and wants none.
        on_finished: told of each file that has become visible.
        unpacking_of: gives what is to be done, in a thread, before a verified file is finished; None for nothing.
        touched: tells with which finished files somebody has meddled.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        server: str,
        name: str,
        instance_id: bytes,
        storage: Storage,
        *,
        source: bool = False,
        faults: Faults | None = None,
        on_finished: Callable[[FileId], None] = lambda _: None,
        unpacking_of: Callable[[FileId], Callable[[], None] | None] = lambda _: None,
        touched: Callable[[], Touched] = lambda: Touched({}, []),
    ) -> None:
        self.name = name
        self.session = 0
        self.client = MemberClient(channel, server, blake3_digest)
        self.machine = ClientMachine(Random(instance_id).getrandbits(64))
        self._server = server
        self._instance_id = instance_id
        self._storage = storage
        self._source = source
        self._on_finished = on_finished
        self._unpacking_of = unpacking_of
        self._touched = touched
        self._gone: dict[FileId, str] = {}  # what somebody has removed here, and how we say so
        self._unpacking: dict[FileId, asyncio.Task[None]] = {}
        self._removed: set[FileId] = set()  # while they were unpacked
        self._leaving = False
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._refused: dict[FileId, _Refused] = {}
        self._suspects: dict[FileId, None] = {}
        self._suspicion = asyncio.Event()
        self.plane = ClientPlane(self.machine, storage, self._on_effect, self._suspect, self._fail, faults)
        self._reports = Reports(name, self.client)

    async def run(self, connect_seconds: float, on_joined: Callable[[], None]) -> None:
        """Stays a member until asked to stop.

        Args:
            connect_seconds: how long to try for the first session.
            on_joined: called once, when the first session stands.

        Raises:
            Unreachable: no server answered in that time.
            PspError: the server does not take this member, or the store failed.
        """
        session = await self._join_first(connect_seconds)
        on_joined()
        while True:
            try:
                await self.serve_session(session)
            except Stopped:
                return
            except Ended as ended:
                if self._leaving:
                    return
                log.info("%s: the session ended: %s", self.name, ended)
            except PspError:
                if self._failure.done():
                    raise
                log.info("%s: lost the server: waiting for it to come back", self.name)
            if self._leaving:
                return
            session = await self._join_again()

    async def _join_first(self, connect_seconds: float) -> Session:
        deadline = asyncio.get_running_loop().time() + connect_seconds
        delay = REJOIN_SECONDS_MIN
        while True:
            try:
                return await self.join()
            except (Unreachable, TimedOut):
                if asyncio.get_running_loop().time() + delay > deadline:
                    raise
                if delay == REJOIN_SECONDS_MIN:
                    log.info("%s: waiting for the server at %s", self.name, self._server)
            await asyncio.sleep(delay)
            delay = min(2 * delay, REJOIN_SECONDS_MAX)

    async def _join_again(self) -> Session:
        delay, dice = REJOIN_SECONDS_MIN, Random()
        while True:
            await asyncio.sleep(delay * (0.5 + dice.random()))
            delay = min(2 * delay, REJOIN_SECONDS_MAX)
            try:
                session = await self.join()
            except StorageError:
                raise
            except PspError as error:
                log.debug("%s: cannot join: %s", self.name, error)
            else:
                log.info("%s: joined again", self.name)
                return session

    async def join(self) -> Session:
        """Becomes a member; where each transfer has a connection of its own, with a port to take deliveries on.

        Raises:
            StorageError: the file of a source is not what it was.
            PspError: the server cannot be reached, or refuses.
        """
        await self._verify_suspects()
        address = await _resolve(self._server)
        held = {} if self._source else self._storage.known()
        port = 0
        if not (await self.client.parameters()).kept_links:
            port = self.plane.listen(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        session = await self.client.join(
            self.name, self._instance_id, source=self._source, delivery_port=port, held=held
        )
        self.session = session.session
        self._refused.clear()  # a new session tells of every file,
        self._reports.clear()  # and began with all that is held
        self.plane.join(session.session, (address[0], session.data_port), session.parameters)
        return session

    async def serve_session(self, session: Session) -> None:
        """Does what the server asks, for as long as the session lasts.

        Raises:
            Ended: the server ended it.
            Stopped: the member was asked to stop.
            PspError: the server cannot be reached, or the store failed.
        """
        try:
            await first_of(
                self._attend(session),
                self._renew(session),
                self._reports.tell(session.session),
                self._take_refused(),
                self._end_on_suspicion(),
                self._look_after_finished(),
                asyncio.shield(self._failure),
            )
        finally:
            self.plane.leave()

    async def _attend(self, session: Session) -> None:
        async with contextlib.aclosing(self.client.attend(session.session)) as events:
            async for event in events:
                match event:
                    case Assign(_, manifest) if manifest.file_id in self._gone:
                        self._decline(manifest.file_id, self._gone[manifest.file_id])
                    case Assign(_, manifest, shares, started):
                        self._refused.pop(manifest.file_id, None)
                        self._reports.forget(manifest.file_id)
                        try:
                            self.plane.assign(manifest, shares, started)
                        except StorageError as error:
                            log.error("%s: cannot take %s: %s", self.name, manifest.name, error)
                            now = asyncio.get_running_loop().time()
                            self._refused[manifest.file_id] = _Refused(manifest, started, now)
                            self._decline(manifest.file_id, str(error))
                    case StartExchange(_, file_id):
                        if file_id in self._refused:
                            self._refused[file_id].started = True
                        self.machine.exchange_started(file_id, now_ns())
                        self.plane.pump()
                    case FileSuspected(_, file_id):
                        self._suspect(file_id)
                    case RemoveFile(_, file_id):
                        self._remove(file_id)
                    case EndSession(_, reason):
                        raise Ended(reason)
                    case None:
                        raise Stopped
        raise Ended("the server closed it")

    async def _take_refused(self) -> None:
        """Tries again what could not be taken; the share of it that was declined is others' by now."""
        while True:
            await asyncio.sleep(REFUSED_SECONDS_MIN / 2)
            now = asyncio.get_running_loop().time()
            for file_id, refused in list(self._refused.items()):
                if refused.try_at > now:
                    continue
                refused.put_off(now)
                with contextlib.suppress(StorageError):
                    self.plane.assign(refused.manifest, (), refused.started)
                    self._refused.pop(file_id, None)
                    log.info("%s: takes %s after all", self.name, refused.manifest.name)

    async def _renew(self, session: Session) -> None:
        while True:
            await asyncio.sleep(session.lease_seconds / RENEWALS_PER_LEASE)
            try:
                await self.client.renew(session.session)
            except TimedOut:
                log.debug("%s: a renewal got no answer", self.name)

    def _remove(self, file_id: FileId) -> None:
        """A file is no longer in the network. What is unfinished of it goes, and is no loss: others drop it too."""
        self._refused.pop(file_id, None)
        self._gone.pop(file_id, None)
        self._reports.forget(file_id)
        self.machine.file_dropped(file_id)
        self._discard(file_id)
        if file_id in self._unpacking:
            self._removed.add(file_id)
        log.info("%s: file %s was removed from the network", self.name, file_id.hex()[:12])

    def _discard(self, file_id: FileId) -> None:
        try:
            self._storage.discard(file_id)
        except StorageError as error:
            log.warning("%s: %s", self.name, error)

    # -- a file that is not what it was

    def _suspect(self, file_id: FileId) -> None:
        """What is stored of a file may be wrong: verify it between this session and the next."""
        self._suspects[file_id] = None
        self._suspicion.set()

    async def _end_on_suspicion(self) -> None:
        await self._suspicion.wait()
        raise Suspected("a file is not what it was: it is verified anew")

    async def _look_after_finished(self) -> None:
        """Looks whether finished files are still what they were: others count on them."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            removed, changed = self._touched()
            for file_id, path in removed.items():
                self._give_up(file_id, f"{path} was removed: it is fetched again when the client is started anew")
            for file_id in changed:
                self._suspect(file_id)

    def _give_up(self, file_id: FileId, reason: str) -> None:
        """What somebody has removed is not brought back under their hands."""
        log.warning("%s: %s", self.name, reason)
        self._gone[file_id] = reason
        self._reports.forget(file_id)
        self.machine.file_dropped(file_id)
        self._discard(file_id)
        self._decline(file_id, reason)

    async def _verify_suspects(self) -> None:
        """Verifies what is suspected: the next session then begins with the truth of what is held."""
        self._suspicion.clear()
        for file_id in list(self._suspects):
            self.machine.file_dropped(file_id)
            if file_id in self._storage.known():
                log.warning("%s: verifying file %s", self.name, file_id.hex()[:12])
                try:
                    await asyncio.to_thread(self._storage.verify, file_id)
                except StorageError as error:
                    if self._source:
                        raise
                    log.error("%s: cannot verify file %s: %s", self.name, file_id.hex()[:12], error)
            del self._suspects[file_id]

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
        self.plane.close()
        self._storage.close()

    # -- effects that are not about data

    def _on_effect(self, effect: FinishFile | ReportMilestone | ServerHeard | InputDropped) -> None:
        match effect:
            case FinishFile(file_id):
                self._finish(file_id)
            case ReportMilestone():
                self._reports.add(effect)
            case ServerHeard(True):
                log.info("%s: the server's datagrams come through again", self.name)
            case ServerHeard(False):
                log.warning("%s: no datagram comes from the server: is its UDP port blocked?", self.name)
            case InputDropped(reason, origin):
                log.debug("%s: dropped from %s: %s", self.name, origin, reason)

    def _finish(self, file_id: FileId) -> None:
        unpack = self._unpacking_of(file_id)
        if unpack is None:
            self._make_visible(file_id)
        elif file_id not in self._unpacking:
            task = asyncio.ensure_future(self._unpack(file_id, unpack))
            self._unpacking[file_id] = task
            task.add_done_callback(lambda _: self._unpacking.pop(file_id))

    async def _unpack(self, file_id: FileId, unpack: Callable[[], None]) -> None:
        """Unpacks a folder beside all else, as that takes a while, and makes it visible then."""
        try:
            await asyncio.to_thread(unpack)
            failure = None
        except Exception as error:  # whatever it is: nobody is to wait for this file for ever
            failure = error
        if file_id in self._removed:
            self._removed.discard(file_id)
            self._discard(file_id)
        elif file_id not in self.machine.downloads:
            pass  # it is verified just now: what is unpacked is found when it is finished the next time
        elif failure is None:
            self._make_visible(file_id)
        else:
            log.error("%s: cannot unpack a folder: %s", self.name, failure, exc_info=not isinstance(failure, PspError))
            self._decline(file_id, str(failure))

    def _make_visible(self, file_id: FileId) -> None:
        name = self.machine.downloads[file_id].manifest.name
        try:
            self._storage.finish(file_id)
        except IntegrityError as error:
            log.warning("%s: %s", self.name, error)
            self._suspect(file_id)
            return
        except PspError as error:
            log.error("%s: cannot finish %s: %s", self.name, name, error)
            self._decline(file_id, str(error))
            return
        log.info("%s: %s is complete", self.name, name)
        self._on_finished(file_id)
        self.machine.file_finished(file_id)
        self.plane.pump()

    def _decline(self, file_id: FileId, reason: str) -> None:
        self._reports.add(Declined(file_id, reason))

    def _fail(self, error: PspError) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)


async def _resolve(server: str) -> Address:
    host, port = parse_address(server)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise Unreachable(f"{host!r} is no known host: {why}: name another with --server") from None
    address = found[0][4]
    # "Any address" is where a server may listen; whoever names it as a destination means this machine.
    return _UNSPECIFIED.get(str(address[0]), str(address[0])), int(address[1])
