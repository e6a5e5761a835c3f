"""Pacing: work is done at once, and again after a time in proportion to its cost."""

from __future__ import annotations

from pspd.core.timing.pacing import Pacer


def test_first_work_is_allowed_at_once() -> None:
    assert Pacer(10).is_allowed(0)


def test_next_work_is_allowed_after_the_cost_of_the_last() -> None:
    pacer = Pacer(10)
    pacer.spend(3, 100)
    assert pacer.next_at == 130
    assert not pacer.is_allowed(129)
    assert pacer.is_allowed(130)


def test_cost_of_early_work_is_not_summed_up() -> None:
    """Urgent work may be done before its time. It then sets the next time alone."""
    pacer = Pacer(10)
    pacer.spend(30, 100)
    pacer.spend(1, 110)
    assert pacer.next_at == 120


def test_work_without_cost_delays_nothing() -> None:
    free, idle = Pacer(0), Pacer(10)
    free.spend(5, 100)
    idle.spend(0, 100)
    assert free.is_allowed(100)
    assert idle.is_allowed(100)
