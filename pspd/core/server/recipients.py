"""The recipients of a file, and the clients that have the file or declined it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pspd.core.model.manifest import FileId
from pspd.core.server.work_set import WorkSet


@dataclass(eq=False)
class Recipients:
    """The state of each recipient of a file, and of each connected client that has the file or declined it.

    The recipients are the clients among which the file was divided; after a restart, the owners of the file's shares.

    Args:
        _file_id: the id of the file.
        _work: the work set, which collects the marks.

    Attributes:
        count: how many recipients the file has, including recipients that have left.
        complete_names: the names of the connected clients that reported that they have the whole file.
        decline_reasons: the reason of each connected client that declined the file, by the client's name.
    """

    _file_id: FileId
    _work: WorkSet
    count: int = 0
    complete_names: set[str] = field(default_factory=set)
    decline_reasons: dict[str, str] = field(default_factory=dict)
    _away_since: dict[str, int | None] = field(default_factory=dict)

    def set_names(self, names: Iterable[str], away_since: int | None = None) -> None:
        """Set the recipients of the file. Call this once for each file.

        Args:
            names: the names of the recipients.
            away_since: the time from which the recipients count as away, in nanoseconds; None if they are reachable.
        """
        added = dict.fromkeys(names, away_since)
        self.count += len(added)
        self._away_since.update(added)

    def mark_present(self, name: str) -> None:
        """Note that a client has joined, or is reachable again."""
        if name in self._away_since:
            self._away_since[name] = None

    def mark_away(self, name: str, now: int) -> None:
        """Note that a client has left or is unreachable. A client that is away keeps its earlier time.

        Args:
            name: the client's name.
            now: the time, in nanoseconds.
        """
        if name in self._away_since and self._away_since[name] is None:
            self._away_since[name] = now

    def mark_served(self, name: str) -> None:
        """Note that a client has, or may have, the whole file: it does not count as away any more."""
        self._away_since.pop(name, None)

    def mark_complete(self, name: str) -> None:
        """Note that a connected client reported that it has the whole file."""
        self.complete_names.add(name)
        self.mark_served(name)
        self._work.mark_changed(self._file_id)

    def decline(self, name: str, reason: str) -> None:
        """Note that a client declined the file.

        Args:
            name: the client's name.
            reason: the reason, in one line.
        """
        self.decline_reasons[name] = reason
        self.complete_names.discard(name)
        self._work.mark_changed(self._file_id)

    def withdraw_decline(self, name: str) -> bool:
        """Note that a client accepts the file; return whether it had declined it.

        If it had, the shares may be given to other owners: mark the file for this.
        """
        had_declined = self.decline_reasons.pop(name, None) is not None
        if had_declined:
            self._work.mark_owners(self._file_id)
        return had_declined

    def forget(self, name: str) -> None:
        """Forget what a client reported before it left."""
        self.complete_names.discard(name)
        self.decline_reasons.pop(name, None)
        self._work.mark_changed(self._file_id)

    def all_complete(self, names: Collection[str]) -> bool:
        """Return whether all of these clients have reported that they have the whole file."""
        return len(self.complete_names) >= len(names) and self.complete_names.issuperset(names)

    def away(self) -> list[tuple[str, int]]:
        """Return the names of the recipients that left or are unreachable and may not have the file, sorted.

        Each name comes with the time from which the recipient counts as away, in nanoseconds.
        """
        return sorted((name, since) for name, since in self._away_since.items() if since is not None)

    def check(self) -> None:
        """Assert the invariants."""
        assert not self.complete_names & self.decline_reasons.keys(), "a client has declined the file and has it"
        assert self.count >= len(self._away_since), "more recipients are recorded than counted"
