"""The shares of one file: the ranges it is divided into, their owners, and which owners have acknowledged them (R1)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pspd.core.model.manifest import Manifest
from pspd.core.model.ranges import Range, RangeMap
from pspd.core.server.work_set import WorkSet


@dataclass(slots=True, eq=False)
class Share:
    """One of the ranges that a file is divided into (R1), as one client is given it.

    Attributes:
        start, stop: the range.
        owner: the client's name; "" if every client that is there was given the range already: nobody waits for a
            further replica then.
        held: the owner has acknowledged it. An empty share is held from the beginning.
    """

    start: int
    stop: int
    owner: str
    held: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether it has no chunks, as there are more shares than chunks."""
        return self.start >= self.stop


class Shares:
    """The division of one file: each range, then each again for every further replica.

    Args:
        work: where changes are marked.
    """

    def __init__(self, work: WorkSet) -> None:
        self._work = work
        self._manifest: Manifest | None = None
        self._all: list[Share] = []
        self._first: RangeMap[Share] = RangeMap()
        self._given: dict[str, list[Share]] = {}
        self._unheld_count = 0
        self._is_seeded = False

    def give(self, manifest: Manifest, owners: Iterable[str]) -> None:
        """Divide the file.

        Args:
            manifest: the file's, with its share count.
            owners: to whom each share is given, in the order of the shares, once for every replica.
        """
        self._manifest = manifest
        for index, owner in enumerate(owners):
            share = Share(*manifest.share(index % manifest.share_count), owner)
            share.held = share.is_empty
            self._all.append(share)
            self._given.setdefault(owner, []).append(share)
            if not share.is_empty and index < manifest.share_count:
                self._first.insert(share)
        self._unheld_count = sum(bool(share.owner) and not share.held for share in self._all)
        self._changed()

    def restore_held(self) -> None:
        """Take every share that has an owner for held: the file was seeded before a restart."""
        for share in filter(lambda share: share.owner, self._all):
            share.held = True
        self._unheld_count = 0
        self._is_seeded = True

    def seeded(self) -> None:
        """Note that the seeding has ended: no acknowledgement is cleared any more."""
        self._is_seeded = True

    # -- reading

    @property
    def all(self) -> list[Share]:
        """Every share, replica by replica."""
        return self._all

    @property
    def owners(self) -> tuple[str, ...]:
        """The owner of every share, in the order of the shares."""
        return tuple(share.owner for share in self._all)

    @property
    def are_held(self) -> bool:
        """Whether every share is held and acknowledged (R2)."""
        return self._unheld_count == 0

    def at(self, chunk: int) -> Share:
        """Return the share that a chunk of a divided file belongs to, in the first replica."""
        share = self._first.at(chunk)
        assert share is not None, "no such chunk"
        return share

    def ranges_of(self, name: str) -> tuple[Range, ...]:
        """Return the ranges that a client is to get before the exchange, without empty ones."""
        given = sorted(Range(share.start, share.stop) for share in self._given.get(name, ()))
        return tuple(span for span in given if span.start < span.stop)

    def unheld_owners(self) -> list[str]:
        """Return the names of the owners whose shares are not all held."""
        return [name for name, given in self._given.items() if name and not all(share.held for share in given)]

    # -- acknowledgements

    def acknowledge(self, name: str) -> None:
        """Note that a client holds every share that it was given."""
        for share in self._given.get(name, ()):
            self._unheld_count -= not share.held
            share.held = True
        self._changed()

    def clear_acks(self, name: str) -> None:
        """Take a client's shares for not held; while the file is seeded they may be reassigned then."""
        for share in self._given.get(name, ()) if not self._is_seeded else ():
            if share.held and not share.is_empty:
                share.held = False
                self._unheld_count += 1
        self._changed()

    # -- owners

    def reassign(self, names: Collection[str], preferred: list[str]) -> list[str]:
        """Give shares that are not held, and whose owners are gone, to others in turn.

        Nobody is given one range twice: a further replica has no owner then, until another client comes.

        Args:
            names: clients that keep what they were given.
            preferred: clients that are given what others leave.

        Returns:
            The names of the new owners.
        """
        is_due = preferred and (self._unheld_count or self._given.get(""))
        gone = [name for name in self._given if name not in names] if is_due else []
        orphans = [share for name in gone for share in self._given[name] if not share.held]
        orphans.sort(key=lambda share: share.start)
        owners: dict[Range, set[str]] = {}
        for share in self._all if orphans else ():
            owners.setdefault(Range(share.start, share.stop), set()).add(share.owner)
        for index, share in enumerate(orphans):
            have_it = owners[Range(share.start, share.stop)]
            candidates = (preferred[(index + offset) % len(preferred)] for offset in range(len(preferred)))
            self._move(share, next((name for name in candidates if name not in have_it), ""))
            have_it.add(share.owner)
        return list(dict.fromkeys(share.owner for share in orphans if share.owner))

    def _move(self, share: Share, owner: str) -> None:
        """Give a share that is not held to another client, or to nobody."""
        self._given[share.owner].remove(share)
        self._given.setdefault(owner, []).append(share)
        self._unheld_count += bool(owner) - bool(share.owner)
        share.owner = owner
        self._changed()

    def _changed(self) -> None:
        if self._manifest is not None:
            self._work.file_changed(self._manifest.file_id)

    def check(self) -> None:
        """Assert the invariants."""
        unheld = [share for share in self._all if share.owner and not share.held]
        assert len(unheld) == self._unheld_count, f"{len(unheld)} shares are not held, not {self._unheld_count}"
        given = [share for shares in self._given.values() for share in shares]
        assert len(given) == len(self._all), "a share has no owner, or two"
        assert all(share.owner == name for name, shares in self._given.items() for share in shares), "wrong owner"
