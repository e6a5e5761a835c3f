"""Keeps a member's link to the server open, and records whether UDP and TCP work."""

from __future__ import annotations

import asyncio
from random import Random

from pspd.core.wire.frames import Frame
from pspd.core.wire.header import Kind
from pspd.net.backoff import Backoff
from pspd.net.connection import ConnectionHandler, FrameConnection
from pspd.net.dial import DialLog
from pspd.text.addresses import Address, address_text

DIAL_SECONDS_MIN = 0.05
DIAL_SECONDS_MAX = 2.0
"""The first and the longest delay between two connection attempts, before jitter."""
STABLE_SECONDS = 1.0
"""A link that ends sooner is a failed attempt: another program or a proxy may have accepted the connection."""


class DataPathStatus:
    """A record of whether UDP and TCP have worked between a member and the server in one session.

    Attributes:
        ready: set as soon as both UDP and TCP have worked.
        tcp_failure: the reason why the last TCP connection attempt failed; None if it succeeded. Before the
            first attempt has ended, it is "no answer".
    """

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self._udp_works = False
        self.tcp_failure: str | None = "no answer"

    def note_udp(self) -> None:
        """Record that datagrams travel in both directions."""
        self._udp_works = True
        self._update_ready()

    def note_tcp(self, failure: str | None) -> None:
        """Record the result of a TCP connection attempt: the reason why it failed; None if it succeeded."""
        self.tcp_failure = failure
        self._update_ready()

    def _update_ready(self) -> None:
        if self._udp_works and self.tcp_failure is None:
            self.ready.set()

    def problem_text(self, server: Address) -> str:
        """Return a message for the user: which protocol does not work, and what to check."""
        shown, port = address_text(server), server[1]
        if self.tcp_failure is None:
            return f"no answer from {shown} by UDP: is UDP port {port} open?"
        if self._udp_works:
            return f"cannot connect to {shown} by TCP ({self.tcp_failure}): is TCP port {port} open?"
        return f"cannot reach {shown} by UDP or TCP ({self.tcp_failure}): are UDP and TCP port {port} open?"


class ReconnectingLink:
    """Keeps one link to the server open: connects, sends the session number, and connects again when the link breaks.

    Args:
        handler: the handler of the frames. It must call :meth:`note_opened` and :meth:`note_closed` for the current
            link.

    Attributes:
        current: the current link, which may still be connecting; None between two attempts and after :meth:`close`.
    """

    def __init__(self, handler: ConnectionHandler) -> None:
        self.current: FrameConnection | None = None
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._backoff = Backoff(DIAL_SECONDS_MIN, DIAL_SECONDS_MAX, Random())
        self._dial_log = DialLog()
        self._session = 0
        self._server_address: Address = ("", 0)
        self._data_path = DataPathStatus()
        self._is_stable = False
        self._timer: asyncio.TimerHandle | None = None

    def open(self, session: int, server: Address, data_path: DataPathStatus) -> None:
        """Connect to a server, and connect again whenever the link breaks, until :meth:`close` is called.

        Args:
            session: the session number of the member.
            server: the address of the server's data port.
            data_path: the record of whether attempts succeed.
        """
        self._session, self._server_address, self._data_path = session, server, data_path
        self._dial()

    def close(self) -> None:
        """Close the link, and do not connect again."""
        self._cancel_timer()
        connection, self.current = self.current, None
        if connection is not None:
            connection.close()

    def note_opened(self) -> None:
        """Record that the current link is connected, and begin to wait until it is stable."""
        self._data_path.note_tcp(None)
        self._timer = self._loop.call_later(STABLE_SECONDS, self._note_stable)

    def note_closed(self, connection: FrameConnection) -> None:
        """Schedule the next attempt after the current link was closed; record a failure if the link was not stable."""
        self.current = None
        self._cancel_timer()
        if not self._is_stable:
            self._note_failure(connection.connect_failure or "it was closed at once")
        self._dial_later()

    def _dial(self) -> None:
        self._timer = None
        self._is_stable = False
        try:
            self.current = FrameConnection.dial(self._server_address, self._handler, persistent=True)
        except OSError as error:
            self._note_failure(error.strerror or str(error))
            self._dial_later()
            return
        self.current.send(Frame(Kind.LINK, self._session), [])
        self.current.start()

    def _note_stable(self) -> None:
        self._timer = None
        self._is_stable = True
        self._backoff.reset()
        self._dial_log.note_success(self._server_address)

    def _note_failure(self, why: str) -> None:
        self._data_path.note_tcp(why)
        self._dial_log.note_failure(self._server_address, why)

    def _dial_later(self) -> None:
        self._timer = self._loop.call_later(self._backoff.next_seconds(), self._dial)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
