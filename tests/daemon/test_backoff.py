"""Waits between tries to join: they grow until a session lasts."""

from __future__ import annotations

from random import Random

from pspd.daemon.member.backoff import REJOIN_SECONDS_MAX, REJOIN_SECONDS_MIN, STEADY_SECONDS, RejoinBackoff


def test_waits_grow_though_each_try_gives_a_short_session() -> None:
    backoff = RejoinBackoff(Random(1))
    waits = []
    for _ in range(10):
        waits.append(backoff.next_seconds())
        backoff.session_ended(STEADY_SECONDS - 0.1)
    assert waits[0] <= 1.5 * REJOIN_SECONDS_MIN
    assert all(0.5 * REJOIN_SECONDS_MAX <= wait <= 1.5 * REJOIN_SECONDS_MAX for wait in waits[5:])


def test_after_a_session_that_lasted_the_next_try_comes_soon() -> None:
    backoff = RejoinBackoff(Random(1))
    for _ in range(10):
        backoff.next_seconds()
    backoff.session_ended(STEADY_SECONDS)
    assert backoff.next_seconds() <= 1.5 * REJOIN_SECONDS_MIN


def test_many_members_do_not_try_at_the_same_time() -> None:
    assert len({RejoinBackoff(Random(seed)).next_seconds() for seed in range(20)}) == 20
