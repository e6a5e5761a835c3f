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
from pspd.net.datagrams import DatagramSockets
from pspd.net.dial import DialLog
from pspd.net.driver import Driver, now_ns
from pspd.net.faults import Faults
from pspd.net.link import Link
from pspd.net.sockets import bind_pairs
from pspd.text.addresses import Address, address_text

ACCEPTS_PER_WAKEUP = 256
UNIDENTIFIED_LINKS_MAX = 8192
"""The most accepted connections without a LINK frame. In the classic profile, every accepted connection counts."""
IDENTIFY_SECONDS_MAX = 15.0
"""How long the peer of an accepted link may take to send its LINK frame."""


class ServerPlane:
    """Drives the server's state machine over real sockets.

    Args:
        machine: the server's state machine.
        control: called with each control effect, to execute it.
        hosts: the hosts to listen on, as literals: see ``listen_hosts``.
        port: the number of both the UDP and the TCP port; 0 for any.
        faults: the faults to inject into received datagrams; None for none.

    Raises:
        PortTaken: an address is not available, or the port is not free.
    """

    def __init__(
        self,
        machine: ServerMachine,
        control: Callable[[ControlEffect], None],
        hosts: Sequence[str],
        port: int,
        faults: Faults | None = None,
    ) -> None:
        self._machine = machine
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._driver: Driver[ServerEffect] = Driver(machine, self._execute)
        self._sessions: dict[Link, int] = {}  # by accepted connection; 0 without a LINK frame
        self._links: dict[int, Link] = {}  # the link of each session
        self._delivering: set[Link] = set()  # dialled connections, each for one delivery
        self._receptions: dict[Link, Reception] = {}  # of the contribution in progress on each connection
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
        for link in [*self._sessions, *self._delivering]:
            link.close()

    # -- effects

    def _execute(self, effect: ServerEffect) -> None:
        match effect:
            case SendDatagram(address, data):
                self._datagrams.send(data, address)
            case Deliver():
                self._deliver(effect)
            case CloseLink(session):
                if (link := self._links.get(session)) is not None:
                    link.close()
            case _:
                self._control(effect)

    def _deliver(self, delivery: Deliver) -> None:
        """Send a delivery over the client's link or a separate connection (R6), or report a failure to the machine."""
        kept = self._machine.parameters.kept_links
        link = self._links.get(delivery.session) if kept else self._dial(delivery.session)
        if link is None:
            self._delivery_ended(delivery, sent=False)
            return
        link.send(delivery.frame, delivery.views, lambda sent: self._delivery_ended(delivery, sent))
        if not kept:
            link.close_when_sent()
            link.start()

    def _dial(self, session: int) -> Link | None:
        """Connect to a client for one delivery; return None if the client has no port or the attempt fails at once."""
        address = self._machine.delivery_address(session)
        if address is None:
            return None
        try:
            link = Link.dial(address, self, persistent=False)
        except OSError as error:
            self._dial_log.failed(address, error.strerror or str(error))
            return None
        self._delivering.add(link)
        return link

    def _delivery_ended(self, delivery: Deliver, sent: bool) -> None:
        """Tell the machine that the kernel has all bytes of a delivery, or that it failed: its views are free again."""
        report = self._machine.delivery_sent if sent else self._machine.delivery_failed
        report(delivery.session, delivery.number, now_ns())
        self.pump()

    # -- input

    def _on_datagram(self, data: bytes, source: Address) -> None:
        self._machine.receive_datagram(data, source, now_ns())
        self.pump()

    def _accept(self, stream: socket.socket, peer: Address) -> None:
        if len(self._sessions) - len(self._links) >= UNIDENTIFIED_LINKS_MAX:
            stream.close()
            self._machine.connection_dropped(DropReason.TOO_MANY, address_text(peer))
            self.pump()
            return
        kept = self._machine.parameters.kept_links
        link = Link.accepted(stream, peer, self, persistent=kept)
        self._sessions[link] = 0
        if kept:
            self._loop.call_later(IDENTIFY_SECONDS_MAX, self._close_unidentified, link)
        link.start()

    def _close_unidentified(self, link: Link) -> None:
        """Close an accepted connection on which no complete LINK frame has arrived."""
        if self._sessions.get(link) == 0:
            self._refuse(link, DropReason.SILENT)

    def frame_started(self, link: Link, frame: Frame) -> list[memoryview] | None:
        """See ``FrameHandler.frame_started``. On a link, LINK must come first, then only contributions."""
        kept = self._machine.parameters.kept_links
        is_link_due = kept and self._sessions[link] == 0
        if is_link_due != (frame.kind is Kind.LINK):
            self._refuse(link, DropReason.MISPLACED)
            return None
        if is_link_due:
            self._identify(link, frame.session)
            return None
        # A link carries frames of its own session only: CloseLink for another session would not close this link.
        if kept and self._sessions[link] != frame.session:
            self._refuse(link, DropReason.UNKNOWN_SESSION)
            return None
        reception = self._machine.contribution_started(frame, address_text(link.peer), now_ns())
        if reception is not None:
            self._receptions[link] = reception
        self.pump()
        if reception is None and not kept:
            link.close()  # the connection was for this transfer only
        return reception.views if reception is not None else None

    def _refuse(self, link: Link, reason: DropReason) -> None:
        """Count a violation of the protocol by the peer, and close the connection."""
        self._machine.connection_dropped(reason, address_text(link.peer))
        link.close()

    def _identify(self, link: Link, session: int) -> None:
        """Assign a link to a session and close the session's previous link; close the link of an unknown session."""
        if not self._machine.link_opened(session, now_ns()):
            link.close()
            return
        previous = self._links.get(session)
        self._sessions[link] = session
        self._links[session] = link
        if previous is not None:
            previous.close()
        self.pump()

    def frame_continued(self, link: Link, frame: Frame) -> list[memoryview]:
        """See ``FrameHandler.frame_continued``. Never called: contributions get all their memory at the start."""
        raise AssertionError("a contribution has memory for all of its payload")

    def frame_received(self, link: Link, frame: Frame) -> None:
        """See ``FrameHandler.frame_received``."""
        self._machine.contribution_received(self._receptions.pop(link), now_ns())
        self.pump()

    def frame_aborted(self, link: Link, frame: Frame) -> None:
        """See ``LinkHandler.frame_aborted``."""
        self._machine.contribution_aborted(self._receptions.pop(link), now_ns())
        self.pump()

    def link_opened(self, link: Link) -> None:
        """See ``LinkHandler.link_opened``. The server dials only in the classic profile, for single deliveries."""
        self._dial_log.succeeded(link.peer)

    def link_closed(self, link: Link, error: WireError | None) -> None:
        """See ``LinkHandler.link_closed``."""
        if link in self._delivering:
            self._delivering.remove(link)
            if link.connect_failure:
                self._dial_log.failed(link.peer, link.connect_failure)
            return
        session = self._sessions.pop(link, 0)
        if error is not None:
            self._machine.connection_dropped(error.reason, address_text(link.peer))
        if self._links.get(session) is link:
            del self._links[session]
            self._machine.link_closed(session, now_ns())
        self.pump()
