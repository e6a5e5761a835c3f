"""Base class for observers of a virtual network."""

from __future__ import annotations

from collections.abc import Collection

from pspd.core.effects.client import ClientEffect
from pspd.core.effects.server import ServerEffect
from pspd.sim.hosts import Client


class Observer:
    """Observes every effect in a virtual network. The methods do nothing until a subclass overrides them."""

    def on_server_effect(self, effect: ServerEffect) -> None:
        """Observe an effect of the server's state machine, before the effect is carried out."""

    def on_client_effect(self, client: Client, effect: ClientEffect) -> None:
        """Observe an effect of a client's state machine, before the effect is carried out.

        Args:
            client: the client.
            effect: the effect.
        """

    def on_settled(self, polled: Collection[Client]) -> None:
        """Observe that all effects of an action have been carried out.

        Args:
            polled: the clients whose state machines were polled since the last call.
        """
