"""What a waiting command does when its server is lost: the server may be back soon, and every file goes on then."""

from __future__ import annotations

import time

from pspctl.api import ServerApi
from pspctl.deadline import Deadline
from pspctl.progress import Progress
from pspd.errors import PspError, TimedOut, Unreachable

RETURN_SECONDS = 60.0
"""How long a server may be away: to start it again takes seconds, and a machine that is booted about a minute."""
LOOK_SECONDS = 0.5


def lost_text(address: str) -> str:
    """That a server is gone, and waited for."""
    return f"lost the server at {address}: waiting for it to come back"


def away_text(address: str, waited: Deadline | None = None) -> str:
    """That a server did not come back, and for how long it was waited for."""
    for_how_long = f" for {waited.text}" if waited is not None else ""
    return f"the server at {address} was lost, and has not come back{for_how_long}: start it again with `pspd server`"


class Absence:
    """Bears that a server is away for a while, as long as the deadline allows.

    Args:
        api: the server.
        deadline: of all that is waited for.
        progress: is told once for each absence.
        was_there: whether it has answered before.
    """

    def __init__(self, api: ServerApi, deadline: Deadline, progress: Progress, *, was_there: bool = False) -> None:
        self._api = api
        self._deadline = deadline
        self._progress = progress
        self._limit: Deadline | None = None
        self._was_there = was_there

    @property
    def lasts(self) -> bool:
        """Whether the server is away now."""
        return self._limit is not None

    def end(self) -> None:
        """The server has answered."""
        self._was_there, self._limit = True, None

    def bear(self, error: PspError) -> None:
        """Waits a moment before the server is tried again.

        Args:
            error: what the last try ended with.

        Raises:
            PspError: that error, if the server never was there.
            TimedOut: the deadline has passed.
            Unreachable: it has been away for too long.
        """
        if not self._was_there:
            raise error
        if self._limit is None:
            self._limit = Deadline(RETURN_SECONDS)
            self._progress.note(lost_text(self._api.address))
        if self._deadline.passed:
            raise TimedOut(away_text(self._api.address, self._deadline)) from error
        if self._limit.passed:
            raise Unreachable(away_text(self._api.address, self._limit)) from error
        time.sleep(self._deadline.within(LOOK_SECONDS))
        self._api.reopen()
