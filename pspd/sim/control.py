"""The control plane between the server and its clients: joining, leases, events, reports, and declined files."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from pspd.core.client.download import Stage
from pspd.core.effects.client import ReportMilestone
from pspd.core.effects.server import Assign, EndSession, MemberEffect, RemoveFile, StartExchange, VerifyFile
from pspd.core.model.manifest import FileId
from pspd.core.model.parameters import SECOND_NS
from pspd.errors import (
    ContradictoryDigests,
    DuplicateInstance,
    IntegrityError,
    NotFound,
    PspError,
    SessionUnknown,
    StorageError,
)
from pspd.sim.hosts import Client, Link
from pspd.sim.links import Links
from pspd.sim.state import SERVER, NetworkState

REJOIN_NS = SECOND_NS
"""Mean time between two attempts to reach the server."""
DECLINED_RETRY_NS = 5 * SECOND_NS
"""How soon a client tries again to store a file that it declined."""
RENEWALS_PER_LEASE = 4


class ControlPlane:
    """Carries control calls and events, and does what the client daemon does with them."""

    def __init__(self, state: NetworkState, links: Links) -> None:
        self._state = state
        self._links = links

    # -- sessions

    def join(self, client: Client, epoch: int) -> None:
        """Join the client to the network; retry until it has a session or the epoch is over.

        Args:
            client: the client.
            epoch: the client's epoch that the attempt belongs to.
        """
        state = self._state
        if client.epoch != epoch or not client.alive or client.session or client.joining:
            return
        if state.server is None or client.partitioned:
            self._rejoin(client)
            return
        client.joining = True
        state.after_delay(client, self._join_arrived, client, epoch, state.server_epoch)

    def _rejoin(self, client: Client) -> None:
        state = self._state
        state.clock.after(state.jittered(REJOIN_NS), self.join, client, client.epoch)

    def _join_arrived(self, client: Client, epoch: int, server_epoch: int) -> None:
        state = self._state
        if client.epoch != epoch:
            return
        client.joining = False
        server = state.server
        if server is None or state.server_epoch != server_epoch or client.partitioned:
            self._rejoin(client)
            return
        held = {} if client.source else client.store.known()
        port = 0 if state.parameters.kept_links else 1
        try:
            member = server.client_joined(
                client.name, client.instance_id, state.now, source=client.source, delivery_port=port, held=held
            )
        except DuplicateInstance:  # the server has not noticed yet that the last session ended
            self._rejoin(client)
            return
        # The client learns of its session a moment later, and does nothing in it before.
        client.session = member.session
        state.sessions[member.session] = client
        client.last_event_at = state.now + state.delay(client)
        state.at_client(client, client.last_event_at, self._joined, client, epoch, member.session)

    def _joined(self, client: Client, epoch: int, session: int) -> None:
        state = self._state
        if client.epoch != epoch:
            return
        client.machine.joined(session, SERVER, state.parameters, state.now)
        if state.parameters.kept_links:
            self._links.dial(client, epoch)
        state.touch(client)

    def leave(self, client: Client) -> None:
        """Have the client call Leave."""
        if client.session and not client.partitioned:
            self._state.after_delay(client, self._leave_arrived, self._state.server_epoch, client.session)

    def _leave_arrived(self, server_epoch: int, session: int) -> None:
        state = self._state
        if state.server is not None and state.server_epoch == server_epoch:
            state.server.client_left(session, "it left", state.now)

    def lose_session(self, client: Client) -> None:
        """End the session at the client, which joins again."""
        client.machine.left()
        self._links.close(client)
        client.end_session()
        self._rejoin(client)
        self._state.touch(client)

    def connections_closed(self, server_epoch: int, session: int, link: Link) -> None:
        """Tell the server that the connections of a session closed.

        Args:
            server_epoch: the epoch in which they were opened.
            session: the session.
            link: its TCP link.
        """
        state = self._state
        if state.server is not None and state.server_epoch == server_epoch:
            state.server.link_closed(session, state.now)
            self._links.abort_transfers(link)
            state.server.client_left(session, "its connection ended", state.now)

    def renew_leases(self, server_epoch: int) -> None:
        """Renew the leases of all reachable clients, now and periodically."""
        state = self._state
        server = state.server
        if server is None or state.server_epoch != server_epoch:
            return
        for client in state.clients.values():
            is_running = state.now >= max(client.last_event_at, client.paused_until)
            if client.session and not client.partitioned and is_running:
                try:
                    server.sessions.lease_renewed(client.session, state.now)
                except SessionUnknown:
                    self.lose_session(client)
        state.clock.after(server.sessions.lease_ns // RENEWALS_PER_LEASE, self.renew_leases, server_epoch)

    # -- events

    def send_event(self, session: int, event: MemberEffect) -> None:
        """Send an event to a client; events arrive in order.

        Args:
            session: the client's session.
            event: what to send.
        """
        state = self._state
        client = state.client_of(session)
        if client is not None:
            client.last_event_at = max(client.last_event_at, state.now + state.delay(client))
            client.events.append(event)
            state.at_client(client, client.last_event_at, self._event_arrived, client, client.epoch)

    def _event_arrived(self, client: Client, epoch: int) -> None:
        state = self._state
        if client.epoch != epoch:
            return
        if client.partitioned:  # TCP retransmits as long as the connection lives
            state.at_client(client, state.now + REJOIN_NS, self._event_arrived, client, epoch)
            return
        match client.events.popleft():
            case Assign() as assigned:
                self._begin_file(client, assigned)
            case StartExchange(_, file_id):
                if file_id in client.declined_files:
                    declined = client.declined_files[file_id]
                    client.declined_files[file_id] = replace(declined, exchange_started=True)
                client.machine.exchange_started(file_id, state.now)
            case VerifyFile(_, file_id):
                self.reverify(client, file_id)
            case RemoveFile(_, file_id):
                client.declined_files.pop(file_id, None)
                client.machine.file_dropped(file_id)
                client.store.discard(file_id)
            case EndSession():
                self.lose_session(client)
        state.touch(client)

    # -- files

    def _begin_file(self, client: Client, assigned: Assign) -> None:
        """Start a download, or decline it and retry later, as the daemon does."""
        state = self._state
        manifest, division = assigned.manifest, assigned.division
        client.declined_files.pop(manifest.file_id, None)
        try:
            held = client.store.begin(manifest)
        except StorageError as error:
            client.machine.file_dropped(manifest.file_id)
            self._report_declined(client, manifest.file_id, str(error), division, still_holds=False)
            self._retry_later(client, assigned)
        else:
            started = assigned.exchange_started
            client.machine.file_assigned(manifest, assigned.shares, started, held, state.now, division)
            state.touch(client)

    def _retry_later(self, client: Client, declined: Assign) -> None:
        state, file_id = self._state, declined.manifest.file_id
        client.declined_files[file_id] = declined
        state.at_client(client, state.now + DECLINED_RETRY_NS, self._retry_file, client, client.epoch, file_id)

    def _retry_file(self, client: Client, epoch: int, file_id: FileId) -> None:
        if client.epoch == epoch and file_id in client.declined_files:
            self._begin_file(client, replace(client.declined_files[file_id], shares=()))

    def decline(self, client: Client, file_id: FileId, error: PspError) -> None:
        """Stop a download that the client cannot store or finish.

        The client goes on to send what it holds, and retries later; neither if the file's digests contradict
        each other.

        Args:
            client: whose download it is.
            file_id: the file.
            error: why it fails.
        """
        state = self._state
        download = client.machine.downloads[file_id]
        has_started = download.stage in (Stage.EXCHANGE, Stage.FINISHING)
        contradicts = isinstance(error, ContradictoryDigests)
        if contradicts:
            client.machine.file_dropped(file_id)
        else:
            client.machine.file_declined(file_id, state.now)
        self._report_declined(client, file_id, str(error), download.division, still_holds=not contradicts)
        if not contradicts:
            assigned = Assign(client.session, download.manifest, (), has_started, download.division)
            self._retry_later(client, assigned)
        state.touch(client)

    def _report_declined(
        self, client: Client, file_id: FileId, reason: str, division: int, *, still_holds: bool
    ) -> None:
        self._state.after_delay(
            client, self._declined_arrived, client, client.epoch, file_id, reason, division, still_holds
        )

    def _declined_arrived(
        self, client: Client, epoch: int, file_id: FileId, reason: str, division: int, still_holds: bool
    ) -> None:
        state = self._state
        if client.epoch == epoch and state.server is not None:
            with suppress(PspError):
                state.server.catalogue.file_declined(
                    client.session, file_id, reason, state.now, division=division, still_holds=still_holds
                )

    def finish(self, client: Client, file_id: FileId) -> None:
        """Make a complete file visible; verify or decline it if that fails.

        Args:
            client: whose file it is.
            file_id: the file.
        """
        try:
            client.store.finish(file_id)
        except IntegrityError:
            self.reverify(client, file_id)
        except PspError as error:
            self.decline(client, file_id, error)
        else:
            client.machine.file_finished(file_id)
            self._state.touch(client)

    def reverify(self, client: Client, file_id: FileId) -> None:
        """Verify a client's stored file between two sessions, as the daemon does.

        Args:
            client: whose file it is.
            file_id: the file.
        """
        session, link = client.session, client.link
        client.machine.file_dropped(file_id)
        if file_id in client.store.known():
            client.store.verify(file_id)
        self.lose_session(client)
        state = self._state
        state.after_delay(client, self.connections_closed, state.server_epoch, session, link)

    # -- reports

    def report(self, client: Client, effect: ReportMilestone) -> None:
        """Send a client's report to the server.

        Args:
            client: the client.
            effect: what it reports.
        """
        self._state.after_delay(client, self._report_arrived, client, client.epoch, effect)

    def _report_arrived(self, client: Client, epoch: int, effect: ReportMilestone) -> None:
        state = self._state
        server = state.server
        if client.epoch != epoch or server is None:
            return
        if client.partitioned:
            state.clock.after(REJOIN_NS, self._report_arrived, client, epoch, effect)
            return
        # An unknown session or file is no error: the client reports again in its next session.
        with suppress(SessionUnknown, NotFound):
            server.catalogue.milestone_reached(client.session, effect, state.now)
