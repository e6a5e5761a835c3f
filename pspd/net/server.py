"""The server's data plane: one UDP socket, one TCP listener, and the links of its clients."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from pspd.core.effects.server import CloseLink, ControlEffect, Deliver, ServerEffect
from pspd.core.effects.shared import SendDatagram
from pspd.core.server.machine import ServerMachine
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason, Kind, WireError
from pspd.host.addresses import ANY_HOSTS
from pspd.net.acceptor import Acceptor
from pspd.net.datagrams import DatagramSocket, ReplyPaths
from pspd.net.dial import DialLog
from pspd.net.driver import Driver, now_ns
from pspd.net.faults import Faults
from pspd.net.link import SILENT_SECONDS_MAX, Link
from pspd.net.sockets import bind_pairs
from pspd.text.addresses import Address, address_text

ACCEPTS_PER_WAKEUP = 256
NAMELESS_LINKS_MAX = 8192
"""Connections that have not said whose they are, contributions on their own included."""
DIAL_LOGS_MAX = 1000
"""Clients that the server cannot dial and remembers, so that it logs each of them only once in a while."""


class ServerPlane:
    """Drives a server machine over real sockets.

    Args:
        machine: the protocol.
        control: takes the effects that are not about data, and events.
        hosts: where to listen: literals, as ``listen_hosts`` returns them.
        port: the number of both the UDP and the TCP port; 0 for any.

    Raises:
        PortTaken: the port cannot be had.
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
        pairs = bind_pairs(hosts, port)
        sockets = zip(hosts, (bound for _, bound in pairs), strict=True)
        self._datagrams = [self._datagram_socket(bound, host, faults) for host, bound in sockets]
        self._ways: ReplyPaths[DatagramSocket] | None = ReplyPaths() if len(pairs) > 1 else None
        self._driver: Driver[ServerEffect] = Driver(machine, self._carry_out)
        self._links: dict[int, Link] = {}
        self._nameless: set[Link] = set()
        self._deliveries: set[Link] = set()
        self._dial_logs: dict[Address, DialLog] = {}
        self._acceptors = [Acceptor(listener, self._take_in, at_a_time=ACCEPTS_PER_WAKEUP) for listener, _ in pairs]

    @property
    def port(self) -> int:
        """The number of both ports."""
        return self._datagrams[0].port

    def pump(self) -> None:
        """Carries out what the machine wants done; to be called after every command to it."""
        self._driver.pump()

    def close(self) -> None:
        """Closes every socket."""
        self._driver.close()
        for acceptor in self._acceptors:
            acceptor.close()
        for datagrams in self._datagrams:
            datagrams.close()
        for link in [*self._links.values(), *self._nameless, *self._deliveries]:
            link.close()

    # -- effects

    def _carry_out(self, effect: ServerEffect) -> None:
        match effect:
            case SendDatagram(address, data):
                way = self._ways.of(address) if self._ways is not None else None
                (way or self._datagrams[0]).send(data, address)
            case Deliver():
                self._deliver(effect)
            case CloseLink(session):
                if (link := self._links.get(session)) is not None:
                    link.close()
            case _:
                self._control(effect)

    def _deliver(self, delivery: Deliver) -> None:
        """Sends over the client's link, or over a connection of its own (R6)."""
        kept = self._machine.parameters.kept_links
        link = self._links.get(delivery.session) if kept else self._dial(delivery.session)
        if link is None:
            self._delivery_left(delivery, sent=False)
            return
        link.send(delivery.frame, delivery.views, lambda sent: self._delivery_left(delivery, sent))
        if not kept:
            link.close_when_sent()
            link.begin()

    def _dial(self, session: int) -> Link | None:
        """A connection with a client for one delivery; None if there is none to be had."""
        address = self._machine.delivery_address(session)
        if address is None:
            return None
        try:
            link = Link.dial(address, self, kept=False)
        except OSError as error:
            self._dial_failed(address, error.strerror or str(error))
            return None
        self._deliveries.add(link)
        return link

    def _dial_failed(self, address: Address, why: str) -> None:
        if address not in self._dial_logs and len(self._dial_logs) >= DIAL_LOGS_MAX:
            del self._dial_logs[next(iter(self._dial_logs))]
        self._dial_logs.setdefault(address, DialLog()).failed(address, why)

    def _delivery_left(self, delivery: Deliver, sent: bool) -> None:
        """The views of a delivery are no longer needed: its bytes are with the kernel, or will not be sent."""
        tell = self._machine.delivery_sent if sent else self._machine.delivery_failed
        tell(delivery.session, delivery.number, now_ns())
        self.pump()

    # -- datagrams

    def _datagram_socket(self, bound: socket.socket, host: str, faults: Faults | None) -> DatagramSocket:
        def receive(data: bytes, source: Address) -> None:
            if self._ways is not None:
                self._ways.note(source, made)
            self._on_datagram(data, source)

        made = DatagramSocket(bound, receive, faults, keeps_local=host in ANY_HOSTS)
        return made

    def _on_datagram(self, data: bytes, source: Address) -> None:
        self._machine.receive_datagram(data, source, now_ns())
        self.pump()

    # -- links

    def _take_in(self, stream: socket.socket, peer: Address) -> None:
        if len(self._nameless) >= NAMELESS_LINKS_MAX:
            stream.close()
            self._machine.frame_refused(DropReason.TOO_MANY, address_text(peer))
            self.pump()
            return
        kept = self._machine.parameters.kept_links
        link = Link.accepted(stream, peer, self, kept=kept)
        self._nameless.add(link)
        if kept:
            self._loop.call_later(SILENT_SECONDS_MAX, self._close_nameless, link)
        link.begin()

    def _close_nameless(self, link: Link) -> None:
        """Closes a link that has not said whose it is, whatever else came over it."""
        if link in self._nameless:
            link.close()
            self._machine.frame_refused(DropReason.SILENT, _origin(link))
            self.pump()

    def frame_started(self, link: Link, frame: Frame) -> list[memoryview] | None:
        """Implements ``LinkHandler``: a link names its session first; contributions follow, or come alone."""
        kept = self._machine.parameters.kept_links
        is_link_due = kept and link.session == 0
        if is_link_due != (frame.kind is Kind.LINK):
            self._refuse(link, DropReason.MISPLACED)
            return None
        if is_link_due:
            self._name(link, frame.session)
            return None
        # Whoever speaks for another could not be told to stop: that other's link would be closed.
        if kept and link.session != frame.session:
            self._refuse(link, DropReason.UNKNOWN_SESSION)
            return None
        targets = self._machine.contribution_started(frame, _origin(link), now_ns())
        self.pump()
        return targets

    def _refuse(self, link: Link, reason: DropReason) -> None:
        """Drops a frame, and closes the connection that brought it."""
        self._machine.frame_refused(reason, _origin(link))
        link.close()

    def _name(self, link: Link, session: int) -> None:
        if self._machine.link_opened(session, now_ns()):
            self._nameless.discard(link)
            previous = self._links.pop(session, None)
            link.session = session
            self._links[session] = link
            if previous is not None:
                previous.session = 0
                previous.close()
            self.pump()
        else:
            link.close()

    def frame_continued(self, link: Link, frame: Frame) -> list[memoryview]:
        """Implements ``LinkHandler``; a contribution has room in the cache from its beginning."""
        raise AssertionError("there is memory for all of a contribution")

    def frame_received(self, link: Link, frame: Frame) -> None:
        """Implements ``LinkHandler``."""
        self._machine.contribution_received(frame, now_ns())
        self.pump()

    def frame_aborted(self, link: Link, frame: Frame) -> None:
        """Implements ``LinkHandler``."""
        self._machine.contribution_aborted(frame, now_ns())
        self.pump()

    def link_opened(self, link: Link) -> None:
        """Implements ``LinkHandler``; what the server dials is for one delivery, which waits for this."""
        if self._dial_logs and (dial_log := self._dial_logs.pop(link.peer, None)) is not None:
            dial_log.succeeded(link.peer)

    def link_closed(self, link: Link, error: WireError | None) -> None:
        """Implements ``LinkHandler``."""
        if link in self._deliveries:
            self._deliveries.remove(link)
            if link.failure:
                self._dial_failed(link.peer, link.failure)
            return
        self._nameless.discard(link)
        if error is not None:
            self._machine.frame_refused(error.reason, _origin(link))
        if self._links.get(link.session) is link:
            del self._links[link.session]
            self._machine.link_closed(link.session, now_ns())
        self.pump()


def _origin(link: Link) -> str:
    return address_text(link.peer)
