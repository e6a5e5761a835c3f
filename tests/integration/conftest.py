"""Fixtures of the tests that run real daemons on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import Network


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """An empty network; the test starts its server and clients, and they end with it."""
    with Network(tmp_path / "network") as made:
        yield made
