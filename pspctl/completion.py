"""Waits until every client has a file (R10) or cannot get it; raises errors if a file did not reach all clients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pspctl.deadline import Deadline
from pspctl.outage import OutagePolicy, follow_status
from pspctl.ui import file_text
from pspctl.ui.units import count_text
from pspctl.ui.views import FileView, file_view
from pspd.errors import NotFound, TimedOut, WrongState
from pspd.text.plain import plain_text

REFUSALS_MAX = 4
"""The largest number of reasons for declining a file that one error message quotes."""


@dataclass(frozen=True, slots=True)
class WaitPolicy:
    """Decides when the wait for a file ends.

    Attributes:
        deadline: the deadline of the command.
        client_count: how many clients must have the file, or have declined it, before a complete file ends the wait,
            because the other clients may be disconnected only briefly.
        waits_for_missing: whether to wait also for missing clients, which were lost before they had the file. The wait
            for them ends at the deadline or, without a deadline, when each has been lost for a full lease.
    """

    deadline: Deadline
    client_count: int = 0
    waits_for_missing: bool = False

    def is_settled(self, file: FileView) -> bool:
        """Return whether there is nothing more to wait for at the connected clients.

        This is so in three cases:

        - The file is complete, and at least `client_count` clients have it or declined it.
        - No connected client accepts the file, and some clients declined it or are missing.
        - There is no deadline, the file is stalled, and clients are missing, each for a full lease or longer.
        """
        if file["state"] == "complete":
            return file["complete_client_count"] + file["declined_client_count"] >= self.client_count
        if has_only_lost_clients(file) or (file["client_count"] == 0 and file["declined_client_count"] > 0):
            return True
        return file["state"] == "stalled" and bool(file["missing_clients"]) and not self._expects_missing(file)

    def is_over(self, file: FileView) -> bool:
        """Return whether to end the wait: the file is settled, and the wait for missing clients is over, too.

        If all clients are lost, the wait includes them even without `waits_for_missing`.
        """
        includes_missing = self.waits_for_missing or has_only_lost_clients(file)
        return self.is_settled(file) and not (includes_missing and self._expects_missing(file))

    def _expects_missing(self, file: FileView) -> bool:
        """Return whether to expect a missing client back.

        With a deadline, every missing client is expected; without one, those lost for less than a full lease.
        """
        missing = file["missing_clients"]
        has_deadline = self.deadline.timeout_seconds is not None
        return bool(missing) and (has_deadline or not all(client["given_up"] for client in missing))


def wait_until_complete(
    outage: OutagePolicy, file: str, policy: WaitPolicy, check: Callable[[], None] = lambda: None
) -> FileView:
    """Wait for a file until `policy` ends the wait, even if the server restarts meanwhile; return the last state.

    Return the state also if the deadline passes while the file is settled.

    Args:
        outage: the policy for a lost server; it has the progress that shows every change.
        file: the file's id or name.
        policy: decides when the wait ends.
        check: a function that is called at every change, and as in `follow_status`; it may raise an error.

    Raises:
        TimedOut: the deadline passed before the file was settled; the message says how far the file is, if the server
            answered.
        NotFound: the network has no such file, or no longer has it.
        PspError: as in `follow_status`.
    """
    view: FileView | None = None
    is_note_shown = False
    try:
        for status in follow_status(outage, file, check):
            check()
            if not status.files:
                raise NotFound(f"the network has no file {file!r}: see `pspctl files`")
            view = file_view(status.files[0])
            outage.progress.show_exchange(view)
            if policy.is_over(view):
                return view
            if policy.is_settled(view) and not is_note_shown:
                outage.progress.show_note(f"waiting for {file_text.missing_clients_text(view)}")
                is_note_shown = True
    except TimedOut:
        if view is None or outage.is_down or not policy.deadline.has_passed:  # the server did not answer
            raise
    assert view is not None
    if policy.is_settled(view):
        return view
    raise TimedOut(unfinished_text(view, policy.deadline))


def has_only_lost_clients(file: FileView) -> bool:
    """Return whether every client that should receive a file is lost; false if no client is lost."""
    return not (file["client_count"] or file["declined_client_count"]) and bool(file["missing_clients"])


def require_none_missing(file: FileView, deadline: Deadline, consequence: str = "") -> None:
    """Raise an error if clients that should receive a file were lost before they had it.

    Args:
        file: the file.
        deadline: the deadline of the command.
        consequence: the end of the message, such as ``; big.iso was not deleted``.

    Raises:
        TimedOut: clients are missing, and the deadline has passed.
        WrongState: clients are missing, and the deadline has not passed.
    """
    if not file["missing_clients"]:
        return
    waited = f" within {deadline.timeout_text}" if deadline.has_passed else ""
    missed = f"{plain_text(file['name'])} did not reach {file_text.missing_clients_text(file)}{waited}"
    text = f"{missed}: start them again, and they get it{consequence}"
    raise TimedOut(text) if deadline.has_passed else WrongState(text)


def require_connected_client(file: FileView, deadline: Deadline) -> None:
    """Raise an error if every client that should receive a file is lost.

    Args:
        file: the file.
        deadline: the deadline of the command.

    Raises:
        TimedOut: all clients are lost, and the deadline has passed.
        WrongState: all clients are lost, and the deadline has not passed.
    """
    if has_only_lost_clients(file):
        require_none_missing(file, deadline)


def require_none_declined(file: FileView) -> None:
    """Raise an error if clients declined a file.

    Raises:
        WrongState: clients declined the file; the message quotes the first `REFUSALS_MAX` reasons.
    """
    refusals = file_text.refusal_texts(file)
    if refusals:
        more = len(refusals) - REFUSALS_MAX
        rest = [f"and {more} more: see `pspctl status`"] if more > 0 else []
        raise WrongState("; ".join([*refusals[:REFUSALS_MAX], *rest]))


def require_not_stalled(file: FileView) -> None:
    """Raise an error if a file is stalled.

    Raises:
        WrongState: chunks have no reachable holder; the message names the first missing ranges and their last holders.
    """
    if file["state"] == "stalled":
        raise WrongState(f"{plain_text(file['name'])} is stalled: {'; '.join(file_text.missing_chunks_texts(file))}")


def unfinished_text(file: FileView, deadline: Deadline) -> str:
    """Return the error message for a file that was incomplete at the deadline.

    Args:
        file: the file; the message says how far it is, and which chunks are missing.
        deadline: the deadline that has passed.
    """
    counts = f"{file['complete_client_count']} of {count_text(file['client_count'], 'client')} have it"
    text = (
        f"{plain_text(file['name'])} was not complete after {deadline.timeout_text}:"
        f" {file_text.file_state_text(file)}, {file_text.progress_text(file)}, {counts}{file_text.declined_text(file)}"
    )
    return "; ".join([text, *filter(None, [file_text.release_advice(file)]), *file_text.missing_chunks_texts(file)])
