"""The driver, with a fake machine. Timers fire because they are due, not because a test waited."""

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
    """Returns prepared effects and timeouts.

    Attributes:
        batches: what each poll returns.
        deadline: the next timeout.
        timeouts: the times at which timeouts were handled.
        next_deadlines: the values of ``deadline`` after each timeout; None afterwards.
    """

    batches: deque[list[str]] = field(default_factory=deque)
    deadline: int | None = None
    timeouts: list[int] = field(default_factory=list)
    next_deadlines: deque[int] = field(default_factory=deque)

    def poll(self) -> list[str]:
        return self.batches.popleft() if self.batches else []

    def next_timeout(self) -> int | None:
        return self.deadline

    def handle_timeout(self, now: int) -> None:
        self.timeouts.append(now)
        self.deadline = self.next_deadlines.popleft() if self.next_deadlines else None


@dataclass
class Timers:
    """Records the delays of timers, in seconds."""

    delays: list[float] = field(default_factory=list)

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()

        class Watching:
            def call_later(_, delay: float, *args: object) -> asyncio.TimerHandle:
                self.delays.append(delay)
                return loop.call_later(delay, *args)  # type: ignore[arg-type]

        monkeypatch.setattr("pspd.net.driver.asyncio.get_running_loop", Watching)


@on_loop
async def test_effects_are_executed_in_order_until_none_is_left() -> None:
    machine, done = FakeMachine(deque([["a", "b"], ["c"], []])), list[str]()
    Driver(machine, done.append).pump()
    assert done == ["a", "b", "c"]


@on_loop
async def test_pump_within_effect_keeps_order() -> None:
    machine, done = FakeMachine(deque([["a", "b"]])), list[str]()

    def execute(effect: str) -> None:
        done.append(effect)
        if effect == "a":
            machine.batches.append(["c"])
            driver.pump()

    driver = Driver(machine, execute)
    driver.pump()
    assert done == ["a", "b", "c"]


@faults_expected()
@on_loop
async def test_failing_effect_does_not_stop_others() -> None:
    machine, done = FakeMachine(deque([["bad"], ["good"]])), list[str]()

    def execute(effect: str) -> None:
        if effect == "bad":
            raise RuntimeError(effect)
        done.append(effect)

    driver = Driver(machine, execute)
    driver.pump()
    assert done == ["good"]


@on_loop
async def test_machine_is_called_at_its_timeout_and_pumped() -> None:
    due = now_ns()
    machine, done = FakeMachine(deadline=due, next_deadlines=deque([due, due + 1])), list[str]()
    driver = Driver(machine, done.append)
    driver.pump()
    assert machine.timeouts == []
    machine.batches.append(["after timeout"])
    await until("three timeouts are handled", lambda: len(machine.timeouts) == 3)
    assert done == ["after timeout"]
    assert due <= machine.timeouts[0] <= machine.timeouts[1] <= machine.timeouts[2] <= now_ns()
    driver.close()


@on_loop
async def test_timer_is_moved_only_if_it_would_fire_late(monkeypatch: pytest.MonkeyPatch) -> None:
    timers, machine, start = Timers(), FakeMachine(), now_ns()
    timers.watch(monkeypatch)
    driver = Driver(machine, lambda _effect: None)
    for hours, timer_count in ((None, 0), (2, 1), (3, 1), (2, 1), (1, 2), (None, 2), (4, 2)):
        machine.deadline = None if hours is None else start + hours * HOUR_NS
        driver.pump()
        assert len(timers.delays) == timer_count, hours
    assert [round(delay / 3600, 2) for delay in timers.delays] == [2, 1]
    driver.close()


@on_loop
async def test_timer_that_fired_early_is_set_again(monkeypatch: pytest.MonkeyPatch) -> None:
    timers, due = Timers(), now_ns()
    machine = FakeMachine(deadline=due, next_deadlines=deque([due + HOUR_NS]))
    timers.watch(monkeypatch)
    driver = Driver(machine, lambda _effect: None)
    driver.pump()
    await until("it is set again", lambda: len(timers.delays) == 2)
    assert timers.delays[0] == 0
    assert timers.delays[1] == pytest.approx(3600, abs=60)
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
async def test_error_in_poll_does_not_stop_driver(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pspd.net.driver.ERROR_PAUSE_SECONDS", 0.01)
    machine, done = FaultyMachine(deque([["a"]]), timeout_faults=0), list[str]()
    driver = Driver(machine, done.append)
    driver.pump()
    assert done == []
    await until("the next alarm carries out the rest", lambda: done == ["a"])
    assert "RuntimeError: poll" in caplog.text
    driver.close()


@faults_expected()
@on_loop
async def test_error_at_timeout_does_not_stop_driver(caplog: pytest.LogCaptureFixture) -> None:
    machine, done = FaultyMachine(deque([[], ["a"]]), now_ns(), poll_faults=0), list[str]()
    driver = Driver(machine, done.append)
    driver.pump()
    await until("the next timeout is handled", lambda: bool(machine.timeouts) and done == ["a"])
    assert "RuntimeError: timeout" in caplog.text
    driver.close()


@faults_expected()
@on_loop
async def test_repeated_errors_do_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    timers, machine = Timers(), FaultyMachine(deadline=now_ns(), poll_faults=1000)
    timers.watch(monkeypatch)
    driver = Driver(machine, lambda _effect: None)
    driver.pump()
    assert timers.delays == [pytest.approx(1.0, abs=0.1)]
    driver.close()


@on_loop
async def test_closed_driver_is_idle() -> None:
    machine, done = FakeMachine(deadline=now_ns()), list[str]()
    driver = Driver(machine, done.append)
    driver.pump()
    driver.close()
    machine.batches.append(["late"])
    driver.pump()
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0, passed.set)
    await passed.wait()
    assert (machine.timeouts, done) == ([], [])
