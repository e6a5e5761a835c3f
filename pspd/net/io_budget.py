"""How the sockets of one event loop share it: all of them together may not keep it from everything else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from weakref import WeakKeyDictionary

from pspd.net.driver import now_ns

TURN_NS = 20_000_000
"""How long sockets are seen to in a row before the control plane is, which needs many rounds of the loop for a call."""

log = logging.getLogger(__name__)


class IoBudget:
    """Time for sockets, in turns: between two of them the event loop does whatever else there is to do.

    With hundreds of clients one look at every socket may take seconds, as a contribution is handed out to all of them.
    Whoever is put off comes first in the next turn: else those whom the kernel names first would be the only ones.
    """

    def __init__(self) -> None:
        self._ends_at = 0  # 0 between two turns
        self._put_off: dict[Callable[[], None], None] = {}

    @staticmethod
    def of_running_loop() -> IoBudget:
        """The turns that all sockets of this event loop share."""
        loop = asyncio.get_running_loop()
        turns = _TURNS.get(loop)
        if turns is None:
            turns = _TURNS[loop] = IoBudget()
        return turns

    def try_run(self, wakeup: Callable[[], None]) -> bool:
        """Whether there is time left for a socket; if not, it is woken in the next turn."""
        now = now_ns()
        if self._ends_at == 0:
            self._ends_at = now + TURN_NS
            asyncio.get_running_loop().call_soon(self._begin_next)
        elif now >= self._ends_at:
            self._put_off[wakeup] = None
            return False
        return True

    def puts_off(self, wakeup: Callable[[], None]) -> bool:
        """Whether a socket waits for the next turn: what has come for it is not read yet."""
        return wakeup in self._put_off

    def _begin_next(self) -> None:
        self._ends_at = 0
        while self._put_off and (self._ends_at == 0 or now_ns() < self._ends_at):
            wakeup = next(iter(self._put_off))
            del self._put_off[wakeup]
            try:
                wakeup()
            except Exception:  # a fault at one socket is not to cost the others their turn
                log.exception("a socket could not be seen to")


_TURNS: WeakKeyDictionary[asyncio.AbstractEventLoop, IoBudget] = WeakKeyDictionary()
