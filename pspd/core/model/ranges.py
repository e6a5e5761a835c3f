"""Sets of chunks, and maps from chunks to objects, both stored as sorted disjoint ranges ``[start, stop)``.

The memory and time of an operation depend on the number of ranges, not on the number of chunks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar


class Range(NamedTuple):
    """The chunks ``[start, stop)`` of one file."""

    start: int
    stop: int

    @property
    def chunk_count(self) -> int:
        """The number of chunks."""
        return self.stop - self.start

    def __str__(self) -> str:
        """Return the range in interval notation."""
        return f"[{self.start}, {self.stop})"


_range_of = partial(tuple.__new__, Range)
"""``_range_of(pair)`` is a faster form of ``Range(*pair)``: sets are iterated millions of times."""


def _ranges_between(boundaries: list[int]) -> list[Range]:
    return list(map(_range_of, zip(boundaries[::2], boundaries[1::2], strict=True)))


class RangeSet:
    """A set of chunks, stored as ascending ranges that neither overlap nor touch.

    The boundaries are in one flat list ``[start, stop, start, stop, ...]``: a chunk is in the set exactly when an odd
    number of boundaries is at or below it.

    Args:
        ranges: the ranges of the initial chunks, in any order.
    """

    __slots__ = ("_boundaries", "_chunk_count")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._boundaries: list[int] = []
        self._chunk_count = 0
        self.update(sorted(ranges))

    @property
    def chunk_count(self) -> int:
        """The number of chunks."""
        return self._chunk_count

    @property
    def range_count(self) -> int:
        """The number of ranges."""
        return len(self._boundaries) // 2

    def add(self, start: int, stop: int) -> None:
        """Add a range. An empty range changes nothing.

        Args:
            start: the first chunk.
            stop: one past the last chunk.
        """
        if start >= stop:
            return
        boundaries = self._boundaries
        if not boundaries or boundaries[-1] <= start:  # the usual case: sets grow in ascending order
            if boundaries and boundaries[-1] == start:
                boundaries[-1] = stop
            else:
                boundaries += (start, stop)
            self._chunk_count += stop - start
            return
        self._assign(start, stop, inside=True)

    def discard(self, start: int, stop: int) -> None:
        """Remove the chunks of a range that are in the set.

        Args:
            start: the first chunk.
            stop: one past the last chunk.
        """
        if start < stop:
            self._assign(start, stop, inside=False)

    def _assign(self, start: int, stop: int, *, inside: bool) -> None:
        """Put the chunks of a range into the set, or take them out of it."""
        boundaries = self._boundaries
        left, right = bisect_left(boundaries, start), bisect_right(boundaries, stop)
        replacement = []
        if (left % 2 == 0) is inside:
            replacement.append(start)
        if (right % 2 == 0) is inside:
            replacement.append(stop)
        # The number of chunks is the sum of all stops minus the sum of all starts.
        sign = -1 if left % 2 == 0 else 1
        for boundary in boundaries[left:right]:
            self._chunk_count -= sign * boundary
            sign = -sign
        sign = -1 if left % 2 == 0 else 1
        for boundary in replacement:
            self._chunk_count += sign * boundary
            sign = -sign
        boundaries[left:right] = replacement

    def covers(self, start: int, stop: int) -> bool:
        """Return whether every chunk of a range is in the set; True for an empty range.

        Args:
            start: the first chunk.
            stop: one past the last chunk.
        """
        if start >= stop:
            return True
        index = bisect_right(self._boundaries, start)
        return index % 2 == 1 and self._boundaries[index] >= stop

    def overlaps(self, start: int, stop: int) -> bool:
        """Return whether any chunk of a range is in the set.

        Args:
            start: the first chunk.
            stop: one past the last chunk.
        """
        if start >= stop:
            return False
        index = bisect_right(self._boundaries, start)
        return index % 2 == 1 or (index < len(self._boundaries) and self._boundaries[index] < stop)

    def enclosing_range(self, start: int, stop: int) -> Range:
        """Return the range of the set that contains ``[start, stop)``; ``[start, start)`` for an empty range.

        Args:
            start: the first chunk.
            stop: one past the last chunk.
        """
        if start >= stop:
            return Range(start, start)
        index = bisect_right(self._boundaries, start)
        assert self.covers(start, stop), "the range is not in the set"
        return Range(self._boundaries[index - 1], self._boundaries[index])

    def within(self, start: int, stop: int) -> list[Range]:
        """Return the parts of the set inside a range, ascending.

        Args:
            start: the first chunk.
            stop: one past the last chunk.
        """
        return _ranges_between(self._cut(start, stop, inside=True))

    def gaps(self, start: int, stop: int) -> list[Range]:
        """Return the parts of a range that are not in the set, ascending.

        Args:
            start: the first chunk.
            stop: one past the last chunk.
        """
        return _ranges_between(self._cut(start, stop, inside=False))

    def _cut(self, start: int, stop: int, *, inside: bool) -> list[int]:
        """Return the boundaries of the parts of a range that are in the set, or not in the set."""
        if start >= stop:
            return []
        boundaries = self._boundaries
        left = bisect_right(boundaries, start)
        cut = boundaries[left : bisect_left(boundaries, stop, left)]
        if (left % 2 == 1) is inside:
            cut.insert(0, start)
        if len(cut) % 2 == 1:
            cut.append(stop)
        return cut

    def intersection(self, other: RangeSet) -> RangeSet:
        """Return the chunks that are in both sets."""
        few, many = (self, other) if len(self._boundaries) <= len(other._boundaries) else (other, self)
        return few._combined(many, inside=True)

    def difference(self, other: RangeSet) -> RangeSet:
        """Return the chunks that are in this set and not in the other."""
        if len(self._boundaries) <= len(other._boundaries):
            return self._combined(other, inside=False)
        rest = self.copy()
        rest.difference_update(other)
        return rest

    def _combined(self, other: RangeSet, *, inside: bool) -> RangeSet:
        """Return the chunks of this set that are in the other set, or not in the other set."""
        combined = RangeSet()
        boundaries, found = self._boundaries, combined._boundaries
        for start, stop in zip(boundaries[::2], boundaries[1::2], strict=True):
            found += other._cut(start, stop, inside=inside)
        combined._chunk_count = sum(found[1::2]) - sum(found[::2])
        return combined

    def cyclic_from(self, chunk: int) -> Iterator[Range]:
        """Iterate over the ranges once, from ``chunk`` to the end, and then from the beginning to ``chunk``.

        A range that contains ``chunk`` is split there. The set must not change during the iteration.
        """
        boundaries = self._boundaries
        first = bisect_right(boundaries, chunk)
        if first % 2 == 1:
            yield Range(chunk, boundaries[first])
            first += 1
        for index in range(first, len(boundaries), 2):
            yield Range(boundaries[index], boundaries[index + 1])
        for index in range(0, first, 2):
            start, stop = boundaries[index], min(boundaries[index + 1], chunk)
            if start < stop:
                yield Range(start, stop)

    def update(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Add the chunks of every range."""
        for start, stop in ranges:
            self.add(start, stop)

    def difference_update(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Remove the chunks of every range."""
        for start, stop in ranges:
            self.discard(start, stop)

    def copy(self) -> RangeSet:
        """Return an independent set with the same chunks."""
        twin = RangeSet()
        twin._boundaries = self._boundaries.copy()
        twin._chunk_count = self._chunk_count
        return twin

    def clear(self) -> None:
        """Remove all chunks."""
        self._boundaries.clear()
        self._chunk_count = 0

    def __contains__(self, chunk: int) -> bool:
        """Return whether a chunk is in the set."""
        return bisect_right(self._boundaries, chunk) % 2 == 1

    def __iter__(self) -> Iterator[Range]:
        """Iterate over the ranges, ascending."""
        return iter(_ranges_between(self._boundaries))

    def __bool__(self) -> bool:
        """Return whether there is any chunk."""
        return bool(self._boundaries)

    def __eq__(self, other: object) -> bool:
        """Return whether another set has the same chunks."""
        return isinstance(other, RangeSet) and self._boundaries == other._boundaries

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return the ranges as text."""
        return f"RangeSet({', '.join(map(str, self))})"


class Spanned(Protocol):
    """An object that covers the chunks ``[start, stop)``."""

    @property
    def start(self) -> int:
        """The first chunk."""

    @property
    def stop(self) -> int:
        """One past the last chunk."""


T = TypeVar("T", bound=Spanned)


class RangeMap(Generic[T]):
    """A map from chunks to the disjoint objects that cover them.

    While an object is in the map, its start must not change. Its stop may change, as long as the objects stay disjoint.
    """

    __slots__ = ("_spans", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._spans: list[T] = []

    def insert(self, span: T) -> None:
        """Add an object that overlaps no other object of the map."""
        index = bisect_left(self._starts, span.start)
        assert index == len(self._starts) or span.stop <= self._starts[index], "spans overlap"
        assert index == 0 or self._spans[index - 1].stop <= span.start, "spans overlap"
        self._starts.insert(index, span.start)
        self._spans.insert(index, span)

    def remove(self, span: T) -> None:
        """Remove an object that is in the map."""
        index = bisect_left(self._starts, span.start)
        assert self._spans[index] is span, "not in the map"
        del self._starts[index]
        del self._spans[index]

    def at(self, chunk: int) -> T | None:
        """Return the object that covers a chunk; None if there is none."""
        index = bisect_right(self._starts, chunk) - 1
        if index >= 0 and chunk < self._spans[index].stop:
            return self._spans[index]
        return None

    def overlapping(self, start: int, stop: int) -> list[T]:
        """Return the objects that overlap a range, ascending.

        Args:
            start: the first chunk.
            stop: one past the last chunk.
        """
        if start >= stop:
            return []
        low = bisect_right(self._starts, start) - 1
        if low < 0 or self._spans[low].stop <= start:
            low += 1
        return self._spans[low : bisect_left(self._starts, stop, low)]

    def __iter__(self) -> Iterator[T]:
        """Iterate over the objects in the order of their chunks."""
        return iter(self._spans)

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self._spans)
