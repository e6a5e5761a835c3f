"""The order of reading, with extents that are passed over for a while. The cache's model looks at it as a whole."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from pspd.core.cache.lru import Extent, Recency


def numbered(count: int) -> tuple[Recency, list[Extent]]:
    recency = Recency()
    extents = [Extent(b"a", 10 * number, 10 * number + 10, 0, True) for number in range(count)]
    for extent in extents:
        recency.append(extent)
    return recency, extents


def test_what_is_set_aside_is_met_again_where_it_was_once_it_is_taken_back() -> None:
    recency, (first, second, third, fourth) = numbered(4)
    recency.set_aside(first)
    recency.set_aside(third)
    assert list(recency) == [second, fourth]
    recency.take_back(third)
    assert list(recency) == [second, third, fourth]
    recency.take_back(first)
    assert list(recency) == [first, second, third, fourth]


def test_what_was_never_set_aside_is_not_taken_back() -> None:
    recency, extents = numbered(2)
    recency.take_back(extents[1])
    assert list(recency) == extents


def test_what_is_read_while_it_is_on_its_way_back_is_the_most_recent() -> None:
    recency, (first, second) = numbered(2)
    recency.set_aside(first)
    recency.take_back(first)
    recency.remove(first)
    recency.append(first)
    assert list(recency) == [second, first]


@given(st.lists(st.sampled_from("rsatbx"), max_size=30), st.randoms(use_true_random=False))
def test_parts_stay_in_the_order_of_reading_and_of_their_chunks(steps: list[str], dice: Random) -> None:
    recency, extents = numbered(4)
    aside: list[Extent] = []
    for step in steps:
        extent = dice.choice(extents)
        match step:
            case "r":
                recency.remove(extent)
                recency.append(extent)
                aside = [each for each in aside if each is not extent]
            case "s" if extent.chunk_count > 1:
                middle = (extent.start + extent.stop) // 2
                upper = Extent(b"a", middle, extent.stop, 0, True)
                extent.stop = middle
                recency.split(extent, upper)
                extents.append(upper)
                aside += [upper] if extent in aside else []
            case "a" if extent in list(recency):
                recency.set_aside(extent)
                aside.append(extent)
            case "t" | "b":
                recency.take_back(extent)
                aside = [each for each in aside if each is not extent]
            case "x" if len(extents) > 1:
                recency.remove(extent)
                extents.remove(extent)
                aside = [each for each in aside if each is not extent]
        expected = sorted(
            (each for each in extents if each not in aside), key=lambda each: (each.read_number, each.start)
        )
        if step != "b":  # what comes back waits for who passes by: now and then for a while
            assert list(recency) == expected
