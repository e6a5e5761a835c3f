"""Fixtures of the tests of sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.loops import LOOPS, Chosen


@pytest.fixture(params=LOOPS)
def each_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs a test once on every event loop that the daemons may run on."""
    monkeypatch.setattr(Chosen, "factory", LOOPS[request.param])
    yield
