"""Repeats the calls of a waiting command while its server is unreachable: a restarted server resumes its work."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from pspctl.api import ServerApi
from pspctl.deadline import Deadline
from pspctl.ui.progress import Progress
from pspd.errors import PspError, TimedOut, Unreachable
from pspd.rpc.client.retry import RetryPolicy
from pspd.v1 import status_service_pb2

OUTAGE_SECONDS_MAX = 60.0
"""How long an outage may last: restarting a server takes seconds, booting its machine about a minute."""
RETRY_SECONDS = 0.5
"""The pause between two attempts to reach the server."""
WATCH_SECONDS = 10.0
"""How long one watch call lasts. The next call detects a silent server, and refreshes the status of an idle network."""
RECONNECT_SECONDS = 0.2
"""The pause after a working connection has broken."""

T = TypeVar("T")


class OutagePolicy(RetryPolicy):
    """Decides how long to wait for a server that has become unreachable.

    If the server has never answered, its first error is final.

    Args:
        api: the server's API.
        deadline: the deadline of the whole command.
        progress: gets one note per outage.
    """

    def __init__(self, api: ServerApi, deadline: Deadline, progress: Progress) -> None:
        super().__init__(lambda: RETRY_SECONDS)
        self.api = api
        self.deadline = deadline
        self.progress = progress
        self._was_reached = False

    def note_lost(self) -> None:
        """Record that the server does not answer; the first call of an outage starts its time limit."""
        if not self.is_down:
            self.progress.note(f"lost the server at {self.api.address}: waiting for it to come back")
        super().note_lost()

    def note_answer(self) -> None:
        """Record that the server has answered, which ends an outage."""
        self._was_reached = True
        super().note_answer()

    def check(self) -> None:
        """Raise an error if the server is down, and the command has waited long enough.

        Raises:
            TimedOut: the command's deadline has passed.
            Unreachable: the outage has lasted `OUTAGE_SECONDS_MAX`.
        """
        if self.is_down and self.deadline.passed:
            raise TimedOut(self._text(self.deadline.text))
        if self.is_down and self.outage_seconds >= OUTAGE_SECONDS_MAX:
            raise Unreachable(self._text(f"{OUTAGE_SECONDS_MAX:.15g} s"))

    def wait(self, error: PspError) -> None:
        """Pause after a failed attempt, then reopen the connection for the next one.

        Raises:
            PspError: `error`, if the server has never answered; or as in `check`.
        """
        if not self._was_reached:
            raise error
        pause = self.pause_after(error)
        self.check()
        time.sleep(self.deadline.within(pause))
        self.api.reopen()

    def retry(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of a call, which is repeated until the server answers.

        Raises:
            PspError: as in the call and in `wait`.
        """
        while True:
            try:
                answer = self.api.run(call())
            except (Unreachable, TimedOut) as error:
                self.wait(error)
            else:
                self.note_answer()
                return answer

    def _text(self, waited: str) -> str:
        lost = f"the server at {self.api.address} was lost and has not come back for {waited}"
        return f"{lost}: start it again with `pspd server`"


class StatusMirror:
    """A copy of the network's status, kept up to date with the changes that the server sends."""

    def __init__(self) -> None:
        self._status = status_service_pb2.GetStatusResponse()
        self._client_indexes: dict[str, int] = {}
        self._file_indexes: dict[bytes, int] = {}

    def apply(self, change: status_service_pb2.WatchStatusResponse) -> status_service_pb2.GetStatusResponse:
        """Apply a change; return the whole status, which the next call modifies."""
        if change.snapshot:  # the first change, or something was removed
            self._status, self._client_indexes, self._file_indexes = status_service_pb2.GetStatusResponse(), {}, {}
        status = self._status
        if change.HasField("server"):
            status.server.CopyFrom(change.server)
        if change.HasField("cache"):
            status.cache.CopyFrom(change.cache)
        for client in change.clients:
            index = self._client_indexes.setdefault(client.name, len(status.clients))
            (status.clients[index] if index < len(status.clients) else status.clients.add()).CopyFrom(client)
        for file in change.files:
            index = self._file_indexes.setdefault(file.file_id, len(status.files))
            (status.files[index] if index < len(status.files) else status.files.add()).CopyFrom(file)
        return status


def follow_status(
    outage: OutagePolicy, file: str = "", check: Callable[[], None] = lambda: None
) -> Iterator[status_service_pb2.GetStatusResponse]:
    """Yield the status now and after each change, even if the server restarts meanwhile.

    The watch is renewed every `WATCH_SECONDS`, and when its connection breaks: on a link full of deliveries a broken
    connection does not mean that the server is gone.

    Args:
        outage: what to do when the server stops or does not answer.
        file: a file's id or name; empty for the whole network.
        check: called when the server stops or does not answer; may raise an error.

    Raises:
        TimedOut: the deadline passed.
        NotFound: the network has no such file.
        PspError: as in `check` and in `OutagePolicy.wait`.
    """
    api, deadline = outage.api, outage.deadline
    while True:
        mirror, answered = StatusMirror(), False
        loss: PspError = Unreachable(f"the server at {api.address} stopped: start it again with `pspd server`")
        try:
            for change in api.changes(file, deadline.within(WATCH_SECONDS)):
                answered = True
                outage.note_answer()
                yield mirror.apply(change)
        except (TimedOut, Unreachable) as error:
            if answered and deadline.passed:
                raise
            if answered:
                if isinstance(error, Unreachable):
                    time.sleep(deadline.within(RECONNECT_SECONDS))
                continue
            loss = error
        check()
        outage.wait(loss)
