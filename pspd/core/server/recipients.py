"""The clients that a file was divided among, until each of them has had it."""

from __future__ import annotations

from collections.abc import Iterable


class Recipients:
    """Keeps track of who has not had a file yet, and since when those who are away have been so.

    Attributes:
        count: how many clients are to get the file, or have had it.
    """

    def __init__(self) -> None:
        self.count = 0
        self._away_since: dict[str, int | None] = {}

    def expect(self, names: Iterable[str], away_since: int | None = None) -> None:
        """Expects that these clients get the file; to be called once for a file.

        Args:
            names: their names.
            away_since: since when they are away, in nanoseconds; None if they are here.
        """
        expected = dict.fromkeys(names, away_since)
        self.count += len(expected)
        self._away_since.update(expected)

    def is_here(self, name: str) -> None:
        """Notes that a client has come, or is in reach again."""
        if name in self._away_since:
            self._away_since[name] = None

    def is_away(self, name: str, now: int) -> None:
        """Notes that a client has left or is out of reach.

        Args:
            name: its name.
            now: the time, in nanoseconds.
        """
        if name in self._away_since and self._away_since[name] is None:
            self._away_since[name] = now

    def served(self, name: str) -> None:
        """Notes that a client has the file; it may go now."""
        self._away_since.pop(name, None)

    def missing(self) -> list[tuple[str, int]]:
        """Names of those who went before they had the file, each with the time since when, in nanoseconds."""
        return sorted((name, since) for name, since in self._away_since.items() if since is not None)
