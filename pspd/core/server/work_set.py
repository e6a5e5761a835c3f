"""The work set: what changed since the machine was last polled, and the effects so far.

Whoever changes a record marks it here. Only ``ServerMachine.poll`` reads and clears the marks, so that no caller can
forget a review, or a request that can be served now. Marks keep their order: equal inputs give equal effects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from pspd.core.effects.server import EndCause, ServerEffect
from pspd.core.effects.shared import InputDropped
from pspd.core.model.manifest import FileId
from pspd.core.wire.header import DropReason

K = TypeVar("K")
V = TypeVar("V")


class Ending(NamedTuple):
    """Why a session must end.

    Attributes:
        reason: for people.
        cause: for programs.
        error: the internal error that makes the session end; None if there was no error.
    """

    reason: str
    cause: EndCause
    error: Exception | None = None


@dataclass(eq=False, slots=True)
class WorkSet:
    """Marks of everything that changed, in order.

    Attributes:
        now: the time of the last input, in nanoseconds.
        is_marked: whether something is marked for review.
        serving_due: whether something is marked, or more requests may be served than before.
        admission_epoch: counts the events after which a waiting request may start fetches: a fetch has ended, chunks
            have a holder again, a member can receive again, a wait queue is shorter.
        drop_counts: how many inputs were dropped, by reason.
        endings: sessions that must end.
        heard_sessions: members whose first datagram has arrived.
        data_path_sessions: members that can receive again.
        reach_sessions: members that became reachable or unreachable.
        changed_files: files whose phase, coverage or completion may have changed.
        waiter_files: files whose waiting requests may be served.
    """

    now: int = 0
    is_marked: bool = False
    serving_due: bool = False
    admission_epoch: int = 0
    drop_counts: Counter[DropReason] = field(default_factory=Counter)
    endings: dict[int, Ending] = field(default_factory=dict)
    heard_sessions: dict[int, None] = field(default_factory=dict)
    data_path_sessions: dict[int, None] = field(default_factory=dict)
    reach_sessions: dict[int, None] = field(default_factory=dict)
    changed_files: dict[FileId, None] = field(default_factory=dict)
    waiter_files: dict[FileId, None] = field(default_factory=dict)
    _owner_files: dict[FileId, dict[str, None]] = field(default_factory=dict)
    _effects: list[ServerEffect] = field(default_factory=list)

    # -- effects

    def emit(self, effect: ServerEffect) -> None:
        """Add an effect for the driver to carry out."""
        self._effects.append(effect)

    def drop(self, reason: DropReason, origin: str) -> None:
        """Count and report a dropped input.

        Args:
            reason: why it was dropped.
            origin: its sender, for messages.
        """
        self.drop_counts[reason] += 1
        self.emit(InputDropped(reason, origin))

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
        self.changed_files[file_id] = None
        self.is_marked = self.serving_due = True

    def review_owners(self, file_id: FileId, name: str = "") -> None:
        """Mark a file whose shares may need other owners.

        Args:
            file_id: the file.
            name: a client that must be told its shares even if they stay the same; empty for none.
        """
        names = self._owner_files.setdefault(file_id, {})
        if name:
            names[name] = None
        self.file_changed(file_id)

    def serve_waiters(self, file_id: FileId) -> None:
        """Mark a file whose waiting requests may be served: chunks have another holder, or a fetch was given up."""
        self.waiter_files[file_id] = None
        self.is_marked = True
        self.admit()

    def member_heard(self, session: int) -> None:
        """Mark a member whose first datagram has arrived."""
        self.heard_sessions[session] = None
        self.is_marked = self.serving_due = True

    def data_path_opened(self, session: int) -> None:
        """Mark a member that can receive again."""
        self.data_path_sessions[session] = None
        self.is_marked = True
        self.admit()

    def reach_changed(self, session: int) -> None:
        """Mark a member that became reachable or unreachable."""
        self.reach_sessions[session] = None
        self.is_marked = self.serving_due = True

    def end_session(self, session: int, reason: str, cause: EndCause) -> None:
        """Mark a session that must end.

        Args:
            session: the session.
            reason: why, for people.
            cause: why, for programs.
        """
        self.endings.setdefault(session, Ending(reason, cause))
        self.is_marked = self.serving_due = True

    def member_failed(self, session: int, error: Exception) -> None:
        """Mark a session that must end because of an error while its member was served.

        Args:
            session: the member's session.
            error: the error; only the first one is reported.
        """
        reason = "the server met an internal error while it served it: see its log"
        self.endings.setdefault(session, Ending(reason, EndCause.SERVER_FAULT, error))
        self.is_marked = self.serving_due = True

    def room_changed(self) -> None:
        """Mark that the cache may have more room than before."""
        self.serving_due = True

    def admit(self) -> None:
        """Mark that waiting requests may be able to start more fetches than before."""
        self.admission_epoch += 1
        self.serving_due = True

    # -- for the machine

    def review_started(self) -> None:
        """Note that the review of all marks begins."""
        self.is_marked = False

    def serving_ended(self) -> None:
        """Note that requests have been served: work is left only if something was marked meanwhile."""
        self.serving_due = self.is_marked

    def clients_to_assign(self, file_id: FileId) -> dict[str, None] | None:
        """Remove and return the clients that must be told their shares of a file; None if no owner has to change."""
        return self._owner_files.pop(file_id, None)


def drained(marks: dict[K, V]) -> Iterator[tuple[K, V]]:
    """Remove and return marks one by one, those included that are added meanwhile."""
    while marks:
        key = next(iter(marks))
        yield key, marks.pop(key)
