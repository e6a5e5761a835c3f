"""The clients' persistent TCP links: how they open, break and close."""

from __future__ import annotations

from pspd.core.model.parameters import MILLISECOND_NS
from pspd.sim.hosts import Client, Link
from pspd.sim.state import NetworkState

REDIAL_NS = 50 * MILLISECOND_NS
"""Mean time between two attempts to open a link."""


class Links:
    """Opens and closes the clients' links."""

    def __init__(self, state: NetworkState) -> None:
        self._state = state

    def dial(self, client: Client, epoch: int) -> None:
        """Open the client's link; retry until it is open or the epoch is over.

        Args:
            client: the client.
            epoch: the client's epoch that the attempt belongs to.
        """
        state = self._state
        if client.epoch != epoch or client.link.is_open:
            return
        if state.server is None or client.links_fail:
            self._redial(client)
            return
        link = client.link = Link()
        state.at_client(client, state.now + 2 * state.delay(client), self._opened, client, epoch, link)

    def _redial(self, client: Client) -> None:
        state = self._state
        state.clock.after(state.jittered(REDIAL_NS), self.dial, client, client.epoch)

    def _opened(self, client: Client, epoch: int, link: Link) -> None:
        state = self._state
        if client.epoch != epoch or client.link is not link:
            return
        server = state.server
        if server is None or client.links_fail or not server.link_opened(client.session, state.now):
            self._redial(client)
            return
        link.is_open = True
        client.machine.link_opened(state.now)
        state.touch(client)

    def break_link(self, client: Client) -> None:
        """Break the client's link; the client dials again."""
        if client.link.is_open:
            self.close(client)
            self._redial(client)

    def close(self, client: Client) -> None:
        """Close the client's link on both sides."""
        link, client.link = client.link, Link()
        server = self._state.server
        if server is not None and client.session:
            server.link_closed(client.session, self._state.now)
        self.abort_transfers(link)

    def abort_transfers(self, link: Link) -> None:
        """Tell the server that the transfers on a link failed."""
        link.is_open = False
        server, now = self._state.server, self._state.now
        if server is None:
            return
        if link.receiving is not None:
            receipt, link.receiving = link.receiving, None
            server.contribution_aborted(receipt, now)
        while link.queue:
            delivery = link.queue.popleft()
            server.delivery_failed(delivery.session, delivery.number, now)
