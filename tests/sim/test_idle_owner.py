"""The share of a client that makes no progress is reassigned."""

from __future__ import annotations

from tests.sim.idle_owner import IdleOwner


def test_share_of_an_idle_owner_is_reassigned() -> None:
    IdleOwner().run()
