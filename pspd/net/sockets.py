"""Opening and tuning the sockets on which data moves."""

from __future__ import annotations

import contextlib
import errno
import socket

from pspd.errors import PortTaken

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


def bind_pair(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A TCP listener and a UDP socket, for data, on one port number; any free one for port 0.

    Raises:
        PortTaken: it cannot be had.
    """
    for _ in range(PAIR_TRIES if port == 0 else 1):
        listener = None
        try:
            listener = bind_listener(host, port)
            return listener, bind_datagrams(host, listener.getsockname()[1])
        except PortTaken as refused:
            if listener is not None:
                listener.close()
            if port:  # most often nobody has named it: it is the control port + 1
                raise PortTaken(f"{refused} with --data-port") from None
            if listener is None:
                raise
    raise PortTaken(f"no port on {host} is free for both TCP and UDP: name one with --data-port")


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
    try:
        family, _, protocol, _, address = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise PortTaken(f"cannot listen on {host}:{port}: {why}: name an address of this machine") from None
    try:
        if kind is socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setblocking(False)
        bound.bind(address)
    except OSError as error:
        bound.close()
        name = {socket.SOCK_STREAM: "TCP", socket.SOCK_DGRAM: "UDP"}[kind]
        why = {
            errno.EADDRINUSE: "it is taken: choose another port",
            errno.EADDRNOTAVAIL: "it is no address of this machine: choose one that is",
            errno.EACCES: "it is not allowed: choose a port from 1024 up",
        }.get(error.errno or 0, error.strerror)
        raise PortTaken(f"cannot listen on {name} {host}:{port}: {why}") from None
    return bound


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
