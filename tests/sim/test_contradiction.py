"""Clients decline a file whose digests contradict each other, and stop requesting it."""

from __future__ import annotations

from pspd.core.model.manifest import FileId
from pspd.core.model.ranges import Range
from pspd.core.model.storage import WriteResult
from pspd.errors import ContradictoryDigests
from pspd.store.digests import blake3_digest
from pspd.store.files.memory import MemoryStore
from tests.sim.contradiction import Contradiction


class CorruptionStore(MemoryStore):
    """Reports a contradiction as corrupt bytes."""

    def write(self, file_id: FileId, start: int, stop: int, data: memoryview) -> WriteResult:
        try:
            return super().write(file_id, start, stop, data)
        except ContradictoryDigests:
            return WriteResult(corrupt=[Range(682, 684)])


def test_contradictory_digests_are_declined() -> None:
    case = Contradiction()
    case.run()
    assert case.contradictory.file is not None
    reasons = set(case.contradictory.file.recipients.decline_reasons.values())
    assert len(reasons) == 1
    assert "[682, 684) of 'wrong' contradict each other" in reasons.pop()


def test_refuted_units_cost_few_requests() -> None:
    case = Contradiction()
    for client in case.network.clients.values():
        client.store = CorruptionStore(blake3_digest, client.name.encode())
    case.require_few_requests()
    assert case.contradictory.file is not None
    assert not case.contradictory.file.recipients.decline_reasons, "refuted units alone decline no file"
