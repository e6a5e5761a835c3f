"""Executes the calls of the control API with the server's state machine and its sockets."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from functools import partial

from pspd.core.effects.client import ReportMilestone
from pspd.core.effects.server import EndCause, EndSession
from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.parameters import MILLISECOND_NS, Parameters
from pspd.core.model.storage import HeldChunks
from pspd.core.model.terms import Terms
from pspd.core.model.tuning import SERVER_TUNING, ServerTuning
from pspd.core.server.machine import ServerMachine
from pspd.core.server.shared_file import SharedFile
from pspd.daemon.server.control import EVENTS_MAX, ControlExecutor, MemberQueues
from pspd.daemon.server.ledger import Ledger
from pspd.daemon.server.memory import allocate, validate_cache_size
from pspd.daemon.server.status import SHOWN_CHARACTERS_MAX, StatusMessages
from pspd.daemon.spawn import Launcher
from pspd.errors import BadArgument, DuplicateInstance, LimitReached, NotFound, PspError, SessionUnknown, WrongState
from pspd.net.driver import now_ns
from pspd.net.faults import Faults
from pspd.net.server import ServerPlane
from pspd.rpc.translate import STOP_ASKED, Declined, MemberEvent, Report
from pspd.store.digests import blake3_digest
from pspd.v1 import network_pb2, status_service_pb2

log = logging.getLogger(__name__)


class NetworkDaemon:
    """A running server, which executes the calls that `ControlServicer` translates.

    Attributes:
        address: the address of the control API; empty until it listens.
        parameters: the protocol's parameters.
        data_port: the UDP and TCP port for data.
        stopping: the event that is set to stop the server.
        control: executes the effects that are not for the sockets.
        messages: makes messages about the state of the network.
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
        """Create the state machine, and open the sockets for data.

        Args:
            parameters: the protocol's parameters.
            cache_chunks: the size of the cache, in chunks; None for a cache that grows with the number of clients.
            hosts: the IP addresses to listen on.
            data_port: the UDP and TCP port for data; 0 for any free one.
            stopping: the event that is set to stop the server.
            faults: the faults to inject into received datagrams; None for none.
            tuning: the tunables of the state machine.

        Raises:
            LimitReached: this machine has too little memory for the cache.
            PortTaken: the port cannot be used.
        """
        self.address = ""
        self.parameters = parameters
        self.stopping = stopping
        self._tuning = tuning
        if cache_chunks is not None:
            validate_cache_size(cache_chunks)
        draw_session = partial(secrets.randbits, 64)
        self._machine = ServerMachine(
            parameters, cache_chunks, blake3_digest, secrets.randbits(64), draw_session, tuning, allocate
        )
        self._queues = MemberQueues(self._end_overflowed)
        self.control = ControlExecutor(self._machine, self._queues)
        self._plane = ServerPlane(self._machine, self.control.execute, hosts, data_port, faults)
        self._launcher = Launcher()
        self._asked_to_stop: set[int] = set()
        self.data_port = self._plane.port
        self.messages = StatusMessages(self._machine, self.data_port)

    @property
    def lease_ms(self) -> int:
        """The lease of a session, in milliseconds. It grows with the number of members."""
        return self._machine.sessions.lease_ns // MILLISECOND_NS

    def use_ledger(self, ledger: Ledger) -> None:
        """Restore the state from a ledger, and record all further changes in it.

        Raises:
            StorageError: the ledger cannot be read.
        """
        records, clients = ledger.load()
        self._machine.restore(records, clients, now_ns())
        self._plane.pump()
        if records:
            log.info("restored %d files; %d clients were connected before", len(records), len(clients))
        self.control.use_ledger(ledger)

    async def close(self) -> None:
        """Close sockets and the ledger, and stop launched clients."""
        self.control.close_ledger()
        self.messages.close()
        self._plane.close()
        await self._launcher.stop()

    def _end_overflowed(self, session: int) -> None:
        """End the session of a member that does not read its events."""
        reason = f"it did not read {EVENTS_MAX} events"
        self._machine.member_left(session, reason, now_ns(), EndCause.PROTOCOL_ERROR)
        self._plane.pump()

    # -- members

    def join(
        self, name: str, instance_id: bytes, source: bool, delivery_port: int, held: dict[FileId, HeldChunks], peer: str
    ) -> int:
        """Add a member; return the number of its session.

        Args:
            name: the member's name.
            instance_id: the identity by which the server recognizes the member when it joins again.
            source: whether the member is a source.
            delivery_port: the TCP port on which the member accepts deliveries; 0 for none.
            held: the chunks that the member holds, by file id.
            peer: the address from which the member called, for messages.

        Raises:
            PspError: the network refuses the member.
        """
        try:
            member = self._machine.member_joined(
                name, instance_id, now_ns(), is_source=source, delivery_port=delivery_port, held=held, peer=peer
            )
        except DuplicateInstance:
            self._plane.pump()  # this logs the refusal
            raise
        self._queues.open(member.session)
        self._plane.pump()
        return member.session

    async def attend(self, session: int) -> AsyncIterator[MemberEvent]:
        """Yield the events for a member until its session ends; closing this generator ends the session.

        Raises:
            SessionUnknown: the session has ended or never existed.
            WrongState: another call attends the session already.
        """
        queue = self._queues.claim(session, self._machine.sessions.get(session).name)
        try:
            while not isinstance(event := await queue.get(), EndSession):
                yield event
            yield event
        finally:
            self._queues.close(session)
            self._machine.member_left(session, "its connection ended", now_ns(), EndCause.CONNECTION_ENDED)
            self._plane.pump()

    def renew(self, session: int) -> None:
        """Renew a session's lease."""
        self._machine.sessions.renew_lease(session, now_ns())

    def report(self, session: int, reports: Sequence[Report]) -> None:
        """Apply a member's reports; drop and count each report that is refused.

        Args:
            session: the session number of the member.
            reports: the member's reports, in order.

        Raises:
            SessionUnknown: the session is unknown, or ends because a request number is too high.
        """
        self._machine.sessions.get(session)  # raises SessionUnknown
        try:
            for report in reports:
                self._apply_report(session, report)
        finally:
            self._plane.pump()

    def _apply_report(self, session: int, report: Report) -> None:
        """Apply one report. Count and log a refusal, and log any other error, so that the next reports are applied."""
        catalogue = self._machine.catalogue
        try:
            match report:
                case Declined(file_id, reason, division, holds):
                    catalogue.file_declined(session, file_id, reason, now_ns(), division=division, still_holds=holds)
                case ReportMilestone():
                    catalogue.milestone_reached(session, report, now_ns())
        except SessionUnknown:
            raise
        except PspError as error:
            self._machine.report_dropped(session)
            log.debug("refused a report: %s", error)
        except Exception:  # an error with one file must not affect the others
            log.exception("cannot process a report")

    def leave(self, session: int) -> None:
        """End the session of a member that leaves."""
        self._machine.member_left(session, "it left", now_ns())
        self._plane.pump()

    def stop_clients(self, names: list[str], all_clients: bool, force: bool = False) -> list[str]:
        """Ask members to stop; return the names of the members that were asked.

        Args:
            names: the names of the clients and sources to ask.
            all_clients: whether to ask all clients, but no source, instead.
            force: whether to ask even if other clients may need chunks that only these clients hold.

        Raises:
            NotFound: a member is not connected.
            WrongState: `force` is not set, and either the server still awaits clients after a restart, or other clients
                may need chunks that only these members and those asked earlier hold.
        """
        if not force and self._machine.lifecycle.awaits_holders:
            raise WrongState(
                "the server was restarted, and not every client is back: try again in half a minute, or with --force"
            )
        if all_clients:
            names = [member.name for member in self._machine.members.values() if not member.is_source]
        unknown = [name for name in names if name not in self._machine.members]
        if unknown:
            raise NotFound(f"no client {unknown[0][:SHOWN_CHARACTERS_MAX]!r} is connected: see `pspctl clients`")
        leaving = {member.name for member in self._machine.members.values() if member.session in self._asked_to_stop}
        if not force and (needed := self._machine.catalogue.needed_from(leaving | set(names))):
            file, chunks = needed[0]
            others = f", and of {len(needed) - 1} more" if len(needed) > 1 else ""
            raise WrongState(
                f"nobody else holds {chunks.chunk_count} chunks of {file.manifest.name!r}{others}, and not every client"
                " has it: wait until it is complete, or lose them with --force"
            )
        names = list(dict.fromkeys(names))
        for name in names:
            self._queues.put(self._machine.members[name].session, STOP_ASKED)
        self._asked_to_stop = {self._machine.members[name].session for name in leaving.union(names)}
        return names

    async def launch(self, count: int, folder: str) -> list[str]:
        """Start clients on this machine; return their names.

        Args:
            count: how many clients to start.
            folder: the folder in which each client gets its own folder; empty for the default.
        """
        return await self._launcher.launch(count, folder, self.address)

    def stop(self) -> None:
        """Ask the server to stop."""
        log.info("stopping: a `pspctl stop` command asked the server to stop")
        self.stopping.set()

    # -- files

    async def announce(
        self, manifest: Manifest, session: int, client_count: int, terms: Terms
    ) -> tuple[SharedFile, int]:
        """Announce a file, and wait for clients; return the file and the number of shares to make.

        If the file is divided already, return at once, with 0. If the wait fails, withdraw the announcement.

        Args:
            manifest: the file's manifest.
            session: the session number of the source.
            client_count: the number of clients to wait for, and of shares to make; 0 to wait for one client per
                replica, and to make one share for each client. Only reachable clients that have sent a datagram count.
            terms: the terms of the seeding.

        Raises:
            BadArgument: `client_count` is not 0, but smaller than the number of replicas.
            LimitReached: a network cannot have so many clients.
            PspError: the network refuses the file, or the source's session has ended.
        """
        if client_count and terms.replica_count > client_count:
            raise BadArgument(
                f"{terms.replica_count} replicas need as many clients, but only {client_count} are waited for:"
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
            while len(names := self._machine.sessions.clients_with_uplink()) < wanted_count:
                self._machine.sessions.get(session)  # raises SessionUnknown
                await self.control.next_change(1.0)
        except BaseException:
            self._machine.lifecycle.withdraw(file, source)
            raise
        return file, client_count or len(names)

    def divide(self, manifest: Manifest, session: int, hold_back: bool) -> SharedFile:
        """Divide a file and assign its shares; return the file.

        Args:
            manifest: the file's manifest, with the number of shares.
            session: the session number of the source.
            hold_back: whether the exchange waits for `pspctl release`.
        """
        file = self._machine.catalogue.divide(manifest, session, now_ns(), hold_back=hold_back)
        self._plane.pump()
        return file

    def release(self, file: str) -> SharedFile:
        """Release a file that is held back, so that its exchange can start; return the file."""
        found = self.messages.find(file)
        self._machine.catalogue.release(found, now_ns())
        self._plane.pump()
        return found

    def remove(self, file: str, force: bool) -> network_pb2.File:
        """Remove a file from the network; return its last state.

        Args:
            file: the file's id or name.
            force: whether to remove the file even if not every client has it.
        """
        found = self.messages.find(file)
        message = self.messages.file(found)
        self._machine.catalogue.remove(found, now_ns(), force=force)
        self._plane.pump()
        return message

    # -- the cache and the status

    def status(self, file: str, *, with_file_clients: bool) -> status_service_pb2.GetStatusResponse:
        """Return the state of the network; see `StatusMessages.network`.

        Args:
            file: the id or name of the only file to show; empty for all files.
            with_file_clients: whether each file lists its clients.
        """
        return self.messages.network(self.address, file, with_clients=with_file_clients)

    def clear_cache(self) -> int:
        """Drop every cached chunk that is not in use; return the number of dropped chunks."""
        dropped = self._machine.clear_cache(now_ns())
        self._plane.pump()
        return dropped

    def resize_cache(self, capacity_chunks: int) -> None:
        """Set the capacity of the cache, which then no longer grows with the number of clients.

        Raises:
            BadArgument: the capacity is less than one chunk.
            LimitReached: this machine has too little memory for the cache.
        """
        self._machine.resize_cache(validate_cache_size(capacity_chunks), now_ns())
        self._plane.pump()
