"""Opening and tuning the sockets on which data moves."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence

from pspd.errors import PortTaken
from pspd.host.addresses import ANY_HOSTS, address_of, family_of, sockaddr_of
from pspd.text.addresses import address_text

UDP_BUFFER_BYTES = 4 * 1024 * 1024
"""The default (about 200 KiB) overflows at a window of a few hundred datagrams."""
LISTEN_BACKLOG = 4096
"""A broadcast in the classic profile makes every holder dial at the same moment."""
DEAD_PEER_MS = 15_000
"""A peer that takes no data for so long is given up, and its link closed."""
DEFER_ACCEPT_SECONDS = 1
PAIR_TRIES = 20

_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33


class AddressAbsent(PortTaken):
    """An address to listen on that this machine does not have."""


def listen_hosts(host: str, port: int) -> tuple[list[str], int]:
    """Returns the host literals and the port on which a daemon listens, and makes sure that TCP can be had there.

    A name with several addresses stands for all of them; those that this machine does not have are left out.
    ``0.0.0.0`` and ``::`` both stand for every address of this machine, IPv4 and IPv6, as they do for gRPC.

    Args:
        host: a name or a literal.
        port: 0 for any. It stays 0 where there is one host, whose listener may then choose.

    Raises:
        PortTaken: an address cannot be had.
    """
    literals = _literals(host)
    for _ in range(PAIR_TRIES):
        hosts, chosen, absent, refused = [], port, None, None
        with contextlib.ExitStack() as listeners:
            for literal in literals:
                try:
                    listener = listeners.enter_context(bind_listener(literal, chosen))
                except AddressAbsent as error:
                    absent = error
                except PortTaken as error:
                    refused = error
                else:
                    hosts.append(literal)
                    chosen = listener.getsockname()[1]
        if refused is None and hosts:
            return hosts, chosen if len(hosts) > 1 else port
        if port or not hosts:
            break
    raise refused or absent or PortTaken(f"cannot listen on {host}: it has no address: name one of this machine")


def _literals(host: str) -> list[str]:
    if host in ANY_HOSTS:
        return ["::" if _has_ipv6() else "0.0.0.0"]
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise PortTaken(f"cannot listen on unknown host {host!r} ({why}): name an address of this machine") from None
    return list(dict.fromkeys(address_of(entry[4])[0] for entry in found))


def _has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def bind_pairs(hosts: Sequence[str], port: int) -> list[tuple[socket.socket, socket.socket]]:
    """Opens a TCP listener and a UDP socket on each host, all with one port number.

    Args:
        hosts: literals.
        port: 0 for any.

    Raises:
        PortTaken: it cannot be had.
    """
    refused = None
    for _ in range(PAIR_TRIES if port == 0 else 1):
        with contextlib.ExitStack() as opened:
            pairs, chosen = [], port
            try:
                for host in hosts:
                    listener = opened.enter_context(bind_listener(host, chosen))
                    chosen = listener.getsockname()[1]
                    pairs.append((listener, opened.enter_context(bind_datagrams(host, chosen))))
            except PortTaken as error:
                if not pairs and not port and chosen == 0:
                    raise
                refused = error
            else:
                opened.pop_all()
                return pairs
    if port:  # usually nobody has named it: it is the control port + 1
        raise PortTaken(f"{refused} with --data-port") from None
    raise PortTaken(f"no port on {', '.join(hosts)} is free for both TCP and UDP: name one with --data-port")


def bind_listener(host: str, port: int) -> socket.socket:
    """A TCP socket that listens, non-blocking.

    Whoever dials speaks first: where the system can, a connection is handed over with its first bytes, or if these do
    not come soon.

    Raises:
        PortTaken: the address cannot be had.
    """
    listener = _bind(host, port, socket.SOCK_STREAM)
    with contextlib.suppress(AttributeError, OSError):  # Linux alone has it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_ACCEPT_SECONDS)
    listener.listen(LISTEN_BACKLOG)
    return listener


def bind_datagrams(host: str, port: int) -> socket.socket:
    """A UDP socket with large buffers, non-blocking.

    Raises:
        PortTaken: the address cannot be had.
    """
    datagrams = _bind(host, port, socket.SOCK_DGRAM)
    for option, force in ((socket.SO_RCVBUF, _SO_RCVBUFFORCE), (socket.SO_SNDBUF, _SO_SNDBUFFORCE)):
        try:
            datagrams.setsockopt(socket.SOL_SOCKET, force, UDP_BUFFER_BYTES)  # root may pass the system's limit
        except OSError:
            datagrams.setsockopt(socket.SOL_SOCKET, option, UDP_BUFFER_BYTES)
    return datagrams


def _bind(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    family = family_of((host, port))
    try:
        bound = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise AddressAbsent(f"cannot listen on {host}: {error.strerror}: name another address") from None
    try:
        if kind is socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host in ANY_HOSTS and family is socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(sockaddr_of((host, port)))
    except OSError as error:
        bound.close()
        raise _bind_error(error, kind, host, port) from None
    return bound


def _bind_error(error: OSError, kind: socket.SocketKind, host: str, port: int) -> PortTaken:
    name = {socket.SOCK_STREAM: "TCP", socket.SOCK_DGRAM: "UDP"}[kind]
    is_absent = error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENXIO)
    why = {
        errno.EADDRINUSE: "it is taken: choose another port",
        errno.EACCES: "it is not allowed: choose a port from 1024 up",
    }.get(error.errno or 0, error.strerror)
    if is_absent:
        why = "it is no address of this machine: choose one that is"
    error_class = AddressAbsent if is_absent else PortTaken
    return error_class(f"cannot listen on {name} {address_text((host, port))}: {why}")


def limit_silence(stream: socket.socket) -> None:
    """Has the kernel give up a peer that takes no data, or does not answer when it is dialled."""
    with contextlib.suppress(AttributeError, OSError):  # Linux alone has it
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)


def tune_kept(stream: socket.socket) -> None:
    """What a connection for many transfers needs besides: each is sent at once, and a dead peer is noticed."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    with contextlib.suppress(AttributeError, OSError):  # Linux alone has these
        for option, value in ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 2)):
            stream.setsockopt(socket.IPPROTO_TCP, option, value)
