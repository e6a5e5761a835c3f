"""The server's data plane: one UDP socket, one TCP listener, and the links of its clients."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from pspd.core.effects import Address, CloseLink, ControlEffect, Deliver, SendDatagram, ServerEffect, address_text
from pspd.core.server import ServerMachine
from pspd.core.wire import Frame, Kind, WireError
from pspd.net.acceptor import Acceptor
from pspd.net.datagrams import DatagramSocket
from pspd.net.driver import Driver, now_ns
from pspd.net.faults import Faults
from pspd.net.link import Link
from pspd.net.sockets import bind_pair

NAMELESS_LINKS_MAX = 8192
"""Connections that have not said whose they are, contributions on their own included."""


class ServerPlane:
    """Drives a server machine over real sockets.

    Args:
        machine: the protocol.
        control: takes the effects that are not about data, and events.
        host: where to listen.
        port: the number of both the UDP and the TCP port; 0 for any.

    Raises:
        PortTaken: the port cannot be had.
    """

    def __init__(
        self,
        machine: ServerMachine,
        control: Callable[[ControlEffect], None],
        host: str,
        port: int,
        faults: Faults | None = None,
    ) -> None:
        self._machine = machine
        self._control = control
        self._loop = asyncio.get_running_loop()
        listener, datagrams = bind_pair(host, port)
        self._datagrams = DatagramSocket(datagrams, self._on_datagram, faults)
        self._driver: Driver[ServerEffect] = Driver(machine, self._carry_out)
        self._links: dict[int, Link] = {}
        self._nameless: set[Link] = set()
        self._deliveries: set[_OwnConnection] = set()
        self._acceptor = Acceptor(listener, self._take_in)

    @property
    def port(self) -> int:
        """The number of both ports."""
        return self._datagrams.port

    def pump(self) -> None:
        """Carries out what the machine wants done; to be called after every command to it."""
        self._driver.pump()

    def close(self) -> None:
        """Closes every socket."""
        self._driver.close()
        self._acceptor.close()
        self._datagrams.close()
        for link in [*self._links.values(), *self._nameless, *(own.link for own in self._deliveries)]:
            link.close()

    # -- effects

    def _carry_out(self, effect: ServerEffect) -> None:
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
        """Sends over the client's link, or over a connection of its own (R6)."""
        if not self._machine.parameters.kept_links:
            self._deliver_alone(delivery)
            return
        link = self._links.get(delivery.session)
        if link is None:
            self._machine.delivery_failed(delivery.session, delivery.number, now_ns())
        else:
            link.send(delivery.frame, delivery.views, lambda sent: self.delivery_left(delivery, sent))

    def delivery_left(self, delivery: Deliver, sent: bool) -> None:
        """The views of a delivery are no longer needed: its bytes are with the kernel, or will not be sent."""
        tell = self._machine.delivery_sent if sent else self._machine.delivery_failed
        tell(delivery.session, delivery.number, now_ns())
        self.pump()

    def _deliver_alone(self, delivery: Deliver) -> None:
        address = self._machine.delivery_address(delivery.session)
        try:
            if address is None:
                raise ConnectionError("the client is gone")
            own = _OwnConnection(self, delivery)
            own.link = Link.dial(address, own)
        except OSError:
            self.delivery_left(delivery, sent=False)
            return
        self._deliveries.add(own)
        own.link.send(delivery.frame, delivery.views, own.sent)
        own.link.close_when_sent()

    def delivery_closed(self, own: _OwnConnection, delivery: Deliver, arrived: bool) -> None:
        """A delivery's own connection is gone."""
        self._deliveries.discard(own)
        tell = self._machine.delivery_finished if arrived else self._machine.delivery_failed
        tell(delivery.session, delivery.number, now_ns())
        self.pump()

    # -- datagrams

    def _on_datagram(self, data: bytes, source: Address) -> None:
        self._machine.receive_datagram(data, source, now_ns())
        self.pump()

    # -- links

    def _take_in(self, stream: socket.socket) -> None:
        if len(self._nameless) >= NAMELESS_LINKS_MAX:
            stream.close()
            return
        self._nameless.add(Link(stream, self))

    def frame_started(self, link: Link, frame: Frame) -> list[memoryview] | None:
        """Implements ``LinkHandler``: a link names its session first; contributions follow, or come alone."""
        if frame.kind is Kind.LINK:
            self._name(link, frame.session)
            return None
        targets = self._machine.contribution_started(frame, _origin(link), now_ns())
        self.pump()
        return targets

    def _name(self, link: Link, session: int) -> None:
        if link.session == 0 and self._machine.link_opened(session, now_ns()):
            self._nameless.discard(link)
            previous = self._links.pop(session, None)
            link.session = session
            self._links[session] = link
            if previous is not None:
                previous.session = 0
                previous.close()
            self.pump()
        else:
            self._loop.call_soon(link.close)

    def frame_received(self, link: Link, frame: Frame) -> None:
        """Implements ``LinkHandler``."""
        self._machine.contribution_received(frame, now_ns())
        self.pump()

    def frame_aborted(self, link: Link, frame: Frame) -> None:
        """Implements ``LinkHandler``."""
        self._machine.contribution_aborted(frame, now_ns())
        self.pump()

    def link_opened(self, link: Link) -> None:
        """Implements ``LinkHandler``; the server's kept links are accepted, never dialled."""

    def link_closed(self, link: Link, error: WireError | None) -> None:
        """Implements ``LinkHandler``."""
        self._nameless.discard(link)
        if error is not None:
            self._machine.frame_refused(error.reason, _origin(link))
        if self._links.get(link.session) is link:
            del self._links[link.session]
            self._machine.link_closed(link.session, now_ns())
        self.pump()


class _OwnConnection:
    """A delivery that has a TCP connection to itself: dialled, sent, and closed by the client (classic)."""

    link: Link

    def __init__(self, plane: ServerPlane, delivery: Deliver) -> None:
        self._plane = plane
        self._delivery = delivery
        self._sent = False

    def sent(self, sent: bool) -> None:
        """The bytes are with the kernel, or will never be."""
        self._sent = sent
        if sent:
            self._plane.delivery_left(self._delivery, sent=True)

    def frame_started(self, link: Link, frame: Frame) -> list[memoryview] | None:
        """Implements ``LinkHandler``; nothing is expected from this side."""
        return None

    def frame_received(self, link: Link, frame: Frame) -> None:
        """Implements ``LinkHandler``."""

    def frame_aborted(self, link: Link, frame: Frame) -> None:
        """Implements ``LinkHandler``."""

    def link_opened(self, link: Link) -> None:
        """Implements ``LinkHandler``."""

    def link_closed(self, link: Link, error: WireError | None) -> None:
        """Implements ``LinkHandler``: closed in good order after everything was sent means taken."""
        self._plane.delivery_closed(self, self._delivery, self._sent and not link.broken and error is None)


def _origin(link: Link) -> str:
    return address_text(link.peer)
