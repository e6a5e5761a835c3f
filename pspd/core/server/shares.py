"""The shares of one file: their ranges, their owners, and which shares the owners have acknowledged (R1)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.ranges import Range, RangeMap
from pspd.core.server.work_set import WorkSet


@dataclass(slots=True, eq=False)
class Share:
    """One replica of one of the ranges into which a file is divided (R1).

    Attributes:
        start: the first chunk.
        stop: one past the last chunk; equal to ``start`` if the share is empty.
        owner: the owner's name; empty if there is none, because each client that may get the share owns another replica
            of the range.
        is_held: whether the owner has acknowledged that it holds the share; True if the share is empty.
    """

    start: int
    stop: int
    owner: str
    is_held: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether the share has no chunks, because the file has fewer chunks than shares."""
        return self.start >= self.stop


@dataclass(slots=True, eq=False)
class Shares:
    """All shares of one file, with their owners and acknowledgements.

    Args:
        _file_id: the id of the file.
        _work: the work set, which notes what must be done next.

    Attributes:
        all: every share: first one replica of each range, in the order of the ranges, then the next replicas.
    """

    _file_id: FileId
    _work: WorkSet
    all: list[Share] = field(default_factory=list)
    _first_replicas: RangeMap[Share] = field(default_factory=RangeMap)
    _by_owner: dict[str, list[Share]] = field(default_factory=dict)
    _unheld_count: int = 0
    _is_seeded: bool = False

    def create(self, manifest: Manifest, owners: Iterable[str]) -> None:
        """Create the shares, and give them to their owners.

        Args:
            manifest: the manifest, with the share count.
            owners: the name of each share's owner, in the order of :attr:`all`.
        """
        for index, owner in enumerate(owners):
            share = Share(*manifest.share(index % manifest.share_count), owner)
            share.is_held = share.is_empty
            self.all.append(share)
            self._by_owner.setdefault(owner, []).append(share)
            if not share.is_empty and index < manifest.share_count:
                self._first_replicas.insert(share)
        self._unheld_count = sum(bool(share.owner) and not share.is_held for share in self.all)
        self._work.mark_changed(self._file_id)

    def end_seeding(self) -> None:
        """End the seeding: from now on :meth:`clear_acks` clears nothing."""
        self._is_seeded = True

    # -- reading

    @property
    def owners(self) -> tuple[str, ...]:
        """The name of each share's owner, in the order of :attr:`all`; empty for a share without an owner."""
        return tuple(share.owner for share in self.all)

    @property
    def all_held(self) -> bool:
        """Whether every share that has an owner is held (R2)."""
        return self._unheld_count == 0

    def at(self, chunk: int) -> Share:
        """Return the share that contains a chunk; the first one if there are replicas."""
        share = self._first_replicas.at(chunk)
        assert share is not None, "no such chunk"
        return share

    def ranges_of(self, name: str) -> tuple[Range, ...]:
        """Return the ranges of a client's shares, sorted, without empty ranges."""
        given = self._by_owner.get(name, ())
        return tuple(sorted(Range(share.start, share.stop) for share in given if not share.is_empty))

    def unheld_owners(self) -> list[str]:
        """Return the names of the owners that do not hold all their shares."""
        return [name for name, given in self._by_owner.items() if name and not all(share.is_held for share in given)]

    # -- acknowledgements

    def acknowledge(self, name: str) -> None:
        """Note that a client holds every share that it owns."""
        for share in self._by_owner.get(name, ()):
            self._unheld_count -= not share.is_held
            share.is_held = True
        self._work.mark_changed(self._file_id)

    def clear_acks(self, name: str) -> None:
        """During seeding, clear the acknowledgements of a client's shares, so that the shares may be reassigned."""
        for share in self._by_owner.get(name, ()) if not self._is_seeded else ():
            if share.is_held and not share.is_empty:
                share.is_held = False
                self._unheld_count += 1
        self._work.mark_changed(self._file_id)

    # -- owners

    def reassign(self, keep: Collection[str], preferred: list[str]) -> list[str]:
        """Give other clients the shares that are not held and have no owner among ``keep``.

        No client owns two replicas of one range. A share that no preferred client can take gets no owner. Nothing
        changes if ``preferred`` is empty.

        Args:
            keep: the names of the clients that keep their shares.
            preferred: the names of the clients that get these shares, one after the other.

        Returns:
            The names of the new owners.
        """
        is_due = preferred and (self._unheld_count or self._by_owner.get(""))
        gone = [name for name in self._by_owner if name not in keep] if is_due else []
        orphans = [share for name in gone for share in self._by_owner[name] if not share.is_held]
        orphans.sort(key=lambda share: share.start)
        owners: dict[Range, set[str]] = {}
        for share in self.all if orphans else ():
            owners.setdefault(Range(share.start, share.stop), set()).add(share.owner)
        for index, share in enumerate(orphans):
            owning = owners[Range(share.start, share.stop)]
            candidates = (preferred[(index + offset) % len(preferred)] for offset in range(len(preferred)))
            self._move(share, next((name for name in candidates if name not in owning), ""))
            owning.add(share.owner)
        return list(dict.fromkeys(share.owner for share in orphans if share.owner))

    def _move(self, share: Share, owner: str) -> None:
        """Give a share that is not held to another owner; an empty name leaves the share without an owner."""
        self._by_owner[share.owner].remove(share)
        self._by_owner.setdefault(owner, []).append(share)
        self._unheld_count += bool(owner) - bool(share.owner)
        share.owner = owner
        self._work.mark_changed(self._file_id)

    def check(self) -> None:
        """Assert the invariants."""
        unheld = [share for share in self.all if share.owner and not share.is_held]
        assert len(unheld) == self._unheld_count, f"{len(unheld)} shares are not held, not {self._unheld_count}"
        given = [share for shares in self._by_owner.values() for share in shares]
        assert len(given) == len(self.all), "a share is listed under no owner or under two"
        assert all(share.owner == name for name, shares in self._by_owner.items() for share in shares), "wrong owner"
