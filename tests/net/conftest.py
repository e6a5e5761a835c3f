"""Fixtures of the tests of sockets."""

from __future__ import annotations

import pytest

from tests.support.loops import LOOPS, Chosen


@pytest.fixture(params=LOOPS)
def each_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test once on every event loop that the daemons may run on."""
    monkeypatch.setattr(Chosen, "factory", LOOPS[request.param])
