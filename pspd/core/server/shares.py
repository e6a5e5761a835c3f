"""The shares of one file: the ranges it is divided into, their owners, and which owners have acknowledged them (R1)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.ranges import Range, RangeMap
from pspd.core.server.work_set import WorkSet


@dataclass(slots=True, eq=False)
class Share:
    """One replica of a range that the file is divided into (R1).

    Attributes:
        start: its first chunk.
        stop: one past its last chunk; ``start`` or less if there are more shares than chunks.
        owner: the owner's name; empty while every client that could get this replica owns another one of the range.
        held: whether the owner has acknowledged it, or it is empty.
    """

    start: int
    stop: int
    owner: str
    held: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether it has no chunks, as there are more shares than chunks."""
        return self.start >= self.stop


@dataclass(slots=True, eq=False)
class Shares:
    """The division of one file: each range, then each again for every further replica.

    Args:
        _file_id: the file.
        _work: collects the marks.

    Attributes:
        all: every share, replica by replica.
    """

    _file_id: FileId
    _work: WorkSet
    all: list[Share] = field(default_factory=list)
    _first: RangeMap[Share] = field(default_factory=RangeMap)
    _given: dict[str, list[Share]] = field(default_factory=dict)
    _unheld_count: int = 0
    _is_seeded: bool = False

    def give(self, manifest: Manifest, owners: Iterable[str]) -> None:
        """Divide the file.

        Args:
            manifest: the manifest, with the share count.
            owners: the owner of each share, in the order of the shares, once for every replica.
        """
        for index, owner in enumerate(owners):
            share = Share(*manifest.share(index % manifest.share_count), owner)
            share.held = share.is_empty
            self.all.append(share)
            self._given.setdefault(owner, []).append(share)
            if not share.is_empty and index < manifest.share_count:
                self._first.insert(share)
        self._unheld_count = sum(bool(share.owner) and not share.held for share in self.all)
        self._work.file_changed(self._file_id)

    def seeded(self) -> None:
        """Note the end of the seeding: from now on acknowledgements stay."""
        self._is_seeded = True

    # -- reading

    @property
    def owners(self) -> tuple[str, ...]:
        """The owner of each share, in the order of the shares."""
        return tuple(share.owner for share in self.all)

    @property
    def are_held(self) -> bool:
        """Whether every share is held and acknowledged (R2)."""
        return self._unheld_count == 0

    def at(self, chunk: int) -> Share:
        """Return the share that contains a chunk, in the first replica."""
        share = self._first.at(chunk)
        assert share is not None, "no such chunk"
        return share

    def ranges_of(self, name: str) -> tuple[Range, ...]:
        """Return the ranges of the shares that a client owns, sorted, without empty ones."""
        given = self._given.get(name, ())
        return tuple(sorted(Range(share.start, share.stop) for share in given if not share.is_empty))

    def unheld_owners(self) -> list[str]:
        """Return the names of the owners that do not hold all their shares."""
        return [name for name, given in self._given.items() if name and not all(share.held for share in given)]

    # -- acknowledgements

    def acknowledge(self, name: str) -> None:
        """Note that a client holds every share that it owns."""
        for share in self._given.get(name, ()):
            self._unheld_count -= not share.held
            share.held = True
        self._work.file_changed(self._file_id)

    def clear_acks(self, name: str) -> None:
        """Clear the acknowledgements of a client during seeding, so that its shares may be reassigned."""
        for share in self._given.get(name, ()) if not self._is_seeded else ():
            if share.held and not share.is_empty:
                share.held = False
                self._unheld_count += 1
        self._work.file_changed(self._file_id)

    # -- owners

    def reassign(self, names: Collection[str], preferred: list[str]) -> list[str]:
        """Give shares that are not held, and whose owners are not among ``names``, to other clients in turn.

        No client owns two replicas of one range. If no other client is left, the replica gets no owner.

        Args:
            names: the clients that keep their shares.
            preferred: the clients that get more shares.

        Returns:
            The names of the new owners.
        """
        is_due = preferred and (self._unheld_count or self._given.get(""))
        gone = [name for name in self._given if name not in names] if is_due else []
        orphans = [share for name in gone for share in self._given[name] if not share.held]
        orphans.sort(key=lambda share: share.start)
        owners: dict[Range, set[str]] = {}
        for share in self.all if orphans else ():
            owners.setdefault(Range(share.start, share.stop), set()).add(share.owner)
        for index, share in enumerate(orphans):
            have_it = owners[Range(share.start, share.stop)]
            candidates = (preferred[(index + offset) % len(preferred)] for offset in range(len(preferred)))
            self._move(share, next((name for name in candidates if name not in have_it), ""))
            have_it.add(share.owner)
        return list(dict.fromkeys(share.owner for share in orphans if share.owner))

    def _move(self, share: Share, owner: str) -> None:
        """Give a share that is not held to another owner; the empty name for none."""
        self._given[share.owner].remove(share)
        self._given.setdefault(owner, []).append(share)
        self._unheld_count += bool(owner) - bool(share.owner)
        share.owner = owner
        self._work.file_changed(self._file_id)

    def check(self) -> None:
        """Assert the invariants."""
        unheld = [share for share in self.all if share.owner and not share.held]
        assert len(unheld) == self._unheld_count, f"{len(unheld)} shares are not held, not {self._unheld_count}"
        given = [share for shares in self._given.values() for share in shares]
        assert len(given) == len(self.all), "a share has no owner, or two"
        assert all(share.owner == name for name, shares in self._given.items() for share in shares), "wrong owner"
