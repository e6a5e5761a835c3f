"""The errors that a command ends with when a file has not reached every client."""

from __future__ import annotations

from pspctl.deadline import Deadline
from pspctl.ui.file_text import (
    declined_text,
    file_state_text,
    hold_text,
    missing_text,
    missing_texts,
    progress_text,
    refusal_texts,
)
from pspctl.ui.units import count_text
from pspctl.ui.views import FileView
from pspd.errors import TimedOut, WrongState
from pspd.text.plain import plain_text

REFUSALS_MAX = 4
"""How many reasons of clients that declined a file one error quotes."""


def has_no_recipient(file: FileView) -> bool:
    """Return whether all clients that are to receive a file are lost."""
    return not (file["client_count"] or file["declined_client_count"]) and bool(file["missing_clients"])


def require_none_missing(file: FileView, deadline: Deadline, consequence: str = "") -> None:
    """Raise an error if clients that a file was divided among were lost before they had it.

    Args:
        file: the file.
        deadline: how long they were waited for.
        consequence: what to add to the message.

    Raises:
        TimedOut: some are missing, and the deadline has passed.
        WrongState: some are missing.
    """
    if not file["missing_clients"]:
        return
    waited = f" within {deadline.text}" if deadline.passed else ""
    text = (
        f"{plain_text(file['name'])} did not reach {missing_text(file)}{waited}: start them again, and they get it"
        f"{consequence}"
    )
    raise TimedOut(text) if deadline.passed else WrongState(text)


def require_recipient(file: FileView, deadline: Deadline) -> None:
    """Raise an error if all clients that are to receive a file are lost.

    Args:
        file: the file.
        deadline: how long they were waited for.

    Raises:
        TimedOut: they are lost, and the deadline has passed.
        WrongState: they are lost.
    """
    if has_no_recipient(file):
        require_none_missing(file, deadline)


def require_none_declined(file: FileView) -> None:
    """Raise an error if clients declined a file.

    Raises:
        WrongState: some did; quotes their reasons.
    """
    refusals = refusal_texts(file)
    if refusals:
        more = len(refusals) - REFUSALS_MAX
        rest = [f"and {more} more: see `pspctl status`"] if more > 0 else []
        raise WrongState("; ".join([*refusals[:REFUSALS_MAX], *rest]))


def require_holders(file: FileView) -> None:
    """Raise an error if chunks of a file have no holder.

    Raises:
        WrongState: some have none; says which, and who held them last.
    """
    if file["state"] == "stalled":
        raise WrongState(f"{plain_text(file['name'])} is stalled: {'; '.join(missing_texts(file))}")


def unfinished_text(file: FileView, deadline: Deadline) -> str:
    """Return the error message for a file that was incomplete at the deadline.

    Args:
        file: the file; the message says how far it is, and what it lacks.
        deadline: the deadline that has passed.
    """
    counts = f"{file['complete_client_count']} of {count_text(file['client_count'], 'client')} have it"
    text = (
        f"{plain_text(file['name'])} was not complete after {deadline.text}:"
        f" {file_state_text(file)}, {progress_text(file)}, {counts}{declined_text(file)}"
    )
    return "; ".join([text, *filter(None, [hold_text(file)]), *missing_texts(file)])
