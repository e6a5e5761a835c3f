"""Tests TCP connections, finds the first address that answers, and logs repeated failures."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Sequence

from pspd.net.sockets import start_connect
from pspd.text.addresses import Address, address_text

ATTEMPT_DELAY_SECONDS = 0.25
"""The delay before the next address is tried while earlier attempts are still under way (RFC 8305, section 5)."""

LOGGED_FAILURES_MIN = 2
"""The number of consecutive failures at which logging begins, because a restart of the server causes only one
failure."""
LOG_INTERVAL_SECONDS = 60.0
LOGGED_ADDRESSES_MAX = 1000
"""The most addresses whose failures are counted. The address whose last failure is oldest is forgotten first."""

log = logging.getLogger(__name__)


async def first_answering(addresses: Sequence[Address], timeout_seconds: float) -> Address | None:
    """Return the first address that accepts a TCP connection; None if none does in time.

    The connection is closed again.

    Args:
        addresses: the addresses, in order of preference.
        timeout_seconds: the time limit for all addresses together.
    """
    waiting = list(addresses)
    attempts: dict[asyncio.Task[str | None], Address] = {}
    try:
        async with asyncio.timeout(timeout_seconds):
            while waiting or attempts:
                if waiting:
                    attempt = asyncio.create_task(probe_tcp(waiting[0], timeout_seconds))
                    attempts[attempt] = waiting.pop(0)
                delay = ATTEMPT_DELAY_SECONDS if waiting else None
                done, _ = await asyncio.wait(attempts, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
                for attempt in done:
                    address = attempts.pop(attempt)
                    if attempt.result() is None:
                        return address
    except TimeoutError:
        pass
    finally:
        for attempt in attempts:
            attempt.cancel()
    return None


async def probe_tcp(address: Address, timeout_seconds: float) -> str | None:
    """Open a TCP connection as a test, and close it again.

    Args:
        address: the address to connect to.
        timeout_seconds: how long to wait for an answer.

    Returns:
        The reason why the attempt failed; None if it succeeded.
    """
    loop = asyncio.get_running_loop()
    try:
        with start_connect(address) as stream:
            writable = asyncio.Event()
            loop.add_writer(stream, writable.set)
            try:
                async with asyncio.timeout(timeout_seconds):  # wait_for may lose a cancellation in Python 3.11
                    await writable.wait()
            finally:
                loop.remove_writer(stream)
            if number := stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(number, os.strerror(number))
    except TimeoutError:
        return "no answer"
    except OSError as error:
        return error.strerror or str(error)
    return None


class DialLog:
    """Logs repeated connection failures for each address, and the next success. Single failures are not logged."""

    def __init__(self) -> None:
        self._failures: dict[Address, tuple[int, float]] = {}  # failures in a row, time of the next log line

    def note_failure(self, address: Address, why: str) -> None:
        """Count a failure; log the second consecutive failure, then at most one per ``LOG_INTERVAL_SECONDS``.

        Args:
            address: the address to which no connection could be opened.
            why: the reason for the failure.
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

    def note_success(self, address: Address) -> None:
        """Forget the failures of an address; log the success if they were logged."""
        count, _ = self._failures.pop(address, (0, 0.0))
        if count >= LOGGED_FAILURES_MIN:
            log.info("connected to %s by TCP again", address_text(address))
