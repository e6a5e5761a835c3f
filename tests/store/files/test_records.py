"""Completion records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pspd.store.files.records import CompletionRecord


@given(st.sampled_from(["a.bin", '\u00e4\n"', ""]), st.integers(0, 2**64), st.integers(-(2**63), 2**63))
def test_round_trip(name: str, size_bytes: int, mtime_ns: int) -> None:
    record = CompletionRecord(name, size_bytes, mtime_ns, "boot")
    assert CompletionRecord.decode(record.encode()) == record


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"name": "a"}', b"\xff\xfe", b"null"])
def test_other_format_is_refused(record: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the JSON library words its own messages
        CompletionRecord.decode(record)
