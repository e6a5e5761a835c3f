"""Records of manifests and marks."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pspd.errors import PspError
from pspd.store.digests import blake3_digest
from pspd.store.files.records import CompletionRecord
from pspd.store.manifest_codec import decode_manifest, encode_manifest
from tests.store.stores import MIB, SIZES, FolderSample, Sample


class TestManifests:
    @pytest.mark.parametrize("share_count", [0, 1, 7])
    @pytest.mark.parametrize("size_bytes", SIZES)
    def test_are_read_as_they_were_written(self, size_bytes: int, share_count: int) -> None:
        manifest = Sample(size_bytes, share_count, name="ä b.bin").manifest
        assert decode_manifest(encode_manifest(manifest), blake3_digest) == manifest

    def test_of_folders_are_too(self) -> None:
        manifest = FolderSample(share_count=3).manifest
        assert decode_manifest(encode_manifest(manifest), blake3_digest) == manifest

    @pytest.mark.parametrize("mode", [0o400, 0o600, 0o755, 0o777])
    def test_with_a_mode_are_too(self, mode: int) -> None:
        manifest = Sample(5000, 3, mode=mode).manifest
        assert decode_manifest(encode_manifest(manifest), blake3_digest) == manifest

    def test_without_a_mode_are_what_they_were_before(self) -> None:
        body = b"pspmani1" + bytes(24) + b"e"
        body = body[:20] + (1).to_bytes(4, "big") + bytes(8) + b"e"
        record = encode_manifest(Sample(0, name="e").manifest)
        assert record == body + zlib.crc32(body).to_bytes(4, "big")

    @given(st.integers(0, 10_000), st.integers(1, 255))
    def test_with_a_wrong_byte_are_refused(self, position: int, flip: int) -> None:
        record = bytearray(encode_manifest(Sample(5000, 3).manifest))
        record[position % len(record)] ^= flip
        with pytest.raises(ValueError, match="torn"):
            decode_manifest(bytes(record), blake3_digest)

    def test_that_are_torn_are_refused(self) -> None:
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
    def test_that_are_whole_but_foreign_are_refused(self, start: int, data: bytes, error: type[Exception]) -> None:
        body = bytearray(encode_manifest(Sample(5000, mode=0o755).manifest)[:-4])
        body[start : start + len(data)] = data
        record = bytes(body) + zlib.crc32(body).to_bytes(4, "big")
        with pytest.raises(error):
            decode_manifest(record, blake3_digest)


class TestMarks:
    @given(st.sampled_from(["a.bin", '\u00e4\n"', ""]), st.integers(0, 2**64), st.integers(-(2**63), 2**63))
    def test_are_read_as_they_were_written(self, name: str, size_bytes: int, mtime_ns: int) -> None:
        mark = CompletionRecord(name, size_bytes, mtime_ns, "boot")
        assert CompletionRecord.decode(mark.encode()) == mark

    @pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"name": "a"}', b"\xff\xfe", b"null"])
    def test_that_are_foreign_are_refused(self, record: bytes) -> None:
        with pytest.raises(ValueError):  # noqa: PT011 - the JSON library has words of its own
            CompletionRecord.decode(record)
