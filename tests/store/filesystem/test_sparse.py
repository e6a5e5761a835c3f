"""Runs of zeros take no disk space, and the content is unchanged."""

from __future__ import annotations

import errno
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pspd.store.files.recovery
from pspd.core.model.manifest import CHUNK_BYTES, Manifest
from pspd.core.model.ranges import Range, RangeSet
from pspd.store.digests import blake3_digest
from pspd.store.filesystem.file_bytes import BLOCK_BYTES, write_sparse, zero_runs
from tests.store.stores import MIB, DiskBench, Sample, alter_byte, archived, error_of, in_steps

SIZE_BYTES = 8 * MIB + 700
DATA_BYTES_MAX = 128 * 1024
"""How much a file of ``SIZE_BYTES`` with 4 KiB of data may take: some file systems allocate 64 KiB at a time."""


class SparseSample(Sample):
    """A file of zeros with 4 KiB of unaligned data in its middle."""

    def __init__(self, name: str = "sparse.bin", share_count: int = 0) -> None:
        middle = SIZE_BYTES // 2 + 100
        self.data = bytes(middle) + random.Random(1).randbytes(4096) + bytes(SIZE_BYTES - middle - 4096)
        self.manifest = Manifest.build(name, SIZE_BYTES, self.read_at, blake3_digest)
        if share_count:
            self.manifest = self.divided(share_count)


def taken_bytes(path: Path) -> int:
    """Return how much disk space a file takes."""
    return path.stat().st_blocks * 512


@pytest.fixture(autouse=True, scope="module")
def holes(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip the tests where the file system has no holes."""
    path = tmp_path_factory.mktemp("holes") / "hole"
    with path.open("wb") as file:
        file.truncate(MIB)
    if taken_bytes(path) > DATA_BYTES_MAX:
        pytest.skip("no holes in this file system")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """An empty file."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


zero_or_not = st.sampled_from([b"\0", b"x"])
parts = st.lists(st.tuples(zero_or_not, st.sampled_from([1, 1023, 1024, 4095, 4096, 9000, 70_000])), max_size=5)
offsets = st.integers(0, 20).map(lambda chunk: chunk * CHUNK_BYTES)


def joined(parts: list[tuple[bytes, int]]) -> bytes:
    return b"".join(byte * count for byte, count in parts)


class TestZeroRuns:
    @settings(deadline=None)
    @given(offsets, parts)
    def test_zero_runs_are_the_blocks_of_zeros(self, offset: int, parts: list[tuple[bytes, int]]) -> None:
        data = joined(parts)
        boundaries = [0, *range(-offset % BLOCK_BYTES or BLOCK_BYTES, len(data), BLOCK_BYTES), len(data)]
        zeros = RangeSet(
            Range(start, stop) for start, stop in pairwise(boundaries) if start < stop and not any(data[start:stop])
        )
        found = zero_runs(offset, memoryview(data))
        assert found == [tuple(run) for run in zeros]

    @pytest.mark.parametrize("offset", [0, 1024])
    @pytest.mark.parametrize("size_bytes", [0, 1, 1024, MIB, 3 * MIB])
    def test_zero_runs_of_zeros_are_everything(self, offset: int, size_bytes: int) -> None:
        assert zero_runs(offset, memoryview(bytes(size_bytes))) == ([(0, size_bytes)] if size_bytes else [])


class TestWriteSparse:
    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.tuples(offsets, parts), max_size=6), st.booleans())
    def test_result_equals_a_plain_write(
        self, writes: list[tuple[int, list[tuple[bytes, int]]]], tells_holes: bool
    ) -> None:
        expected = b""
        with tempfile.TemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
            if not tells_holes:
                patch.setattr(os, "lseek", error_of(errno.EINVAL))
            for offset, parts in writes:
                data = joined(parts)
                write_sparse(file.fileno(), offset, memoryview(data))
                if data:
                    expected = expected.ljust(offset, b"\0")
                    expected = expected[:offset] + data + expected[offset + len(data) :]
            assert os.pread(file.fileno(), len(expected) + 1, 0) == expected

    def test_zeros_become_holes_and_set_the_length(self, file: int, tmp_path: Path) -> None:
        write_sparse(file, 1024, memoryview(bytes(4 * MIB)))
        assert (tmp_path / "file").stat().st_size == 1024 + 4 * MIB
        assert taken_bytes(tmp_path / "file") <= DATA_BYTES_MAX

    def test_zeros_overwrite_data(self, file: int) -> None:
        os.pwrite(file, b"wrong", 300_000)
        write_sparse(file, 0, memoryview(bytes(MIB)))
        assert os.pread(file, 2 * MIB, 0) == bytes(MIB)

    def test_data_without_zeros_is_one_write(self, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[int] = []
        pwrite: Callable[..., int] = os.pwrite

        def counted(fd: int, data: memoryview, offset: int) -> int:
            calls.append(len(data))
            return pwrite(fd, data, offset)

        monkeypatch.setattr(os, "pwrite", counted)
        monkeypatch.setattr(os, "lseek", error_of(errno.EINVAL))
        write_sparse(file, 1024, memoryview(b"x" * MIB))
        assert calls == [MIB]


class TestStore:
    @pytest.mark.parametrize("step_chunks", [1, 7, 1024])
    def test_sparse_file_stays_sparse(self, disk: DiskBench, step_chunks: int) -> None:
        """Chunks may arrive in any order, one by one in the classic profile."""
        sample = SparseSample(share_count=3)
        disk.begin(sample)
        spans = in_steps(sample, step_chunks)
        random.Random(1).shuffle(spans)
        for span in spans:
            assert not disk.write(sample, *span).corrupt
        disk.store.finish(sample.file_id)
        path = disk.folder / "sparse.bin"
        assert path.read_bytes() == sample.data
        assert taken_bytes(path) <= DATA_BYTES_MAX
        disk.store.flush_job(sample.file_id)()
        disk.store.record_flushed(sample.file_id)
        disk.store.verify(sample.file_id)
        assert disk.store.known()[sample.file_id].complete

    def test_unfinished_sparse_file_resumes(self, disk: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
        sample = SparseSample()
        disk.begin(sample)
        disk.write(sample, 0, 2000)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", error_of(errno.EIO))
            disk.restart()
        assert disk.store.known()[sample.file_id].verified == RangeSet([(0, 2000)])
        disk.begin(sample)
        disk.write_parts(sample, list(disk.store.missing(sample.file_id)))
        disk.store.finish(sample.file_id)
        assert (disk.folder / "sparse.bin").read_bytes() == sample.data

    def test_zeros_replace_wrong_bytes(self, disk: DiskBench) -> None:
        sample = SparseSample()
        disk.begin(sample)
        disk.write(sample, 0, 2000)
        alter_byte(disk.path(sample, "part"), 1_000_000)
        disk.restart()
        disk.begin(sample)
        disk.write_parts(sample, list(disk.store.missing(sample.file_id)))
        disk.store.finish(sample.file_id)
        assert (disk.folder / "sparse.bin").read_bytes() == sample.data

    def test_files_of_a_folder_are_sparse(self, disk: DiskBench, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.mkdir()
        (source / "a.bin").write_bytes(SparseSample().data)
        (source / "empty").touch()
        sample = Sample(0)
        sample.data = archived(source)
        sample.manifest = Manifest.build("folder", len(sample.data), sample.read_at, blake3_digest, is_folder=True)
        disk.receive(sample)
        unpacked = disk.folder / "folder" / "a.bin"
        assert unpacked.read_bytes() == SparseSample().data
        assert taken_bytes(unpacked) <= DATA_BYTES_MAX
        assert taken_bytes(disk.path(sample, "tar")) <= DATA_BYTES_MAX

    def test_salvaged_file_is_sparse(self, disk: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
        sample = SparseSample()
        monkeypatch.setattr(pspd.store.files.recovery, "current_boot_id", lambda: "the first boot")
        disk.receive(sample)
        monkeypatch.setattr(pspd.store.files.recovery, "current_boot_id", lambda: "the second boot")
        alter_byte(disk.folder / "sparse.bin", SIZE_BYTES // 2 + 500, later_ns=0)
        disk.restart()
        assert disk.store.known()[sample.file_id].verified.chunk_count > 0.9 * sample.manifest.chunk_count
        assert taken_bytes(disk.path(sample, "part")) <= DATA_BYTES_MAX
