"""What looks on in a simulated world."""

from __future__ import annotations

from pspd.core.effects.client import ClientEffect
from pspd.core.effects.server import ServerEffect
from pspd.sim.hosts import Client


class Observer:
    """Sees everything that happens in a world, as it happens. Does nothing by itself."""

    def server_did(self, effect: ServerEffect) -> None:
        """The server has an effect carried out, or tells of an event."""

    def client_did(self, client: Client, effect: ClientEffect) -> None:
        """A client does."""

    def settled(self) -> None:
        """Everything that is due at this moment is done."""
