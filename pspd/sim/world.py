"""A whole network in virtual time: machines, links, the control plane, and the faults of all of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from random import Random

from pspd.core.client.download import Stage
from pspd.core.effects.client import ClientEffect, Contribute, FinishFile, ReportMilestone
from pspd.core.effects.server import (
    Assign,
    ClientJoined,
    ClientLost,
    CloseLink,
    Deliver,
    EndSession,
    FileRemoved,
    MemberEffect,
    MemberFailed,
    RemoveFile,
    SaveFile,
    ServerEffect,
    StartExchange,
    VerifyFile,
)
from pspd.core.effects.shared import SendDatagram
from pspd.core.model.manifest import FileId
from pspd.core.model.parameters import SECOND_NS, Parameters
from pspd.core.server.file_record import FileRecord
from pspd.core.server.machine import ServerMachine
from pspd.errors import (
    ContradictoryDigests,
    DuplicateInstance,
    IntegrityError,
    NotFound,
    PspError,
    SessionUnknown,
    StorageError,
)
from pspd.sim.clock import Clock
from pspd.sim.content import Content
from pspd.sim.hosts import Access, Client, Link
from pspd.sim.observer import Observer
from pspd.sim.transport import SERVER, Transport

REJOIN_NS = SECOND_NS
REFUSED_NS = 5 * SECOND_NS
"""How soon a client tries again to take what it could not take."""
RENEWALS_PER_LEASE = 4
DEAD_LINK_NS = 15 * SECOND_NS
"""How long a connection outlives the cut of its wire."""


class World:
    """Everything in one place.

    Args:
        parameters: the profile.
        cache_chunks: the server's cache; None for one chunk per client.
        content: what the files are made of.
        seed: of all that is left to chance.
        server_rate: bytes per second that the server can send, and receive; 0 for any.

    Attributes:
        clients: every client and source that ever was, by name.
        observers: who is told of everything.
    """

    def __init__(
        self,
        parameters: Parameters,
        cache_chunks: int | None,
        content: Content,
        seed: int,
        server_rate: int = 0,
    ) -> None:
        self.clock = Clock()
        self.random = Random(seed)
        self.parameters = parameters
        self.content = content
        self.clients: dict[str, Client] = {}
        self.observers: list[Observer] = []
        self.transport = Transport(self, server_rate)
        self.server_life = 0
        self._records: dict[FileId, FileRecord] = {}  # what the server wrote down
        self._noted_clients: dict[str, None] = {}
        self._cache_chunks = cache_chunks
        self._server: ServerMachine | None = None
        self._server_touched = True
        self._server_wakes_at: int | None = None
        self._by_session: dict[int, Client] = {}
        self._touched: dict[Client, None] = {}
        self.boot_server()

    @property
    def now(self) -> int:
        """The time, in nanoseconds."""
        return self.clock.now

    @property
    def server(self) -> ServerMachine | None:
        """The server's machine, to say something to it: it may then have something to say as well."""
        self._server_touched = True
        return self._server

    # -- time

    def run(self, until: Callable[[], bool], limit_ns: int) -> bool:
        """Lets time pass until a condition holds; False if it does not within ``limit_ns``."""
        end = self.now + limit_ns
        self._settle()
        while not until():
            if not self.clock.step(end):
                return until()
            self._settle()
        return True

    # -- the server's life

    def boot_server(self) -> None:
        """The server starts, and knows what it wrote down."""
        seed = self.random.getrandbits(32)
        draw_session = partial(Random(seed).getrandbits, 64)
        self._server = ServerMachine(self.parameters, self._cache_chunks, self.content.digest, seed, draw_session)
        self._server.restore(self._records.values(), self._noted_clients, self.now)
        self._server_wakes_at = None
        self._renew_leases(self.server_life)

    def crash_server(self, *, disk_lost: bool) -> None:
        """The server is gone, and what it wrote down may be gone as well; its clients notice by their connections."""
        self._server, self.server_life = None, self.server_life + 1
        if disk_lost:
            self._records.clear()
            self._noted_clients.clear()
        self._by_session.clear()
        for client in self.clients.values():
            if client.alive and client.session:
                self._lose_server(client)

    # -- clients' lives

    def add_client(self, name: str, access: Access, *, source: bool = False) -> Client:
        """A machine that is not running yet."""
        store = self.content.store(name.encode())
        client = self.clients[name] = Client(name, access, store, self.random, source=source)
        return client

    def start(self, client: Client) -> None:
        """The client's process starts, and tries to join."""
        client.alive = True
        self._join(client, client.life)
        self.touch(client)

    def crash(self, client: Client) -> None:
        """The client's process ends without a word; its files stay. The server sees its connections close."""
        session, link = client.session, client.link
        client.alive = False
        client.reborn(self.random)
        if session and not client.cut_off:
            self.later(client, self._member_gone, self.server_life, session, link)

    def stop(self, client: Client) -> None:
        """The client leaves in good order, and its process ends."""
        session, server_life = client.session, self.server_life
        if session and not client.cut_off:
            self.later(client, self._leave, server_life, session)
        client.alive = False
        client.reborn(self.random)

    def cut(self, client: Client) -> None:
        """Nothing passes any more between the client and the server; connections die of it after a while."""
        client.cut_off = True
        self.clock.after(DEAD_LINK_NS, self._die_of_the_cut, client, client.life, client.link)

    def mend(self, client: Client) -> None:
        """Everything passes again."""
        client.cut_off = False
        self.touch(client)

    def _die_of_the_cut(self, client: Client, life: int, link: Link) -> None:
        if client.cut_off and client.life == life and client.alive and client.session:
            session = client.session
            self._lose_server(client)
            self._member_gone(self.server_life, session, link)

    def _lose_server(self, client: Client) -> None:
        client.machine.left()
        self.transport.close(client)
        client.end_session()
        self.clock.after(self.soon(REJOIN_NS), self._join, client, client.life)
        self.touch(client)

    def _member_gone(self, server_life: int, session: int, link: Link) -> None:
        if self.server is not None and self.server_life == server_life:
            self.server.link_closed(session, self.now)
            self.transport.end_link(link)
            self.server.client_left(session, "its connection ended", self.now)

    def _leave(self, server_life: int, session: int) -> None:
        if self.server is not None and self.server_life == server_life:
            self.server.client_left(session, "it left", self.now)

    # -- the control plane: joining, events, reports

    def _join(self, client: Client, life: int) -> None:
        if client.life != life or not client.alive or client.session or client.joining:
            return
        if self.server is None or client.cut_off:
            self.clock.after(self.soon(REJOIN_NS), self._join, client, life)
            return
        client.joining = True
        self.later(client, self._joined_at_server, client, life, self.server_life)

    def _joined_at_server(self, client: Client, life: int, server_life: int) -> None:
        if client.life != life:
            return
        client.joining = False
        if self.server is None or self.server_life != server_life or client.cut_off:
            self.clock.after(self.soon(REJOIN_NS), self._join, client, life)
            return
        held = {} if client.source else client.store.known()
        port = 0 if self.parameters.kept_links else 1
        try:
            member = self.server.client_joined(
                client.name, client.instance_id, self.now, source=client.source, delivery_port=port, held=held
            )
        except DuplicateInstance:  # its last session, which nobody has missed yet
            self.clock.after(self.soon(REJOIN_NS), self._join, client, life)
            return
        # The client knows of its session a moment later; nothing that it does comes before.
        client.session = member.session
        self._by_session[member.session] = client
        client.told_at = self.now + self.delay(client)
        self.at_client(client, client.told_at, self._joined, client, life, member.session)

    def _joined(self, client: Client, life: int, session: int) -> None:
        if client.life != life:
            return
        client.machine.joined(session, SERVER, self.parameters, self.now)
        if self.parameters.kept_links:
            self.transport.dial(client, life)
        self.touch(client)

    def _renew_leases(self, server_life: int) -> None:
        """Every client that can renews its lease: all at once, as it is the same to the server."""
        server = self.server
        if server is None or self.server_life != server_life:
            return
        for client in self.clients.values():
            if client.session and not client.cut_off and self.now >= max(client.told_at, client.stopped_until):
                try:
                    server.lease_renewed(client.session, self.now)
                except SessionUnknown:
                    self._lose_server(client)
        self.clock.after(server.lease_ns // RENEWALS_PER_LEASE, self._renew_leases, server_life)

    def _tell(self, session: int, event: MemberEffect) -> None:
        """Sends an event over the control plane, which keeps the order."""
        client = self.client_of(session)
        if client is not None:
            client.told_at = max(client.told_at, self.now + self.delay(client))
            client.events.append(event)
            self.at_client(client, client.told_at, self._told, client, client.life)

    def _told(self, client: Client, life: int) -> None:
        if client.life != life:
            return
        if client.cut_off:  # it waits in the connection, as long as that lives
            self.at_client(client, self.now + REJOIN_NS, self._told, client, life)
            return
        match client.events.popleft():
            case Assign() as assigned:
                self._take(client, assigned)
            case StartExchange(_, file_id):
                if file_id in client.refused:
                    client.refused[file_id] = replace(client.refused[file_id], exchange_started=True)
                client.machine.exchange_started(file_id, self.now)
            case VerifyFile(_, file_id):
                self.suspect(client, file_id)
            case RemoveFile(_, file_id):
                client.refused.pop(file_id, None)
                client.machine.file_dropped(file_id)
                client.store.discard(file_id)
            case EndSession():
                self._lose_server(client)
        self.touch(client)

    def _take(self, client: Client, assigned: Assign) -> None:
        """The client begins with a file, or declines it and tries again later, as the daemon does."""
        manifest, division = assigned.manifest, assigned.division
        client.refused.pop(manifest.file_id, None)
        try:
            held = client.store.begin(manifest)
        except StorageError as error:
            client.refused[manifest.file_id] = assigned
            client.machine.file_dropped(manifest.file_id)
            self.later(client, self._decline, client, client.life, manifest.file_id, str(error), division, False)
            self.at_client(client, self.now + REFUSED_NS, self._take_after_all, client, client.life, manifest.file_id)
        else:
            client.machine.file_assigned(manifest, assigned.shares, assigned.exchange_started, held, self.now, division)
            self.touch(client)

    def _take_after_all(self, client: Client, life: int, file_id: FileId) -> None:
        if client.life == life and file_id in client.refused:
            self._take(client, replace(client.refused[file_id], shares=()))

    def stop_taking(self, client: Client, file_id: FileId, error: PspError) -> None:
        """The client declines what it cannot store or finish, sends what it holds, and tries again later.

        It does neither if the file's digests contradict each other.
        """
        download, reason = client.machine.downloads[file_id], str(error)
        if isinstance(error, ContradictoryDigests):
            client.machine.file_dropped(file_id)
            self.later(client, self._decline, client, client.life, file_id, reason, download.division, False)
            self.touch(client)
            return
        has_started = download.stage in (Stage.EXCHANGE, Stage.FINISHING)
        client.refused[file_id] = Assign(client.session, download.manifest, (), has_started, download.division)
        client.machine.file_declined(file_id, self.now)
        self.later(client, self._decline, client, client.life, file_id, reason, download.division, True)
        self.at_client(client, self.now + REFUSED_NS, self._take_after_all, client, client.life, file_id)
        self.touch(client)

    def suspect(self, client: Client, file_id: FileId) -> None:
        """What a client stores may be wrong: it verifies that between two sessions, as the daemon does."""
        session, link = client.session, client.link
        client.machine.file_dropped(file_id)
        if file_id in client.store.known():
            client.store.verify(file_id)
        self._lose_server(client)
        self.later(client, self._member_gone, self.server_life, session, link)

    def _report(self, client: Client, life: int, reached: ReportMilestone) -> None:
        if client.life != life or self.server is None:
            return
        if client.cut_off:
            self.clock.after(REJOIN_NS, self._report, client, life, reached)
            return
        try:
            self.server.catalogue.milestone_reached(
                client.session,
                reached.file_id,
                reached.milestone,
                self.now,
                reached.share_chunk_count,
                division=reached.division,
                request_number=reached.request_number,
            )
        except (SessionUnknown, NotFound):
            return  # the next session says it anew

    # -- carrying out

    def _settle(self) -> None:
        """Carries out effects until there are none, and sets the alarms for what comes later."""
        while self._server_touched or self._touched:
            if self._server_touched:
                self._settle_server()
            touched, self._touched = self._touched, {}
            for client in touched:
                self._settle_client(client)
        for observer in self.observers:
            observer.settled()

    def _settle_server(self) -> None:
        server = self._server
        self._server_touched = False
        if server is None:
            return
        for effect in server.poll():
            for observer in self.observers:
                observer.server_did(effect)
            self._carry_out(effect)
        deadline = server.next_timeout()
        if deadline is not None and (self._server_wakes_at is None or deadline < self._server_wakes_at):
            self._server_wakes_at = deadline
            self.clock.at(deadline, self._wake_server, deadline)

    def _settle_client(self, client: Client) -> None:
        life = client.life
        for effect in client.machine.poll():
            if client.life != life:
                break  # its session has ended, and with it what was still to be done
            for observer in self.observers:
                observer.client_did(client, effect)
            self._carry_out_of(client, effect)
        deadline = client.machine.next_timeout() if client.alive else None
        if deadline is not None and (client.wakes_at is None or deadline < client.wakes_at):
            self._set_alarm(client, deadline)

    def _wake(self, client: Client, when: int) -> None:
        if client.wakes_at != when:
            return
        client.wakes_at = None
        deadline = client.machine.next_timeout()
        if deadline is not None and deadline > when:  # it was moved on meanwhile
            self._set_alarm(client, deadline)
        else:
            client.machine.handle_timeout(self.now)
            self.touch(client)

    def _set_alarm(self, client: Client, deadline: int) -> None:
        client.wakes_at = deadline
        self.at_client(client, deadline, self._wake, client, deadline)

    def _wake_server(self, when: int) -> None:
        if self._server_wakes_at == when:
            self._server_wakes_at = None
            if self.server is not None:
                self.server.handle_timeout(self.now)

    def _carry_out(self, effect: ServerEffect) -> None:
        match effect:
            case SendDatagram(address, data):
                self.transport.send_to_client(self.clients[address[0]], data)
            case Deliver():
                self.transport.deliver(effect)
            case (
                Assign(session)
                | StartExchange(session)
                | VerifyFile(session)
                | RemoveFile(session)
                | EndSession(session)
            ):
                self._tell(session, effect)
            case MemberFailed(_, error):
                raise error
            case SaveFile(record):
                self._records[record.file_id] = record
            case FileRemoved(file_id):
                self._records.pop(file_id, None)
            case ClientJoined(name) if not self.clients[name].source:
                self._noted_clients[name] = None
            case ClientLost(name):
                self._noted_clients.pop(name, None)
            case CloseLink(session):
                if (client := self.client_of(session)) is not None:
                    self.transport.cut_link(client)

    def _carry_out_of(self, client: Client, effect: ClientEffect) -> None:
        match effect:
            case SendDatagram(_, data):
                self.transport.send_to_server(client, data)
            case Contribute(frame):
                self.transport.contribute(client, frame)
            case FinishFile(file_id):
                self._finish(client, file_id)
            case ReportMilestone():
                self.later(client, self._report, client, client.life, effect)

    def _finish(self, client: Client, file_id: FileId) -> None:
        try:
            client.store.finish(file_id)
        except IntegrityError:
            self.suspect(client, file_id)
        except PspError as error:
            self.stop_taking(client, file_id, error)
        else:
            client.machine.file_finished(file_id)
            self.touch(client)

    def _decline(
        self, client: Client, life: int, file_id: FileId, reason: str, division: int, still_holds: bool
    ) -> None:
        if client.life == life and self.server is not None:
            with suppress(PspError):
                self.server.catalogue.file_declined(
                    client.session, file_id, reason, self.now, division=division, still_holds=still_holds
                )

    # -- for all who act in the world

    def client_of(self, session: int) -> Client | None:
        """The client of a session that has not ended on either side."""
        client = self._by_session.get(session)
        return client if client is not None and client.session == session else None

    def touch(self, client: Client) -> None:
        """The client's machine may have something to say."""
        self._touched[client] = None

    def delay(self, client: Client) -> int:
        """How long one message between the server and a client takes now, in nanoseconds."""
        return client.access.weather.delay(self.random)

    def at_client(self, client: Client, when: int, action: Callable[..., object], *arguments: object) -> None:
        """Has the client's process do something at a time, or when it goes on after that."""
        self.clock.at(when, self._do_at_client, client, action, arguments)

    def _do_at_client(self, client: Client, action: Callable[..., object], arguments: tuple[object, ...]) -> None:
        if self.now < client.stopped_until:
            self.clock.at(client.stopped_until, self._do_at_client, client, action, arguments)
        else:
            action(*arguments)

    def later(self, client: Client, action: Callable[..., object], *arguments: object) -> None:
        """Has an action run when a message between the server and a client has arrived."""
        self.clock.after(self.delay(client), action, *arguments)

    def soon(self, duration_ns: int) -> int:
        """About so long: between a half and one and a half of it."""
        return int(duration_ns * (0.5 + self.random.random()))
