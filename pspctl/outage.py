"""What a waiting command does when its server is lost: the server may be back soon, and every file goes on then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pspctl.api import ServerApi
from pspctl.deadline import Deadline
from pspctl.ui.progress import Progress
from pspd.errors import PspError, TimedOut, Unreachable

RETURN_SECONDS = 60.0
"""How long a server may be away: to start it again takes seconds, and a machine that is booted about a minute."""
LOOK_SECONDS = 0.5

T = TypeVar("T")


class Absence:
    """A server that was there is away: that is borne for a while, as long as the deadline allows.

    Args:
        address: the server's.
        deadline: of all that is waited for.
        progress: is told once for each absence.
        was_there: whether it has answered before.
    """

    def __init__(self, address: str, deadline: Deadline, progress: Progress, *, was_there: bool = False) -> None:
        self._address = address
        self._deadline = deadline
        self._progress = progress
        self._limit: Deadline | None = None
        self._was_there = was_there

    @property
    def lasts(self) -> bool:
        """Whether the server is away now."""
        return self._limit is not None

    def begin(self) -> None:
        """The server does not answer any more."""
        if self._limit is None:
            self._limit = Deadline(RETURN_SECONDS)
            self._progress.note(f"lost the server at {self._address}: waiting for it to come back")

    def end(self) -> None:
        """The server has answered."""
        self._was_there, self._limit = True, None

    def require_bearable(self) -> None:
        """Makes sure that the server need not be given up yet.

        Raises:
            TimedOut: it is away, and the deadline has passed.
            Unreachable: it has been away for too long.
        """
        if self._limit is not None and self._deadline.passed:
            raise TimedOut(self._text(self._deadline))
        if self._limit is not None and self._limit.passed:
            raise Unreachable(self._text(self._limit))

    def bear(self, api: ServerApi, error: PspError) -> None:
        """Waits a moment before the server is tried again, over a new connection.

        Args:
            api: the server.
            error: what the last try ended with.

        Raises:
            PspError: that error, if the server never was there; or as `require_bearable`.
        """
        if not self._was_there:
            raise error
        self.begin()
        self.require_bearable()
        time.sleep(self._deadline.within(LOOK_SECONDS))
        api.reopen()

    def through(self, api: ServerApi, call: Callable[[], T]) -> T:
        """The answer of a call, however often the server is lost before it comes.

        Raises:
            PspError: as the call, and as `bear`.
        """
        while True:
            try:
                answer = call()
            except (Unreachable, TimedOut) as error:
                self.bear(api, error)
            else:
                self.end()
                return answer

    def _text(self, waited: Deadline) -> str:
        lost = f"the server at {self._address} was lost, and has not come back for {waited.text}"
        return f"{lost}: start it again with `pspd server`"
