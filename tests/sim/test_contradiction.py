"""A file that no bytes satisfy is declined by proof, and costs the network no endless traffic."""

from __future__ import annotations

from pspd.core.model.manifest import FileId
from pspd.core.model.ranges import Range
from pspd.core.model.storage import Written
from pspd.errors import ContradictoryDigests
from pspd.store.digests import blake3_digest
from pspd.store.files.memory import MemoryStore
from tests.sim.contradiction import Contradiction


class Unproving(MemoryStore):
    """Takes a contradiction for wrong bytes."""

    def write(self, file_id: FileId, start: int, stop: int, data: memoryview) -> Written:
        try:
            return super().write(file_id, start, stop, data)
        except ContradictoryDigests:
            return Written(corrupt=[Range(682, 684)])


def test_contradictory_digests_are_declined_by_all() -> None:
    network = Contradiction()
    network.run()
    assert network.wrong.file is not None
    reasons = set(network.wrong.file.declined.values())
    assert len(reasons) == 1
    assert "[682, 684) of 'wrong' contradict each other" in reasons.pop()


def test_without_a_proof_refuted_units_cost_few_requests() -> None:
    network = Contradiction()
    for client in network.world.clients.values():
        client.store = Unproving(blake3_digest, client.name.encode())
    network.require_few_requests()
    assert network.wrong.file is not None
    assert not network.wrong.file.declined, "refutations alone, however many, decline nothing"
