"""Follow the network's status as it changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from pspctl.api import ServerApi
from pspctl.deadline import NEVER, Deadline
from pspd.errors import PspError, TimedOut, Unreachable
from pspd.v1 import status_service_pb2

WATCH_SECONDS = 10.0
"""How long one watch call lasts: a server that fell silent is detected, and an idle network is still refreshed."""
RECONNECT_SECONDS = 0.2
"""The pause after a connection broke that had worked."""


class StatusMirror:
    """A copy of the network's status, kept up to date with the changes that the server sends."""

    def __init__(self) -> None:
        """Start empty; the first change is a snapshot."""
        self._status = status_service_pb2.GetStatusResponse()
        self._client_indexes: dict[str, int] = {}
        self._file_indexes: dict[bytes, int] = {}

    def apply(self, change: status_service_pb2.WatchStatusResponse) -> status_service_pb2.GetStatusResponse:
        """Apply a change; return the whole status, which the next call modifies."""
        if change.snapshot:  # the first, or something is gone
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


def _raise(error: PspError) -> None:
    raise error


def follow_status(
    api: ServerApi,
    file: str = "",
    deadline: Deadline = NEVER,
    on_loss: Callable[[PspError], None] = _raise,
) -> Iterator[status_service_pb2.GetStatusResponse]:
    """Yield the status now and after each change.

    The watch is renewed every `WATCH_SECONDS`, and when its connection breaks: on a link full of deliveries a broken
    connection does not mean that the server is gone.

    Args:
        api: the server's API.
        file: a file's id or name; empty for the whole network.
        deadline: when to stop.
        on_loss: called when the server stopped or does not answer; raises an error, or returns for another attempt.

    Raises:
        Unreachable: the server stopped.
        TimedOut: the deadline passed, or the server does not answer.
        NotFound: the network has no such file.
    """
    while True:
        mirror, answered = StatusMirror(), False
        try:
            for change in api.changes(file, deadline.within(WATCH_SECONDS)):
                answered = True
                yield mirror.apply(change)
        except (TimedOut, Unreachable) as error:
            if answered and deadline.passed:
                raise
            if not answered:
                on_loss(error)
            elif isinstance(error, Unreachable):
                time.sleep(deadline.within(RECONNECT_SECONDS))
        else:
            on_loss(Unreachable(f"the server at {api.address} stopped: start it again with `pspd server`"))
