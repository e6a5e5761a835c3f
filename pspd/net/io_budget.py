"""Limits the sockets of an event loop to time slices, so that they do not starve the control plane."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from weakref import WeakKeyDictionary

from pspd.net.driver import now_ns

TIME_SLICE_NS = 20_000_000
"""The length of a time slice. It is short, because one call of the control plane needs many rounds of the loop."""

log = logging.getLogger(__name__)


class IoBudget:
    """Limits the sockets of one event loop to time slices; between two slices the loop does all other work.

    With hundreds of clients, one pass over all sockets may take seconds, because each contribution is delivered to all
    clients. Deferred callbacks run first in the next slice, in the order in which they were deferred. Otherwise the
    sockets that the kernel reports first would starve the others.
    """

    def __init__(self) -> None:
        self._slice_ends_at = 0  # 0 between two slices
        self._deferred: dict[Callable[[], None], None] = {}

    @staticmethod
    def of_running_loop() -> IoBudget:
        """Return the budget that all sockets of the running event loop share."""
        return _BUDGETS.setdefault(asyncio.get_running_loop(), IoBudget())

    def admit_or_defer(self, callback: Callable[[], None]) -> bool:
        """Return whether a socket's callback may do work now; if not, defer it to the next slice.

        The first call between two slices begins the next slice.
        """
        now = now_ns()
        if self._slice_ends_at == 0:
            self._slice_ends_at = now + TIME_SLICE_NS
            asyncio.get_running_loop().call_soon(self._run_deferred)
        elif now >= self._slice_ends_at:
            self._deferred[callback] = None
            return False
        return True

    def is_deferred(self, callback: Callable[[], None]) -> bool:
        """Return whether a callback waits for the next slice; its socket may then have unread bytes."""
        return callback in self._deferred

    def _run_deferred(self) -> None:
        """End the slice, and run deferred callbacks in the next one."""
        self._slice_ends_at = 0
        while self._deferred and (self._slice_ends_at == 0 or now_ns() < self._slice_ends_at):
            callback = next(iter(self._deferred))
            del self._deferred[callback]
            try:
                callback()
            except Exception:  # an error of one socket must not stop the others
                log.exception("the callback of a socket failed")


_BUDGETS: WeakKeyDictionary[asyncio.AbstractEventLoop, IoBudget] = WeakKeyDictionary()
