"""Wait until every client has a file (R10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pspctl.api import ServerApi
from pspctl.deadline import Deadline
from pspctl.follow import follow_status
from pspctl.outage import OutagePolicy
from pspctl.outcome import has_no_recipient, unfinished_text
from pspctl.ui.file_text import missing_text
from pspctl.ui.progress import Progress
from pspctl.ui.views import FileView, file_view
from pspd.errors import NotFound, PspError, TimedOut


@dataclass(frozen=True, slots=True)
class Goal:
    """When the wait for a file ends.

    Attributes:
        deadline: when to give up.
        client_count: how many clients must have the file or have declined it, at least; a client that is disconnected
            for a moment is still waited for then.
        awaits_missing: also wait for clients that were lost before they had the file: until the deadline or, without
            one, until each has been lost for a full lease.
    """

    deadline: Deadline
    client_count: int = 0
    awaits_missing: bool = False

    def is_settled(self, file: FileView) -> bool:
        """Return whether no connected client can get more of the file.

        That is so when all have it or declined it; when no client is connected to receive it; and, without a deadline,
        when its missing chunks are at clients that have been lost for a full lease.
        """
        if file["state"] == "complete":
            return file["complete_client_count"] + file["declined_client_count"] >= self.client_count
        if has_no_recipient(file) or (file["client_count"] == 0 and file["declined_client_count"] > 0):
            return True
        return file["state"] == "stalled" and bool(file["missing_clients"]) and not self._may_return(file)

    def is_reached(self, file: FileView) -> bool:
        """Return whether a file is settled, and no lost client is waited for that may return."""
        waits_for_missing = (self.awaits_missing or has_no_recipient(file)) and self._may_return(file)
        return self.is_settled(file) and not waits_for_missing

    def _may_return(self, file: FileView) -> bool:
        """Return whether a lost client may still return within its lease or the deadline."""
        missing = file["missing_clients"]
        has_deadline = self.deadline.timeout_seconds is not None
        return bool(missing) and (has_deadline or not all(client["given_up"] for client in missing))


def wait_until_complete(
    api: ServerApi,
    file: str,
    goal: Goal,
    progress: Progress,
    check: Callable[[], None] = lambda: None,
    *,
    was_reached: bool = False,
) -> FileView:
    """Wait until a file has reached its goal, also through a restart of the server; return its last state.

    Args:
        api: the server's API.
        file: the file's id or name.
        goal: when the wait ends.
        progress: shows every change.
        check: called at every change; may raise an error to end the wait.
        was_reached: whether the server has answered before; if so, it is waited for from the start.

    Raises:
        TimedOut: the deadline passed; says how far the file is.
        PspError: as in `follow_status`.
    """
    outage = OutagePolicy(api.address, goal.deadline, progress, was_reached=was_reached)
    view: FileView | None = None
    is_note_shown = False
    for view in _file_views(api, file, goal.deadline, outage, check):
        progress.exchange(view)
        if goal.is_reached(view):
            return view
        if goal.is_settled(view) and not is_note_shown:
            progress.note(f"waiting for {missing_text(view)}")
            is_note_shown = True
    assert view is not None
    if goal.is_settled(view):
        return view
    raise TimedOut(unfinished_text(view, goal.deadline))


def _file_views(
    api: ServerApi, file: str, deadline: Deadline, outage: OutagePolicy, check: Callable[[], None]
) -> Iterator[FileView]:
    """Yield the file now and after each change until the deadline, also through a restart of the server."""

    def on_loss(error: PspError) -> None:
        check()
        outage.wait(api, error)

    view: FileView | None = None
    try:
        for status in follow_status(api, file, deadline, on_loss):
            outage.note_answer()
            check()
            if not status.files:
                raise NotFound(f"the network has no file {file!r}: see `pspctl files`")
            view = file_view(status.files[0])
            yield view
    except TimedOut:
        if view is None or outage.is_down or not deadline.passed:  # the server does not answer
            raise
