"""TCP connection attempts: which address answers first, why one fails, and a log of those that fail repeatedly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Sequence

from pspd.net.sockets import start_connect
from pspd.text.addresses import Address, address_text

ATTEMPT_DELAY_SECONDS = 0.25
"""The delay before the next address is tried while earlier attempts are still under way (RFC 8305, section 5)."""

LOGGED_FAILURES_MIN = 2
"""Failures in a row from which on they are logged: a restart of the server causes one."""
LOG_INTERVAL_SECONDS = 60.0
LOGGED_ADDRESSES_MAX = 1000
"""Addresses whose failures are counted. The address whose last failure is oldest is forgotten first."""

log = logging.getLogger(__name__)


async def first_answering(addresses: Sequence[Address], timeout_seconds: float) -> Address | None:
    """Return the first address that accepts a TCP connection, which is closed again; None if there is none in time.

    Args:
        addresses: in order of preference.
        timeout_seconds: for all addresses together.
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
    """Try to make a TCP connection, and close it again.

    Args:
        address: where to connect.
        timeout_seconds: how long to wait for an answer.

    Returns:
        None for success; else why the attempt failed.
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
    """Logs addresses to which connections fail repeatedly, and when they succeed again. It ignores single failures."""

    def __init__(self) -> None:
        self._failures: dict[Address, tuple[int, float]] = {}  # their number in a row, and when to log the next

    def failed(self, address: Address, why: str) -> None:
        """Count a failure; log the second in a row, then at most one per ``LOG_INTERVAL_SECONDS``.

        Args:
            address: where the connection failed.
            why: the reason to log.
        """
        count, next_log_at = self._failures.pop(address, (0, 0.0))
        count += 1
        now = asyncio.get_running_loop().time()
        if count >= LOGGED_FAILURES_MIN and now >= next_log_at:
            next_log_at = now + LOG_INTERVAL_SECONDS
            log.warning("no TCP connection to %s after %d tries: %s", address_text(address), count, why)
        if len(self._failures) >= LOGGED_ADDRESSES_MAX:
            del self._failures[next(iter(self._failures))]
        self._failures[address] = count, next_log_at

    def succeeded(self, address: Address) -> None:
        """Forget the failures of an address; log the success if they were logged."""
        count, _ = self._failures.pop(address, (0, 0.0))
        if count >= LOGGED_FAILURES_MIN:
            log.info("connected to %s by TCP again", address_text(address))


async def _attempt(address: Address) -> Address | None:
    try:
        await _connect(address)
    except OSError:
        return None
    return address


async def _connect(address: Address) -> None:
    loop = asyncio.get_running_loop()
    with start_connect(address) as stream:
        writable = asyncio.Event()
        loop.add_writer(stream, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(stream)
        if number := stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, os.strerror(number))
