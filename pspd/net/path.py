"""The data path between a client and its server, by UDP and by TCP."""

from __future__ import annotations

import asyncio

from pspd.text.addresses import Address, address_text


class DataPath:
    """Which protocols have worked between a client and its server in one session.

    Attributes:
        ready: set as soon as both UDP and TCP have worked.
        tcp_failure: why the last TCP connection attempt failed; None if it succeeded.
    """

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self._udp_works = False
        self.tcp_failure: str | None = "no answer"

    def note_udp(self) -> None:
        """Record that datagrams travel in both directions."""
        self._udp_works = True
        self._review()

    def note_tcp(self, failure: str | None) -> None:
        """Record the result of a TCP connection attempt: None for success, else the reason of its failure."""
        self.tcp_failure = failure
        self._review()

    def _review(self) -> None:
        if self._udp_works and self.tcp_failure is None:
            self.ready.set()

    def problem_text(self, server: Address) -> str:
        """Return a message for the user: which protocol does not work, and what to check."""
        shown, port = address_text(server), server[1]
        if self.tcp_failure is None:
            return f"no answer from {shown} by UDP: is UDP port {port} open?"
        if self._udp_works:
            return f"cannot connect to {shown} by TCP ({self.tcp_failure}): is TCP port {port} open?"
        return f"cannot reach {shown} by UDP or TCP ({self.tcp_failure}): are UDP and TCP port {port} open?"
