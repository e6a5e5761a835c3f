"""One file on its way through the network: its division, who holds what, where it stands."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.ranges import Range, RangeMap, RangeSet
from pspd.core.model.terms import ONE_COPY, Terms
from pspd.core.server.file_record import FileRecord, Phase
from pspd.core.server.pending import Fetch
from pspd.core.server.recipients import Recipients
from pspd.core.server.straggler_budget import StragglerBudget

if TYPE_CHECKING:
    from pspd.core.server.members import Interest

STRAGGLER_ROUNDS = 6
"""Who acknowledges nothing while the others do so more than so often each is left behind: nobody waits for it."""
DEPARTED_MAX = 1024
"""How many lost clients' holdings are remembered per file, to name the last holder of a missing range."""


@dataclass(slots=True)
class Traffic:
    """What moved for one file; see the control API for what each figure counts."""

    request_datagrams: int = 0
    broadcast_datagrams: int = 0
    contributed_bytes: int = 0
    delivered_bytes: int = 0
    duplicate_bytes: int = 0
    corrupt_bytes: int = 0
    retransmit_count: int = 0
    seeding_contributed_bytes: int = 0
    seeding_delivered_bytes: int = 0


@dataclass(slots=True, eq=False)
class Share:
    """One of the ranges a file is divided into (R1), as one client is given it.

    Attributes:
        start, stop: the range.
        owner: the client's name; "" while everybody who is there was given the range already: nobody waits for a
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


class SharedFile:
    """A file as the server knows it: everything but its bytes.

    Attributes:
        division: names its one division, for as long as it is in the network and the server runs.
        source: name of the member that seeds it.
        terms: how its source wants it seeded.
        shares: its division: each range, then each again for every further replica. Their owners may change while
            a client is lost before its share is held.
        held: the whole units that each connected member holds, by name.
        lenders: names of connected sources; they hold it whole, for as long as they stay.
        away: names of connected members that are out of reach; what they hold cannot be had.
        complete: names of those who showed the finished file.
        declined: why a client cannot take the file, by name.
        recipients: the clients it was divided among that have not had it yet.
        available: chunks with at least one holder in reach.
        fetches: ranges that are being fetched (the pending table).
        fetching: the same as one set.
        fetching_changes: how often that has changed.
        waiting: what each client has asked for and not got yet, of those who have.
        fresh: what has come and is gathered, to be handed out together.
        turn_count: how many requests have acknowledged deliveries.
        courtesy: how long those ahead may wait for those behind.
        cursor: the chunk after the last new fetch; requests that follow it meet.
        was_restored: whether it was there before the server was restarted.
        is_complete: every client in reach that wants it has it.
        stalled: whether some chunk has no holder in reach.
        seeding_at, seeded_at, exchanging_at, completed_at: when, in nanoseconds; None before.
    """

    def __init__(self, manifest: Manifest, source: str, division: int = 0) -> None:
        self.manifest = manifest
        self.division = division
        self.source = source
        self.phase = Phase.ANNOUNCED
        self.held_back = False
        self.was_restored = False
        self.terms = ONE_COPY
        self.shares: list[Share] = []
        self.held: dict[str, RangeSet] = {}
        self.lenders: dict[str, None] = {}
        self.away: set[str] = set()
        self.complete: set[str] = set()
        self.declined: dict[str, str] = {}
        self.recipients = Recipients()
        self.available = RangeSet()
        self.fetches: RangeMap[Fetch] = RangeMap()
        self.fetching = RangeSet()
        self.fetching_changes = 0
        self.waiting: dict[Interest, None] = {}
        self.fresh: list[Fetch] = []
        self.cursor = 0
        self.turn_count = 0
        self.courtesy = StragglerBudget()
        self.is_complete = False
        self.stalled = False
        self.traffic = Traffic()
        self.cached_bytes_when_seeded = 0
        self.seeding_at: int | None = None
        self.seeded_at: int | None = None
        self.exchanging_at: int | None = None
        self.completed_at: int | None = None
        self._owned: RangeMap[Share] = RangeMap()
        self._given: dict[str, list[Share]] = {}
        self._unheld_count = 0
        self._arrived: dict[str, RangeSet] = {}
        self._departed: dict[str, RangeSet] = {}

    @property
    def file_id(self) -> FileId:
        """The digest of the file's manifest."""
        return self.manifest.file_id

    def divide(self, manifest: Manifest, owners: Iterable[str], now: int) -> None:
        """Divides the file (R1).

        Args:
            manifest: the file's, with its share count.
            owners: to whom each share is given, in the order of the shares, once for every replica.
            now: the time, in nanoseconds.
        """
        self.manifest = manifest
        self.phase = Phase.SEEDING
        self.seeding_at = now
        for index, owner in enumerate(owners):
            share = Share(*manifest.share(index % manifest.share_count), owner)
            share.held = share.is_empty
            self.shares.append(share)
            self._given.setdefault(owner, []).append(share)
            if not share.is_empty and index < manifest.share_count:
                self._owned.insert(share)
        self._unheld_count = sum(bool(share.owner) and not share.held for share in self.shares)
        self.held = {name: manifest.whole_units_of(arrived) for name, arrived in self._arrived.items()}
        self._find_available()

    @staticmethod
    def restored(record: FileRecord, division: int, now: int) -> SharedFile:
        """A file as the server knew it before it was restarted; nobody has been heard to hold any of it yet."""
        file = SharedFile(record.manifest, record.source, division)
        file.divide(record.manifest, record.owners, now)
        file.terms = Terms(replica_count=len(record.owners) // max(1, record.manifest.share_count))
        file.phase, file.held_back, file.was_restored = record.phase, record.held_back, True
        if file.phase is not Phase.SEEDING:
            file.seeded_at = now
            for share in filter(lambda share: share.owner, file.shares):
                share.held = True
                file._departed.setdefault(share.owner, RangeSet()).add(share.start, share.stop)
            file._unheld_count = 0
        file.seeding_at = None  # how long the two phases took so far was not written down
        return file

    @property
    def record(self) -> FileRecord:
        """What is to be written down of it."""
        owners = tuple(share.owner for share in self.shares)
        return FileRecord(self.manifest, self.source, self.phase, self.held_back, owners)

    @property
    def is_divided(self) -> bool:
        """Whether clients are to get it: it is divided, and not removed."""
        return self.phase not in (Phase.ANNOUNCED, Phase.REMOVED)

    def shares_of(self, name: str) -> tuple[Range, ...]:
        """The ranges that a client is to get before the exchange; none of no chunks."""
        given = sorted(Range(share.start, share.stop) for share in self._given.get(name, ()))
        return tuple(span for span in given if span.start < span.stop)

    def servable(self, name: str, ranges: Iterable[tuple[int, int]]) -> RangeSet:
        """The part of a request that may be served now: the client's share while seeding, then everything (R2)."""
        inside = RangeSet((start, min(stop, self.manifest.chunk_count)) for start, stop in ranges)
        match self.phase:
            case Phase.EXCHANGING:
                return inside
            case Phase.SEEDING:
                return inside.common(RangeSet(self.shares_of(name)))
            case _:
                return RangeSet()

    def is_wanted(self, start: int, stop: int) -> bool:
        """Whether anyone waits for some of a range who keeps up with the others."""
        rounds = STRAGGLER_ROUNDS * len(self.waiting)
        return any(
            self.turn_count - interest.turn <= rounds and interest.open.overlaps(start, stop)
            for interest in self.waiting
        )

    def is_with_all(self, names: Collection[str]) -> bool:
        """Whether all of these have it."""
        return len(self.complete) >= len(names) and self.complete.issuperset(names)

    def share_at(self, chunk: int) -> Share:
        """The share that a chunk of a divided file belongs to, as its first owner was given it."""
        share = self._owned.at(chunk)
        assert share is not None, "no such chunk"
        return share

    def shares_held(self, name: str) -> None:
        """A client has acknowledged every share that it was given."""
        for share in self._given.get(name, ()):
            self._unheld_count -= not share.held
            share.held = True

    @property
    def shares_are_held(self) -> bool:
        """Whether every share is held and acknowledged (R2)."""
        return self._unheld_count == 0

    def reassign(self, names: Collection[str], preferred: list[str]) -> list[str]:
        """Gives shares that are not held, and whose owners are gone, to others in turn; returns those.

        Nobody is given one range twice: of a further replica nobody is the owner then, until somebody comes.
        """
        is_due = preferred and (self._unheld_count or self._given.get(""))
        gone = [name for name in self._given if name not in names] if is_due else []
        orphans = [share for name in gone for share in self._given[name] if not share.held]
        orphans.sort(key=lambda share: share.start)
        owners: dict[Range, set[str]] = {}
        for share in self.shares if orphans else ():
            owners.setdefault(Range(share.start, share.stop), set()).add(share.owner)
        for index, share in enumerate(orphans):
            have_it = owners[Range(share.start, share.stop)]
            turn = (preferred[(index + offset) % len(preferred)] for offset in range(len(preferred)))
            self._give(share, next((name for name in turn if name not in have_it), ""))
            have_it.add(share.owner)
        return list(dict.fromkeys(share.owner for share in orphans if share.owner))

    def owners_without(self) -> list[str]:
        """Names of those whose shares are not held yet."""
        return [name for name, given in self._given.items() if name and not all(share.held for share in given)]

    def _give(self, share: Share, owner: str) -> None:
        """Gives a share that is not held to another, or to nobody."""
        self._given[share.owner].remove(share)
        self._given.setdefault(owner, []).append(share)
        self._unheld_count += bool(owner) - bool(share.owner)
        share.owner = owner

    def clients_with_some(self) -> list[str]:
        """Names of the connected clients that hold some of it; sources are none."""
        return [name for name in self.held if name not in self.lenders] if self.lenders else list(self.held)

    def fetch_begins(self, fetch: Fetch) -> None:
        """A range that is not being fetched is, from now on."""
        self.fetches.insert(fetch)
        self.fetching.add(fetch.start, fetch.stop)
        self.fetching_changes += 1

    def fetch_ends(self, fetch: Fetch) -> None:
        """A fetch has brought its range, or was given up."""
        self.fetches.remove(fetch)
        self.fetching.discard(fetch.start, fetch.stop)
        self.fetching_changes += 1

    def hold(self, name: str, ranges: Iterable[tuple[int, int]]) -> bool:
        """These ranges are with a connected member. It holds whole units: others it can neither verify nor send.

        Returns:
            Whether chunks can be had now that could not before.
        """
        is_news = False
        held = self.held.setdefault(name, RangeSet())
        arrived = self._arrived.setdefault(name, RangeSet())
        for start, stop in ranges:
            arrived.add(start, stop)
            units = self.manifest.whole_units(*arrived.around(start, stop))
            held.add(*units)
            if name not in self.away and not self.available.covers(*units):
                self.available.add(*units)
                is_news = True
        return is_news

    def lend(self, name: str) -> None:
        """A source offers every chunk, for as long as it stays."""
        self.lenders[name] = None
        self.hold(name, [(0, self.manifest.chunk_count)])

    def lack(self, name: str, ranges: Iterable[tuple[int, int]]) -> list[Range]:
        """A connected member lacks these ranges. Returns the parts that it was thought to have got."""
        arrived = self._arrived[name]
        refuted = [part for span in ranges for part in arrived.within(*span)]
        if refuted:
            arrived.difference_update(refuted)
            self.held[name] = self.manifest.whole_units_of(arrived)
            self._find_available()
        return refuted

    def depart(self, name: str) -> None:
        """A member is gone: it holds nothing any more that could be had, not even its share."""
        self.loosen_shares(name)
        held = self.held.pop(name, None)
        if name not in self.away:
            self._lose_holder(held)
        self.away.discard(name)
        self._arrived.pop(name, None)
        self._departed.pop(name, None)
        if held and name not in self.lenders:
            self._departed[name] = held
            if len(self._departed) > DEPARTED_MAX:
                del self._departed[next(iter(self._departed))]
        self.lenders.pop(name, None)

    def go_away(self, name: str) -> None:
        """A member is out of reach: what it holds cannot be had, not even its share, until it comes back."""
        self.loosen_shares(name)
        if name not in self.away:
            self.away.add(name)
            self._lose_holder(self.held.get(name))

    def come_back(self, name: str) -> None:
        """A member is in reach again, with all that it held."""
        self.away.discard(name)
        self.available.update(self.held.get(name) or ())

    def _lose_holder(self, held: RangeSet | None) -> None:
        """One who held this is gone or out of reach: of it, what nobody else holds cannot be had any more.

        Found without looking at all that the others hold: hundreds may go at once.
        """
        left = held.copy() if held else RangeSet()
        for name in self._in_reach():
            if not left:
                return
            left.difference_update(self.held[name])
        self.available.difference_update(left)

    def loosen_shares(self, name: str) -> None:
        """The shares of a client do not count as held any more, nor do they bind it."""
        if self.phase is Phase.SEEDING:
            for share in self._given.get(name, ()):
                if share.held and not share.is_empty:
                    share.held = False
                    self._unheld_count += 1

    def _find_available(self) -> None:
        self.available = RangeSet(span for name in self._in_reach() for span in self.held[name])

    def _in_reach(self) -> list[str]:
        return [name for name in self.held if name not in self.away]

    def lost_without(self, names: Collection[str]) -> RangeSet:
        """The chunks that could not be had any more without these members, and can be now."""
        left = RangeSet(span for name in self._in_reach() if name not in names for span in self.held[name])
        return self.available.minus(left)

    def missing(self) -> list[tuple[Range, str]]:
        """Chunks without a holder in reach, each range with the member that held it last; "" if none did."""
        found = []
        lost = {**self._departed, **{name: self.held[name] for name in sorted(self.away)}}
        for gap in self.available.gaps(0, self.manifest.chunk_count):
            rest = RangeSet([gap])
            for name in reversed(lost):
                for span in rest.common(lost[name]):
                    found.append((span, name))
                    rest.discard(*span)
            found += [(span, "") for span in rest]
        return sorted(found)

    def min_holder_count(self) -> int:
        """The smallest number of clients in reach that hold one same chunk; of no chunk, all of them.

        Sources do not count: they go.
        """
        steps: dict[int, int] = {0: 0, self.manifest.chunk_count: 0}
        names = [name for name in self._in_reach() if name not in self.lenders]
        for name in names:
            for start, stop in self.held[name]:
                steps[start] = steps.get(start, 0) + 1
                steps[stop] = steps.get(stop, 0) - 1
        least, count = len(names), 0
        for chunk in sorted(steps):
            count += steps[chunk]
            if chunk < self.manifest.chunk_count:
                least = min(least, count)
        return least
