"""Opens and configures data sockets."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Sequence
from itertools import product

from pspd.errors import PortTaken
from pspd.host.addresses import WILDCARD_HOSTS, address_of, family_of, sockaddr_of
from pspd.text.addresses import Address, address_text, unmapped

UDP_BUFFER_BYTES = 4 * 1024 * 1024
"""The wanted size of each buffer of a UDP socket; the system may limit it. The system's default, about 200 KiB,
overflows after a burst of a few hundred datagrams."""
LISTEN_BACKLOG = 4096
"""The most connections that may wait for acceptance. In the classic profile, one broadcast makes all holders connect at
the same time."""
USER_TIMEOUT_MS = 15_000
"""How long sent data may stay unacknowledged before the kernel closes a connection (RFC 5482)."""
DEFER_ACCEPT_SECONDS = 1
PORT_TRIES = 20
"""The most ports to try until one is free on all hosts."""

# Linux's numbers of the options of socket(7), which Python does not name.
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33


class AddressMissing(PortTaken):
    """This machine does not have the address to listen on, or cannot open a socket for it."""


class PortRefused(PortTaken):
    """The port is in use or reserved; another port may be free."""


def resolve_listen_hosts(host: str, port: int) -> tuple[list[str], int]:
    """Resolve a host; return the literals and the port to listen on, after a test with TCP sockets.

    A name stands for all of its addresses that this machine has. ``0.0.0.0`` and ``::`` both stand for every address
    of this machine, as they do for gRPC: IPv4 and, if the machine supports it, IPv6.

    Args:
        host: a name or a literal.
        port: the port; 0 for any free one. With a single host, 0 is returned unchanged.

    Raises:
        PortTaken: the port is not free on one of the addresses, this machine has none of them, or the host is unknown.
    """
    hosts: list[str] = []
    missing: AddressMissing | None = None
    for literal in _literals(host):
        try:
            bind_listener(literal, port).close()
            hosts.append(literal)
        except AddressMissing as error:
            missing = error
    if not hosts:
        raise missing or PortTaken(f"cannot listen on {host}: it has no address: name one of this machine")
    if port == 0 and len(hosts) > 1:
        listeners = _bind_all(hosts, port, [bind_listener])
        port = listeners[0].getsockname()[1]
        for listener in listeners:
            listener.close()
    return hosts, port


def _literals(host: str) -> list[str]:
    if host in WILDCARD_HOSTS:
        return ["::" if socket.has_dualstack_ipv6() else "0.0.0.0"]
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise PortTaken(f"cannot listen on unknown host {host!r} ({why}): name an address of this machine") from None
    return list(dict.fromkeys(address_of(entry[4])[0] for entry in found))


def bind_pairs(hosts: Sequence[str], port: int) -> list[tuple[socket.socket, socket.socket]]:
    """Open a TCP listener and a UDP socket on each host, all with the same port number; return the pairs.

    Args:
        hosts: the host literals to listen on.
        port: the port; 0 for any free one.

    Raises:
        PortTaken: an address is not available, or no port was found that is free for all sockets.
    """
    try:
        bound = _bind_all(hosts, port, [bind_listener, bind_datagrams])
    except PortRefused as error:  # by default the data port is the control port + 1, so the message names the option
        raise PortTaken(f"{error} with --data-port") from None
    return list(zip(bound[::2], bound[1::2], strict=True))


def _bind_all(
    hosts: Sequence[str], port: int, openers: Sequence[Callable[[str, int], socket.socket]]
) -> list[socket.socket]:
    """Open sockets on each host, all with the same port number. For port 0, try up to ``PORT_TRIES`` numbers."""
    bound: list[socket.socket] = []
    for tries in range(1, PORT_TRIES + 1):
        with contextlib.ExitStack() as opened:
            bound, chosen = [], port
            try:
                for host, open_socket in product(hosts, openers):
                    bound.append(opened.enter_context(open_socket(host, chosen)))
                    chosen = bound[0].getsockname()[1]
            except PortRefused:
                if port or not bound or tries == PORT_TRIES:
                    raise
            else:
                opened.pop_all()
                break
    return bound


def bind_listener(host: str, port: int) -> socket.socket:
    """Open a non-blocking TCP listener.

    The connecting side sends first. So on Linux, the kernel reports a connection only when its first bytes arrive, or
    after about ``DEFER_ACCEPT_SECONDS``.

    Args:
        host: the host literal to listen on.
        port: the port; 0 for any free one.

    Raises:
        PortTaken: the address or the port is not available.
    """
    listener = _bind(host, port, socket.SOCK_STREAM)
    with contextlib.suppress(AttributeError, OSError):  # Linux only
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_ACCEPT_SECONDS)
    listener.listen(LISTEN_BACKLOG)
    return listener


def bind_datagrams(host: str, port: int) -> socket.socket:
    """Open a non-blocking UDP socket with large buffers.

    Args:
        host: the host literal to bind to.
        port: the port; 0 for any free one.

    Raises:
        PortTaken: the address or the port is not available.
    """
    datagrams = _bind(host, port, socket.SOCK_DGRAM)
    for option, force in ((socket.SO_RCVBUF, _SO_RCVBUFFORCE), (socket.SO_SNDBUF, _SO_SNDBUFFORCE)):
        try:
            datagrams.setsockopt(socket.SOL_SOCKET, force, UDP_BUFFER_BYTES)  # root may exceed the system's limit
        except OSError:
            datagrams.setsockopt(socket.SOL_SOCKET, option, UDP_BUFFER_BYTES)
    return datagrams


def _bind(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    family = family_of((host, port))
    try:
        bound = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise AddressMissing(f"cannot listen on {host}: {error.strerror}: name another address") from None
    try:
        if kind is socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host in WILDCARD_HOSTS and family is socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(sockaddr_of((host, port)))
    except OSError as error:
        bound.close()
        raise _bind_error(error, kind, host, port) from None
    return bound


def _bind_error(error: OSError, kind: socket.SocketKind, host: str, port: int) -> PortTaken:
    failure = f"cannot listen on {'TCP' if kind is socket.SOCK_STREAM else 'UDP'} {address_text((host, port))}"
    match error.errno:
        case errno.EADDRINUSE:
            return PortRefused(f"{failure}: it is taken: choose another port")
        case errno.EACCES:
            return PortRefused(f"{failure}: it is not allowed: choose a port from 1024 up")
        case errno.EADDRNOTAVAIL | errno.ENODEV | errno.ENXIO:
            return AddressMissing(f"{failure}: this machine does not have this address: choose another")
    return PortTaken(f"{failure}: {error.strerror}")


def start_connect(address: Address, *, persistent: bool = False) -> socket.socket:
    """Open a non-blocking TCP socket and begin to connect it. The socket becomes writable when the attempt ends.

    Args:
        address: the address to connect to.
        persistent: whether the connection carries many transfers.

    Raises:
        OSError: the attempt fails at once.
    """
    target = (unmapped(address[0]), address[1])
    stream = socket.socket(family_of(target), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        set_user_timeout(stream)
        if persistent:
            configure_persistent(stream)
        with contextlib.suppress(BlockingIOError):
            stream.connect(sockaddr_of(target))
    except OSError:
        stream.close()
        raise
    return stream


def set_user_timeout(stream: socket.socket) -> None:
    """Make the kernel close a connection whose sent data stays unacknowledged for ``USER_TIMEOUT_MS``."""
    with contextlib.suppress(AttributeError, OSError):  # Linux only
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


def configure_persistent(stream: socket.socket) -> None:
    """Configure a connection for many transfers: disable Nagle's algorithm, and make the kernel probe an idle peer."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    with contextlib.suppress(AttributeError, OSError):  # Linux only
        for option, value in ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 2)):
            stream.setsockopt(socket.IPPROTO_TCP, option, value)
