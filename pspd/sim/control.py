"""The control plane between the server and its clients: sessions, links, leases, events, files and reports."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from pspd import errors
from pspd.core.client.download import Stage
from pspd.core.effects import server as effects
from pspd.core.effects.client import ReportMilestone
from pspd.core.model.manifest import FileId
from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS
from pspd.core.server.machine import ServerMachine
from pspd.sim.hosts import Client, Connection
from pspd.sim.network_state import SERVER, NetworkState

CALL_RETRY_NS = SECOND_NS
"""The time between two attempts to send a call or an event, in nanoseconds; for Join, the mean time."""
REDIAL_NS = 50 * MILLISECOND_NS
"""The mean time between two attempts to open a link, in nanoseconds."""
DECLINED_RETRY_NS = 5 * SECOND_NS
"""The time after which a client tries again to store a file that it declined, in nanoseconds."""
RENEWALS_PER_LEASE = 4


class ControlPlane:
    """Carries control calls and events, opens and closes links, and acts on events as the client daemon does."""

    def __init__(self, network: NetworkState) -> None:
        self._network = network

    # -- sessions

    def join(self, client: Client) -> None:
        """Send Join for the client; retry until it has a session or its process has ended (`Client.epoch`)."""
        network = self._network
        if not client.alive or client.session or client.joining:
            return
        if network.server is None or client.partitioned:
            self._rejoin(client)
            return
        client.joining = True
        network.after_delay(client, self._join_arrived, network.server_epoch)

    def _rejoin(self, client: Client) -> None:
        network = self._network
        network.in_epoch(client, network.now + network.jittered(CALL_RETRY_NS), self.join)

    def _join_arrived(self, client: Client, server_epoch: int) -> None:
        network, server = self._network, self._network.server_for_input()
        client.joining = False
        if server is None or network.server_epoch != server_epoch or client.partitioned:
            self._rejoin(client)
            return
        held = {} if client.is_source else client.store.known()
        port = 0 if network.parameters.kept_links else 1
        try:
            member = server.member_joined(
                client.name, client.instance_id, network.now, is_source=client.is_source, delivery_port=port, held=held
            )
        except errors.DuplicateInstance:  # for the server, another session with this identity is alive
            self._rejoin(client)
            return
        # The answer takes time to arrive. The client does nothing in its session before that.
        client.session = member.session
        network.sessions[member.session] = client
        client.events_arrive_by = network.now + network.draw_delay(client)
        network.at_client(client, client.events_arrive_by, self._joined, member.session)

    def _joined(self, client: Client, session: int) -> None:
        network = self._network
        client.machine.joined(session, SERVER, network.parameters, network.now)
        if network.parameters.kept_links:
            self.dial(client)
        network.poll_soon(client)

    def leave(self, client: Client) -> None:
        """Send Leave for the client, unless it has no session or is partitioned."""
        if client.session and not client.partitioned:
            network = self._network
            network.at_server(network.now + network.draw_delay(client), self._leave_arrived, client.session)

    def _leave_arrived(self, server: ServerMachine, session: int) -> None:
        server.member_left(session, "it left", self._network.now)

    def lose_session(self, client: Client) -> None:
        """End the session on the client's side, close the link, and let the client join again."""
        client.machine.left()
        self.close(client)
        client.end_session()
        self._rejoin(client)
        self._network.poll_soon(client)

    def end_disconnected_session(self, server: ServerMachine, session: int, link: Connection) -> None:
        """Tell the server that all connections of a session have closed, and what failed on its link. The session ends.

        Args:
            server: the server's state machine.
            session: the session's number.
            link: the session's link.
        """
        server.link_closed(session, self._network.now)
        self.abort_transfers(link)
        server.member_left(session, "its connection ended", self._network.now)

    def renew_leases(self, server: ServerMachine) -> None:
        """Renew the clients' leases, now and periodically. A client loses a session that the server does not know.

        The lease of a client is not renewed while the client is partitioned or paused, or before the answer to Join or
        the latest event has arrived.
        """
        network = self._network
        for client in network.clients.values():
            can_renew = network.now >= max(client.events_arrive_by, client.paused_until)
            if client.session and not client.partitioned and can_renew:
                try:
                    server.sessions.renew_lease(client.session, network.now)
                except errors.SessionUnknown:
                    self.lose_session(client)
        network.at_server(network.now + server.sessions.lease_ns // RENEWALS_PER_LEASE, self.renew_leases)

    # -- links

    def dial(self, client: Client) -> None:
        """Open the client's link; retry until it is open, or the session or process has ended (`Client.epoch`)."""
        network = self._network
        if client.link.is_open:
            return
        if network.server is None or client.partitioned or client.link_blocked:
            self._redial(client)
        else:
            client.link = Connection()
            network.at_client(client, network.now + 2 * network.draw_delay(client), self._opened, client.link)

    def _redial(self, client: Client) -> None:
        network = self._network
        network.in_epoch(client, network.now + network.jittered(REDIAL_NS), self.dial)

    def _opened(self, client: Client, link: Connection) -> None:
        network, server = self._network, self._network.server_for_input()
        if client.link is not link:
            return
        can_open = not client.partitioned and not client.link_blocked
        if server is not None and can_open and server.link_opened(client.session, network.now):
            link.is_open = True
            client.machine.link_opened(network.now)
            network.poll_soon(client)
        else:
            self._redial(client)

    def break_link(self, client: Client) -> None:
        """Break the client's link if it is open; the client dials again."""
        if client.link.is_open:
            self.close(client)
            self._redial(client)

    def close(self, client: Client) -> None:
        """Close the client's link on both sides."""
        link, client.link = client.link, Connection()
        server = self._network.server_for_input()
        if server is not None and client.session:
            server.link_closed(client.session, self._network.now)
        self.abort_transfers(link)

    def abort_transfers(self, link: Connection) -> None:
        """Mark a link as closed; tell the server that the contribution and the queued deliveries on it failed."""
        link.is_open = False
        server, now = self._network.server_for_input(), self._network.now
        if server is None:
            return
        if link.receiving is not None:
            reception, link.receiving = link.receiving, None
            server.contribution_aborted(reception, now)
        while link.queue:
            delivery = link.queue.popleft()
            server.delivery_failed(delivery.session, delivery.number, now)

    # -- events

    def send_event(self, session: int, event: effects.MemberEffect) -> None:
        """Send an event to a client, unless the client has ended the session. Events arrive in order.

        Args:
            session: the number of the client's session.
            event: the event.
        """
        network = self._network
        client = network.client_of(session)
        if client is not None:
            client.events_arrive_by = max(client.events_arrive_by, network.now + network.draw_delay(client))
            client.events.append(event)
            network.at_client(client, client.events_arrive_by, self._event_arrived)

    def _event_arrived(self, client: Client) -> None:
        network = self._network
        if client.partitioned:  # TCP retransmits until the connection ends
            network.at_client(client, network.now + CALL_RETRY_NS, self._event_arrived)
            return
        match client.events.popleft():
            case effects.Assign() as assigned:
                self._begin_file(client, assigned)
            case effects.StartExchange(_, file_id):
                if (declined := client.declined_files.get(file_id)) is not None:
                    client.declined_files[file_id] = replace(declined, exchange_started=True)
                client.machine.exchange_started(file_id, network.now)
            case effects.VerifyFile(_, file_id):
                self.reverify(client, file_id)
            case effects.RemoveFile(_, file_id):
                client.declined_files.pop(file_id, None)
                client.machine.file_dropped(file_id)
                client.store.discard(file_id)
            case effects.EndSession():
                self.lose_session(client)
        network.poll_soon(client)

    # -- files

    def _begin_file(self, client: Client, assigned: effects.Assign) -> None:
        """Start a download. If the store cannot begin the file, decline it and retry later, as the daemon does."""
        manifest, division = assigned.manifest, assigned.division
        client.declined_files.pop(manifest.file_id, None)
        try:
            held = client.store.begin(manifest)
        except errors.StorageError as error:
            client.machine.file_dropped(manifest.file_id)
            self._network.after_delay(client, self._declined_arrived, manifest.file_id, str(error), division, False)
            self._retry_later(client, assigned)
        else:
            exchange_started, now = assigned.exchange_started, self._network.now
            client.machine.file_assigned(manifest, assigned.shares, exchange_started, held, now, division)
            self._network.poll_soon(client)

    def _retry_later(self, client: Client, declined: effects.Assign) -> None:
        file_id = declined.manifest.file_id
        client.declined_files[file_id] = declined
        self._network.at_client(client, self._network.now + DECLINED_RETRY_NS, self._retry_file, file_id)

    def _retry_file(self, client: Client, file_id: FileId) -> None:
        if file_id in client.declined_files:
            self._begin_file(client, replace(client.declined_files[file_id], shares=()))

    def decline(self, client: Client, file_id: FileId, error: errors.PspError) -> None:
        """Stop a download that the client cannot store or finish, and report this to the server.

        The client still contributes the chunks that it holds, and retries later. If the file's digests contradict each
        other, it does neither.

        Args:
            client: the client.
            file_id: the file's id.
            error: the error that stopped the download.
        """
        download = client.machine.downloads[file_id]
        exchange_started = download.stage in (Stage.EXCHANGE, Stage.FINISHING)
        contradicts, division = isinstance(error, errors.ContradictoryDigests), download.division
        self._network.after_delay(client, self._declined_arrived, file_id, str(error), division, not contradicts)
        if contradicts:
            client.machine.file_dropped(file_id)
        else:
            client.machine.file_declined(file_id, self._network.now)
            self._retry_later(client, effects.Assign(client.session, download.manifest, (), exchange_started, division))
        self._network.poll_soon(client)

    def _declined_arrived(self, client: Client, file_id: FileId, reason: str, division: int, still_holds: bool) -> None:
        server, now = self._network.server_for_input(), self._network.now
        if server is not None:
            with suppress(errors.PspError):
                server.catalogue.file_declined(
                    client.session, file_id, reason, now, division=division, still_holds=still_holds
                )

    def finish(self, client: Client, file_id: FileId) -> None:
        """Make a complete file visible. If this fails, verify or decline the file.

        Args:
            client: the client.
            file_id: the file's id.
        """
        try:
            client.store.finish(file_id)
        except errors.IntegrityError:
            self.reverify(client, file_id)
        except errors.PspError as error:
            self.decline(client, file_id, error)
        else:
            client.machine.file_finished(file_id)
            self._network.poll_soon(client)

    def reverify(self, client: Client, file_id: FileId) -> None:
        """Verify a file in the client's store, and let the client join again in a new session, as the daemon does.

        Args:
            client: the client.
            file_id: the file's id.
        """
        network, session, link = self._network, client.session, client.link
        client.machine.file_dropped(file_id)
        if file_id in client.store.known():
            client.store.verify(file_id)
        self.lose_session(client)
        network.at_server(network.now + network.draw_delay(client), self.end_disconnected_session, session, link)

    # -- reports

    def report_arrived(self, client: Client, effect: ReportMilestone) -> None:
        """Pass a client's report to the server. Retry while the client is partitioned.

        If the server is down, drop the report.

        Args:
            client: the client.
            effect: the report.
        """
        network, server = self._network, self._network.server_for_input()
        if server is None:
            return
        if client.partitioned:
            network.in_epoch(client, network.now + CALL_RETRY_NS, self.report_arrived, effect)
            return
        # An unknown session or file is not an error: the client reports again in its next session.
        with suppress(errors.SessionUnknown, errors.NotFound):
            server.catalogue.milestone_reached(client.session, effect, network.now)
