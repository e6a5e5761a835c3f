"""A client finally declines a file whose digests contradict each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from pspd.core.model.manifest import FileId
from pspd.core.model.parameters import FAST
from pspd.core.model.storage import WriteResult
from pspd.errors import ContradictoryDigests
from pspd.store.digests import blake3_digest
from pspd.store.files.memory import MemoryStore
from tests.daemon.members import in_process, retry_after
from tests.support.files import random_file
from tests.support.loops import on_loop, until


class ContradictingStore(MemoryStore):
    """A store in which every write proves a contradiction."""

    def __init__(self) -> None:
        super().__init__(blake3_digest, b"a" * 16)
        self.write_count = 0

    def write(self, file_id: FileId, start: int, stop: int, data: memoryview) -> WriteResult:
        self.write_count += 1
        raise ContradictoryDigests("the digests contradict each other")


@on_loop
async def test_contradictory_file_is_never_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    retry_after(monkeypatch, 0.02)
    source = random_file(tmp_path / "file.bin", 40_001)
    async with in_process(FAST) as network:
        (client, _) = await network.join("a", "b")
        store = ContradictingStore()
        client.store = client.daemon.reconciler._storage = client.daemon.reconciler.plane._parts._storage = store
        client.daemon.reconciler.plane._storage = store

        def refusal() -> str:
            return next(each.refusal for each in network.file("file.bin").clients if each.name == "a")

        await network.seed(source, client_count=2)
        await until("it is declined", lambda: refusal() == "the digests contradict each other")
        await network.copies(source, "b")
        assert store.write_count == 1
        before = client.daemon.session_number
        network.server.leave(before)
        await until("another session", lambda: client.daemon.session_number not in (0, before))
        await until("it is declined again", lambda: refusal() == "the digests contradict each other")
        declined = next(iter(client.daemon.reconciler._declined.values()))
        assert not declined.is_retry_due(declined.retry_at + 1e9)
        assert store.write_count == 1
