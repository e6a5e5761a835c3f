"""The server daemon's heart: the machine, its sockets, and what the control API asks of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial

from pspd import __version__
from pspd.core.effects.client import ReportMilestone
from pspd.core.effects.server import (
    Assign,
    ClientJoined,
    ClientLost,
    ControlEffect,
    DuplicateRefused,
    EndCause,
    EndSession,
    FileRemoved,
    MemberFailed,
    RemoveFile,
    SaveFile,
    ServerEvent,
    StartExchange,
    VerifyFile,
)
from pspd.core.effects.shared import InputDropped
from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import Digest, FileId, Manifest
from pspd.core.model.parameters import MILLISECOND_NS, Parameters
from pspd.core.model.storage import Held
from pspd.core.model.terms import Terms
from pspd.core.model.tuning import SERVER_TUNING, ServerTuning
from pspd.core.server.machine import ServerMachine
from pspd.core.server.member import Member
from pspd.core.server.shared_file import SharedFile
from pspd.core.wire.header import DropReason
from pspd.daemon.server.events import event_text
from pspd.daemon.server.ledger import Ledger
from pspd.daemon.server.memory import allocate, validate_cache_size
from pspd.daemon.server.rates import DeliveryRates, seconds_left
from pspd.daemon.spawn import Launcher
from pspd.errors import BadArgument, DuplicateInstance, LimitReached, NotFound, PspError, SessionUnknown, WrongState
from pspd.net.driver import now_ns
from pspd.net.faults import Faults
from pspd.net.server import ServerPlane
from pspd.rpc import translate
from pspd.rpc.translate import Declined, MemberEvent, Report
from pspd.store.digests import blake3_digest
from pspd.v1 import network_pb2, status_service_pb2

ID_DIGITS_MIN = 4
WANTED_CHARACTERS_MAX = 300
FORGERS_MAX = 1000
EVENTS_MAX = 100_000
"""Events that wait for one member to read them: ten for each file that a network can have."""

log = logging.getLogger(__name__)


class NetworkDaemon:
    """A running server. Implements what the services of :mod:`pspd.rpc` ask for.

    Attributes:
        address: where the control API listens; set once it does.
        stopping: set when the server is to stop.
    """

    def __init__(
        self,
        parameters: Parameters,
        cache_chunks: int | None,
        hosts: Sequence[str],
        data_port: int,
        stopping: asyncio.Event,
        faults: Faults | None = None,
        tuning: ServerTuning = SERVER_TUNING,
    ) -> None:
        self.address = ""
        self.stopping = stopping
        self._tuning = tuning
        if cache_chunks is not None:
            validate_cache_size(cache_chunks)
        draw_session = partial(secrets.randbits, 64)
        self._machine = ServerMachine(
            parameters, cache_chunks, blake3_digest, secrets.randbits(64), draw_session, tuning, allocate
        )
        self._plane = ServerPlane(self._machine, self._on_effect, hosts, data_port, faults)
        self._launcher = Launcher()
        self._events: dict[int, asyncio.Queue[MemberEvent]] = {}
        self._attended: set[int] = set()
        self._changed = asyncio.Event()
        self._ledger: Ledger | None = None
        self._forgers: dict[str, None] = {}  # who was named already
        self._leaving: set[int] = set()  # asked to stop, as long as they are there
        self._started_at = time.monotonic()
        self._rates = DeliveryRates()
        self._rates.start(self._machine.catalogue.files.values, now_ns)

    @property
    def digest(self) -> Digest:
        """The digest of manifests and blocks."""
        return blake3_digest

    @property
    def parameters(self) -> Parameters:
        """The protocol's parameters."""
        return self._machine.parameters

    @property
    def data_port(self) -> int:
        """The number of the UDP and the TCP port on which data moves."""
        return self._plane.port

    def keep(self, ledger: Ledger) -> None:
        """Goes on where the ledger says that the server was, and writes down there what changes from now on.

        Raises:
            StorageError: it cannot be read.
        """
        records, clients = ledger.load()
        self._machine.restore(records, clients, now_ns())
        self._plane.pump()
        if records:
            log.info("files from before: %d; clients that were connected: %d", len(records), len(clients))
        self._ledger = ledger

    def close_ledger(self) -> None:
        """From now on nothing is written down: when a server stops, its clients are to be waited for at its return."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    async def close(self) -> None:
        """Ends everything."""
        self.close_ledger()
        self._rates.stop()
        self._plane.close()
        await self._launcher.stop()

    # -- effects that are not about data

    def _on_effect(self, effect: ControlEffect) -> None:
        match effect:
            case Assign(session) | StartExchange(session) | RemoveFile(session):
                self._tell(session, effect)
            case VerifyFile(session, file_id):
                self._name_suspect(session, file_id)
                self._tell(session, effect)
            case EndSession(session):
                if (queue := self._events.pop(session, None)) is not None:
                    queue.put_nowait(effect)
            case MemberFailed(name, error):
                log.error("%s: its session ends, as serving it raised an error", name, exc_info=error)
            case InputDropped(DropReason.CORRUPT, origin):
                self._name_forger(origin)
            case InputDropped(reason, origin):
                log.debug("dropped from %s: %s", origin, reason)
            case SaveFile(record):
                if self._ledger is not None:
                    self._ledger.save_file(record)
            case DuplicateRefused():
                log.warning("%s", event_text(effect))
            case _:
                if self._ledger is not None:
                    self._note(effect, self._ledger)
                log.info("%s", event_text(effect))
                self._changed.set()
                self._changed = asyncio.Event()

    def _tell(self, session: int, event: MemberEvent) -> None:
        if (queue := self._events.get(session)) is None:
            return
        queue.put_nowait(event)
        if queue.qsize() == EVENTS_MAX:  # once the effects of now are carried out: this is one of them
            asyncio.get_running_loop().call_soon(self._end_unread, session)

    def _end_unread(self, session: int) -> None:
        """Ends the session of a member that does not read its events."""
        reason = f"it did not read {EVENTS_MAX} events"
        self._machine.client_left(session, reason, now_ns(), EndCause.PROTOCOL_ERROR)
        self._plane.pump()

    def _name_suspect(self, session: int, file_id: FileId) -> None:
        members, files = self._machine.members.values(), self._machine.catalogue.files
        name = next((member.name for member in members if member.session == session), "a member that is gone")
        file = files[file_id].manifest.name if file_id in files else file_id.hex()[:12]
        log.warning("%s: %s sent wrong bytes of it: it is not asked for those until it has verified them", file, name)

    def _name_forger(self, name: str) -> None:
        """Says who sends wrong bytes; of each the first time, as it may go on."""
        if name not in self._forgers:
            log.warning("%s sent wrong bytes: they were dropped", name)
            self._forgers[name] = None
            if len(self._forgers) > FORGERS_MAX:
                del self._forgers[next(iter(self._forgers))]

    def _note(self, event: ServerEvent, ledger: Ledger) -> None:
        match event:
            case FileRemoved(file_id):
                ledger.remove_file(file_id)
            case ClientJoined(name):
                member = self._machine.members.get(name)
                if member is not None and not member.source:
                    ledger.client_joined(name)
            case ClientLost(name):
                ledger.client_left(name)

    async def changed(self, at_most_seconds: float) -> None:
        """Waits until a client or a file changes its state, or for a time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_seconds):
                await self._changed.wait()

    # -- members

    def join(
        self,
        name: str,
        instance_id: bytes,
        *,
        source: bool,
        delivery_port: int,
        held: dict[FileId, Held],
        peer: str = "",
    ) -> tuple[Member, Parameters, int, int]:
        """A new member: its session, the parameters, the data port and the lease in milliseconds."""
        try:
            member = self._machine.client_joined(
                name, instance_id, now_ns(), source=source, delivery_port=delivery_port, held=held, peer=peer
            )
        except DuplicateInstance:
            self._plane.pump()  # the log tells of it
            raise
        self._events[member.session] = asyncio.Queue()
        self._plane.pump()
        return member, self._machine.parameters, self._plane.port, self._machine.lease_ns // MILLISECOND_NS

    async def attend(self, session: int) -> AsyncIterator[MemberEvent]:
        """What a member is to do, until its session ends; it is lost when it stops listening.

        Raises:
            SessionUnknown: the session has ended or never was.
            WrongState: somebody listens already.
        """
        member = self._machine.member_of(session)
        if session in self._attended:
            raise WrongState(f"{member.name!r} attends already: a session has one stream of events")
        self._attended.add(session)
        queue = self._events[session]
        try:
            while True:
                event = await queue.get()
                yield event
                if isinstance(event, EndSession):
                    return
        finally:
            self._attended.discard(session)
            self._events.pop(session, None)
            self._machine.client_left(session, "its connection ended", now_ns(), EndCause.CONNECTION_ENDED)
            self._plane.pump()

    def renew(self, session: int) -> int:
        """Another lease, in milliseconds."""
        self._machine.lease_renewed(session, now_ns())
        return self._machine.lease_ns // MILLISECOND_NS

    def report(self, session: int, reports: Sequence[Report]) -> None:
        """What a member reached. What it says of a file that was removed meanwhile is dropped and counted.

        Raises:
            SessionUnknown: there is no such session, or it ends here, as a request number is impossible.
        """
        self._machine.member_of(session)
        try:
            for report in reports:
                self._note_report(session, report)
        finally:
            self._plane.pump()

    def _note_report(self, session: int, report: Report) -> None:
        catalogue = self._machine.catalogue
        try:
            match report:
                case Declined(file_id, reason, division, still_holds):
                    catalogue.file_declined(
                        session, file_id, reason, now_ns(), division=division or None, still_holds=still_holds
                    )
                case ReportMilestone(file_id, milestone, share_chunk_count, division, request_number):
                    catalogue.milestone_reached(
                        session,
                        file_id,
                        milestone,
                        now_ns(),
                        share_chunk_count,
                        division=division or None,
                        request_number=request_number,
                    )
        except SessionUnknown:
            raise
        except PspError as error:
            self._machine.report_refused(session)
            log.debug("a report was refused: %s", error)
        except Exception:  # a fault with one file is not to cost the others theirs
            log.exception("a report could not be noted")

    def leave(self, session: int) -> None:
        """A member goes."""
        self._machine.client_left(session, "it left", now_ns())
        self._plane.pump()

    def stop_clients(self, names: list[str], everyone: bool, force: bool = False) -> list[str]:
        """Asks clients to stop.

        Raises:
            NotFound: one is not connected.
            WrongState: they alone hold what others lack, or may do, and it is not forced.
        """
        if not force and self._machine.catalogue.awaits_holders:
            raise WrongState(
                "the server was restarted, and not every client is back: try again in half a minute, or with --force"
            )
        if everyone:
            names = [member.name for member in self._machine.members.values() if not member.source]
        unknown = [name for name in names if name not in self._machine.members]
        if unknown:
            raise NotFound(f"no client {unknown[0][:WANTED_CHARACTERS_MAX]!r} is connected: see `pspctl clients`")
        leaving = {member.name for member in self._machine.members.values() if member.session in self._leaving}
        if not force and (lost := self._machine.catalogue.lost_without(leaving | set(names))):
            file, chunks = lost[0]
            others = f", and of {len(lost) - 1} more" if len(lost) > 1 else ""
            raise WrongState(
                f"nobody else holds {chunks.chunk_count} chunks of {file.manifest.name!r}{others}, and not every client"
                " has it: wait until it is complete, or lose them with --force"
            )
        names = list(dict.fromkeys(names))
        for name in names:
            self._tell(self._machine.members[name].session, None)
        self._leaving = {self._machine.members[name].session for name in leaving.union(names)}
        return names

    async def launch(self, count: int, directory: str) -> list[str]:
        """Starts clients on this machine."""
        return await self._launcher.launch(count, directory, self.address)

    def stop(self) -> None:
        """Ends the server."""
        log.info("stopping, as `pspctl stop --server` asked")
        self.stopping.set()

    # -- files

    async def announce(
        self, manifest: Manifest, session: int, client_count: int, terms: Terms
    ) -> tuple[SharedFile, int]:
        """Waits for clients, then says into how many shares to divide; 0 for a file that is divided already.

        Raises:
            BadArgument: there would be fewer clients than replicas.
            LimitReached: it would wait for more clients than a network can have.
        """
        if client_count and terms.replica_count > client_count:
            raise BadArgument(
                f"{terms.replica_count} replicas need as many clients, and {client_count} are to be waited for:"
                " name more with --clients"
            )
        wanted_count = max(client_count, terms.replica_count)
        members_max = self._tuning.members_max
        if wanted_count > members_max:
            raise LimitReached(
                f"{wanted_count} clients are more than a network can have: name at most {members_max} with --clients"
                " and --replicas"
            )
        file = self._machine.catalogue.announce(manifest, session, terms)
        if file.phase is not Phase.ANNOUNCED:
            self._machine.catalogue.source_returned(file, session, now_ns())
            self._plane.pump()
            return file, 0
        source = file.source
        try:
            while len(names := self._machine.catalogue.heard_names()) < wanted_count:
                self._machine.member_of(session)
                await self.changed(1.0)
        except BaseException:
            self._machine.catalogue.withdraw(file, source)
            raise
        return file, client_count or len(names)

    def divide(self, manifest: Manifest, session: int, hold_back: bool) -> SharedFile:
        """Gives out the shares."""
        file = self._machine.catalogue.divide(manifest, session, now_ns(), hold_back=hold_back)
        self._plane.pump()
        return file

    def release(self, file: str) -> SharedFile:
        """Starts a held exchange."""
        found = self._find(file)
        self._machine.catalogue.release(found, now_ns())
        self._plane.pump()
        return found

    def remove(self, file: str, force: bool) -> network_pb2.File:
        """Takes a file out of the network; returns it as it was."""
        found = self._find(file)
        message = self.file_message(found)
        self._machine.catalogue.remove(found, now_ns(), force=force)
        self._plane.pump()
        return message

    @property
    def _shown_files(self) -> list[SharedFile]:
        return [file for file in self._machine.catalogue.files.values() if file.phase is not Phase.REMOVED]

    def _find(self, wanted: str) -> SharedFile:
        """A file by its name, its id, or a unique beginning of its id.

        Raises:
            NotFound: there is none, or more than one.
        """
        files = self._shown_files
        found = [file for file in files if file.manifest.name == wanted]
        if not found and len(wanted) >= ID_DIGITS_MIN:
            found = [file for file in files if file.file_id.hex().startswith(wanted.lower())]
        if len(found) != 1:
            raise NotFound(
                f"{'no' if not found else 'more than one'} file {wanted[:WANTED_CHARACTERS_MAX]!r} in the network:"
                " see `pspctl files`"
            )
        return found[0]

    # -- what is shown

    def file_message(self, file: SharedFile) -> network_pb2.File:
        """One file as the control API tells it."""
        return self._file_message(file, now_ns(), with_clients=True)

    def file_messages(self, *, with_clients: bool) -> list[network_pb2.File]:
        """Every file, oldest first."""
        now = now_ns()
        return [self._file_message(file, now, with_clients=with_clients) for file in self._shown_files]

    def _file_message(self, file: SharedFile, now: int, *, with_clients: bool) -> network_pb2.File:
        message = translate.file_to_pb(self._machine, file, now, with_clients=with_clients)
        rate = self._rates.rate(file, now)
        eta = seconds_left(file, self._machine.catalogue.takers_of(file), rate)
        if rate is not None:
            message.rate_bytes_per_second = rate
        if eta is not None:
            message.eta_seconds = eta
        return message

    def cache_message(self) -> network_pb2.Cache:
        """The cache."""
        return translate.cache_to_pb(self._machine.cache)

    def client_messages(self) -> list[network_pb2.Client]:
        """Every client, by name."""
        return translate.clients_to_pb(self._machine)

    def status(self, file: str, *, with_file_clients: bool) -> status_service_pb2.GetStatusResponse:
        """Everything, or one file."""
        if file:
            files = [self._file_message(self._find(file), now_ns(), with_clients=with_file_clients)]
        else:
            files = self.file_messages(with_clients=with_file_clients)
        server = network_pb2.Server(
            address=self.address,
            version=__version__,
            profile=self._machine.parameters.profile,
            uptime_seconds=time.monotonic() - self._started_at,
            data_port=self.data_port,
            dropped_counts={reason.value: count for reason, count in self._machine.drop_counts.items()},
        )
        return status_service_pb2.GetStatusResponse(
            server=server, cache=self.cache_message(), clients=self.client_messages(), files=files
        )

    # -- the cache

    def clear_cache(self) -> int:
        """Drops what is cached."""
        dropped = self._machine.clear_cache(now_ns())
        self._plane.pump()
        return dropped

    def resize_cache(self, capacity_chunks: int) -> None:
        """Gives the cache another size.

        Raises:
            BadArgument, LimitReached: it is too small, or more than this machine has memory for.
        """
        self._machine.resize_cache(validate_cache_size(capacity_chunks), now_ns())
        self._plane.pump()
