"""BLAKE3 as the core's digest function."""

from __future__ import annotations

import pytest

from pspd.store.digests import blake3_digest

EMPTY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
"""The digest of the empty input, from BLAKE3's published test vectors."""


@pytest.mark.parametrize("parts", [(), (b"",), [b""], (b"", b"")])
def test_digest_of_nothing(parts: tuple[bytes, ...]) -> None:
    assert blake3_digest(parts).hex() == EMPTY


def test_digest_depends_on_bytes_not_parts() -> None:
    whole = blake3_digest((b"abcdef",))
    assert blake3_digest((b"abc", bytearray(b"de"), memoryview(b"f"))) == whole
    assert blake3_digest(iter([b"abcdef"])) == whole
    assert blake3_digest((b"abcdeg",)) != whole
    assert len(whole) == 32
