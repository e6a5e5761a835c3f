"""When to call a server again that does not answer."""

from __future__ import annotations

import pytest

from pspd.errors import Unreachable
from pspd.rpc.client.retry import RetryPolicy

ERROR = Unreachable("no server answers")


def test_outage_lasts_from_the_first_failure_to_an_answer() -> None:
    policy = RetryPolicy(lambda: 0.5)
    assert not policy.is_down
    assert policy.pause_after(ERROR) == 0.5
    assert policy.is_down
    policy.note_answer()
    assert not policy.is_down
    assert policy.outage_seconds == 0


def test_attempt_after_the_longest_outage_is_not_made() -> None:
    policy = RetryPolicy(lambda: 0.5, outage_seconds_max=0.4)
    with pytest.raises(Unreachable, match="no server answers"):
        policy.pause_after(ERROR)


def test_outage_without_limit_is_always_retried() -> None:
    pauses = iter([1.0, 1e9])
    policy = RetryPolicy(lambda: next(pauses))
    assert [policy.pause_after(ERROR) for _ in range(2)] == [1.0, 1e9]
