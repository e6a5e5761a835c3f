"""The LRU list with skipped extents; ``test_cache`` compares it with a model of a cache."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from pspd.core.cache.lru import Extent, LruList


def filled(count: int) -> tuple[LruList, list[Extent]]:
    lru = LruList()
    extents = [Extent(b"a", 10 * number, 10 * number + 10, 0, True) for number in range(count)]
    for extent in extents:
        lru.append(extent)
    return lru, extents


def test_unskipped_extent_returns_to_its_position() -> None:
    lru, (first, second, third, fourth) = filled(4)
    lru.skip(first)
    lru.skip(third)
    assert list(lru) == [second, fourth]
    lru.unskip(third)
    assert list(lru) == [second, third, fourth]
    lru.unskip(first)
    assert list(lru) == [first, second, third, fourth]


def test_unskip_of_a_linked_extent_changes_nothing() -> None:
    lru, extents = filled(2)
    lru.unskip(extents[1])
    assert list(lru) == extents


def test_returning_extent_that_is_read_becomes_the_newest() -> None:
    lru, (first, second) = filled(2)
    lru.skip(first)
    lru.unskip(first)
    lru.remove(first)
    lru.append(first)
    assert list(lru) == [second, first]


def test_parts_of_a_returning_extent_return_in_order() -> None:
    lru, (first, second) = filled(2)
    lru.skip(first)
    lru.unskip(first)
    upper = Extent(b"a", 5, first.stop, 5, True)
    first.stop = 5
    lru.split(first, upper)
    lru.check([first, upper, second])
    assert list(lru) == [first, upper, second]


@given(
    st.lists(st.sampled_from(["read", "split", "skip", "unskip", "unskip later", "remove"]), max_size=30),
    st.randoms(use_true_random=False),
)
def test_extents_are_in_order_of_reads_then_chunks(steps: list[str], dice: Random) -> None:
    lru, extents = filled(4)
    skipped: list[Extent] = []
    for step in steps:
        extent = dice.choice(extents)
        match step:
            case "read":
                lru.remove(extent)
                lru.append(extent)
                skipped = [each for each in skipped if each is not extent]
            case "split" if extent.chunk_count > 1:
                middle = (extent.start + extent.stop) // 2
                upper = Extent(b"a", middle, extent.stop, 0, True)
                extent.stop = middle
                lru.split(extent, upper)
                extents.append(upper)
                skipped += [upper] if extent in skipped else []
            case "skip" if extent in list(lru):
                lru.skip(extent)
                skipped.append(extent)
            case "unskip" | "unskip later":
                lru.unskip(extent)
                skipped = [each for each in skipped if each is not extent]
            case "remove" if len(extents) > 1:
                lru.remove(extent)
                extents.remove(extent)
                skipped = [each for each in skipped if each is not extent]
        lru.check(extents)
        expected = [each for each in extents if each not in skipped]
        if step != "unskip later":  # an extent returns only when the list is iterated
            assert list(lru) == sorted(expected, key=lambda each: (each.read_number, each.start))
