"""Takes in TCP connections, and does not spin when there is no descriptor left for one."""

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
    """Owns a listener; hands each connection to ``take``, with the other end's address.

    It may raise ``OSError`` to have the connection closed.

    Args:
        at_a_time: how many are taken in for one wakeup: many where they come in crowds, else the search for another
            would cost as much as the first.
    """

    def __init__(
        self, listener: socket.socket, take: Callable[[socket.socket, Address], object], *, at_a_time: int
    ) -> None:
        self._listener = listener
        self._take = take
        self._at_a_time = at_a_time
        self._is_short = False
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._resume()

    @property
    def port(self) -> int:
        """The listener's port."""
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Takes in nothing more."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _resume(self) -> None:
        self._loop.add_reader(self._listener, self._on_acceptable)

    def _on_acceptable(self) -> None:
        for _ in range(self._at_a_time):
            try:
                stream, peer = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # the peer is gone already
            except OSError as error:
                # Out of descriptors: the listener stays readable, so trying at once would be all the loop does.
                if not self._is_short:
                    log.warning("cannot take in connections for now: %s", error.strerror)
                self._is_short = True
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(ACCEPT_PAUSE_SECONDS, self._resume)
                return
            self._is_short = False
            try:
                self._take(stream, address_of(peer))
            except OSError:
                stream.close()
