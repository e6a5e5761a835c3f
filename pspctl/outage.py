"""What a waiting command does while its server is unreachable: it retries, because a restarted server resumes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pspctl.api import ServerApi
from pspctl.deadline import Deadline
from pspctl.ui.progress import Progress
from pspd.errors import PspError, TimedOut, Unreachable
from pspd.rpc.client.retry import RetryPolicy

OUTAGE_SECONDS_MAX = 60.0
"""How long an outage may last: restarting a server takes seconds, booting its machine about a minute."""
RETRY_SECONDS = 0.5
"""The pause between two attempts to reach the server."""

T = TypeVar("T")


class OutagePolicy(RetryPolicy):
    """Decide how long to wait for a server that has become unreachable."""

    def __init__(self, address: str, deadline: Deadline, progress: Progress, *, was_reached: bool = False) -> None:
        """Start with a server that is not known to be down.

        Args:
            address: the server's address, for messages.
            deadline: the deadline of the whole command.
            progress: gets one note per outage.
            was_reached: whether the server has answered before; if not, its first error is final.
        """
        super().__init__(lambda: RETRY_SECONDS)
        self._address = address
        self._deadline = deadline
        self._progress = progress
        self._was_reached = was_reached

    def note_lost(self) -> None:
        """Record that the server does not answer; the first call of an outage starts its time limit."""
        if not self.is_down:
            self._progress.note(f"lost the server at {self._address}: waiting for it to come back")
        super().note_lost()

    def note_answer(self) -> None:
        """Record that the server has answered, which ends an outage."""
        self._was_reached = True
        super().note_answer()

    def check(self) -> None:
        """Raise an error if the server is down and must not be waited for any longer.

        Raises:
            TimedOut: the command's deadline has passed.
            Unreachable: the outage has lasted `OUTAGE_SECONDS_MAX`.
        """
        if self.is_down and self._deadline.passed:
            raise TimedOut(self._text(self._deadline.text))
        if self.is_down and self.outage_seconds >= OUTAGE_SECONDS_MAX:
            raise Unreachable(self._text(f"{OUTAGE_SECONDS_MAX:.15g} s"))

    def wait(self, api: ServerApi, error: PspError) -> None:
        """Pause, then reopen the connection for the next attempt.

        Args:
            api: the server's API.
            error: how the last attempt failed.

        Raises:
            PspError: `error`, if the server has never answered; or as in `check`.
        """
        if not self._was_reached:
            raise error
        pause = self.pause_after(error)
        self.check()
        time.sleep(self._deadline.within(pause))
        api.reopen()

    def retry(self, api: ServerApi, call: Callable[[], T]) -> T:
        """Return the result of a call, repeated until the server answers.

        Args:
            api: the server's API.
            call: the call; may run several times.

        Raises:
            PspError: as in the call and in `wait`.
        """
        while True:
            try:
                answer = call()
            except (Unreachable, TimedOut) as error:
                self.wait(api, error)
            else:
                self.note_answer()
                return answer

    def _text(self, waited: str) -> str:
        lost = f"the server at {self._address} was lost and has not come back for {waited}"
        return f"{lost}: start it again with `pspd server`"
