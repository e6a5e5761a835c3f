"""The file that a source seeds is read and never written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pspd.core.model.ranges import RangeSet
from pspd.core.model.storage import FileSlice, HeldChunks, Storage
from pspd.errors import BadArgument, BadName, InternalError, StorageError
from pspd.store.digests import blake3_digest
from pspd.store.source import source_store
from pspd.store.source.source_store import SourceStore
from tests.store.stores import MIB, SIZES, Sample, alter_byte, error_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "given name"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[[Sample], SourceStore]]:
    """Open stores on samples; close them at the end."""
    stores: list[SourceStore] = []

    def open_sample(sample: Sample) -> SourceStore:
        path.write_bytes(sample.data)
        stores.append(SourceStore(path, "a.bin", blake3_digest))
        return stores[-1]

    yield open_sample
    for store in stores:
        store.close()


Opened = Callable[[Sample], SourceStore]


class TestServing:
    @pytest.mark.parametrize("size_bytes", SIZES)
    def test_store_builds_divides_and_serves(self, opened: Opened, size_bytes: int) -> None:
        sample = Sample(size_bytes)
        store = opened(sample)
        as_storage: Storage = store
        assert as_storage.known() == {}
        assert store.size_bytes == size_bytes
        assert store.build_manifest() == sample.manifest
        assert store.divide(7) == sample.divided(7) == store.manifest(sample.file_id)
        everything = HeldChunks(sample.all, complete=True)
        assert store.known() == {sample.file_id: everything}
        assert store.begin(sample.divided(5)) == everything
        assert store.manifest(sample.file_id).share_count == 5
        assert store.missing(sample.file_id) == RangeSet()
        store.finish(sample.file_id)
        for start in range(0, min(sample.manifest.chunk_count, 5)):
            part = store.payload(sample.file_id, start, start + 1)
            assert isinstance(part, FileSlice)
            assert os.pread(part.fd, part.length, part.offset) == sample.chunks(start, start + 1)

    def test_build_reports_progress(self, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(source_store, "_PROGRESS_INTERVAL_BYTES", 3 * MIB)
        told: list[int] = []
        opened(Sample(8 * MIB)).build_manifest(told.append)
        assert told == [3 * MIB, 6 * MIB, 8 * MIB]

    def test_build_reports_progress_of_an_empty_file(self, opened: Opened) -> None:
        told: list[int] = []
        opened(Sample(0)).build_manifest(told.append)
        assert told == [0]

    def test_replaced_file_is_still_served(self, opened: Opened, path: Path) -> None:
        sample = Sample(5000)
        store = opened(sample)
        store.build_manifest()
        path.unlink()
        part = store.payload(sample.file_id, 0, 5)
        assert os.pread(part.fd, part.length, part.offset) == sample.data

    def test_close_twice_is_harmless(self, opened: Opened) -> None:
        store = opened(Sample(1))
        store.close()
        store.close()


def spoil(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def replace(path: Path) -> None:
    (path.parent / "new").write_bytes(path.read_bytes())
    (path.parent / "new").replace(path)


class TestChanges:
    @pytest.mark.parametrize("change", [spoil, lengthen, replace, Path.unlink, lambda path: os.truncate(path, 100)])
    def test_change_during_build_is_refused(
        self, opened: Opened, path: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, whole_read, read_count = opened(Sample(5000)), os.pread, 0

        def change_in_the_middle(fd: int, length: int, offset: int) -> bytes:
            nonlocal read_count
            read_count += 1
            if read_count == 3:
                change(path)
            return whole_read(fd, length, offset)

        monkeypatch.setattr(os, "pread", change_in_the_middle)
        with pytest.raises(StorageError, match="was changed while it was read: seed it again"):
            store.build_manifest()
        assert store.known() == {}

    def test_change_after_build_is_refused(self, opened: Opened, path: Path) -> None:
        sample = Sample(5000)
        store = opened(sample)
        store.build_manifest()
        spoil(path)
        with pytest.raises(StorageError, match="was changed"):
            store.payload(sample.file_id, 0, 1)
        with pytest.raises(StorageError, match="was changed"):
            store.divide(7)


class TestVerify:
    @pytest.mark.parametrize("share_count", [0, 7])
    @pytest.mark.parametrize("size_bytes", SIZES)
    def test_unchanged_file_stays_held(self, opened: Opened, size_bytes: int, share_count: int) -> None:
        sample = Sample(size_bytes)
        store = opened(sample)
        store.build_manifest()
        if share_count:
            store.divide(share_count)
        store.verify(sample.file_id)
        assert store.known() == {sample.file_id: HeldChunks(sample.all, complete=True)}

    @pytest.mark.parametrize("change", [spoil, lengthen, lambda path: os.truncate(path, 100)])
    def test_changed_file_is_refused(self, opened: Opened, path: Path, change: Callable[[Path], None]) -> None:
        sample = Sample(5000)
        store = opened(sample)
        store.build_manifest()
        change(path)
        with pytest.raises(StorageError, match="was changed while it was read: seed it again"):
            store.verify(sample.file_id)

    def test_changed_file_with_restored_time_is_refused(self, opened: Opened, path: Path) -> None:
        sample = Sample(5000)
        store = opened(sample)
        store.build_manifest()
        alter_byte(path, 3000, later_ns=0)
        assert store.payload(sample.file_id, 2, 3)
        with pytest.raises(StorageError, match="was changed"):
            store.verify(sample.file_id)

    def test_unknown_file_is_refused(self, opened: Opened) -> None:
        store = opened(Sample(5000))
        store.build_manifest()
        with pytest.raises(InternalError, match="not known"):
            store.verify(bytes(32))

    def test_failed_read_in_verify_raises(self, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
        sample = Sample(5000)
        store = opened(sample)
        store.build_manifest()
        monkeypatch.setattr(os, "pread", error_of(errno.EIO))
        with pytest.raises(StorageError, match=r"cannot read .*: Input/output error"):
            store.verify(sample.file_id)


class TestRefusals:
    def test_write_is_refused(self, opened: Opened) -> None:
        sample = Sample(5000)
        store = opened(sample)
        store.build_manifest()
        with pytest.raises(InternalError, match="requests none"):
            store.write(sample.file_id, 0, 1, sample.chunks(0, 1))

    def test_use_before_build_is_refused(self, opened: Opened) -> None:
        sample = Sample(5000)
        store = opened(sample)
        with pytest.raises(InternalError, match="not built"):
            store.divide(7)
        with pytest.raises(InternalError, match="not built"):
            store.missing(sample.file_id)

    def test_other_files_and_ranges_are_refused(self, opened: Opened) -> None:
        sample = Sample(5000)
        store = opened(sample)
        store.build_manifest()
        with pytest.raises(InternalError, match="not known"):
            store.begin(Sample(5001).manifest)
        for start, stop in [(0, 0), (-1, 1), (0, 6), (2, 1)]:
            with pytest.raises(InternalError, match="no chunks"):
                store.payload(sample.file_id, start, stop)

    def test_unreadable_paths_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match=r"cannot read .*: No such file"):
            SourceStore(tmp_path / "nothing", "a.bin", blake3_digest)
        with pytest.raises(BadArgument, match="not a regular file"):
            SourceStore(Path(os.devnull), "a.bin", blake3_digest)
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(BadArgument, match="not a regular file"):
            SourceStore(tmp_path / "pipe", "a.bin", blake3_digest)

    @pytest.mark.skipif(not os.path.exists("/proc/version"), reason="no such files here")
    def test_generated_file_is_refused(self) -> None:
        with pytest.raises(BadArgument, match="its size is unknown until it is read"):
            SourceStore(Path("/proc/version"), "a.bin", blake3_digest)

    def test_name_with_a_path_is_refused(self, path: Path) -> None:
        path.write_bytes(b"")
        with pytest.raises(BadName):
            SourceStore(path, "../a", blake3_digest)

    def test_failed_read_in_build_raises(self, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
        store = opened(Sample(5000))
        monkeypatch.setattr(os, "pread", error_of(errno.EIO))
        with pytest.raises(StorageError, match=r"cannot read .*: Input/output error: check the disk"):
            store.build_manifest()
