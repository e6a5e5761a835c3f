"""A UDP socket on the event loop."""

from __future__ import annotations

import asyncio
import socket

from pspd.core.effects import Address
from pspd.core.wire import DATAGRAM_BYTES_MAX
from pspd.net.faults import Faults, FaultyReceiver, Receive
from pspd.net.turns import Turns

DATAGRAMS_PER_WAKEUP = 64
"""How many datagrams are taken in a row before the loop sees to others."""


class DatagramSocket:
    """Sends and receives datagrams; takes ownership of a bound, non-blocking socket.

    Attributes:
        unsent_count: datagrams that the kernel would not take; they count as lost on the way.
    """

    def __init__(self, bound: socket.socket, receive: Receive, faults: Faults | None = None) -> None:
        self.unsent_count = 0
        self._socket = bound
        self._receive = FaultyReceiver(faults, receive) if faults else receive
        self._loop = asyncio.get_running_loop()
        self._turns = Turns.of_running_loop()
        self._loop.add_reader(bound, self._on_readable)

    @property
    def port(self) -> int:
        """The port it is bound to."""
        return int(self._socket.getsockname()[1])

    def send(self, data: bytes, address: Address) -> None:
        """Sends a datagram, or loses it: whoever needs it to arrive sends it again (R11)."""
        try:
            self._socket.sendto(data, address)
        except OSError:
            self.unsent_count += 1

    def _on_readable(self) -> None:
        for _ in range(DATAGRAMS_PER_WAKEUP):
            if self._socket.fileno() < 0 or not self._turns.has_time_for(self._on_readable):
                return
            try:
                # One byte more than allowed: a longer datagram is then seen to be too long.
                data, source = self._socket.recvfrom(DATAGRAM_BYTES_MAX + 1)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of an earlier datagram
            self._receive(data, source[:2])

    def close(self) -> None:
        """Closes the socket."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()
