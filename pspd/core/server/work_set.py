"""The work set: what changed since the machine was last polled, and the effects so far.

Whoever changes a record marks it here. The machine's ``poll`` alone works the marks off, so no caller can forget a
review or a request that can be served now. Marks are kept in order: the same inputs give the same effects.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from pspd.core.effects.server import EndCause, ServerEffect
from pspd.core.model.manifest import FileId

K = TypeVar("K")


class Ending(NamedTuple):
    """Why a session is to end, for a person and for a program."""

    reason: str
    cause: EndCause


class WorkSet:
    """Marks of everything that changed, in order.

    Attributes:
        now: the time of the last input, in nanoseconds.
        is_marked: something is marked to be reviewed.
        serving_due: something is marked, or requests may be served that could not before.
        admission_epoch: counts the events after which a waiting request may be admitted: a fetch has ended, chunks
            have a holder again, a member can be sent to, a wait queue is shorter.
    """

    __slots__ = (
        "_changed_files",
        "_data_path_sessions",
        "_effects",
        "_endings",
        "_failures",
        "_heard_sessions",
        "_reach_sessions",
        "_taker_files",
        "_waiter_files",
        "admission_epoch",
        "is_marked",
        "now",
        "serving_due",
    )

    def __init__(self) -> None:
        self.now = 0
        self.is_marked = False
        self.serving_due = False
        self.admission_epoch = 0
        self._effects: list[ServerEffect] = []
        self._changed_files: dict[FileId, None] = {}
        self._taker_files: dict[FileId, dict[str, None]] = {}
        self._waiter_files: dict[FileId, None] = {}
        self._heard_sessions: dict[int, None] = {}
        self._data_path_sessions: dict[int, None] = {}
        self._reach_sessions: dict[int, None] = {}
        self._endings: dict[int, Ending] = {}
        self._failures: dict[int, Exception] = {}

    # -- effects

    def emit(self, effect: ServerEffect) -> None:
        """Add an effect to carry out."""
        self._effects.append(effect)

    def take_effects(self) -> list[ServerEffect]:
        """Return the effects since the last call, in order."""
        effects = self._effects.copy()
        self._effects.clear()
        return effects

    # -- marks

    def started(self, now: int) -> None:
        """Note the time of an input."""
        self.now = now

    def file_changed(self, file_id: FileId) -> None:
        """Mark a file whose phase, coverage or completion may have changed."""
        self._changed_files[file_id] = None
        self.is_marked = self.serving_due = True

    def takers_changed(self, file_id: FileId, name: str = "") -> None:
        """Mark a file whose shares may need other owners.

        Args:
            file_id: the file.
            name: a client to tell of its shares in any case; empty for none.
        """
        names = self._taker_files.setdefault(file_id, {})
        if name:
            names[name] = None
        self.file_changed(file_id)

    def serve_waiters(self, file_id: FileId) -> None:
        """Mark a file whose waiting requests may be served: chunks have another holder, or a fetch was given up."""
        self._waiter_files[file_id] = None
        self.is_marked = True
        self.admit()

    def member_heard(self, session: int) -> None:
        """Mark a member whose first datagram came."""
        self._heard_sessions[session] = None
        self.is_marked = self.serving_due = True

    def data_path_opened(self, session: int) -> None:
        """Mark a member that can be sent to now."""
        self._data_path_sessions[session] = None
        self.is_marked = True
        self.admit()

    def reach_changed(self, session: int) -> None:
        """Mark a member that became reachable or unreachable."""
        self._reach_sessions[session] = None
        self.is_marked = self.serving_due = True

    def end_session(self, session: int, reason: str, cause: EndCause) -> None:
        """Have a session ended.

        Args:
            session: the session.
            reason: why, in words.
            cause: why, as a program reads it.
        """
        self._endings.setdefault(session, Ending(reason, cause))
        self.is_marked = self.serving_due = True

    def member_failed(self, session: int, error: Exception) -> None:
        """Have a session ended because something raised while its member was served.

        Args:
            session: the member's session.
            error: what was raised first.
        """
        self._failures.setdefault(session, error)
        self.is_marked = self.serving_due = True

    def room_changed(self) -> None:
        """Mark that the cache may have room that it had not."""
        self.serving_due = True

    def admit(self) -> None:
        """Mark that waiting requests may be admitted that could not before."""
        self.admission_epoch += 1
        self.serving_due = True

    # -- for the machine

    def review_started(self) -> None:
        """Note that what is marked is being worked off."""
        self.is_marked = False

    def serving_ended(self) -> None:
        """Note that requests have been served: more is to do only if something is marked."""
        self.serving_due = self.is_marked

    def heard_sessions(self) -> Iterator[int]:
        """Take out the members marked as heard."""
        return _taken(self._heard_sessions)

    def data_path_sessions(self) -> Iterator[int]:
        """Take out the members that can be sent to now."""
        return _taken(self._data_path_sessions)

    def reach_sessions(self) -> Iterator[int]:
        """Take out the members whose reachability changed."""
        return _taken(self._reach_sessions)

    def changed_files(self) -> Iterator[FileId]:
        """Take out the files to review; those marked meanwhile are among them."""
        return _taken(self._changed_files)

    def waiter_files(self) -> Iterator[FileId]:
        """Take out the files whose waiting requests may be served."""
        return _taken(self._waiter_files)

    def takers_to_tell(self, file_id: FileId) -> dict[str, None] | None:
        """Take out the clients of a file to tell of their shares; None if its takers are the same."""
        return self._taker_files.pop(file_id, None)

    def endings(self) -> Iterator[tuple[int, Ending]]:
        """Take out the sessions to end."""
        while self._endings:
            session = next(iter(self._endings))
            yield session, self._endings.pop(session)

    def failures(self) -> Iterator[tuple[int, Exception]]:
        """Take out the sessions whose members failed."""
        while self._failures:
            session = next(iter(self._failures))
            yield session, self._failures.pop(session)


def _taken(marks: dict[K, None]) -> Iterator[K]:
    while marks:
        mark = next(iter(marks))
        del marks[mark]
        yield mark
