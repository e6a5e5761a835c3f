"""The size of the server's cache: fixed, or growing with the clients."""

from __future__ import annotations

import pytest

from pspd.core.effects.server import MemberJoined
from pspd.core.model.manifest import CHUNK_BYTES
from pspd.core.model.parameters import CLASSIC, FAST, default_cache_chunks
from pspd.core.model.tuning import SERVER_TUNING
from pspd.core.server.machine import ServerMachine
from pspd.errors import LimitReached
from pspd.store.digests import blake3_digest
from tests.core.bench import Bench
from tests.core.samples import sessions


def test_client_without_memory_for_its_chunk_is_refused() -> None:
    allowed = [memoryview(bytearray(CHUNK_BYTES))]

    def allocate(size_bytes: int) -> memoryview:
        if not allowed:
            raise MemoryError
        return allowed.pop()

    machine = ServerMachine(CLASSIC, None, blake3_digest, 3, sessions(3), SERVER_TUNING, allocate)
    machine.member_joined("a", b"a", 0)
    with pytest.raises(LimitReached):
        machine.member_joined("b", b"b", 0)
    assert list(machine.members) == ["a"]
    assert MemberJoined("b") not in machine.poll()
    machine.check()


def test_classic_cache_grows_with_clients_until_resized() -> None:
    bench = Bench(CLASSIC, default_cache_chunks(CLASSIC))
    sizes = []
    for name in "abc":
        bench.join(name)
        sizes.append(bench.server.cache.capacity_chunks)
    bench.join("source", is_source=True)
    bench.server.member_left(bench.server.members["a"].session, "gone", bench.now)
    assert [*sizes, bench.server.cache.capacity_chunks] == [1, 2, 3, 3]
    bench.server.resize_cache(2, bench.now)
    for name in "defg":
        bench.join(name)
    assert bench.server.cache.capacity_chunks == 2


def test_fast_cache_has_a_fixed_size() -> None:
    assert default_cache_chunks(FAST) == 64 * 1024
