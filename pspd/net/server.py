"""The server's data plane: connects the state machine with UDP sockets, TCP listeners and TCP connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from pspd.core.effects.server import CloseLink, ControlEffect, Deliver, ServerEffect
from pspd.core.effects.shared import SendDatagram
from pspd.core.server.contributions import Reception
from pspd.core.server.machine import ServerMachine
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason, Kind, WireError
from pspd.net.acceptor import Acceptor
from pspd.net.connection import FrameConnection
from pspd.net.datagrams import DatagramSockets
from pspd.net.dial import DialLog
from pspd.net.driver import Driver, now_ns
from pspd.net.faults import Faults
from pspd.net.sockets import bind_pairs
from pspd.text.addresses import Address, address_text

ACCEPTS_PER_WAKEUP = 256
UNIDENTIFIED_CONNECTIONS_MAX = 8192
"""The most accepted connections without a LINK frame. In the classic profile, every accepted connection counts."""
IDENTIFY_SECONDS_MAX = 15.0
"""How long the peer of an accepted link may take to send its LINK frame."""


class ServerPlane:
    """Drives the server's state machine over real sockets.

    Args:
        machine: the server's state machine.
        execute_control: called with each control effect, to execute it.
        hosts: the hosts to listen on, as literals: see ``resolve_listen_hosts``.
        port: the number of both the UDP and the TCP port; 0 for any free one.
        faults: the faults to inject into received datagrams; None for none.

    Raises:
        PortTaken: an address is not available, or the port is not free.
    """

    def __init__(
        self,
        machine: ServerMachine,
        execute_control: Callable[[ControlEffect], None],
        hosts: Sequence[str],
        port: int,
        faults: Faults | None = None,
    ) -> None:
        self._machine = machine
        self._execute_control = execute_control
        self._loop = asyncio.get_running_loop()
        self._driver: Driver[ServerEffect] = Driver(machine, self._execute)
        self._sessions: dict[FrameConnection, int] = {}  # of each accepted connection; 0 without a LINK frame
        self._links: dict[int, FrameConnection] = {}  # the link of each session
        self._delivery_connections: set[FrameConnection] = set()  # dialled connections, each for one delivery
        self._receptions: dict[FrameConnection, Reception] = {}  # of the contribution in progress on each connection
        self._dial_log = DialLog()
        pairs = bind_pairs(hosts, port)
        self._datagrams = DatagramSockets(hosts, [bound for _, bound in pairs], self._on_datagram, faults)
        self._acceptors = [
            Acceptor(listener, self._accept, accepts_per_wakeup=ACCEPTS_PER_WAKEUP) for listener, _ in pairs
        ]

    @property
    def port(self) -> int:
        """The number of the UDP port and of the TCP port, which are equal."""
        return self._datagrams.port

    def pump(self) -> None:
        """Execute the machine's effects. Call this after every command to the machine."""
        self._driver.pump()

    def close(self) -> None:
        """Close all sockets."""
        self._driver.close()
        for acceptor in self._acceptors:
            acceptor.close()
        self._datagrams.close()
        for connection in [*self._sessions, *self._delivery_connections]:
            connection.close()

    # -- effects

    def _execute(self, effect: ServerEffect) -> None:
        match effect:
            case SendDatagram(address, data):
                self._datagrams.send(data, address)
            case Deliver():
                self._deliver(effect)
            case CloseLink(session):
                if (connection := self._links.get(session)) is not None:
                    connection.close()
            case _:
                self._execute_control(effect)

    def _deliver(self, delivery: Deliver) -> None:
        """Send a delivery over the client's link or a separate connection (R6), or report a failure to the machine."""
        kept_links = self._machine.parameters.kept_links
        connection = self._links.get(delivery.session) if kept_links else self._dial(delivery.session)
        if connection is None:
            self._delivery_ended(delivery, sent=False)
            return
        connection.send(delivery.frame, delivery.views, lambda sent: self._delivery_ended(delivery, sent))
        if not kept_links:
            connection.close_when_sent()
            connection.start()

    def _dial(self, session: int) -> FrameConnection | None:
        """Connect to a client for one delivery; return None if the client has no port or the attempt fails at once."""
        address = self._machine.delivery_address(session)
        if address is None:
            return None
        try:
            connection = FrameConnection.dial(address, self, persistent=False)
        except OSError as error:
            self._dial_log.note_failure(address, error.strerror or str(error))
            return None
        self._delivery_connections.add(connection)
        return connection

    def _delivery_ended(self, delivery: Deliver, sent: bool) -> None:
        """Tell the machine that the kernel has all bytes of a delivery, or that the delivery failed."""
        report = self._machine.delivery_sent if sent else self._machine.delivery_failed
        report(delivery.session, delivery.number, now_ns())
        self.pump()

    # -- input

    def _on_datagram(self, data: bytes, source: Address) -> None:
        self._machine.receive_datagram(data, source, now_ns())
        self.pump()

    def _accept(self, stream: socket.socket, peer: Address) -> None:
        if len(self._sessions) - len(self._links) >= UNIDENTIFIED_CONNECTIONS_MAX:
            stream.close()
            self._machine.connection_dropped(DropReason.TOO_MANY, address_text(peer))
            self.pump()
            return
        kept_links = self._machine.parameters.kept_links
        connection = FrameConnection.wrap(stream, peer, self, persistent=kept_links)
        self._sessions[connection] = 0
        if kept_links:
            self._loop.call_later(IDENTIFY_SECONDS_MAX, self._close_unidentified, connection)
        connection.start()

    def _close_unidentified(self, connection: FrameConnection) -> None:
        """Close an accepted connection on which no complete LINK frame has arrived."""
        if self._sessions.get(connection) == 0:
            self._refuse(connection, DropReason.SILENT)

    def frame_started(self, connection: FrameConnection, frame: Frame) -> list[memoryview] | None:
        """See ``FrameHandler.frame_started``. On a link, LINK must come first, then only contributions."""
        kept_links = self._machine.parameters.kept_links
        is_link_due = kept_links and self._sessions[connection] == 0
        if is_link_due != (frame.kind is Kind.LINK):
            self._refuse(connection, DropReason.MISPLACED)
            return None
        if is_link_due:
            self._identify(connection, frame.session)
            return None
        # A link carries frames of its own session only: CloseLink for another session would not close this link.
        if kept_links and self._sessions[connection] != frame.session:
            self._refuse(connection, DropReason.UNKNOWN_SESSION)
            return None
        reception = self._machine.contribution_started(frame, address_text(connection.peer), now_ns())
        if reception is not None:
            self._receptions[connection] = reception
        self.pump()
        if reception is None and not kept_links:
            connection.close()  # the connection was for this transfer only
        return reception.views if reception is not None else None

    def _refuse(self, connection: FrameConnection, reason: DropReason) -> None:
        """Count a violation of the protocol by the peer, and close the connection."""
        self._machine.connection_dropped(reason, address_text(connection.peer))
        connection.close()

    def _identify(self, connection: FrameConnection, session: int) -> None:
        """Make a connection the link of a session, and close the previous link; close a link of an unknown session."""
        if not self._machine.link_opened(session, now_ns()):
            connection.close()
            return
        previous = self._links.get(session)
        self._sessions[connection] = session
        self._links[session] = connection
        if previous is not None:
            previous.close()
        self.pump()

    def frame_continued(self, connection: FrameConnection, frame: Frame) -> list[memoryview]:
        """See ``FrameHandler.frame_continued``. Never called: contributions get all their memory at the start."""
        raise AssertionError("a contribution has memory for all of its payload")

    def frame_received(self, connection: FrameConnection, frame: Frame) -> None:
        """See ``FrameHandler.frame_received``."""
        self._machine.contribution_received(self._receptions.pop(connection), now_ns())
        self.pump()

    def frame_aborted(self, connection: FrameConnection, frame: Frame) -> None:
        """See ``ConnectionHandler.frame_aborted``."""
        self._machine.contribution_aborted(self._receptions.pop(connection), now_ns())
        self.pump()

    def connection_opened(self, connection: FrameConnection) -> None:
        """See ``ConnectionHandler.connection_opened``. The server dials only in the classic profile."""
        self._dial_log.note_success(connection.peer)

    def connection_closed(self, connection: FrameConnection, error: WireError | None) -> None:
        """See ``ConnectionHandler.connection_closed``."""
        if connection in self._delivery_connections:
            self._delivery_connections.remove(connection)
            if connection.connect_failure:
                self._dial_log.note_failure(connection.peer, connection.connect_failure)
            return
        session = self._sessions.pop(connection, 0)
        if error is not None:
            self._machine.connection_dropped(error.reason, address_text(connection.peer))
        if self._links.get(session) is connection:
            del self._links[session]
            self._machine.link_closed(session, now_ns())
        self.pump()
