"""Base class for observers of a virtual network."""

from __future__ import annotations

from collections.abc import Collection

from pspd.core.effects.client import ClientEffect
from pspd.core.effects.server import ServerEffect
from pspd.sim.hosts import Client


class Observer:
    """Sees every effect as it happens; does nothing unless overridden."""

    def on_server_effect(self, effect: ServerEffect) -> None:
        """Observe an effect of the server's state machine, before it is carried out."""

    def on_client_effect(self, client: Client, effect: ClientEffect) -> None:
        """Observe an effect of a client's state machine, before it is carried out.

        Args:
            client: the client.
            effect: what its state machine wants done or reports.
        """

    def on_settled(self, polled: Collection[Client]) -> None:
        """Observe that no effect is left at this moment.

        Args:
            polled: the clients whose machines were polled since the last call.
        """
