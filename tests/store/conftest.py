from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.stores import Bench, DiskBench, MemoryBench

NOBODY = 65534


@pytest.fixture(params=["disk", "memory"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Each of the two client stores, disk and memory."""
    made: Bench = DiskBench(tmp_path / "client") if request.param == "disk" else MemoryBench()
    yield made
    made.store.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[DiskBench]:
    """A client's store on disk."""
    made = DiskBench(tmp_path / "client")
    yield made
    made.store.close()


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder of a user whom modes restrict: if the tests run as root, the user nobody."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid():
            yield Path(folder)
            return
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)
