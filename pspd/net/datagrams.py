"""Sends and receives datagrams on UDP sockets, and replies to each peer from the address to which the peer has sent."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import TypeVar

from pspd.core.wire.datagrams import DATAGRAM_BYTES_MAX
from pspd.host.addresses import WILDCARD_HOSTS, address_of, sockaddr_of
from pspd.net.faults import DatagramHandler, Faults, FaultyReceiver
from pspd.net.io_budget import IoBudget
from pspd.text.addresses import Address, address_text

DATAGRAMS_PER_WAKEUP = 64
"""The most datagrams to receive before the event loop continues."""

PEERS_MAX = 65_536
"""The most peers whose local end is remembered. The first socket sends the reply to a forgotten peer, and the kernel
chooses the source address."""

# Linux's numbers of the options of ip(7) and RFC 3542, section 6: Python does not name them on every system.
_IP_PKTINFO = 8
_IPV6_RECVPKTINFO = 49
_IPV6_PKTINFO = 50
_CONTROL_BYTES = socket.CMSG_SPACE(20)  # the address and interface of a datagram: 20 bytes with IPv6, 12 with IPv4

log = logging.getLogger(__name__)

T = TypeVar("T")


def note_local_end(local_ends: dict[Address, T], peer: Address, local_end: T) -> None:
    """Remember the local end of a peer: the local address or the socket that received the peer's last datagram.

    If more than ``PEERS_MAX`` peers are remembered, forget the peer that was added first.

    Args:
        local_ends: the local end of each peer.
        peer: the sender of the datagram.
        local_end: the local end that received the datagram.
    """
    if local_ends.get(peer) != local_end:
        local_ends[peer] = local_end
        if len(local_ends) > PEERS_MAX:
            del local_ends[next(iter(local_ends))]


class DatagramSocket:
    """Sends and receives datagrams on a bound, non-blocking socket, which it owns.

    Args:
        bound: the socket.
        on_datagram: called with each datagram and its sender's address.
        faults: the faults to inject into received datagrams; None for none.
        is_wildcard: whether the socket is bound to all addresses of the machine. It then replies to each peer from the
            local address to which the peer has sent, because peers drop datagrams from other addresses.

    Attributes:
        unsent_count: the number of datagrams that the kernel did not accept; they are lost.
    """

    def __init__(
        self, bound: socket.socket, on_datagram: DatagramHandler, faults: Faults | None, *, is_wildcard: bool = False
    ) -> None:
        self.unsent_count = 0
        self._is_ipv6 = bound.family == socket.AF_INET6
        self._local_ends: dict[Address, bytes] | None = {} if is_wildcard and _enable_packet_info(bound) else None
        self._socket = bound
        self._on_datagram = FaultyReceiver(faults, on_datagram) if faults else on_datagram
        self._loop = asyncio.get_running_loop()
        self._budget = IoBudget.of_running_loop()
        self._loop.add_reader(bound, self._on_readable)

    @property
    def port(self) -> int:
        """The local port."""
        return int(self._socket.getsockname()[1])

    def send(self, data: bytes, address: Address) -> None:
        """Send a datagram. It may be lost; the sender repeats it if it must arrive (R11).

        Args:
            data: the datagram.
            address: the destination.
        """
        try:
            if self._local_ends is not None and (local := self._local_ends.get(address)) is not None:
                self._socket.sendmsg([data], [self._source_option(local)], 0, sockaddr_of(address))
            else:
                self._socket.sendto(data, sockaddr_of(address) if self._is_ipv6 else address)
        except OSError:
            self.unsent_count += 1

    def _on_readable(self) -> None:
        for _ in range(DATAGRAMS_PER_WAKEUP):
            if self._socket.fileno() < 0 or not self._budget.admit_or_defer(self._on_readable):
                return
            try:
                data, source = self._read()
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error about an earlier datagram
            try:
                self._on_datagram(data, source)
            except Exception:  # an error about one datagram must not stop the next ones
                log.exception("a datagram from %s could not be handled", address_text(source))

    def _read(self) -> tuple[bytes, Address]:
        # One byte more than allowed, to recognize longer datagrams.
        if self._local_ends is None:
            data, source = self._socket.recvfrom(DATAGRAM_BYTES_MAX + 1)
            return data, address_of(source) if self._is_ipv6 else source
        data, options, _, source = self._socket.recvmsg(DATAGRAM_BYTES_MAX + 1, _CONTROL_BYTES)
        peer = address_of(source)
        for _, _, info in options:
            note_local_end(self._local_ends, peer, info[:16] if self._is_ipv6 else info[4:8])
        return data, peer

    def _source_option(self, local: bytes) -> tuple[int, int, bytes]:
        """Return the control message that sets the source address of a datagram, but not its interface."""
        if self._is_ipv6:
            return socket.IPPROTO_IPV6, _IPV6_PKTINFO, local + bytes(4)
        return socket.IPPROTO_IP, _IP_PKTINFO, bytes(4) + local + bytes(4)

    def close(self) -> None:
        """Close the socket."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()


class DatagramSockets:
    """One UDP socket per local host, all with the same port. A peer gets its replies from the socket that it used last.

    Args:
        hosts: the local host of each socket, as a literal.
        bound: the bound sockets, in the same order. They belong to this object.
        on_datagram: called with each datagram and its sender's address.
        faults: the faults to inject into received datagrams; None for none.
    """

    def __init__(
        self, hosts: Sequence[str], bound: Sequence[socket.socket], on_datagram: DatagramHandler, faults: Faults | None
    ) -> None:
        self._on_datagram = on_datagram
        self._peer_sockets: dict[Address, DatagramSocket] | None = {} if len(hosts) > 1 else None
        self._sockets = [self._open(host, each, faults) for host, each in zip(hosts, bound, strict=True)]

    @property
    def port(self) -> int:
        """The local port."""
        return self._sockets[0].port

    def _open(self, host: str, bound: socket.socket, faults: Faults | None) -> DatagramSocket:
        if self._peer_sockets is None:
            return DatagramSocket(bound, self._on_datagram, faults, is_wildcard=host in WILDCARD_HOSTS)
        peer_sockets, on_datagram = self._peer_sockets, self._on_datagram

        def note_and_handle(data: bytes, source: Address) -> None:
            note_local_end(peer_sockets, source, opened)
            on_datagram(data, source)

        opened = DatagramSocket(bound, note_and_handle, faults, is_wildcard=host in WILDCARD_HOSTS)
        return opened

    def send(self, data: bytes, address: Address) -> None:
        """Send a datagram from the socket that last received one from the destination, or else from the first socket.

        See :meth:`DatagramSocket.send`.

        Args:
            data: the datagram.
            address: the destination.
        """
        used = self._peer_sockets.get(address) if self._peer_sockets is not None else None
        (used or self._sockets[0]).send(data, address)

    def close(self) -> None:
        """Close all sockets."""
        for each in self._sockets:
            each.close()


def _enable_packet_info(bound: socket.socket) -> bool:
    """Make the kernel report the local address of each datagram; return whether the kernel can."""
    try:
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    except OSError:
        return False
    return True
