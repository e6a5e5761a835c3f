"""The clients' persistent TCP links: how they open, break and close."""

from __future__ import annotations

from pspd.core.model.parameters import MILLISECOND_NS
from pspd.sim.hosts import Client, Link
from pspd.sim.timeline import Timeline

REDIAL_NS = 50 * MILLISECOND_NS
"""Mean time between two attempts to open a link."""


class Links:
    """Opens and closes the clients' links."""

    def __init__(self, network: Timeline) -> None:
        self._network = network

    def dial(self, client: Client) -> None:
        """Open the client's link; retry until it is open or the client's epoch is over."""
        network = self._network
        if client.link.is_open:
            return
        if network.server is None or client.partitioned or client.link_blocked:
            self._redial(client)
        else:
            client.link = Link()
            network.at_client(client, network.now + 2 * network.delay(client), self._opened, client.link)

    def _redial(self, client: Client) -> None:
        network = self._network
        network.in_epoch(client, network.now + network.jittered(REDIAL_NS), self.dial)

    def _opened(self, client: Client, link: Link) -> None:
        network, server = self._network, self._network.server
        if client.link is not link:
            return
        can_open = not client.partitioned and not client.link_blocked
        if server is not None and can_open and server.link_opened(client.session, network.now):
            link.is_open = True
            client.machine.link_opened(network.now)
            network.touch(client)
        else:
            self._redial(client)

    def break_link(self, client: Client) -> None:
        """Break the client's link; the client dials again."""
        if client.link.is_open:
            self.close(client)
            self._redial(client)

    def close(self, client: Client) -> None:
        """Close the client's link on both sides."""
        link, client.link = client.link, Link()
        server = self._network.server
        if server is not None and client.session:
            server.link_closed(client.session, self._network.now)
        self.abort_transfers(link)

    def abort_transfers(self, link: Link) -> None:
        """Tell the server that the transfers on a link failed."""
        link.is_open = False
        server, now = self._network.server, self._network.now
        if server is None:
            return
        if link.receiving is not None:
            receipt, link.receiving = link.receiving, None
            server.contribution_aborted(receipt, now)
        while link.queue:
            delivery = link.queue.popleft()
            server.delivery_failed(delivery.session, delivery.number, now)
