"""The contract of ``pspd.core.model.storage.Storage``, for both stores."""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pspd.core.model.manifest import DIGEST_BYTES, Manifest
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import HeldChunks, Storage, WriteResult
from pspd.errors import ContradictoryDigests, IntegrityError, InternalError, StorageError
from pspd.store.digests import blake3_digest
from tests.store.stores import MIB, SIZES, Bench, DiskBench, MemoryBench, Sample, in_steps

BLOCKS_OF_TWO_BYTES = 2 * MIB + 3 * 1024
"""The smallest round size whose blocks have two chunks."""


@pytest.fixture(scope="module")
def pairs() -> Sample:
    return Sample(BLOCKS_OF_TWO_BYTES)


def test_new_store_is_an_empty_storage(bench: Bench) -> None:
    store: Storage = bench.store
    assert store.known() == {}


class TestWholeFiles:
    @pytest.mark.parametrize("share_count", [0, 7])
    @pytest.mark.parametrize("size_bytes", SIZES)
    def test_file_arrives_byte_for_byte(self, bench: Bench, size_bytes: int, share_count: int) -> None:
        sample = Sample(size_bytes, share_count)
        assert bench.begin(sample) == HeldChunks(RangeSet(), complete=False)
        assert bench.store.missing(sample.file_id) == sample.all
        bench.write_all(sample)
        assert bench.visible() == {}
        bench.store.finish(sample.file_id)
        assert bench.visible() == {"a.bin": sample.data}
        assert bench.store.known() == {sample.file_id: HeldChunks(sample.all, complete=True)}
        assert bench.begin(sample) == HeldChunks(sample.all, complete=True)
        assert not bench.store.missing(sample.file_id)
        assert bench.store.manifest(sample.file_id) == sample.manifest
        if size_bytes:
            assert bench.payload(sample, 0, sample.manifest.chunk_count) == sample.data

    @pytest.mark.parametrize("size_bytes", [5000, 700 * 1024 + 1])
    def test_chunks_arrive_in_any_order(self, bench: Bench, size_bytes: int) -> None:
        sample = Sample(size_bytes, share_count=3)
        bench.begin(sample)
        spans = in_steps(sample, 1)
        random.Random(1).shuffle(spans)
        bench.write_parts(sample, spans)
        bench.store.finish(sample.file_id)
        assert bench.visible() == {"a.bin": sample.data}

    def test_several_files_share_a_store(self, bench: Bench) -> None:
        samples = [Sample(5000 + index, name=f"f{index}") for index in range(5)]
        for sample in samples:
            bench.begin(sample)
        for sample in samples:
            bench.write_all(sample, 2)
        for sample in samples:
            bench.store.finish(sample.file_id)
        assert bench.visible() == {sample.manifest.name: sample.data for sample in samples}

    def test_finish_twice_is_harmless(self, bench: Bench) -> None:
        sample = Sample(5000)
        bench.receive(sample)
        bench.store.finish(sample.file_id)
        assert bench.visible() == {"a.bin": sample.data}

    def test_finished_file_is_still_served(self, bench: Bench) -> None:
        sample = Sample(5000)
        bench.receive(sample)
        assert bench.payload(sample, 4, 5) == sample.data[4096:]


def with_other_block_digest(manifest: Manifest, chunk: int) -> Manifest:
    """Return the manifest of another file with the same division, whose digest for a chunk's block is wrong."""
    offset = chunk // manifest.block_chunks * DIGEST_BYTES
    digests = bytearray(manifest.block_digests)
    digests[offset : offset + DIGEST_BYTES] = blake3_digest((b"other bytes",))
    return Manifest.parse(
        manifest.name, manifest.size_bytes, bytes(digests), blake3_digest, manifest.share_count, manifest.cut_digests
    )


class TestUnits:
    def test_unit_is_verified_when_whole(self, bench: Bench, pairs: Sample) -> None:
        bench.begin(pairs)
        assert bench.write(pairs, 1, 3) == WriteResult()
        assert bench.write(pairs, 0, 1) == WriteResult(verified=RangeSet([Range(0, 2)]))
        assert bench.write(pairs, 3, 8) == WriteResult(verified=RangeSet([Range(2, 4), Range(4, 6), Range(6, 8)]))
        assert bench.store.known()[pairs.file_id] == HeldChunks(RangeSet([(0, 8)]), complete=False)

    def test_incomplete_unit_is_not_requested_again(self, bench: Bench, pairs: Sample) -> None:
        bench.begin(pairs)
        bench.write(pairs, 1, 2)
        assert bench.store.missing(pairs.file_id).within(0, 4) == [Range(0, 1), Range(2, 4)]
        assert not bench.begin(pairs).verified

    def test_pieces_of_a_cut_block_are_verified_separately(self, bench: Bench) -> None:
        sample = Sample(BLOCKS_OF_TWO_BYTES, share_count=7)
        pieces = sample.manifest.cut_pieces
        assert pieces
        bench.begin(sample)
        for piece in pieces:
            assert bench.write(sample, *piece) == WriteResult(verified=RangeSet([piece]))
            assert bench.payload(sample, *piece) == sample.chunks(*piece)

    def test_contradictory_digests_are_refused(self, bench: Bench) -> None:
        sample = Sample(BLOCKS_OF_TWO_BYTES, share_count=7)
        first, second = sample.manifest.cut_pieces[:2]
        sample.manifest = with_other_block_digest(sample.manifest, first.start)
        bench.begin(sample)
        assert bench.write(sample, *first) == WriteResult(verified=RangeSet([first]))
        with pytest.raises(ContradictoryDigests, match="contradict each other"):
            bench.write(sample, *second)
        assert not bench.store.known()[sample.file_id].verified, "no piece is verified: the file is never complete"

    def test_wrong_bytes_are_no_contradiction(self, bench: Bench) -> None:
        sample = Sample(BLOCKS_OF_TWO_BYTES, share_count=7)
        first, second = sample.manifest.cut_pieces[:2]
        sample.manifest = with_other_block_digest(sample.manifest, first.start)
        bench.begin(sample)
        bench.write(sample, *first)
        corrupt = bytearray(sample.chunks(*second))
        corrupt[0] ^= 1
        for _ in range(20):
            written = bench.store.write(sample.file_id, *second, memoryview(corrupt))
            assert written == WriteResult(corrupt=[second])

    def test_changed_bytes_are_no_contradiction(self, bench: Bench) -> None:
        sample = Sample(BLOCKS_OF_TWO_BYTES, share_count=7)
        first, second = sample.manifest.cut_pieces[:2]
        bench.begin(sample)
        bench.write(sample, *first)
        bench.alter(sample, first.start * 1024)
        assert Range(first.start, second.stop) in bench.write(sample, *second).corrupt

    def test_corrupt_unit_is_requested_again(self, bench: Bench, pairs: Sample) -> None:
        bench.begin(pairs)
        corrupt = bytearray(pairs.chunks(0, 6))
        corrupt[2 * 1024] ^= 1
        written = bench.store.write(pairs.file_id, 0, 6, memoryview(corrupt))
        assert written == WriteResult(verified=RangeSet([Range(0, 2), Range(4, 6)]), corrupt=[Range(2, 4)])
        assert bench.store.missing(pairs.file_id).within(0, 6) == [Range(2, 4)]
        with pytest.raises(InternalError):
            bench.payload(pairs, 2, 4)
        assert bench.write(pairs, 2, 4) == WriteResult(verified=RangeSet([Range(2, 4)]))

    def test_verified_unit_is_never_overwritten(self, bench: Bench, pairs: Sample) -> None:
        bench.begin(pairs)
        bench.write(pairs, 2, 4)
        corrupt = bytearray(pairs.chunks(0, 6))
        corrupt[2 * 1024 : 4 * 1024] = bytes(2048)
        written = bench.store.write(pairs.file_id, 0, 6, memoryview(corrupt))
        assert written == WriteResult(verified=RangeSet([Range(0, 2), Range(4, 6)]))
        assert bench.payload(pairs, 0, 6) == pairs.chunks(0, 6)

    def test_write_leaves_a_finished_file_alone(self, bench: Bench) -> None:
        sample = Sample(5000)
        bench.receive(sample)
        assert bench.store.write(sample.file_id, 0, 1, memoryview(bytes(1024))) == WriteResult()
        assert bench.visible() == {"a.bin": sample.data}


class TestDivision:
    def test_division_may_change_before_any_write(self, bench: Bench) -> None:
        sample = Sample(BLOCKS_OF_TWO_BYTES)
        bench.begin(sample)
        sample.manifest = sample.divided(7)
        bench.begin(sample)
        assert bench.store.manifest(sample.file_id).share_count == 7
        piece = sample.manifest.cut_pieces[0]
        assert bench.write(sample, *piece).verified == RangeSet([piece])

    @pytest.mark.parametrize(("before", "after"), [(7, 0), (0, 7), (7, 5)])
    def test_division_may_change_without_losing_chunks(self, bench: Bench, before: int, after: int) -> None:
        sample = Sample(BLOCKS_OF_TWO_BYTES, before)
        bench.begin(sample)
        boundary = sample.manifest.share(3).start if before else sample.divided(7).share(3).start
        assert boundary % 2 == 1
        bench.write(sample, 0, boundary)
        sample.manifest = sample.divided(after)
        held = bench.begin(sample)
        assert bench.store.missing(sample.file_id) == RangeSet([(boundary, sample.manifest.chunk_count)])
        # With (7, 0) and (7, 5) the last chunk waits for the rest of its unit; with (0, 7) its unit is verified.
        assert held.verified == RangeSet([(0, boundary if after == 7 else boundary - 1)])
        bench.write_all(sample)
        bench.store.finish(sample.file_id)
        assert bench.visible() == {"a.bin": sample.data}

    def test_division_of_a_finished_file_may_change(self, bench: Bench) -> None:
        sample = Sample(BLOCKS_OF_TWO_BYTES, 7)
        bench.receive(sample)
        sample.manifest = sample.divided(5)
        assert bench.begin(sample) == HeldChunks(sample.all, complete=True)
        assert bench.store.manifest(sample.file_id).share_count == 5


class TestRefusals:
    def test_finish_refuses_an_incomplete_file(self, bench: Bench) -> None:
        sample = Sample(5000)
        bench.begin(sample)
        bench.write(sample, 0, 4)
        with pytest.raises(IntegrityError, match="4 of its 5 chunks"):
            bench.store.finish(sample.file_id)
        assert bench.visible() == {}

    @pytest.mark.parametrize(("start", "stop"), [(0, 0), (3, 2), (-1, 1), (0, 6), (5, 6)])
    def test_ranges_outside_the_file_are_refused(self, bench: Bench, start: int, stop: int) -> None:
        sample = Sample(5000)
        bench.begin(sample)
        with pytest.raises(InternalError):
            bench.store.write(sample.file_id, start, stop, memoryview(b""))
        with pytest.raises(InternalError):
            bench.store.payload(sample.file_id, start, stop)

    @pytest.mark.parametrize("length", [0, 903, 905, 1024])
    def test_write_refuses_a_wrong_number_of_bytes(self, bench: Bench, length: int) -> None:
        sample = Sample(5000)
        bench.begin(sample)
        with pytest.raises(InternalError, match="904 bytes"):
            bench.store.write(sample.file_id, 4, 5, memoryview(bytes(length)))

    def test_payload_refuses_unverified_chunks(self, bench: Bench, pairs: Sample) -> None:
        bench.begin(pairs)
        bench.write(pairs, 0, 3)
        assert bench.payload(pairs, 0, 2) == pairs.chunks(0, 2)
        with pytest.raises(InternalError, match="not verified"):
            bench.payload(pairs, 0, 3)

    def test_unknown_files_are_refused(self, bench: Bench) -> None:
        unknown = bytes(32)
        for ask in (bench.store.missing, bench.store.finish, bench.store.manifest, bench.store.verify):
            with pytest.raises(InternalError, match="not known"):
                ask(unknown)
        with pytest.raises(InternalError, match="not known"):
            bench.store.write(unknown, 0, 1, memoryview(b"x"))
        with pytest.raises(InternalError, match="not known"):
            bench.store.payload(unknown, 0, 1)


class TestNames:
    @pytest.mark.parametrize("size_bytes", SIZES)
    def test_equal_file_is_adopted(self, bench: Bench, size_bytes: int) -> None:
        sample = Sample(size_bytes, share_count=7)
        bench.put("a.bin", sample.data)
        assert bench.begin(sample) == HeldChunks(sample.all, complete=True)
        assert bench.visible() == {"a.bin": sample.data}
        bench.store.finish(sample.file_id)

    @pytest.mark.parametrize("change", [b"", b"x", b"longer"])
    def test_other_file_is_never_overwritten(self, bench: Bench, change: bytes) -> None:
        sample = Sample(5000)
        other = sample.data[: -len(b"x")] + change
        bench.put("a.bin", other)
        with pytest.raises(StorageError, match=r"another file named 'a\.bin' .*: move it away"):
            bench.begin(sample)
        assert bench.visible() == {"a.bin": other}
        assert bench.store.known() == {}

    def test_other_file_that_appears_later_is_not_overwritten(self, bench: Bench) -> None:
        sample = Sample(5000)
        bench.begin(sample)
        bench.write_all(sample)
        bench.put("a.bin", b"other")
        with pytest.raises(StorageError, match="another file"):
            bench.store.finish(sample.file_id)
        with pytest.raises(StorageError, match="another file"):
            bench.begin(sample)
        assert bench.visible() == {"a.bin": b"other"}
        assert bench.store.known() == {sample.file_id: HeldChunks(sample.all, complete=False)}

    def test_equal_file_that_appears_later_is_adopted(self, bench: Bench) -> None:
        sample = Sample(5000)
        bench.begin(sample)
        bench.write(sample, 0, 2)
        bench.put("a.bin", sample.data)
        assert bench.begin(sample) == HeldChunks(sample.all, complete=True)
        assert bench.payload(sample, 0, 5) == sample.data

    def test_name_goes_to_the_file_that_finishes_first(self, bench: Bench) -> None:
        one, other = Sample(5000), Sample(5000, seed=1)
        for sample in (one, other):
            bench.begin(sample)
            bench.write_all(sample)
        bench.store.finish(one.file_id)
        with pytest.raises(StorageError, match="another file"):
            bench.store.finish(other.file_id)
        assert bench.visible() == {"a.bin": one.data}


class TestVerify:
    def test_verify_drops_changed_bytes(self, bench: Bench, pairs: Sample) -> None:
        bench.begin(pairs)
        bench.write(pairs, 0, 8)
        bench.alter(pairs, 3 * 1024)
        bench.store.verify(pairs.file_id)
        assert bench.store.known()[pairs.file_id] == HeldChunks(RangeSet([(0, 2), (4, 8)]), complete=False)
        assert bench.store.missing(pairs.file_id).within(0, 8) == [Range(2, 4)]
        assert bench.payload(pairs, 4, 8) == pairs.chunks(4, 8)
        with pytest.raises(InternalError, match="not verified"):
            bench.payload(pairs, 2, 4)

    def test_verify_requests_only_the_changed_bytes(self, bench: Bench, pairs: Sample) -> None:
        bench.begin(pairs)
        bench.write_all(pairs)
        bench.alter(pairs, 0)
        bench.store.verify(pairs.file_id)
        assert bench.store.missing(pairs.file_id) == RangeSet([(0, 2)])
        bench.write(pairs, 0, 2)
        bench.store.finish(pairs.file_id)
        assert bench.visible() == {"a.bin": pairs.data}

    def test_verify_keeps_intact_chunks(self, bench: Bench) -> None:
        sample = Sample(BLOCKS_OF_TWO_BYTES, share_count=7)
        piece = sample.manifest.cut_pieces[0]
        bench.begin(sample)
        bench.write_parts(sample, [piece, (1000, 1200)])
        before = bench.store.known()
        bench.store.verify(sample.file_id)
        assert bench.store.known() == before
        assert bench.payload(sample, *piece) == sample.chunks(*piece)

    def test_verify_requests_chunks_of_incomplete_units(self, bench: Bench, pairs: Sample) -> None:
        bench.begin(pairs)
        bench.write(pairs, 0, 3)
        bench.store.verify(pairs.file_id)
        assert bench.store.missing(pairs.file_id).within(0, 4) == [Range(2, 4)]

    def test_verify_leaves_an_intact_finished_file_complete(self, bench: Bench) -> None:
        sample = Sample(5000)
        bench.receive(sample)
        bench.store.verify(sample.file_id)
        assert bench.store.known() == {sample.file_id: HeldChunks(sample.all, complete=True)}
        assert bench.payload(sample, 0, 5) == sample.data
        assert bench.visible() == {"a.bin": sample.data}


class TestDiscard:
    def test_discard_removes_unfinished_files_only(self, bench: Bench) -> None:
        whole, part = Sample(5000), Sample(6000, name="b.bin")
        bench.receive(whole)
        bench.begin(part)
        bench.write(part, 0, 3)
        for sample in (whole, part, part):
            bench.store.discard(sample.file_id)
        assert bench.store.known() == {}
        assert bench.visible() == {"a.bin": whole.data}
        assert bench.begin(part) == HeldChunks(RangeSet(), complete=False)
        assert bench.begin(whole).complete


class TestChangedFiles:
    def test_changed_file_is_not_sent_until_verified(self, bench: Bench, pairs: Sample) -> None:
        bench.begin(pairs)
        bench.write(pairs, 0, 8)
        bench.alter(pairs, 3 * 1024)
        for span in [(0, 2), (2, 4)]:
            with pytest.raises(StorageError, match="was changed by another program"):
                bench.payload(pairs, *span)
        bench.store.verify(pairs.file_id)
        assert bench.payload(pairs, 0, 2) == pairs.chunks(0, 2)

    def test_change_is_still_known_after_further_writes(self, bench: Bench, pairs: Sample) -> None:
        bench.begin(pairs)
        bench.write(pairs, 0, 8)
        bench.alter(pairs, 3 * 1024)
        bench.write(pairs, 8, 10)
        with pytest.raises(StorageError, match="was changed by another program"):
            bench.payload(pairs, 2, 4)

    def test_changed_file_is_not_finished(self, bench: Bench) -> None:
        sample = Sample(5000)
        bench.begin(sample)
        bench.write_all(sample)
        bench.alter(sample, 4096)
        with pytest.raises(IntegrityError, match="changed by another program"):
            bench.store.finish(sample.file_id)
        bench.store.verify(sample.file_id)
        with pytest.raises(IntegrityError, match="4 of its 5 chunks"):
            bench.store.finish(sample.file_id)
        assert bench.visible() == {}
        bench.write_parts(sample, bench.store.missing(sample.file_id))
        bench.store.finish(sample.file_id)
        assert bench.visible() == {"a.bin": sample.data}


def forged(sample: Sample) -> tuple[Sample, Range]:
    """Return a sample whose first cut block is corrupt and whose piece digests match the corrupt bytes; and that block.

    The file's id covers the digests of whole blocks only, so the sample has the same file id.
    """
    block, _ = sample.manifest.block_at(sample.manifest.cut_pieces[0].start)
    other = Sample(len(sample.data), sample.manifest.share_count)
    corrupt = bytearray(sample.data)
    for chunk in range(*block):
        corrupt[chunk * 1024] ^= 1
    other.data = bytes(corrupt)
    other.manifest = replace(sample.manifest, cut_digests=other.divided(sample.manifest.share_count).cut_digests)
    assert other.file_id == sample.file_id
    return other, block


class TestForgedDigestsOfPieces:
    @pytest.mark.parametrize("at_once", [True, False], ids=["at-once", "piece-by-piece"])
    def test_forged_pieces_do_not_verify_a_block(self, bench: Bench, at_once: bool) -> None:
        forgery, block = forged(Sample(BLOCKS_OF_TWO_BYTES, share_count=7))
        bench.begin(forgery)
        start = block.start
        if not at_once:
            piece = forgery.manifest.unit_at(block.start)[0]
            assert bench.write(forgery, *piece) == WriteResult(verified=RangeSet([piece]))
            start = piece.stop
        with pytest.raises(ContradictoryDigests):
            bench.write(forgery, start, block.stop)
        assert not bench.store.known()[forgery.file_id].verified
        assert bench.store.missing(forgery.file_id) == forgery.all

    def test_forged_file_is_never_finished(self, bench: Bench) -> None:
        forgery, block = forged(Sample(BLOCKS_OF_TWO_BYTES, share_count=7))
        bench.begin(forgery)
        bench.write(forgery, 0, block.start)
        with pytest.raises(ContradictoryDigests):
            bench.write(forgery, *block)
        bench.write(forgery, block.stop, forgery.manifest.chunk_count)
        assert bench.store.missing(forgery.file_id) == RangeSet([block])
        with pytest.raises(IntegrityError, match="cannot be finished"):
            bench.store.finish(forgery.file_id)
        assert bench.visible() == {}

    def test_forged_pieces_are_dropped_with_a_correct_division(self, bench: Bench) -> None:
        sample = Sample(BLOCKS_OF_TWO_BYTES, share_count=7)
        forgery, block = forged(sample)
        bench.begin(forgery)
        bench.write(forgery, *forgery.manifest.unit_at(block.start)[0])
        bench.begin(sample)
        while missing := bench.store.missing(sample.file_id):
            bench.write_parts(sample, missing)
        bench.store.finish(sample.file_id)
        assert bench.visible() == {"a.bin": sample.data}


class TestHeld:
    def test_known_is_a_snapshot(self, bench: Bench) -> None:
        sample = Sample(5000)
        bench.begin(sample)
        known = bench.store.known()[sample.file_id]
        bench.write(sample, 0, 2)
        assert not known.verified

    def test_begin_returns_a_live_view(self, bench: Bench) -> None:
        sample = Sample(5000)
        verified = bench.begin(sample).verified
        bench.write(sample, 0, 2)
        assert verified == RangeSet([(0, 2)])


SMALL = Sample(40 * 1024 + 1, share_count=3)
CUT = Sample(BLOCKS_OF_TWO_BYTES, share_count=7)
CUT_START = CUT.manifest.share(1).start - 20


@st.composite
def write_steps(draw: st.DrawFn) -> list[tuple[int, int, bool]]:
    """Generate ranges of 41 chunks in any order, perhaps overlapping, some with a wrong byte."""
    spans = st.tuples(st.integers(0, 40), st.integers(1, 12), st.booleans())
    return [(start, min(start + count, 41), good) for start, count, good in draw(st.lists(spans, max_size=25))]


@settings(deadline=None, max_examples=40)
@given(steps=write_steps(), sample_and_start=st.sampled_from([(SMALL, 0), (CUT, CUT_START)]))
@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_any_order_of_writes_gives_the_same_file(
    kind: str, steps: list[tuple[int, int, bool]], sample_and_start: tuple[Sample, int]
) -> None:
    sample, first = sample_and_start
    with tempfile.TemporaryDirectory() as folder:
        bench = DiskBench(Path(folder)) if kind == "disk" else MemoryBench()
        try:
            bench.begin(sample)
            for start, stop, good in steps:
                data = bytearray(sample.chunks(first + start, first + stop))
                data[len(data) // 2] ^= not good
                written = bench.store.write(sample.file_id, first + start, first + stop, memoryview(data))
                for unit in written.verified:
                    assert bench.payload(sample, *unit) == sample.chunks(*unit)
            # A wrong byte in an incomplete unit is found when the unit is complete: this takes at most one more round.
            while missing := bench.store.missing(sample.file_id):
                bench.write_parts(sample, missing)
            bench.store.finish(sample.file_id)
            assert bench.visible() == {"a.bin": sample.data}
        finally:
            bench.store.close()
