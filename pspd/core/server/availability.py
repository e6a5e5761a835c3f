"""The availability of one file: which members hold which chunks.

Only whole units count as held, because a part of a unit cannot be verified.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pspd.core.model.manifest import Manifest
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.server.work_set import WorkSet


@dataclass(slots=True, eq=False)
class Availability:
    """Records which chunks each connected member holds, and which chunks are available.

    Args:
        _manifest: the manifest of the file.
        _work: the work set, which collects the marks.
        _departed_max: the most members whose holdings are remembered after they have left.

    Attributes:
        held: the chunks that each connected member holds, by the member's name.
        sources: names of the connected sources of the file.
        unreachable: names of the connected members that are unreachable.
        available: the chunks with at least one reachable holder.
    """

    _manifest: Manifest
    _work: WorkSet
    _departed_max: int
    held: dict[str, RangeSet] = field(default_factory=dict)
    sources: dict[str, None] = field(default_factory=dict)
    unreachable: set[str] = field(default_factory=set)
    available: RangeSet = field(default_factory=RangeSet)
    _arrived: dict[str, RangeSet] = field(default_factory=dict)
    _departed: dict[str, RangeSet] = field(default_factory=dict)

    def recompute_units(self, manifest: Manifest) -> None:
        """Recompute the holdings for a divided manifest, because boundaries of shares cut blocks into smaller units."""
        self._manifest = manifest
        self.held = {name: manifest.whole_units_of(arrived) for name, arrived in self._arrived.items()}
        self._recompute_available()

    def remember_departed(self, name: str, start: int, stop: int) -> None:
        """Remember a range that a client held before it left.

        Args:
            name: the client's name.
            start: the first chunk.
            stop: one past the last chunk.
        """
        self._departed.setdefault(name, RangeSet()).add(start, stop)

    # -- holdings

    def add_arrived(self, name: str, ranges: Iterable[tuple[int, int]]) -> None:
        """Note that ranges have arrived at a connected member, and that it holds the units that are whole now.

        Args:
            name: the member's name.
            ranges: the ranges that have arrived.
        """
        found_available = False
        held = self.held.setdefault(name, RangeSet())
        arrived = self._arrived.setdefault(name, RangeSet())
        for start, stop in ranges:
            arrived.add(start, stop)
            units = self._manifest.whole_units(*arrived.enclosing_range(start, stop))
            held.add(*units)
            if name not in self.unreachable and not self.available.covers(*units):
                self.available.add(*units)
                found_available = True
        if found_available:
            self._mark_supplied()

    def add_whole_file(self, name: str) -> None:
        """Note that a connected member holds the whole file."""
        self.add_arrived(name, [(0, self._manifest.chunk_count)])

    def add_source(self, name: str) -> None:
        """Add a connected source of the file, which holds every chunk."""
        self.sources[name] = None
        self.add_whole_file(name)
        self._mark_supplied()

    def remove_arrived(self, name: str, ranges: Iterable[tuple[int, int]]) -> list[Range]:
        """Note that a connected member lacks ranges, and therefore does not hold the units that overlap them.

        Args:
            name: the member's name.
            ranges: the ranges that the member lacks.

        Returns:
            The parts of the ranges that were recorded as arrived at the member.
        """
        arrived = self._arrived[name]
        removed = [part for span in ranges for part in arrived.within(*span)]
        if removed:
            arrived.difference_update(removed)
            self.held[name] = self._manifest.whole_units_of(arrived)
            self._recompute_available()
        return removed

    # -- members come and go

    def remove_member(self, name: str) -> None:
        """Remove a member that has left. Remember the chunks that it held, unless it was a source of the file."""
        held = self.held.pop(name, None) or RangeSet()
        if name not in self.unreachable:
            self._remove_available(held)
        self.unreachable.discard(name)
        self._arrived.pop(name, None)
        self._departed.pop(name, None)
        if held and name not in self.sources:
            self._departed[name] = held
            if len(self._departed) > self._departed_max:
                del self._departed[next(iter(self._departed))]
        self.sources.pop(name, None)

    def mark_unreachable(self, name: str) -> None:
        """Note that a member is unreachable: chunks that no reachable member holds are no longer available."""
        if name not in self.unreachable:
            self.unreachable.add(name)
            self._remove_available(self.held[name])

    def mark_reachable(self, name: str) -> None:
        """Note that a member is reachable again: the chunks that it holds are available."""
        self.unreachable.discard(name)
        self.available.update(self.held[name])
        self._mark_supplied()

    def _remove_available(self, held: RangeSet) -> None:
        """Remove the chunks that a lost holder held from the available ones, except chunks with a reachable holder.

        The search for these holders ends as soon as possible, because hundreds of members may leave at once.
        """
        left = held.copy()
        for name in self._reachable_names():
            if not left:
                break
            left.difference_update(self.held[name])
        self.available.difference_update(left)
        self._work.mark_changed(self._manifest.file_id)

    def _recompute_available(self) -> None:
        self.available = RangeSet(span for name in self._reachable_names() for span in self.held[name])
        self._work.mark_changed(self._manifest.file_id)

    def _mark_supplied(self) -> None:
        self._work.mark_servable(self._manifest.file_id)
        self._work.mark_changed(self._manifest.file_id)

    # -- reading

    def _reachable_names(self) -> list[str]:
        return [name for name in self.held if name not in self.unreachable]

    def non_source_names(self) -> list[str]:
        """Return the names of the connected members that are not sources of this file."""
        return [name for name in self.held if name not in self.sources] if self.sources else list(self.held)

    def held_only_by(self, names: Collection[str]) -> RangeSet:
        """Return the available chunks that no reachable member outside ``names`` holds."""
        others = RangeSet(span for name in self._reachable_names() if name not in names for span in self.held[name])
        return self.available.difference(others)

    @property
    def covers_file(self) -> bool:
        """Whether every chunk is available."""
        return self.available.chunk_count == self._manifest.chunk_count

    def missing_ranges(self) -> list[tuple[Range, str]]:
        """Return the ranges that are not available, each with the name of a member that held it last.

        This is an unreachable member if there is one. Otherwise it is the client that left last; it may have returned
        without the range. The name is empty if no such member is known.
        """
        found = []
        lost = {**self._departed, **{name: self.held[name] for name in sorted(self.unreachable)}}
        for gap in self.available.gaps(0, self._manifest.chunk_count):
            rest = RangeSet([gap])
            for name in reversed(lost):
                for span in rest.intersection(lost[name]):
                    found.append((span, name))
                    rest.discard(*span)
            found += [(span, "") for span in rest]
        return sorted(found)

    def min_holder_count(self) -> int:
        """Return how many reachable members hold the chunk with the fewest holders; for an empty file, count them all.

        Sources of the file do not count, because they leave.
        """
        steps: dict[int, int] = {0: 0, self._manifest.chunk_count: 0}
        names = [name for name in self._reachable_names() if name not in self.sources]
        for name in names:
            for start, stop in self.held[name]:
                steps[start] = steps.get(start, 0) + 1
                steps[stop] = steps.get(stop, 0) - 1
        least, count = len(names), 0
        for chunk in sorted(steps):
            count += steps[chunk]
            if chunk < self._manifest.chunk_count:
                least = min(least, count)
        return least

    def check(self) -> None:
        """Assert the invariants."""
        assert self.held.keys() == self._arrived.keys(), "held and arrived chunks of different members"
        assert self.sources.keys() <= self.held.keys(), "a source is not connected"
        found = RangeSet(span for name in self._reachable_names() for span in self.held[name])
        assert self.available == found, f"{found} is available, not {self.available}"
