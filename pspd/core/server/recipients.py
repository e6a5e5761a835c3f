"""The clients that a file is for: who has it, who declined it, and who went away before it had it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pspd.core.model.manifest import FileId
from pspd.core.server.work_set import WorkSet


class Recipients:
    """Keeps track of who has a file, and of who has not had it yet.

    Args:
        file_id: the file.
        work: where changes are marked.

    Attributes:
        count: how many clients are to get the file, or have had it.
        complete: names of connected clients that showed the finished file.
        declined: why a connected client cannot take the file, by name.
    """

    def __init__(self, file_id: FileId, work: WorkSet) -> None:
        self.count = 0
        self.complete: set[str] = set()
        self.declined: dict[str, str] = {}
        self._file_id = file_id
        self._work = work
        self._away_since: dict[str, int | None] = {}

    def expect(self, names: Iterable[str], away_since: int | None = None) -> None:
        """Expect that these clients get the file; call it once for a file.

        Args:
            names: their names.
            away_since: since when they are away, in nanoseconds; None if they are here.
        """
        expected = dict.fromkeys(names, away_since)
        self.count += len(expected)
        self._away_since.update(expected)

    def mark_present(self, name: str) -> None:
        """Note that a client has come, or is reachable again."""
        if name in self._away_since:
            self._away_since[name] = None

    def mark_away(self, name: str, now: int) -> None:
        """Note that a client has left or is unreachable.

        Args:
            name: its name.
            now: the time, in nanoseconds.
        """
        if name in self._away_since and self._away_since[name] is None:
            self._away_since[name] = now

    def served(self, name: str) -> None:
        """Note that a client has had the file; it may go now."""
        self._away_since.pop(name, None)

    def mark_complete(self, name: str) -> None:
        """Note that a connected client showed the finished file."""
        self.complete.add(name)
        self.served(name)
        self._work.file_changed(self._file_id)

    def decline(self, name: str, reason: str) -> None:
        """Note that a client cannot take the file.

        Args:
            name: its name.
            reason: why, in a line.
        """
        self.declined[name] = reason
        self.complete.discard(name)
        self._work.file_changed(self._file_id)

    def accept_after_all(self, name: str) -> bool:
        """Note that a client takes the file. Return whether it had declined it."""
        had_declined = self.declined.pop(name, None) is not None
        if had_declined:
            self._work.review_owners(self._file_id)
        return had_declined

    def forget(self, name: str) -> None:
        """Forget what a client that left has shown or declined."""
        self.complete.discard(name)
        self.declined.pop(name, None)
        self._work.file_changed(self._file_id)

    def all_complete(self, names: Collection[str]) -> bool:
        """Whether all of these clients have the file."""
        return len(self.complete) >= len(names) and self.complete.issuperset(names)

    def missing(self) -> list[tuple[str, int]]:
        """Return the names of those who went before they had the file, each with the time since when."""
        return sorted((name, since) for name, since in self._away_since.items() if since is not None)

    def check(self) -> None:
        """Assert the invariants."""
        assert not self.complete & self.declined.keys(), "a client has declined the file and shown it"
        assert self.count >= len(self._away_since), "more clients lack the file than were to get it"
