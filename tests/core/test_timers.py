"""Timers, compared with a plain dictionary of deadlines."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pspd.core.timing.timers import Timers, earliest

NAMES = "abcde"

names = st.sampled_from(NAMES)
delays = st.integers(0, 50)


class TimersMachine(RuleBasedStateMachine):
    """Applies the same operations to the timers and to a dictionary, ordered by the time of setting."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: Timers[str] = Timers()
        self.model: dict[str, int] = {}
        self.now = 0

    @rule(name=names, delay=delays)
    def set(self, name: str, delay: int) -> None:
        self.timers.set(name, self.now + delay)
        self.model_set(name, self.now + delay)

    @rule(name=names, delay=delays)
    def postpone(self, name: str, delay: int) -> None:
        self.timers.postpone(name, self.now + delay)
        if self.model.get(name, -1) < self.now + delay:
            self.model_set(name, self.now + delay)

    @rule(name=names, times=st.integers(60, 80))
    def move_to_earlier_times(self, name: str, times: int) -> None:
        """Leave so many stale entries that the heap is rebuilt."""
        for delay in range(times, 0, -1):
            self.timers.set(name, self.now + delay)
        self.model_set(name, self.now + 1)

    @rule(name=names)
    def cancel(self, name: str) -> None:
        self.timers.cancel(name)
        self.model.pop(name, None)

    @rule(duration=delays)
    def pass_time(self, duration: int) -> None:
        self.now += duration
        due = sorted((name for name in self.model if self.model[name] <= self.now), key=self.model.__getitem__)
        assert list(self.timers.expired(self.now)) == due
        self.model = {name: deadline for name, deadline in self.model.items() if deadline > self.now}

    @rule(name=names, delay=delays)
    def set_while_others_expire(self, name: str, delay: int) -> None:
        if not self.model:
            return
        self.now = max(self.now, min(self.model.values()))
        for first in self.timers.expired(self.now):
            del self.model[first]
            self.set(name, delay)
            break

    def model_set(self, name: str, deadline: int) -> None:
        self.model.pop(name, None)  # among equal deadlines it is now the last
        self.model[name] = deadline

    @invariant()
    def agrees_with_the_model(self) -> None:
        self.timers.check()
        assert self.timers.next_deadline() == min(self.model.values(), default=None)
        assert [name for name in NAMES if name in self.timers] == sorted(self.model)


TestTimersAgainstModel = TimersMachine.TestCase
TestTimersAgainstModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


class TestTimers:
    def test_new_timers_have_no_deadline(self) -> None:
        timers: Timers[str] = Timers()
        assert timers.next_deadline() is None
        assert list(timers.expired(10**18)) == []

    def test_name_expires_at_its_deadline_and_not_before(self) -> None:
        timers: Timers[str] = Timers()
        timers.set("a", 10)
        assert list(timers.expired(9)) == []
        assert list(timers.expired(10)) == ["a"]
        assert "a" not in timers
        assert list(timers.expired(10)) == []

    def test_equal_deadlines_expire_in_the_order_of_setting(self) -> None:
        timers: Timers[str] = Timers()
        for name in "dcab":
            timers.set(name, 5)
        assert list(timers.expired(5)) == ["d", "c", "a", "b"]

    def test_names_set_while_others_expire_are_included(self) -> None:
        timers: Timers[str] = Timers()
        timers.set("a", 1)
        seen = []
        for name in timers.expired(5):
            seen.append(name)
            if name == "a":
                timers.set("b", 3)
                timers.set("c", 6)
        assert seen == ["a", "b"]
        assert timers.next_deadline() == 6

    def test_stale_entries_are_removed_from_the_heap(self) -> None:
        timers: Timers[str] = Timers()
        timers.set("b", 5)
        for deadline in range(1000):
            timers.set("a", 1000 - deadline)
        assert len(timers._heap) < 100
        assert list(timers.expired(2000)) == ["a", "b"]

    def test_name_set_again_to_the_same_time_expires_last(self) -> None:
        timers: Timers[str] = Timers()
        for name in "aba":
            timers.set(name, 10)
        assert list(timers.expired(10)) == ["b", "a"]

    def test_name_moved_back_and_forth_expires_once(self) -> None:
        timers: Timers[str] = Timers()
        timers.set("a", 10)
        timers.set("a", 5)
        timers.cancel("a")
        timers.set("a", 10)
        timers.set("a", 20)
        assert list(timers.expired(19)) == []
        assert list(timers.expired(30)) == ["a"]
        assert timers.next_deadline() is None


def test_earliest_ignores_missing_deadlines() -> None:
    assert earliest(None, 3, 2, None, 5) == 2
    assert earliest(None, None) is None
    assert earliest() is None
