"""A network in which one owner of a share stays connected but never reads its deliveries."""

from __future__ import annotations

from pspd.core.model.file_record import Phase
from pspd.core.model.parameters import FAST, SECOND_NS
from pspd.sim.content import Content
from pspd.sim.hosts import HostConditions
from pspd.sim.network import VirtualNetwork
from pspd.sim.seeding import Seeding

SIZE_BYTES = 30_000
LIMIT_NS = 600 * SECOND_NS


class IdleOwner:
    """Three clients, one of them idle, and a file."""

    def __init__(self) -> None:
        self.network = VirtualNetwork(FAST, 64, Content(), seed=5)
        for index in range(3):
            self.network.start(self.network.add_client(f"client-{index}", HostConditions()))
        self.idle = self.network.clients["client-1"]
        self.idle.reads_deliveries = False
        data = self.network.content.bytes_of(SIZE_BYTES, 1)
        self.seeding = Seeding(self.network, "file", data, SIZE_BYTES, HostConditions(), 3)
        self.seeding.start()

    def is_exchanging(self) -> bool:
        """Return whether the exchange has started."""
        return self.seeding.file is not None and self.seeding.file.phase is Phase.EXCHANGING

    def run(self) -> None:
        """Run until the file is seeded without the idle client.

        Raises:
            AssertionError: this takes too long.
        """
        assert self.network.run(self.is_exchanging, LIMIT_NS), "the share of the idle client was not reassigned"
        assert self.seeding.file is not None
        assert self.idle.name not in self.seeding.file.shares.owners
