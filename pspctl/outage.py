"""Repeats the calls of a waiting command during an outage, because a restarted server continues where it stopped."""

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
"""The longest outage that a command tolerates: a server restarts in seconds, its machine in about a minute."""
RETRY_SECONDS = 0.5
"""The pause between two attempts to reach the server."""
WATCH_SECONDS = 10.0
"""The longest time of one watch call. The next call shows that the server still answers, and gets the whole status."""
RECONNECT_SECONDS = 0.2
"""The pause before the next watch call if the connection broke after the server had answered."""

T = TypeVar("T")


class OutagePolicy(RetryPolicy):
    """Decides how long to wait for a server that no longer answers.

    Args:
        api: the connection to the server.
        deadline: the deadline of the whole command.
        progress: the progress of the command, which shows one note per outage.
    """

    def __init__(self, api: ServerApi, deadline: Deadline, progress: Progress) -> None:
        super().__init__(lambda: RETRY_SECONDS)
        self.api = api
        self.deadline = deadline
        self.progress = progress
        self._has_answered = False

    def note_lost(self) -> None:
        """Record that the server does not answer; if no outage is under way, begin one and show a note."""
        if not self.is_down:
            self.progress.show_note(f"lost the server at {self.api.address}: waiting for it to come back")
        super().note_lost()

    def note_answer(self) -> None:
        """Record that the server has answered, which ends an outage."""
        self._has_answered = True
        super().note_answer()

    def require_outage_tolerable(self) -> None:
        """Raise an error if there is an outage, and the command must not wait any longer for the server.

        Raises:
            TimedOut: the server does not answer, and the command's deadline has passed.
            Unreachable: the outage has lasted for at least `OUTAGE_SECONDS_MAX`.
        """
        if self.is_down and self.deadline.has_passed:
            raise TimedOut(self._lost_text(self.deadline.timeout_text))
        if self.is_down and self.outage_seconds >= OUTAGE_SECONDS_MAX:
            raise Unreachable(self._lost_text(f"{OUTAGE_SECONDS_MAX:.15g} s"))

    def wait_and_reopen(self, error: PspError) -> None:
        """Record a failed attempt, pause, and reopen the connection for the next attempt.

        Raises:
            PspError: `error`, if the server has never answered; otherwise as in `require_outage_tolerable`.
        """
        if not self._has_answered:
            raise error
        pause = self.pause_after(error)
        self.require_outage_tolerable()
        time.sleep(self.deadline.capped(pause))
        self.api.reopen()

    def retry(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Repeat a call until the server answers; return the result.

        Raises:
            PspError: the server answered with an error, or as in `wait_and_reopen`.
        """
        while True:
            try:
                answer = self.api.run(call())
            except (Unreachable, TimedOut) as error:
                self.wait_and_reopen(error)
            else:
                self.note_answer()
                return answer

    def _lost_text(self, waited: str) -> str:
        lost = f"the server at {self.api.address} was lost and has not come back for {waited}"
        return f"{lost}: start it again with `pspd server`"


class StatusMirror:
    """A copy of the network's status, kept up to date with the changes that the server sends."""

    def __init__(self) -> None:
        self._status = status_service_pb2.GetStatusResponse()
        self._client_indexes: dict[str, int] = {}
        self._file_indexes: dict[bytes, int] = {}

    def apply(self, change: status_service_pb2.WatchStatusResponse) -> status_service_pb2.GetStatusResponse:
        """Apply a change; return the whole status. The next call may modify the returned object."""
        if change.snapshot:  # the first message, or the first after a client or a file was removed
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

    The watch call is repeated every `WATCH_SECONDS`, and when its connection breaks. Each call first yields the status,
    even if nothing has changed. A broken connection does not mean that the server is gone: if deliveries fill the
    network, the answer to a keepalive ping may come too late, and gRPC closes the connection.

    Args:
        outage: the policy for a server that stops or does not answer.
        file: a file's id or name; empty for the whole network.
        check: a function that is called when the server has stopped or does not answer; it may raise an error.

    Raises:
        TimedOut: the deadline of the command passed.
        NotFound: the network has no such file.
        PspError: as in `check` and in `OutagePolicy.wait_and_reopen`.
    """
    api, deadline = outage.api, outage.deadline
    while True:
        mirror, answered = StatusMirror(), False
        failure: PspError = Unreachable(f"the server at {api.address} stopped: start it again with `pspd server`")
        try:
            for change in api.watch_status(file, deadline.capped(WATCH_SECONDS)):
                answered = True
                outage.note_answer()
                yield mirror.apply(change)
        except (TimedOut, Unreachable) as error:
            if answered and deadline.has_passed:
                raise TimedOut(str(error)) from None
            if answered:
                if isinstance(error, Unreachable):
                    time.sleep(deadline.capped(RECONNECT_SECONDS))
                continue
            failure = error
        check()
        outage.wait_and_reopen(failure)
