"""Accepts TCP connections, and pauses if that fails, for example because no file descriptor is free."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from pspd.host.addresses import address_of
from pspd.text.addresses import Address

ACCEPT_PAUSE_SECONDS = 0.1

log = logging.getLogger(__name__)


class Acceptor:
    """Accepts the connections of a listener, which it owns, until :meth:`close` is called.

    Args:
        listener: a listening, non-blocking socket.
        on_accept: called with each connection and its peer's address; if the call raises ``OSError``, the connection
            is closed.
        accepts_per_wakeup: the most connections to accept before the event loop continues. A high number suits bursts.
            The number 1 saves the system call that finds that no further connection waits.
    """

    def __init__(
        self, listener: socket.socket, on_accept: Callable[[socket.socket, Address], object], *, accepts_per_wakeup: int
    ) -> None:
        self._listener = listener
        self._on_accept = on_accept
        self._accepts_per_wakeup = accepts_per_wakeup
        self._is_failing = False
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._resume()

    @property
    def port(self) -> int:
        """The listener's port."""
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Close the listener."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _resume(self) -> None:
        self._loop.add_reader(self._listener, self._on_acceptable)

    def _on_acceptable(self) -> None:
        for _ in range(self._accepts_per_wakeup):
            try:
                stream, peer = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # the peer has closed it already
            except OSError as error:
                # For example, out of descriptors: the listener stays readable, so an immediate retry would spin.
                if not self._is_failing:
                    log.warning("cannot accept connections for now: %s", error.strerror)
                self._is_failing = True
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(ACCEPT_PAUSE_SECONDS, self._resume)
                return
            self._is_failing = False
            try:
                self._on_accept(stream, address_of(peer))
            except OSError:
                stream.close()
