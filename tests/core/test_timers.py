"""Deadlines by name, against a plain dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pspd.core.timing.timers import Timers

names = st.sampled_from("abcde")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), names, st.integers(0, 50)),
        st.tuples(st.just("postpone"), names, st.integers(0, 50)),
        st.tuples(st.just("cancel"), names, st.just(0)),
        st.tuples(st.just("pass"), st.just(""), st.integers(0, 50)),
    ),
    max_size=200,
)


class TestTimers:
    def test_begin_with_none(self) -> None:
        timers: Timers[str] = Timers()
        assert timers.next_deadline() is None
        assert list(timers.expired(10**18)) == []

    def test_expire_at_their_deadline_and_not_before(self) -> None:
        timers: Timers[str] = Timers()
        timers.set("a", 10)
        assert list(timers.expired(9)) == []
        assert list(timers.expired(10)) == ["a"]
        assert "a" not in timers
        assert list(timers.expired(10)) == []

    def test_of_one_deadline_expire_in_the_order_in_which_they_were_set(self) -> None:
        timers: Timers[str] = Timers()
        for name in "dcab":
            timers.set(name, 5)
        assert list(timers.expired(5)) == ["d", "c", "a", "b"]

    def test_set_while_others_expire_are_seen(self) -> None:
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

    def test_moved_often_stay_few(self) -> None:
        timers: Timers[str] = Timers()
        timers.set("b", 5)
        for deadline in range(1000):
            timers.set("a", 1000 - deadline)
        assert len(timers._heap) < 100
        assert list(timers.expired(2000)) == ["a", "b"]

    def test_set_anew_to_the_same_time_come_last_of_it(self) -> None:
        timers: Timers[str] = Timers()
        for name in "aba":
            timers.set(name, 10)
        assert list(timers.expired(10)) == ["b", "a"]

    def test_moved_on_and_back_come_once(self) -> None:
        timers: Timers[str] = Timers()
        timers.set("a", 10)
        timers.set("a", 5)
        timers.cancel("a")
        timers.set("a", 10)
        timers.set("a", 20)
        assert list(timers.expired(19)) == []
        assert list(timers.expired(30)) == ["a"]
        assert timers.next_deadline() is None

    @given(steps)
    def test_against_a_dictionary(self, steps: list[tuple[str, str, int]]) -> None:
        timers: Timers[str] = Timers()
        model: dict[str, int] = {}
        now = 0
        for what, name, value in steps:
            if what == "set":
                timers.set(name, now + value)
                model.pop(name, None)  # set anew: the last of its deadline
                model[name] = now + value
            elif what == "postpone":
                timers.postpone(name, now + value)
                if model.get(name, -1) < now + value:
                    model.pop(name, None)
                    model[name] = now + value
            elif what == "cancel":
                timers.cancel(name)
                model.pop(name, None)
            else:
                now += value
                due = sorted((n for n in model if model[n] <= now), key=model.__getitem__)
                assert list(timers.expired(now)) == due
                model = {n: deadline for n, deadline in model.items() if deadline > now}
            assert timers.next_deadline() == min(model.values(), default=None)
            assert [n for n in "abcde" if n in timers] == sorted(model)
