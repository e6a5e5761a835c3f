"""Delays between attempts to join grow until a session lasts."""

from __future__ import annotations

from random import Random

from pspd.daemon.member.member import REJOIN_SECONDS_MAX, REJOIN_SECONDS_MIN, STABLE_SESSION_SECONDS, RejoinBackoff


def test_delay_grows_while_sessions_are_short() -> None:
    backoff = RejoinBackoff(Random(1))
    waits = []
    for _ in range(10):
        waits.append(backoff.next_seconds())
        backoff.note_session(STABLE_SESSION_SECONDS - 0.1)
    assert waits[0] <= 1.5 * REJOIN_SECONDS_MIN
    assert all(0.5 * REJOIN_SECONDS_MAX <= wait <= 1.5 * REJOIN_SECONDS_MAX for wait in waits[5:])


def test_delay_is_short_after_a_steady_session() -> None:
    backoff = RejoinBackoff(Random(1))
    for _ in range(10):
        backoff.next_seconds()
    backoff.note_session(STABLE_SESSION_SECONDS)
    assert backoff.next_seconds() <= 1.5 * REJOIN_SECONDS_MIN


def test_delays_of_members_differ() -> None:
    assert len({RejoinBackoff(Random(seed)).next_seconds() for seed in range(20)}) == 20
