"""The saved chunks of a client: verified, unverified and missing ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pspd.core.model.holdings import Holdings
from pspd.core.model.manifest import CHUNK_BYTES, DIGEST_BYTES, Manifest, block_bytes_of
from pspd.core.model.ranges import Range, RangeSet

MIB = 1024 * 1024


def manifest_of(size_bytes: int) -> Manifest:
    return Manifest("a", size_bytes, bytes(-(-size_bytes // block_bytes_of(size_bytes)) * DIGEST_BYTES), b"")


PAIRS = manifest_of(2 * MIB + 3 * CHUNK_BYTES)
"""Blocks of two chunks; the last has one."""
LAST = PAIRS.chunk_count


class TestHoldings:
    def test_new_holdings_are_empty(self) -> None:
        holdings = Holdings(PAIRS)
        assert not holdings.is_whole
        assert holdings.missing() == RangeSet([(0, LAST)])

    def test_empty_file_is_whole(self) -> None:
        holdings = Holdings(manifest_of(0))
        assert holdings.is_whole
        assert not holdings.missing()

    def test_only_whole_units_are_verified_initially(self) -> None:
        holdings = Holdings(PAIRS, RangeSet([(1, 5), (LAST - 1, LAST)]))
        assert holdings.verified == RangeSet([(2, 4), (LAST - 1, LAST)])

    def test_half_a_unit_is_saved_but_not_verified(self) -> None:
        holdings = Holdings(PAIRS)
        assert holdings.add_saved(1, 2) == []
        assert not holdings.verified
        assert holdings.missing() == RangeSet([(0, 1), (2, LAST)])
        assert [unit for unit, _ in holdings.add_saved(0, 1)] == [Range(0, 2)]

    def test_corrupt_unit_is_missing_again(self) -> None:
        holdings = Holdings(PAIRS)
        holdings.add_saved(0, 4)
        holdings.mark_verified(Range(0, 2))
        holdings.mark_corrupt(Range(2, 4))
        assert holdings.verified == RangeSet([(0, 2)])
        assert holdings.missing() == RangeSet([(2, LAST)])
        assert [unit for unit, _ in holdings.add_saved(3, 4)] == []
        assert [unit for unit, _ in holdings.add_saved(2, 3)] == [Range(2, 4)]

    def test_verified_unit_is_not_verified_again(self) -> None:
        holdings = Holdings(PAIRS)
        holdings.add_saved(0, 2)
        holdings.mark_verified(Range(0, 2))
        assert [unit for unit, _ in holdings.add_saved(0, 4)] == [Range(2, 4)]
        holdings.mark_corrupt(Range(0, 2))
        assert holdings.missing() == RangeSet([(0, 2), (4, LAST)])

    @given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8), st.booleans()), max_size=40))
    def test_every_chunk_is_verified_unverified_or_missing(self, writes: list[tuple[int, int, bool]]) -> None:
        holdings = Holdings(PAIRS)
        verified, unverified = set[int](), set[int]()
        for start, count, good in writes:
            unverified |= set(range(start, start + count)) - verified
            for unit, _ in holdings.add_saved(start, start + count):
                chunks = set(range(*unit))
                assert chunks <= unverified
                unverified -= chunks
                if good:
                    holdings.mark_verified(unit)
                    verified |= chunks
                else:
                    holdings.mark_corrupt(unit)
            holdings.check()
            assert holdings.verified == RangeSet((chunk, chunk + 1) for chunk in verified)
            missing = {chunk for span in holdings.missing().within(0, 40) for chunk in range(*span)}
            assert missing == set(range(40)) - verified - unverified
        assert not holdings.is_whole
