"""The driver, with a machine that does as it is told. Alarms ring because they are due, not because a test waited."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

import pytest

from pspd.net.driver import Driver, now_ns
from tests.support.loops import faults_expected, on_loop, until

pytestmark = pytest.mark.usefixtures("each_loop")

HOUR_NS = 3600 * 10**9


@dataclass
class FakeMachine:
    """Gives effects in the batches it was given; wakes when it was told.

    Attributes:
        batches: what each poll gives.
        deadline: when it wants to be woken.
        woken: the times at which it was.
        next_deadlines: what becomes of ``deadline`` at each wakeup; None afterwards.
    """

    batches: deque[list[str]] = field(default_factory=deque)
    deadline: int | None = None
    woken: list[int] = field(default_factory=list)
    next_deadlines: deque[int] = field(default_factory=deque)

    def poll(self) -> list[str]:
        return self.batches.popleft() if self.batches else []

    def next_timeout(self) -> int | None:
        return self.deadline

    def handle_timeout(self, now: int) -> None:
        self.woken.append(now)
        self.deadline = self.next_deadlines.popleft() if self.next_deadlines else None


@dataclass
class Alarms:
    """Notes when the loop was asked to call, in seconds from then."""

    delays: list[float] = field(default_factory=list)

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()

        class Watching:
            def call_later(_, delay: float, *args: object) -> asyncio.TimerHandle:
                self.delays.append(delay)
                return loop.call_later(delay, *args)  # type: ignore[arg-type]

        monkeypatch.setattr("pspd.net.driver.asyncio.get_running_loop", Watching)


@on_loop
async def test_effects_are_carried_out_in_order_until_there_are_none() -> None:
    machine, done = FakeMachine(deque([["a", "b"], ["c"], []])), list[str]()
    Driver(machine, done.append).pump()
    assert done == ["a", "b", "c"]


@on_loop
async def test_pumping_from_within_an_effect_keeps_the_order() -> None:
    machine, done = FakeMachine(deque([["a", "b"]])), list[str]()

    def carry_out(effect: str) -> None:
        done.append(effect)
        if effect == "a":
            machine.batches.append(["c"])
            driver.pump()

    driver = Driver(machine, carry_out)
    driver.pump()
    assert done == ["a", "b", "c"]


@faults_expected()
@on_loop
async def test_an_effect_that_fails_does_not_cost_the_others() -> None:
    machine, done = FakeMachine(deque([["bad"], ["good"]])), list[str]()

    def carry_out(effect: str) -> None:
        if effect == "bad":
            raise RuntimeError(effect)
        done.append(effect)

    driver = Driver(machine, carry_out)
    driver.pump()
    assert done == ["good"]


@on_loop
async def test_the_machine_is_woken_when_its_time_has_come_and_pumped() -> None:
    due = now_ns()
    machine, done = FakeMachine(deadline=due, next_deadlines=deque([due, due + 1])), list[str]()
    driver = Driver(machine, done.append)
    driver.pump()
    assert machine.woken == []
    machine.batches.append(["told after waking"])
    await until("it is woken three times", lambda: len(machine.woken) == 3)
    assert done == ["told after waking"]
    assert due <= machine.woken[0] <= machine.woken[1] <= machine.woken[2] <= now_ns()
    driver.close()


@on_loop
async def test_an_alarm_is_moved_only_when_it_would_ring_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    alarms, machine, start = Alarms(), FakeMachine(), now_ns()
    alarms.watch(monkeypatch)
    driver = Driver(machine, lambda _effect: None)
    for hours, alarm_count in ((None, 0), (2, 1), (3, 1), (2, 1), (1, 2), (None, 2), (4, 2)):
        machine.deadline = None if hours is None else start + hours * HOUR_NS
        driver.pump()
        assert len(alarms.delays) == alarm_count, hours
    assert [round(delay / 3600, 2) for delay in alarms.delays] == [2, 1]
    driver.close()


@on_loop
async def test_an_alarm_that_rang_too_early_is_set_again(monkeypatch: pytest.MonkeyPatch) -> None:
    alarms, due = Alarms(), now_ns()
    machine = FakeMachine(deadline=due, next_deadlines=deque([due + HOUR_NS]))
    alarms.watch(monkeypatch)
    driver = Driver(machine, lambda _effect: None)
    driver.pump()
    await until("it is set again", lambda: len(alarms.delays) == 2)
    assert alarms.delays[0] == 0
    assert alarms.delays[1] == pytest.approx(3600, abs=60)
    driver.close()


@dataclass
class FaultyMachine(FakeMachine):
    """Raises at its first poll, and at its first timeout."""

    poll_faults: int = 1
    timeout_faults: int = 1

    def poll(self) -> list[str]:
        if self.poll_faults:
            self.poll_faults -= 1
            raise RuntimeError("poll")
        return super().poll()

    def handle_timeout(self, now: int) -> None:
        if self.timeout_faults:
            self.timeout_faults -= 1
            raise RuntimeError("timeout")
        super().handle_timeout(now)


@faults_expected()
@on_loop
async def test_error_in_poll_does_not_stop_the_driver(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pspd.net.driver.FAULT_SECONDS", 0.01)
    machine, done = FaultyMachine(deque([["a"]]), timeout_faults=0), list[str]()
    driver = Driver(machine, done.append)
    driver.pump()
    assert done == []
    await until("the next alarm carries out the rest", lambda: done == ["a"])
    assert "RuntimeError: poll" in caplog.text
    driver.close()


@faults_expected()
@on_loop
async def test_error_at_a_timeout_does_not_stop_the_driver(caplog: pytest.LogCaptureFixture) -> None:
    machine, done = FaultyMachine(deque([[], ["a"]]), now_ns(), poll_faults=0), list[str]()
    driver = Driver(machine, done.append)
    driver.pump()
    await until("the next timeout is handled", lambda: bool(machine.woken) and done == ["a"])
    assert "RuntimeError: timeout" in caplog.text
    driver.close()


@faults_expected()
@on_loop
async def test_repeated_errors_do_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    alarms, machine = Alarms(), FaultyMachine(deadline=now_ns(), poll_faults=1000)
    alarms.watch(monkeypatch)
    driver = Driver(machine, lambda _effect: None)
    driver.pump()
    assert alarms.delays == [pytest.approx(1.0, abs=0.1)]
    driver.close()


@on_loop
async def test_a_closed_driver_does_nothing_more() -> None:
    machine, done = FakeMachine(deadline=now_ns()), list[str]()
    driver = Driver(machine, done.append)
    driver.pump()
    driver.close()
    machine.batches.append(["late"])
    driver.pump()
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0, passed.set)
    await passed.wait()
    assert (machine.woken, done) == ([], [])
