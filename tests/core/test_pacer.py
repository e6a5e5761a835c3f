"""Pacing: a pause after each batch of work, in proportion to the size of the batch."""

from __future__ import annotations

from pspd.core.timing.pacing import Pacer


def test_first_work_is_allowed_at_once() -> None:
    assert Pacer(10).is_allowed(0)


def test_work_is_allowed_after_pause() -> None:
    pacer = Pacer(10)
    pacer.start_pause(3, 100)
    assert pacer.allowed_at == 130
    assert not pacer.is_allowed(129)
    assert pacer.is_allowed(130)


def test_later_pause_replaces_current_one() -> None:
    """Urgent work may be done during a pause. Only the pause after this work then counts."""
    pacer = Pacer(10)
    pacer.start_pause(30, 100)
    pacer.start_pause(1, 110)
    assert pacer.allowed_at == 120


def test_no_pause_without_pacing_or_work() -> None:
    free, idle = Pacer(0), Pacer(10)
    free.start_pause(5, 100)
    idle.start_pause(0, 100)
    assert free.is_allowed(100)
    assert idle.is_allowed(100)
