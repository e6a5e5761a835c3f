"""Manifests: names, sizes, shares, cut blocks and units."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pspd.core.model.manifest import (
    CHUNK_BYTES,
    DEFAULT_MODE,
    DIGEST_BYTES,
    FILE_CHUNKS_MAX,
    SHARE_COUNT_MAX,
    Manifest,
    block_bytes_of,
    chunk_count_of,
    validate_name,
)
from pspd.core.model.ranges import Range, RangeSet
from pspd.errors import BadArgument, BadName
from pspd.store.digests import blake3_digest

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

sizes = st.integers(0, 40 * KIB) | st.integers(2 * MIB, 3 * MIB) | st.integers(0, 2 * TIB)


def sha256(parts: Iterable[bytes | bytearray | memoryview]) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def hollow(size_bytes: int, share_count: int = 0) -> Manifest:
    """Return a manifest with arbitrary digests."""
    blocks = bytes(-(-size_bytes // block_bytes_of(size_bytes)) * DIGEST_BYTES)
    bare = Manifest("a.bin", size_bytes, blocks, bytes(DIGEST_BYTES), share_count)
    cuts = bytes(len(bare.cut_pieces) * DIGEST_BYTES)
    return Manifest("a.bin", size_bytes, blocks, bytes(DIGEST_BYTES), share_count, cuts)


def small(size_bytes: int, share_count: int) -> tuple[Manifest, bytes]:
    """Return a manifest with the right digests, and the bytes of its file."""
    data = (b"0123456789abcdef" * (size_bytes // 16 + 1))[:size_bytes]

    def read_at(offset: int, length: int) -> memoryview:
        return memoryview(data)[offset : offset + length]

    return Manifest.build("a.bin", size_bytes, read_at, sha256).divided(share_count, read_at, sha256), data


A_TXT = bytes(index % 251 for index in range(5000))
"""The example file of the protocol page, which states its id."""


def built(name: str, data: bytes, mode: int = DEFAULT_MODE) -> Manifest:
    return Manifest.build(
        name, len(data), lambda offset, length: data[offset : offset + length], blake3_digest, mode=mode
    )


class TestGeometry:
    @pytest.mark.parametrize(
        ("size_bytes", "chunks"),
        [(0, 0), (1, 1), (1023, 1), (1024, 1), (1025, 2), (4 * GIB + 1, 4 * MIB + 1)],
    )
    def test_chunk_count(self, size_bytes: int, chunks: int) -> None:
        assert chunk_count_of(size_bytes) == chunks

    @pytest.mark.parametrize(
        ("size_bytes", "block_bytes"),
        [
            (0, KIB),
            (2 * MIB, KIB),
            (2 * MIB + 1, 2 * KIB),
            (128 * MIB, 64 * KIB),
            (64 * GIB, 64 * KIB),
            (64 * GIB + 1, 128 * KIB),
            (4 * TIB - 1024, 4 * MIB),
        ],
    )
    def test_block_bytes(self, size_bytes: int, block_bytes: int) -> None:
        assert block_bytes_of(size_bytes) == block_bytes

    @given(sizes)
    def test_block_size_is_a_power_of_two_within_bounds(self, size_bytes: int) -> None:
        block_bytes = block_bytes_of(size_bytes)
        assert block_bytes % CHUNK_BYTES == 0
        assert block_bytes & (block_bytes - 1) == 0
        assert -(-size_bytes // block_bytes) <= 2**20

    @given(st.integers(0, 2 * TIB), st.integers(1, 500))
    def test_shares_are_disjoint_exhaustive_and_even(self, size_bytes: int, share_count: int) -> None:
        manifest = Manifest("a.bin", size_bytes, b"", b"", share_count)
        shares = [manifest.share(index) for index in range(share_count)]
        assert shares[0].start == 0
        assert shares[-1].stop == manifest.chunk_count
        assert all(left.stop == right.start for left, right in pairwise(shares))
        counts = {share.chunk_count for share in shares}
        assert max(counts) - min(counts) <= 1

    def test_byte_span_ends_with_the_file(self) -> None:
        manifest = hollow(2500)
        assert manifest.byte_span(0, 1) == (0, 1024)
        assert manifest.byte_span(1, 3) == (1024, 1476)


class TestNames:
    @pytest.mark.parametrize("name", ["a", "a b.tar.gz", "ä" * 127, "..a", ".pspx", "-", "日本"])
    def test_valid_name_is_accepted(self, name: str) -> None:
        assert validate_name(name) == name

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("", "empty"),
            ("  ", "empty"),
            ("ä" * 128, "256 bytes"),
            ("a/b", "path"),
            ("a\\b", "path"),
            (".", "folder"),
            ("..", "folder"),
            (".psp", "folder"),
            ("a\nb", "control"),
            ("a\x7f", "control"),
            ("a\x85", "control"),
            ("a\0", "control"),
            ("\ud800", "Unicode"),
        ],
    )
    def test_invalid_name_is_refused(self, name: str, why: str) -> None:
        with pytest.raises(BadName, match=why) as caught:
            validate_name(name)
        assert "\n" not in str(caught.value)


class TestParse:
    @given(st.integers(0, 3000), st.integers(0, 9))
    def test_parse_accepts_a_built_manifest(self, size_bytes: int, share_count: int) -> None:
        manifest, _ = small(size_bytes, share_count)
        parts = manifest.name, size_bytes, manifest.block_digests, sha256, share_count, manifest.cut_digests
        assert Manifest.parse(*parts) == manifest

    @pytest.mark.parametrize(
        ("size_bytes", "blocks", "share_count", "cuts"),
        [
            (-1, 0, 0, 0),
            ((FILE_CHUNKS_MAX + 1) * CHUNK_BYTES, 0, 0, 0),
            (1024, 1, -1, 0),
            (1024, 1, SHARE_COUNT_MAX + 1, 0),
            (1024, 0, 0, 0),
            (1024, 2, 0, 0),
            (1024, 1, 1, 1),
            (9 * MIB, 4608, 7, 0),
        ],
    )
    def test_parse_refuses_inconsistent_parts(self, size_bytes: int, blocks: int, share_count: int, cuts: int) -> None:
        digests, cut_digests = bytes(blocks * DIGEST_BYTES), bytes(cuts * DIGEST_BYTES)
        with pytest.raises(BadArgument):
            Manifest.parse("a.bin", size_bytes, digests, sha256, share_count, cut_digests)

    def test_parse_refuses_an_invalid_name(self) -> None:
        with pytest.raises(BadName):
            Manifest.parse("..", 0, b"", sha256)

    def test_id_depends_on_name_size_and_content_only(self) -> None:
        digest = bytes(DIGEST_BYTES)
        manifest = Manifest.parse("a", 1000, digest, sha256)
        assert Manifest.parse("a", 1000, digest, sha256, share_count=3).file_id == manifest.file_id
        others = [("b", 1000, digest), ("a", 1001, digest), ("a", 1000, b"1" * DIGEST_BYTES)]
        assert manifest.file_id not in [Manifest.parse(*other, sha256).file_id for other in others]


class TestModes:
    @pytest.mark.parametrize(
        ("name", "data", "file_id"),
        [
            ("e", b"", "150765f7a4f8a6d281f110d0195cf653f48b0ad229e418dfddc720b6bb0f9806"),
            ("a.txt", A_TXT, "89fc73a65d20020e5f0dfe95ab8189b3fc1c8e2dc59b05c9de8a9bb2c67414b8"),
        ],
    )
    def test_id_of_a_file_with_0644_ignores_the_mode(self, name: str, data: bytes, file_id: str) -> None:
        """These ids were recorded before manifests had a mode."""
        assert built(name, data).file_id.hex() == file_id
        assert built(name, data, mode=0o644).file_id.hex() == file_id

    def test_folder_has_another_id_than_a_file(self) -> None:
        folder = Manifest.parse("a", 0, b"", sha256, is_folder=True)
        name = (1).to_bytes(2, "big") + b"a"
        assert folder.file_id == sha256((b"psp-folder-1\0" + bytes(8) + name,))
        assert folder.file_id != Manifest.parse("a", 0, b"", sha256).file_id

    def test_other_mode_is_part_of_the_id(self) -> None:
        manifest = built("a.txt", A_TXT, mode=0o750)
        digested = b"psp-manifest-2\0" + bytes([0x01, 0xE8]) + (5000).to_bytes(8, "big") + b"\0\5a.txt"
        assert manifest.file_id == blake3_digest((digested, manifest.block_digests))
        assert built("a.txt", A_TXT, mode=0o755).file_id.hex() == (
            "c4f42a300a8807cc2e6113891d51b4b542e5efea8e3e305f66543b2354feed0b"
        )
        ids = {built("a.txt", A_TXT, mode=mode).file_id for mode in range(0o400, 0o1000) if mode & 0o400}
        assert len(ids) == 0o400
        assert manifest.divided(2, lambda offset, length: A_TXT[offset : offset + length], blake3_digest).mode == 0o750

    @pytest.mark.parametrize("mode", [-1, 0, 0o200, 0o377, 0o1644, 0o2755, 0o4755, 0o100644, 2**32 - 1])
    def test_mode_out_of_range_is_refused(self, mode: int) -> None:
        with pytest.raises(BadArgument, match="of 'a' is not allowed"):
            Manifest.parse("a", 0, b"", sha256, mode=mode)

    def test_mode_of_a_folder_is_refused(self) -> None:
        with pytest.raises(BadArgument, match="in its archive"):
            Manifest.parse("a", 0, b"", sha256, is_folder=True, mode=0o755)


class TestUnits:
    @settings(deadline=None, max_examples=40)
    @example(17 * MIB, 15_000)  # blocks that two boundaries cut
    @example(17 * MIB, 40_000)  # more shares than chunks: boundaries that coincide
    @example(4 * KIB, 100)
    @given(st.integers(0, 300 * KIB) | st.integers(2 * MIB, 5 * MIB), st.integers(0, 20_000))
    def test_units_tile_the_file_and_end_at_share_boundaries(self, size_bytes: int, share_count: int) -> None:
        manifest = hollow(size_bytes, share_count)
        units = [unit for unit, _ in manifest.units(0, manifest.chunk_count)]
        assert [unit.start for unit in units] == [0, *(unit.stop for unit in units)][: len(units)]
        assert not units or units[-1].stop == manifest.chunk_count
        stops = {0, *(unit.stop for unit in units)}
        assert {manifest.share(index).stop for index in range(share_count)} <= stops
        # A unit is a whole block or a piece of one, never more.
        step = manifest.block_chunks
        assert all(unit.start // step == (unit.stop - 1) // step for unit in units)

    @settings(deadline=None, max_examples=40)
    @example(17 * MIB, 15_000)
    @example(17 * MIB, 40_000)
    @given(st.integers(1, 40 * MIB), st.integers(1, 20_000))
    def test_cut_pieces_are_the_units_smaller_than_their_block(self, size_bytes: int, share_count: int) -> None:
        manifest = hollow(size_bytes, share_count)
        step, last = manifest.block_chunks, manifest.chunk_count
        pieces = manifest.cut_pieces
        boundaries = {last, *range(0, last, step), *(manifest.share(i).start for i in range(share_count))}
        tiles = [Range(*pair) for pair in pairwise(sorted(boundaries))]
        assert pieces == [t for t in tiles if t.start % step or (t.stop % step and t.stop != last)]

    def test_unit_has_the_digest_of_its_bytes(self) -> None:
        size_bytes = 2 * MIB + 5 * KIB + 1
        manifest, data = small(size_bytes, 7)
        assert manifest.cut_digests
        for unit, expected in manifest.units(0, manifest.chunk_count):
            offset, length = manifest.byte_span(*unit)
            assert expected == sha256([data[offset : offset + length]])

    def test_units_of_a_range_include_cut_ends(self) -> None:
        manifest = hollow(3 * MIB)
        assert [unit for unit, _ in manifest.units(3, 5)] == [Range(2, 4), Range(4, 6)]
        assert list(manifest.units(3, 3)) == []


class TestWholeUnits:
    @settings(deadline=None, max_examples=60)
    @given(st.integers(1, 20 * MIB), st.integers(0, 20), st.data())
    def test_whole_units_exclude_cut_ends(self, size_bytes: int, share_count: int, data) -> None:
        manifest = hollow(size_bytes, share_count)
        start = data.draw(st.integers(0, manifest.chunk_count))
        stop = data.draw(st.integers(start, min(manifest.chunk_count, start + 50)))
        inside = [u for u, _ in manifest.units(start, stop) if u.start >= start and u.stop <= stop]
        found = manifest.whole_units(start, stop)
        assert found == (Range(inside[0].start, inside[-1].stop) if inside else Range(start, start))

    def test_whole_units_of_a_set(self) -> None:
        manifest = hollow(3 * MIB)
        assert manifest.whole_units_of(RangeSet([(1, 5), (7, 8), (10, 12)])) == RangeSet([(2, 4), (10, 12)])


class TestFrames:
    @given(st.integers(1, 9 * MIB), st.integers(0, 20), st.integers(1, 64), st.data())
    def test_frames_tile_a_range(self, size_bytes: int, share_count: int, frame_chunks: int, data) -> None:
        manifest = hollow(size_bytes, share_count)
        start = data.draw(st.integers(0, manifest.chunk_count))
        stop = min(manifest.chunk_count, start + data.draw(st.integers(0, 200)))
        while start < stop:
            frame = manifest.next_frame_range(start, stop, frame_chunks)
            assert frame.start == start
            assert 0 < frame.chunk_count <= frame_chunks
            assert frame.stop <= stop
            start = frame.stop

    def test_frame_ends_with_a_unit_if_possible(self) -> None:
        manifest = hollow(16 * MIB)
        assert manifest.block_chunks == 8
        assert manifest.next_frame_range(0, 100, 20) == Range(0, 16)
        assert manifest.next_frame_range(0, 10, 20) == Range(0, 10)
        assert manifest.next_frame_range(0, 100, 5) == Range(0, 5)
