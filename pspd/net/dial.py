"""TCP connections with a server: which of its addresses takes them, what becomes of them, and what is logged of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Sequence

from pspd.host.addresses import family_of, sockaddr_of
from pspd.text.addresses import Address, address_text

ATTEMPT_DELAY_SECONDS = 0.25
"""The next address is tried so long after the one before it, if that has not failed sooner (RFC 8305, section 5)."""

LOGGED_FAILURES = 2
"""So many failures in a row are logged: one is what a restarted server costs."""
LOG_SECONDS = 60.0

log = logging.getLogger(__name__)


async def first_answering(addresses: Sequence[Address], timeout_seconds: float) -> Address | None:
    """Returns the address on which a TCP connection stands first, closed again; None if there is none in time.

    Args:
        addresses: in the order of preference.
        timeout_seconds: for all of them together.
    """
    attempts: set[asyncio.Task[Address | None]] = set()
    waiting = list(addresses)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_seconds):
            try:
                while waiting or attempts:
                    if waiting:
                        attempts.add(asyncio.ensure_future(_attempt(waiting.pop(0))))
                    done, attempts = await asyncio.wait(
                        attempts,
                        timeout=ATTEMPT_DELAY_SECONDS if waiting else None,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    for task in done:
                        if (address := task.result()) is not None:
                            return address
            finally:
                for task in attempts:
                    task.cancel()
    return None


async def connect_error(address: Address, timeout_seconds: float) -> str | None:
    """Tries whether a TCP connection can be made, and closes it again.

    Returns:
        None if it can; else why not.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            await _connect(address)
    except TimeoutError:
        return "no answer"
    except OSError as error:
        return error.strerror or str(error)
    return None


class DialLog:
    """Logs connections that fail again and again, and the end of that; a single failure is no news."""

    def __init__(self) -> None:
        self._failure_count = 0
        self._next_line_at = 0.0

    def failed(self, address: Address, why: str) -> None:
        """Notes a failure: logs the second in a row, and later ones at most once in ``LOG_SECONDS``."""
        self._failure_count += 1
        now = asyncio.get_running_loop().time()
        if self._failure_count >= LOGGED_FAILURES and now >= self._next_line_at:
            self._next_line_at = now + LOG_SECONDS
            log.warning("no TCP connection with %s after %d tries: %s", address_text(address), self._failure_count, why)

    def succeeded(self, address: Address) -> None:
        """Notes a connection; logs it if failures were logged."""
        if self._failure_count >= LOGGED_FAILURES:
            log.info("the TCP connection with %s stands", address_text(address))
        self._failure_count, self._next_line_at = 0, 0.0


class PathWatch:
    """What of a session's way to the server passes: datagrams, and TCP connections.

    Attributes:
        stands: set as soon as both have passed.
        tcp_passes: whether TCP connections do.
    """

    def __init__(self) -> None:
        self.stands = asyncio.Event()
        self.tcp_passes = False
        self._udp_passes = False
        self._tcp_failure = "no answer"

    def note_datagram(self) -> None:
        """A datagram has passed both ways."""
        self._udp_passes = True
        self._review()

    def note_tcp(self, failure: str | None) -> None:
        """A connection was made, or was not, for the reason given."""
        self.tcp_passes = failure is None
        self._tcp_failure = failure or ""
        self._review()

    def _review(self) -> None:
        if self._udp_passes and self.tcp_passes:
            self.stands.set()

    def blocked_text(self, server: Address) -> str:
        """Returns what does not pass, and what to look at."""
        shown, port = address_text(server), server[1]
        if self.tcp_passes:
            return f"no datagram from {shown} passes: is UDP port {port} open?"
        if self._udp_passes:
            return f"no TCP connection with {shown} stands ({self._tcp_failure}): is TCP port {port} open?"
        return (
            f"neither a datagram nor a TCP connection passes between here and {shown} ({self._tcp_failure}):"
            f" are UDP and TCP port {port} open?"
        )


async def _attempt(address: Address) -> Address | None:
    try:
        await _connect(address)
    except OSError:
        return None
    return address


async def _connect(address: Address) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(family_of(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as stream:
        with contextlib.suppress(BlockingIOError):
            stream.connect(sockaddr_of(address))
        writable = asyncio.Event()
        loop.add_writer(stream, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(stream)
        if number := stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, os.strerror(number))
