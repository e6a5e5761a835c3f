"""Manifests on disk."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pspd.errors import PspError
from pspd.store.digests import blake3_digest
from pspd.store.manifest_codec import decode_manifest, encode_manifest
from tests.store.stores import MIB, SIZES, FolderSample, Sample


@pytest.mark.parametrize("share_count", [0, 1, 7])
@pytest.mark.parametrize("size_bytes", SIZES)
def test_round_trip(size_bytes: int, share_count: int) -> None:
    manifest = Sample(size_bytes, share_count, name="ä b.bin").manifest
    assert decode_manifest(encode_manifest(manifest), blake3_digest) == manifest


def test_folder_round_trip() -> None:
    manifest = FolderSample(share_count=3).manifest
    assert decode_manifest(encode_manifest(manifest), blake3_digest) == manifest


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o755, 0o777])
def test_mode_round_trip(mode: int) -> None:
    manifest = Sample(5000, 3, mode=mode).manifest
    assert decode_manifest(encode_manifest(manifest), blake3_digest) == manifest


def test_format_without_a_mode_is_unchanged() -> None:
    body = b"pspmani1" + bytes(24) + b"e"
    body = body[:20] + (1).to_bytes(4, "big") + bytes(8) + b"e"
    record = encode_manifest(Sample(0, name="e").manifest)
    assert record == body + zlib.crc32(body).to_bytes(4, "big")


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_wrong_byte_is_refused(position: int, flip: int) -> None:
    record = bytearray(encode_manifest(Sample(5000, 3).manifest))
    record[position % len(record)] ^= flip
    with pytest.raises(ValueError, match="torn"):
        decode_manifest(bytes(record), blake3_digest)


def test_torn_record_is_refused() -> None:
    record = encode_manifest(Sample(2 * MIB + 1024, 7).manifest)
    for size in [*range(200), len(record) - 1]:
        with pytest.raises(ValueError, match="torn"):
            decode_manifest(record[:size], blake3_digest)


@pytest.mark.parametrize(
    ("start", "data", "error"),
    [
        (0, b"otherone", ValueError),
        (8, b"\xff" * 8, PspError),
        (24, b"\xff" * 4, ValueError),
        (32, b"\x09\xed", PspError),
    ],
    ids=["magic", "size", "length", "mode"],
)
def test_other_format_with_a_right_checksum_is_refused(start: int, data: bytes, error: type[Exception]) -> None:
    body = bytearray(encode_manifest(Sample(5000, mode=0o755).manifest)[:-4])
    body[start : start + len(data)] = data
    record = bytes(body) + zlib.crc32(body).to_bytes(4, "big")
    with pytest.raises(error):
        decode_manifest(record, blake3_digest)
