"""Follows the network as it changes, and one file until every client has it (R10)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from pspctl.api import ServerApi
from pspctl.deadline import NEVER, Deadline
from pspctl.outage import Absence
from pspctl.ui.progress import Progress
from pspctl.ui.tables import (
    declined_text,
    file_state_text,
    hold_text,
    missing_text,
    missing_texts,
    progress_text,
    refusal_texts,
)
from pspctl.ui.units import count_text
from pspctl.ui.views import FileView, file_view
from pspd.errors import NotFound, PspError, TimedOut, Unreachable, WrongState
from pspd.text.plain import plain_text
from pspd.v1 import status_service_pb2

TURN_SECONDS = 10.0
BREAK_SECONDS = 0.2
MAX_REFUSALS = 4


class Picture:
    """The network put together again from the changes that the server tells of."""

    def __init__(self) -> None:
        self._status = status_service_pb2.GetStatusResponse()
        self._clients: dict[str, int] = {}
        self._files: dict[bytes, int] = {}

    def apply(self, change: status_service_pb2.WatchStatusResponse) -> status_service_pb2.GetStatusResponse:
        """Takes in a change; returns the whole network, which the next change alters."""
        if change.snapshot:  # the first, or something is gone
            self._status, self._clients, self._files = status_service_pb2.GetStatusResponse(), {}, {}
        status = self._status
        if change.HasField("server"):
            status.server.CopyFrom(change.server)
        if change.HasField("cache"):
            status.cache.CopyFrom(change.cache)
        for client in change.clients:
            place = self._clients.setdefault(client.name, len(status.clients))
            (status.clients[place] if place < len(status.clients) else status.clients.add()).CopyFrom(client)
        for file in change.files:
            place = self._files.setdefault(file.file_id, len(status.files))
            (status.files[place] if place < len(status.files) else status.files.add()).CopyFrom(file)
        return status


def _give_up(error: PspError) -> None:
    raise error


def pictures(
    api: ServerApi,
    file: str = "",
    deadline: Deadline = NEVER,
    on_loss: Callable[[PspError], None] = _give_up,
) -> Iterator[status_service_pb2.GetStatusResponse]:
    """The network now, and again after each change.

    The server is asked anew every `TURN_SECONDS`: one that fell silent for good is found out, and a network
    where nothing changes is still looked at now and then. So it is when its connection breaks: on a link that is
    full of deliveries that says little.

    Args:
        api: the server.
        file: a file's id or name; empty for all of the network.
        deadline: until when.
        on_loss: called when the server stopped or does not answer; raises, or has it tried again.

    Raises:
        Unreachable: the server stopped.
        TimedOut: the deadline passed, or the server fell silent.
        NotFound: there is no such file.
    """
    while True:
        picture, answered = Picture(), False
        try:
            for change in api.changes(file, deadline.within(TURN_SECONDS)):
                answered = True
                yield picture.apply(change)
        except (TimedOut, Unreachable) as error:
            if answered and deadline.passed:
                raise
            if not answered:
                on_loss(error)
            elif isinstance(error, Unreachable):
                time.sleep(deadline.within(BREAK_SECONDS))  # one that answers and breaks each time is not to be hurried
        else:
            on_loss(Unreachable(f"the server at {api.address} stopped: start it again with `pspd server`"))


def until_complete(
    api: ServerApi,
    file: str,
    deadline: Deadline,
    progress: Progress,
    check: Callable[[], None] = lambda: None,
    client_count: int = 0,
    *,
    was_there: bool = False,
    awaits_missing: bool = False,
) -> FileView:
    """Waits until every connected client has a file, also through a restart of the server; returns its last state.

    It also ends when nobody is left to take it: every client declined it, or all are lost and have been away for a full
    lease. A client that is away for less may come back, as all do after a restart of the server. And it ends, where
    there is no deadline, when chunks went with clients that have been away for a full lease.

    Args:
        api: the server.
        file: a file's id or name.
        deadline: until when.
        progress: is shown every change.
        check: called at every change; may raise to end the wait.
        client_count: how many clients must have it, or have declined it, at least: one that is lost for a moment is
            not connected, and still waited for.
        was_there: whether the server is known to have been there: then it may be restarted just now.
        awaits_missing: whether clients that went before they had it are waited for: until the deadline, or where
            there is none until each has been away for a full lease. The caller looks who is missing then.

    Raises:
        TimedOut: with how far the file is.
        PspError: as in `pictures`.
    """
    view: FileView | None = None
    has_told = False
    absence = Absence(api.address, deadline, progress, was_there=was_there)

    def bear(error: PspError) -> None:
        check()
        absence.bear(api, error)

    try:
        for status in pictures(api, file, deadline, bear):
            absence.end()
            check()
            if not status.files:
                raise NotFound(f"the network has no file {file!r}: see `pspctl files`")
            view = file_view(status.files[0])
            progress.exchange(view)
            if not (_is_settled(view, client_count) or _is_stranded(view, deadline)):
                continue
            if not (awaits_missing or _is_deserted(view)) or _are_given_up(view, deadline):
                return view
            if not has_told:
                progress.note(f"waiting for {missing_text(view)}")
                has_told = True
    except TimedOut as error:
        # A server that fell silent is another matter.
        if view is None or absence.lasts or not deadline.passed:
            raise
        if _is_settled(view, client_count):
            return view
        raise TimedOut(unfinished_text(view, deadline)) from error
    raise AssertionError("pictures() ends with an error")


def _is_settled(view: FileView, client_count: int) -> bool:
    """Whether all clients in reach have a file or declined it, and so many at least; or nobody is here to take it."""
    settled_count = view["complete_client_count"] + view["declined_client_count"]
    if view["state"] == "complete":
        return settled_count >= client_count
    return _is_deserted(view) or (view["client_count"] == 0 and view["declined_client_count"] > 0)


def _is_deserted(view: FileView) -> bool:
    """Whether every client that is to get a file is away."""
    return not (view["client_count"] or view["declined_client_count"]) and bool(view["missing_clients"])


def _is_stranded(view: FileView, deadline: Deadline) -> bool:
    """Whether chunks of a file went with clients that nobody is to wait for any longer."""
    return view["state"] == "stalled" and bool(view["missing_clients"]) and _are_given_up(view, deadline)


def _are_given_up(view: FileView, deadline: Deadline) -> bool:
    """Whether no client is missing, or all that are have been away for long enough."""
    missing = view["missing_clients"]
    return not missing or (deadline.timeout_seconds is None and all(client["given_up"] for client in missing))


def require_nobody_lost(file: FileView, deadline: Deadline, consequence: str = "") -> None:
    """Makes sure that every client that a file was divided among has it, or is still here.

    Args:
        file: the file.
        deadline: until when was waited for them.
        consequence: what else there is to say if some are missing.

    Raises:
        TimedOut: some are away, and the deadline has passed.
        WrongState: some are away.
    """
    if not file["missing_clients"]:
        return
    waited = f" within {deadline.text}" if deadline.passed else ""
    text = (
        f"{plain_text(file['name'])} did not reach {missing_text(file)}{waited}: start them again, and they get it"
        f"{consequence}"
    )
    raise TimedOut(text) if deadline.passed else WrongState(text)


def require_a_taker(file: FileView, deadline: Deadline) -> None:
    """Makes sure that not every client that is to get a file is lost.

    Args:
        file: the file.
        deadline: until when was waited for them.

    Raises:
        TimedOut: they are, and the deadline has passed.
        WrongState: they are.
    """
    if _is_deserted(file):
        require_nobody_lost(file, deadline)


def require_all_took(file: FileView) -> None:
    """Makes sure that nobody declined a file.

    Raises:
        WrongState: somebody did; says who, and why.
    """
    refusals = refusal_texts(file)
    if refusals:
        more = len(refusals) - MAX_REFUSALS
        rest = [f"and {more} more: see `pspctl status`"] if more > 0 else []
        raise WrongState("; ".join([*refusals[:MAX_REFUSALS], *rest]))


def require_holders(file: FileView) -> None:
    """Makes sure that every chunk of a file has a holder.

    Raises:
        WrongState: some have none; says which, and who held them last.
    """
    if file["state"] == "stalled":
        raise WrongState(f"{plain_text(file['name'])} is stalled: {'; '.join(missing_texts(file))}")


def unfinished_text(view: FileView, deadline: Deadline) -> str:
    """How far a file was when the deadline passed."""
    counts = f"{view['complete_client_count']} of {count_text(view['client_count'], 'client')} have it"
    text = (
        f"{plain_text(view['name'])} was not complete after {deadline.text}:"
        f" {file_state_text(view)}, {progress_text(view)}, {counts}{declined_text(view)}"
    )
    return "; ".join([text, *filter(None, [hold_text(view)]), *missing_texts(view)])
