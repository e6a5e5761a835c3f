"""Range sets and range maps, compared with plain Python sets and lists."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pspd.core.model.ranges import Range, RangeMap, RangeSet

CHUNKS_MAX = 40

spans = st.tuples(st.integers(0, CHUNKS_MAX), st.integers(0, CHUNKS_MAX))
steps = st.lists(st.tuples(st.booleans(), spans), max_size=30)


def chunks_of(span: tuple[int, int]) -> set[int]:
    return set(range(*span))


def built(changes: list[tuple[bool, tuple[int, int]]]) -> tuple[RangeSet, set[int]]:
    """Return a range set, and a plain set after the same additions and removals."""
    ranges, model = RangeSet(), set[int]()
    for adding, span in changes:
        if adding:
            ranges.add(*span)
            model |= chunks_of(span)
        else:
            ranges.discard(*span)
            model -= chunks_of(span)
    return ranges, model


def chunks_in(parts: list[Range]) -> list[int]:
    return [chunk for part in parts for chunk in range(*part)]


class TestRange:
    def test_range_has_a_count_and_a_text(self) -> None:
        assert Range(3, 8).chunk_count == 5
        assert str(Range(3, 8)) == "[3, 8)"


class TestRangeSetAgainstPlainSet:
    @given(steps)
    def test_ranges_have_the_members_and_do_not_touch(self, changes) -> None:
        ranges, model = built(changes)
        assert chunks_in(list(ranges)) == sorted(model)
        assert ranges.chunk_count == len(model)
        assert bool(ranges) == bool(model)
        assert [chunk for chunk in range(CHUNKS_MAX + 1) if chunk in ranges] == sorted(model)
        parts = list(ranges)
        assert all(part.start < part.stop for part in parts)
        assert all(left.stop < right.start for left, right in pairwise(parts))

    @given(steps, spans)
    def test_within_gaps_covers_and_overlaps(self, changes, span) -> None:
        ranges, model = built(changes)
        assert chunks_in(ranges.within(*span)) == sorted(model & chunks_of(span))
        assert chunks_in(ranges.gaps(*span)) == sorted(chunks_of(span) - model)
        assert ranges.covers(*span) == (chunks_of(span) <= model)
        assert ranges.overlaps(*span) == bool(chunks_of(span) & model)

    @given(steps, spans)
    def test_enclosing_range_covers_a_given_range(self, changes, span) -> None:
        ranges, _ = built(changes)
        if span[0] >= span[1]:
            assert ranges.enclosing_range(*span) == Range(span[0], span[0])
        elif ranges.covers(*span):
            assert [ranges.enclosing_range(*span)] == [run for run in ranges if run.start <= span[0] < run.stop]
        else:
            with pytest.raises(AssertionError, match="not in the set"):
                ranges.enclosing_range(*span)

    @given(steps, steps)
    def test_intersection_and_difference(self, changes, others) -> None:
        ranges, model = built(changes)
        other, other_model = built(others)
        for combined, expected in (
            (ranges.intersection(other), model & other_model),
            (ranges.difference(other), model - other_model),
        ):
            assert combined == RangeSet((chunk, chunk + 1) for chunk in expected)
            assert combined.chunk_count == len(expected)

    @given(steps, st.integers(0, CHUNKS_MAX))
    def test_cyclic_from_visits_each_range_once(self, changes, chunk) -> None:
        ranges, model = built(changes)
        expected = sorted(model, key=lambda member: (member < chunk, member))
        assert chunks_in(list(ranges.cyclic_from(chunk))) == expected

    @given(steps, steps)
    def test_update_and_difference_update(self, changes, others) -> None:
        ranges, model = built(changes)
        other, other_model = built(others)
        joined, left = ranges.copy(), ranges.copy()
        joined.update(other)
        left.difference_update(other)
        assert chunks_in(list(joined)) == sorted(model | other_model)
        assert chunks_in(list(left)) == sorted(model - other_model)
        assert joined.chunk_count == len(model | other_model)
        assert left.chunk_count == len(model - other_model)

    @given(steps)
    def test_sets_with_the_same_chunks_are_equal(self, changes) -> None:
        ranges, model = built(changes)
        assert ranges == RangeSet((chunk, chunk + 1) for chunk in model)


class TestRangeSet:
    def test_copy_is_independent(self) -> None:
        ranges = RangeSet([(0, 4)])
        twin = ranges.copy()
        twin.add(6, 8)
        assert list(ranges) == [Range(0, 4)]
        assert list(twin) == [Range(0, 4), Range(6, 8)]

    def test_clear_removes_everything(self) -> None:
        ranges = RangeSet([(0, 4), (6, 8)])
        ranges.clear()
        assert not ranges
        assert ranges.chunk_count == 0

    def test_set_differs_from_other_types_and_has_no_hash(self) -> None:
        assert RangeSet([(0, 1)]) != [Range(0, 1)]
        with pytest.raises(TypeError):
            hash(RangeSet())

    def test_text_has_the_ranges(self) -> None:
        assert repr(RangeSet([(0, 4), (6, 8)])) == "RangeSet([0, 4), [6, 8))"


@dataclass(frozen=True)
class Span:
    start: int
    stop: int


def test_empty_range_contains_nothing() -> None:
    assert RangeSet([(0, 10)]).within(5, 5) == []


class TestRangeMap:
    @given(st.lists(st.tuples(spans, st.booleans()), max_size=20), spans)
    def test_map_agrees_with_a_list(self, attempts, asked) -> None:
        spans_in: list[Span] = []
        ranges: RangeMap[Span] = RangeMap()
        for (start, stop), removing in attempts:
            if removing and spans_in:
                ranges.remove(spans_in.pop(start % len(spans_in)))
            elif start < stop and not any(start < span.stop and span.start < stop for span in spans_in):
                spans_in.append(Span(start, stop))
                ranges.insert(spans_in[-1])
        spans_in.sort(key=lambda span: span.start)
        assert list(ranges) == spans_in
        assert len(ranges) == len(spans_in)
        for chunk in range(CHUNKS_MAX + 1):
            assert ranges.at(chunk) == next((s for s in spans_in if s.start <= chunk < s.stop), None)
        wanted = chunks_of(asked)
        assert ranges.overlapping(*asked) == [s for s in spans_in if wanted & chunks_of((s.start, s.stop))]

    @pytest.mark.parametrize("span", [Span(0, 5), Span(7, 9), Span(4, 6), Span(5, 6)])
    def test_overlapping_object_is_refused(self, span: Span) -> None:
        ranges: RangeMap[Span] = RangeMap()
        ranges.insert(Span(4, 8))
        with pytest.raises(AssertionError, match="overlap"):
            ranges.insert(span)

    def test_removing_an_unknown_object_is_refused(self) -> None:
        ranges: RangeMap[Span] = RangeMap()
        ranges.insert(Span(4, 8))
        with pytest.raises(AssertionError, match="not in the map"):
            ranges.remove(Span(4, 8))
