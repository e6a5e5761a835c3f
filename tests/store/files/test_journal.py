"""The journal of verified ranges."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pspd.core.model.ranges import Range, RangeSet
from pspd.errors import StorageError
from pspd.store.files.stored_file import Journal, decode_ranges, encode_ranges
from pspd.store.filesystem.file_bytes import OpenFiles

CHUNKS = 2**32 - 1
ranges = st.lists(
    st.tuples(st.integers(0, CHUNKS - 1), st.integers(1, 1000)).map(
        lambda pair: Range(pair[0], min(pair[0] + pair[1], CHUNKS))
    ),
    max_size=20,
)


@given(ranges)
def test_records_round_trip(written: list[Range]) -> None:
    assert decode_ranges(encode_ranges(written), CHUNKS) == (RangeSet(written), True)


@given(ranges, st.integers(0, 240))
def test_torn_journal_keeps_the_whole_records(written: list[Range], size: int) -> None:
    torn = encode_ranges(written)[:size]
    assert decode_ranges(torn, CHUNKS) == (RangeSet(written[: len(torn) // 12]), len(torn) % 12 == 0)


@given(st.binary(max_size=60))
def test_garbage_never_raises(rubbish: bytes) -> None:
    found, _ = decode_ranges(rubbish, 100)
    assert found.chunk_count <= 100


@pytest.mark.parametrize("span", [(0, 101), (5, 5), (6, 5)])
def test_ranges_outside_the_file_are_bad(span: tuple[int, int]) -> None:
    assert decode_ranges(encode_ranges([(0, 2), span, (3, 4)]), 100) == (RangeSet([(0, 2)]), False)


def test_unreadable_journal_raises(tmp_path: Path) -> None:
    journal = Journal(tmp_path, OpenFiles())
    with pytest.raises(StorageError, match="cannot read"):
        journal.read(100)
