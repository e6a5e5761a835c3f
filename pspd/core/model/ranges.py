"""Sets of chunks, and maps from chunks, as sorted disjoint ranges.

Everything in PSP speaks of ranges ``[start, stop)``; nothing costs work per chunk where a range will do.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar


class Range(NamedTuple):
    """Chunks ``[start, stop)`` of one file."""

    start: int
    stop: int

    @property
    def chunk_count(self) -> int:
        """How many chunks the range holds."""
        return self.stop - self.start

    def __str__(self) -> str:
        return f"[{self.start}, {self.stop})"


_range_of = partial(tuple.__new__, Range)
"""``Range(*pair)``, but quickly: sets are taken apart millions of times."""


def _ranges_between(borders: list[int]) -> list[Range]:
    return list(map(_range_of, zip(borders[::2], borders[1::2], strict=True)))


class RangeSet:
    """A set of chunks, kept as ascending, disjoint, never touching ranges.

    The borders lie in one flat list ``[start, stop, start, stop, ...]``: a chunk is a member exactly when
    an odd number of borders is at or below it.
    """

    __slots__ = ("_borders", "_chunk_count")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._borders: list[int] = []
        self._chunk_count = 0
        for start, stop in sorted(ranges):
            self.add(start, stop)

    @property
    def chunk_count(self) -> int:
        """How many chunks the set holds."""
        return self._chunk_count

    @property
    def range_count(self) -> int:
        """How many ranges the set is made of."""
        return len(self._borders) // 2

    def add(self, start: int, stop: int) -> None:
        """Puts ``[start, stop)`` into the set; an empty range changes nothing."""
        if start >= stop:
            return
        borders = self._borders
        if not borders or borders[-1] <= start:  # most often: sets are made in ascending order
            if borders and borders[-1] == start:
                borders[-1] = stop
            else:
                borders += (start, stop)
            self._chunk_count += stop - start
            return
        left, right = bisect_left(borders, start), bisect_right(borders, stop)
        replacement = []
        if left % 2 == 0:
            replacement.append(start)
        if right % 2 == 0:
            replacement.append(stop)
        self._replace(left, right, replacement)

    def discard(self, start: int, stop: int) -> None:
        """Takes ``[start, stop)`` out of the set, as far as it is in."""
        if start >= stop:
            return
        borders = self._borders
        left, right = bisect_left(borders, start), bisect_right(borders, stop)
        replacement = []
        if left % 2 == 1:
            replacement.append(start)
        if right % 2 == 1:
            replacement.append(stop)
        self._replace(left, right, replacement)

    def _replace(self, left: int, right: int, replacement: list[int]) -> None:
        borders = self._borders
        # Each stop counts for, each start against: the sum over any even run of borders is its chunks.
        sign = -1 if left % 2 == 0 else 1
        for border in borders[left:right]:
            self._chunk_count -= sign * border
            sign = -sign
        sign = -1 if left % 2 == 0 else 1
        for border in replacement:
            self._chunk_count += sign * border
            sign = -sign
        borders[left:right] = replacement

    def covers(self, start: int, stop: int) -> bool:
        """Whether every chunk of ``[start, stop)`` is in the set; true for an empty range."""
        if start >= stop:
            return True
        index = bisect_right(self._borders, start)
        return index % 2 == 1 and self._borders[index] >= stop

    def overlaps(self, start: int, stop: int) -> bool:
        """Whether any chunk of ``[start, stop)`` is in the set."""
        if start >= stop:
            return False
        index = bisect_right(self._borders, start)
        return index % 2 == 1 or (index < len(self._borders) and self._borders[index] < stop)

    def around(self, start: int, stop: int) -> Range:
        """The whole run that covers ``[start, stop)``, which is in the set; an empty range is its own run."""
        if start >= stop:
            return Range(start, start)
        index = bisect_right(self._borders, start)
        assert self.covers(start, stop), "the range is not in the set"
        return Range(self._borders[index - 1], self._borders[index])

    def within(self, start: int, stop: int) -> list[Range]:
        """The parts of the set inside ``[start, stop)``, ascending."""
        return _ranges_between(self._cut(start, stop, inside=True))

    def gaps(self, start: int, stop: int) -> list[Range]:
        """The parts of ``[start, stop)`` that are not in the set, ascending."""
        return _ranges_between(self._cut(start, stop, inside=False))

    def _cut(self, start: int, stop: int, *, inside: bool) -> list[int]:
        """The borders of what lies in ``[start, stop)`` and in the set, or not in the set."""
        if start >= stop:
            return []
        borders = self._borders
        left = bisect_right(borders, start)
        cut = borders[left : bisect_left(borders, stop, left)]
        if (left % 2 == 1) is inside:
            cut.insert(0, start)
        if len(cut) % 2 == 1:
            cut.append(stop)
        return cut

    def common(self, other: RangeSet) -> RangeSet:
        """The chunks that are in both sets."""
        few, many = (self, other) if len(self._borders) <= len(other._borders) else (other, self)
        return few._combined(many, inside=True)

    def minus(self, other: RangeSet) -> RangeSet:
        """The chunks that are in this set and not in the other."""
        if len(self._borders) <= len(other._borders):
            return self._combined(other, inside=False)
        rest = self.copy()
        rest.difference_update(other)
        return rest

    def _combined(self, other: RangeSet, *, inside: bool) -> RangeSet:
        combined = RangeSet()
        borders, found = self._borders, combined._borders
        for start, stop in zip(borders[::2], borders[1::2], strict=True):
            found += other._cut(start, stop, inside=inside)
        combined._chunk_count = sum(found[1::2]) - sum(found[::2])
        return combined

    def cyclic_from(self, chunk: int) -> Iterator[Range]:
        """Every part of the set once, from ``chunk`` to the end and then from the beginning.

        The set must not change while this goes on.
        """
        borders = self._borders
        first = bisect_right(borders, chunk)
        if first % 2 == 1:
            yield Range(chunk, borders[first])
            first += 1
        for index in range(first, len(borders), 2):
            yield Range(borders[index], borders[index + 1])
        for index in range(0, first, 2):
            start, stop = borders[index], min(borders[index + 1], chunk)
            if start < stop:
                yield Range(start, stop)

    def update(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Adds every range."""
        for start, stop in ranges:
            self.add(start, stop)

    def difference_update(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Discards every range."""
        for start, stop in ranges:
            self.discard(start, stop)

    def copy(self) -> RangeSet:
        """A set of its own with the same chunks."""
        twin = RangeSet()
        twin._borders = self._borders.copy()
        twin._chunk_count = self._chunk_count
        return twin

    def clear(self) -> None:
        """Takes everything out."""
        self._borders.clear()
        self._chunk_count = 0

    def __contains__(self, chunk: int) -> bool:
        return bisect_right(self._borders, chunk) % 2 == 1

    def __iter__(self) -> Iterator[Range]:
        return iter(_ranges_between(self._borders))

    def __bool__(self) -> bool:
        return bool(self._borders)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and self._borders == other._borders

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RangeSet({', '.join(map(str, self))})"


class Spanned(Protocol):
    """Something that stands for the chunks ``[start, stop)``."""

    @property
    def start(self) -> int: ...
    @property
    def stop(self) -> int: ...


T = TypeVar("T", bound=Spanned)


class RangeMap(Generic[T]):
    """Disjoint spanned things in the order of their chunks.

    While a thing is in, its start must not change; its stop may, as long as it stays disjoint from the next.
    """

    __slots__ = ("_spans", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._spans: list[T] = []

    def insert(self, span: T) -> None:
        """Puts a thing in; its chunks must be free."""
        index = bisect_left(self._starts, span.start)
        assert index == len(self._starts) or span.stop <= self._starts[index], "spans overlap"
        assert index == 0 or self._spans[index - 1].stop <= span.start, "spans overlap"
        self._starts.insert(index, span.start)
        self._spans.insert(index, span)

    def remove(self, span: T) -> None:
        """Takes a thing out that is in."""
        index = bisect_left(self._starts, span.start)
        assert self._spans[index] is span, "not in the map"
        del self._starts[index]
        del self._spans[index]

    def at(self, chunk: int) -> T | None:
        """What stands for a chunk."""
        index = bisect_right(self._starts, chunk) - 1
        if index >= 0 and chunk < self._spans[index].stop:
            return self._spans[index]
        return None

    def overlapping(self, start: int, stop: int) -> list[T]:
        """Everything that has a chunk in ``[start, stop)``, ascending."""
        if start >= stop:
            return []
        low = bisect_right(self._starts, start) - 1
        if low < 0 or self._spans[low].stop <= start:
            low += 1
        return self._spans[low : bisect_left(self._starts, stop, low)]

    def __iter__(self) -> Iterator[T]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)
