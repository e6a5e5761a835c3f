"""Drives a state machine: provides the clock, executes the effects, and calls the machine at its timeouts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

E = TypeVar("E")

ERROR_PAUSE_SECONDS = 1.0
"""The shortest delay of a timer that is set after ``poll`` raised an error. It keeps repeated errors from filling the
log."""

log = logging.getLogger(__name__)


class Machine(Protocol[E]):
    """A sans-I/O state machine of :mod:`pspd.core`."""

    def poll(self) -> list[E]:
        """Return the effects to execute, in order."""

    def next_timeout(self) -> int | None:
        """Return the time at which to call ``handle_timeout``, in nanoseconds; None if no timer runs."""

    def handle_timeout(self, now: int) -> None:
        """Do the work that is due at the time ``now``, in nanoseconds."""


def now_ns() -> int:
    """Return the monotonic time in nanoseconds: the clock of all state machines."""
    return time.monotonic_ns()


class Driver(Generic[E]):
    """Executes a machine's effects, and calls the machine when its timeout expires.

    Call :meth:`pump` after every input. The driver logs an error of the machine or of an effect, and continues.

    Args:
        machine: the state machine.
        execute: called with each effect, to execute it.
    """

    def __init__(self, machine: Machine[E], execute: Callable[[E], None]) -> None:
        self._machine = machine
        self._execute = execute
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: int | None = None
        self._is_pumping = False
        self._is_closed = False

    def pump(self) -> None:
        """Execute effects until none is left, then set the timer. A nested call from an effect returns at once."""
        if self._is_pumping or self._is_closed:
            return
        self._is_pumping = True
        earliest_at = 0
        try:
            while effects := self._machine.poll():
                for effect in effects:
                    try:
                        self._execute(effect)
                    except Exception:  # an error of one effect must not stop the others; lost messages are repeated
                        log.exception("an effect could not be executed: %s", type(effect).__name__)
        except Exception:
            log.exception("the state machine raised an error; it continues with the next input")
            earliest_at = now_ns() + int(ERROR_PAUSE_SECONDS * 1e9)
        finally:
            self._is_pumping = False
        self._set_timer(earliest_at)

    def _set_timer(self, earliest_at: int) -> None:
        # A timer that fires early is harmless, so a running timer is replaced only if it would fire too late.
        deadline = self._machine.next_timeout()
        if earliest_at:
            deadline = max(deadline or 0, earliest_at)
        if deadline is None or (self._timer_at is not None and self._timer_at <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_later(max(0, deadline - now_ns()) / 1e9, self._on_timeout)

    def _on_timeout(self) -> None:
        self._timer = self._timer_at = None
        try:
            self._machine.handle_timeout(now_ns())
        except Exception:  # the next timeout does the remaining work
            log.exception("the state machine raised an error at a timeout; it continues")
        self.pump()

    def close(self) -> None:
        """Stop: execute no more effects, and cancel the timer."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
