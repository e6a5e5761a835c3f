from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.stores import Bench, DiskBench, MemoryBench


@pytest.fixture(params=["disk", "memory"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Each of the two stores in turn."""
    made: Bench = DiskBench(tmp_path / "client") if request.param == "disk" else MemoryBench()
    yield made
    made.store.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[DiskBench]:
    """The store on disk."""
    made = DiskBench(tmp_path / "client")
    yield made
    made.store.close()
