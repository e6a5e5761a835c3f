"""Fixtures for tests with real daemons on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import Network


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """Return an empty network; daemons that the test starts in it end with the test."""
    with Network(tmp_path / "network") as made:
        yield made
