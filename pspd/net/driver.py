"""What the server's and the client's planes have in common: the clock, and the one timer of a machine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

E = TypeVar("E")

FAULT_SECONDS = 1.0
"""After an error in the machine itself the next alarm comes no sooner: one that is raised each time does not fill the
log."""

log = logging.getLogger(__name__)


class Machine(Protocol[E]):
    """A sans-I/O machine of :mod:`pspd.core`."""

    def poll(self) -> list[E]: ...
    def next_timeout(self) -> int | None: ...
    def handle_timeout(self, now: int) -> None: ...


def now_ns() -> int:
    """The time that the machines are told: monotonic, in nanoseconds."""
    return time.monotonic_ns()


class Driver(Generic[E]):
    """Carries out a machine's effects, and wakes it when its time has come.

    Call :meth:`pump` after every input. What the machine or an effect raises is logged, and the rest goes on.
    """

    def __init__(self, machine: Machine[E], carry_out: Callable[[E], None]) -> None:
        self._machine = machine
        self._carry_out = carry_out
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at: int | None = None
        self._pumping = False
        self._closed = False

    def pump(self) -> None:
        """Carries out effects until there are none; safe to call from within one."""
        if self._pumping or self._closed:
            return
        self._pumping = True
        earliest_at = 0
        try:
            while effects := self._machine.poll():
                for effect in effects:
                    self._carry_out_safely(effect)
        except Exception:
            log.exception("the machine raised an error: it goes on with the next input")
            earliest_at = now_ns() + int(FAULT_SECONDS * 1e9)
        finally:
            self._pumping = False
        self._set_alarm(earliest_at)

    def _carry_out_safely(self, effect: E) -> None:
        try:
            self._carry_out(effect)
        except Exception:  # a fault in one effect is not to cost the others; the protocol asks again
            log.exception("an effect could not be carried out: %s", type(effect).__name__)

    def _set_alarm(self, earliest_at: int) -> None:
        # An alarm that rings too early does no harm; so it is moved only when it would ring too late.
        deadline = self._machine.next_timeout()
        if earliest_at:
            deadline = max(deadline or 0, earliest_at)
        if deadline is None or (self._alarm_at is not None and self._alarm_at <= deadline):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = deadline
        self._alarm = self._loop.call_later(max(0, deadline - now_ns()) / 1e9, self._ring)

    def _ring(self) -> None:
        self._alarm = self._alarm_at = None
        try:
            self._machine.handle_timeout(now_ns())
        except Exception:  # what else is due is done at the next alarm
            log.exception("the machine raised an error at a timeout: it goes on")
        self.pump()

    def close(self) -> None:
        """No more effects, no more alarms."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
