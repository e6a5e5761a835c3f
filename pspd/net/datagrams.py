"""A UDP socket on the event loop."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Generic, TypeVar

from pspd.core.wire.datagrams import DATAGRAM_BYTES_MAX
from pspd.host.addresses import address_of, sockaddr_of
from pspd.net.faults import Faults, FaultyReceiver, Receive
from pspd.net.io_budget import IoBudget
from pspd.text.addresses import Address, address_text

DATAGRAMS_PER_WAKEUP = 64
"""How many datagrams are taken in a row before the loop sees to others."""


REPLY_PATHS_MAX = 65_536
"""How many peers are remembered with the way by which they came. An older one is answered by the way that the kernel
chooses, until its next datagram."""

# Linux's numbers of the options of ip(7) and RFC 3542, section 6, which Python does not name everywhere.
_IP_PKTINFO = 8
_IPV6_RECVPKTINFO = 49
_IPV6_PKTINFO = 50
_CONTROL_BYTES = socket.CMSG_SPACE(20)

log = logging.getLogger(__name__)

T = TypeVar("T")


class ReplyPaths(Generic[T]):
    """Remembers by which way each peer came last, for as many peers as a bound allows."""

    def __init__(self) -> None:
        self._paths: dict[Address, T] = {}

    def note(self, peer: Address, path: T) -> None:
        """Remembers the way of a peer; forgets the oldest of too many."""
        if self._paths.get(peer) != path:
            self._paths[peer] = path
            if len(self._paths) > REPLY_PATHS_MAX:
                del self._paths[next(iter(self._paths))]

    def of(self, peer: Address) -> T | None:
        """Returns the way of a peer; None if it is not remembered."""
        return self._paths.get(peer)


class DatagramSocket:
    """Sends and receives datagrams; takes ownership of a bound, non-blocking socket.

    Args:
        bound: the socket.
        receive: takes each datagram with its sender's address.
        faults: what to spoil of what comes in.
        keeps_local: whether to answer each peer from the local address that it wrote to. Needed where the socket is
            bound to every address of a machine: a peer drops what does not come from the address it knows.

    Attributes:
        unsent_count: datagrams that the kernel would not take; they count as lost on the way.
    """

    def __init__(
        self, bound: socket.socket, receive: Receive, faults: Faults | None = None, *, keeps_local: bool = False
    ) -> None:
        self.unsent_count = 0
        self._is_ipv6 = bound.family == socket.AF_INET6
        self._local: ReplyPaths[bytes] | None = ReplyPaths() if keeps_local and _tell_local(bound) else None
        self._socket = bound
        self._receive = FaultyReceiver(faults, receive) if faults else receive
        self._loop = asyncio.get_running_loop()
        self._turns = IoBudget.of_running_loop()
        self._loop.add_reader(bound, self._on_readable)

    @property
    def port(self) -> int:
        """The port it is bound to."""
        return int(self._socket.getsockname()[1])

    def send(self, data: bytes, address: Address) -> None:
        """Sends a datagram, or loses it: whoever needs it to arrive sends it again (R11)."""
        try:
            if self._local is not None and (local := self._local.of(address)) is not None:
                self._socket.sendmsg([data], [self._local_option(local)], 0, sockaddr_of(address))
            else:
                self._socket.sendto(data, sockaddr_of(address) if self._is_ipv6 else address)
        except OSError:
            self.unsent_count += 1

    def _on_readable(self) -> None:
        for _ in range(DATAGRAMS_PER_WAKEUP):
            if self._socket.fileno() < 0 or not self._turns.try_run(self._on_readable):
                return
            try:
                # One byte more than allowed: a longer datagram is then seen to be too long.
                data, source = self._take()
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of an earlier datagram
            try:
                self._receive(data, source)
            except Exception:  # a fault with one datagram must not cost the next ones their turn
                log.exception("a datagram from %s could not be taken in", address_text(source))

    def _take(self) -> tuple[bytes, Address]:
        if self._local is None:
            data, source = self._socket.recvfrom(DATAGRAM_BYTES_MAX + 1)
            return data, address_of(source) if self._is_ipv6 else source
        data, options, _, source = self._socket.recvmsg(DATAGRAM_BYTES_MAX + 1, _CONTROL_BYTES)
        peer = address_of(source)
        for _, _, info in options:
            self._local.note(peer, info[:16] if self._is_ipv6 else info[4:8])
        return data, peer

    def _local_option(self, local: bytes) -> tuple[int, int, bytes]:
        """Returns the control message that has a datagram sent from a local address, by any interface."""
        if self._is_ipv6:
            return socket.IPPROTO_IPV6, _IPV6_PKTINFO, local + bytes(4)
        return socket.IPPROTO_IP, _IP_PKTINFO, bytes(4) + local + bytes(4)

    def close(self) -> None:
        """Closes the socket."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()


def _tell_local(bound: socket.socket) -> bool:
    """Has the kernel tell the local address with each datagram. Returns whether it can."""
    try:
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    except OSError:
        return False
    return True
