"""Memory for the cache: limited by the machine, and allocated without touching it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pspd.core.model.manifest import CHUNK_BYTES
from pspd.core.model.parameters import FAST
from pspd.daemon.server import memory
from pspd.daemon.server.memory import MMAP_BYTES_MIN, allocate, memory_limit_bytes, validate_cache_size
from pspd.errors import LimitReached
from tests.daemon.members import in_process
from tests.support.loops import on_loop


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.parametrize("size_bytes", [1, MMAP_BYTES_MIN - 1, MMAP_BYTES_MIN, MMAP_BYTES_MIN + CHUNK_BYTES])
def test_memory_is_zero_and_writable(size_bytes: int) -> None:
    taken = allocate(size_bytes)
    assert bytes(taken) == bytes(size_bytes)
    taken[-1:] = b"x"
    assert taken[-1] == ord("x")


def test_large_memory_is_not_touched() -> None:
    before = resident_bytes()
    taken = allocate(1 << 30)
    assert resident_bytes() - before < 64 << 20
    assert len(taken) == 1 << 30


def test_unavailable_memory_is_a_memory_error() -> None:
    with pytest.raises((MemoryError, OverflowError)):
        allocate(1 << 62)


def test_container_has_the_memory_of_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CGROUP_MEMORY_MAX", limit)
    installed = memory_limit_bytes()
    limit.write_text("max\n")
    assert memory_limit_bytes() == installed
    limit.write_text("4194304\n")
    assert memory_limit_bytes() == 4 << 20
    assert validate_cache_size(3 << 10) == 3 << 10
    with pytest.raises(LimitReached, match=r"memory for 3\.0 MiB"):
        validate_cache_size((3 << 10) + 1)


@on_loop
async def test_cache_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory_limit_bytes", lambda: 128 << 20)
    async with in_process(FAST) as network:
        network.server.resize_cache(96 << 10)
        with pytest.raises(LimitReached):
            network.server.resize_cache((96 << 10) + 1)
        assert network.server.messages.cache().capacity_bytes == 96 << 20
