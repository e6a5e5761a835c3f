"""The work set: collects effects, and marks of what has changed, until ``ServerMachine.poll`` takes them.

Code that changes a record marks the change here. Only ``ServerMachine.poll`` processes the marks, so that no other code
can forget to review a file, or to serve a request. Marks keep their order, so equal inputs give equal effects.
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
    """The reason why a session must end.

    Attributes:
        reason: the reason, for people.
        cause: the reason, for programs.
        error: the internal error that makes the session end; None if there was no error.
    """

    reason: str
    cause: EndCause
    error: Exception | None = None


@dataclass(eq=False, slots=True)
class WorkSet:
    """The effects that the driver has not taken yet, and the marks that are not processed yet, in order.

    Attributes:
        now: the time of the last input, in nanoseconds.
        is_marked: whether something was marked since the last review began.
        serving_due: whether there is work: something is marked, or requests may be served now.
        retry_event_count: the number of events after which waiting requests may be tried again: for example the end of
            a fetch, another holder of chunks, a new data path, or a shorter wait queue.
        drop_counts: the number of dropped inputs, by reason.
        endings: the reason of each session that must end, by session number.
        uplink_sessions: the session numbers of clients whose first datagram has arrived.
        data_path_sessions: the session numbers of members whose data path may have opened.
        reachability_sessions: the session numbers of members that became reachable or unreachable.
        changed_files: the ids of the files to review.
        servable_files: the ids of files whose requests may be served now.
    """

    now: int = 0
    is_marked: bool = False
    serving_due: bool = False
    retry_event_count: int = 0
    drop_counts: Counter[DropReason] = field(default_factory=Counter)
    endings: dict[int, Ending] = field(default_factory=dict)
    uplink_sessions: dict[int, None] = field(default_factory=dict)
    data_path_sessions: dict[int, None] = field(default_factory=dict)
    reachability_sessions: dict[int, None] = field(default_factory=dict)
    changed_files: dict[FileId, None] = field(default_factory=dict)
    servable_files: dict[FileId, None] = field(default_factory=dict)
    _owner_files: dict[FileId, dict[str, None]] = field(default_factory=dict)
    _effects: list[ServerEffect] = field(default_factory=list)

    # -- effects

    def emit(self, effect: ServerEffect) -> None:
        """Add an effect for the driver to carry out."""
        self._effects.append(effect)

    def drop(self, reason: DropReason, origin: str) -> None:
        """Count and report a dropped input.

        Args:
            reason: the reason why the input was dropped.
            origin: the sender of the input, for messages.
        """
        self.drop_counts[reason] += 1
        self.emit(InputDropped(reason, origin))

    def take_effects(self) -> list[ServerEffect]:
        """Remove and return all effects, in order."""
        effects = self._effects.copy()
        self._effects.clear()
        return effects

    # -- marks

    def set_time(self, now: int) -> None:
        """Set the time of the current input, in nanoseconds."""
        self.now = now

    def mark_changed(self, file_id: FileId) -> None:
        """Mark a file for review, because its availability has changed, or its phase or completion may change."""
        self.changed_files[file_id] = None
        self.is_marked = self.serving_due = True

    def mark_owners(self, file_id: FileId, name: str = "") -> None:
        """Mark a file whose shares may need other owners, and mark it for review.

        Args:
            file_id: the id of the file.
            name: the name of a client to which the server must send its shares, even if they stay the same; empty for
                none.
        """
        names = self._owner_files.setdefault(file_id, {})
        if name:
            names[name] = None
        self.mark_changed(file_id)

    def mark_servable(self, file_id: FileId) -> None:
        """Mark a file whose requests may be served now, for example because chunks have another holder."""
        self.servable_files[file_id] = None
        self.is_marked = True
        self.mark_retry_waiting()

    def mark_uplink(self, session: int) -> None:
        """Mark a client whose first datagram has arrived."""
        self.uplink_sessions[session] = None
        self.is_marked = self.serving_due = True

    def mark_data_path(self, session: int) -> None:
        """Mark a member whose data path may have opened."""
        self.data_path_sessions[session] = None
        self.is_marked = True
        self.mark_retry_waiting()

    def mark_reachability(self, session: int) -> None:
        """Mark a member that became reachable or unreachable."""
        self.reachability_sessions[session] = None
        self.is_marked = self.serving_due = True

    def mark_ending(self, session: int, reason: str, cause: EndCause) -> None:
        """Mark a session that must end. A session that is already marked keeps its first reason.

        Args:
            session: the session's number.
            reason: the reason, for people.
            cause: the reason, for programs.
        """
        self.endings.setdefault(session, Ending(reason, cause))
        self.is_marked = self.serving_due = True

    def mark_failed(self, session: int, error: Exception) -> None:
        """Mark a session that must end, because an internal error occurred while the server served the member.

        Args:
            session: the member's session number.
            error: the error. It is not reported if the session was already marked to end.
        """
        reason = "the server had an internal error while serving this member: see the server's log"
        self.endings.setdefault(session, Ending(reason, EndCause.SERVER_FAULT, error))
        self.is_marked = self.serving_due = True

    def mark_serving_due(self) -> None:
        """Note that requests may be served now, for example because the cache has more room."""
        self.serving_due = True

    def mark_retry_waiting(self) -> None:
        """Note that waiting requests may be tried again, because they may be able to start more fetches now."""
        self.retry_event_count += 1
        self.serving_due = True

    # -- for the machine

    def begin_review(self) -> None:
        """Note that the review of all marks begins."""
        self.is_marked = False

    def end_serving(self) -> None:
        """Note that requests have been served. Serving stays due only if something is marked."""
        self.serving_due = self.is_marked

    def take_clients_to_assign(self, file_id: FileId) -> dict[str, None] | None:
        """Return the names of the clients to which the server must send their shares of a file, and clear the mark.

        Return None if the file is not marked by :meth:`mark_owners`.
        """
        return self._owner_files.pop(file_id, None)


def drain(marks: dict[K, V]) -> Iterator[tuple[K, V]]:
    """Remove marks one by one, including marks that are added meanwhile, and yield them."""
    while marks:
        key = next(iter(marks))
        yield key, marks.pop(key)
