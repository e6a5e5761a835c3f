"""The data path between a client and its server, by UDP and by TCP."""

from __future__ import annotations

import asyncio

from pspd.text.addresses import Address, address_text


class DataPath:
    """Which protocols have worked between a client and its server in one session.

    Attributes:
        ready: set as soon as both UDP and TCP have worked.
        tcp_works: whether the last TCP connection attempt succeeded.
    """

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.tcp_works = False
        self._udp_works = False
        self._tcp_failure = "no answer"

    def note_udp(self) -> None:
        """Record that datagrams travel in both directions."""
        self._udp_works = True
        self._review()

    def note_tcp(self, failure: str | None) -> None:
        """Record a TCP connection attempt: None for success, else why it failed."""
        self.tcp_works = failure is None
        self._tcp_failure = failure or ""
        self._review()

    def _review(self) -> None:
        if self._udp_works and self.tcp_works:
            self.ready.set()

    def problem_text(self, server: Address) -> str:
        """Return what does not work, and what the user can check."""
        shown, port = address_text(server), server[1]
        if self.tcp_works:
            return f"no answer from {shown} by UDP: is UDP port {port} open?"
        if self._udp_works:
            return f"cannot connect to {shown} by TCP ({self._tcp_failure}): is TCP port {port} open?"
        return f"cannot reach {shown} by UDP or TCP ({self._tcp_failure}): are UDP and TCP port {port} open?"
