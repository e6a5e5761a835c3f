"""A client's folder after restarts, name conflicts with the user's files, and disk errors."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import HeldChunks, WriteResult
from pspd.errors import IntegrityError, StorageError
from pspd.store.digests import blake3_digest
from pspd.store.files.disk import DiskStore
from tests.store.stores import MIB, SIZES, DiskBench, Sample, error_of, mode_of, umask_of

RECORD_BYTES = 12


class TestRestart:
    @pytest.mark.parametrize("share_count", [0, 7])
    @pytest.mark.parametrize("size_bytes", SIZES)
    def test_finished_file_is_known_without_reading(
        self, disk: DiskBench, size_bytes: int, share_count: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sample = Sample(size_bytes, share_count)
        disk.receive(sample)
        monkeypatch.setattr(os, "pread", error_of(errno.EIO))
        disk.restart()
        assert disk.store.known() == {sample.file_id: HeldChunks(sample.all, complete=True)}
        assert disk.store.manifest(sample.file_id) == sample.manifest

    def test_unfinished_file_resumes(self, disk: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
        sample = Sample(2 * MIB + 1024, share_count=7)
        disk.begin(sample)
        disk.write_parts(sample, [(0, 100), (300, 301), (1000, 2000)])
        verified = disk.store.known()[sample.file_id].verified
        assert verified == RangeSet([(0, 100), (1000, 2000)])
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", error_of(errno.EIO))
            disk.restart()
        assert disk.store.known() == {sample.file_id: HeldChunks(verified, complete=False)}
        assert disk.begin(sample) == HeldChunks(verified, complete=False)
        assert disk.payload(sample, 1000, 2000) == sample.chunks(1000, 2000)
        disk.write_parts(sample, disk.store.missing(sample.file_id))
        disk.store.finish(sample.file_id)
        disk.restart()
        assert disk.visible() == {"a.bin": sample.data}
        assert disk.store.known()[sample.file_id].complete

    def test_complete_file_can_be_finished_after_restart(self, disk: DiskBench) -> None:
        sample = Sample(5000)
        disk.begin(sample)
        disk.write_all(sample)
        disk.restart()
        disk.store.finish(sample.file_id)
        assert disk.visible() == {"a.bin": sample.data}

    def test_empty_file_can_be_finished_after_restart(self, disk: DiskBench) -> None:
        sample = Sample(0)
        disk.begin(sample)
        disk.restart()
        assert disk.store.known() == {sample.file_id: HeldChunks(RangeSet(), complete=False)}
        disk.store.finish(sample.file_id)
        assert disk.visible() == {"a.bin": b""}

    def test_division_survives_a_restart(self, disk: DiskBench) -> None:
        sample = Sample(2 * MIB + 1024)
        disk.begin(sample)
        sample.manifest = sample.divided(7)
        disk.begin(sample)
        piece = sample.manifest.cut_pieces[0]
        disk.write(sample, *piece)
        disk.restart()
        assert disk.store.manifest(sample.file_id) == sample.manifest
        assert disk.store.known()[sample.file_id].verified == RangeSet([piece])

    def test_chunks_unverified_by_a_new_division_are_not_trusted(self, disk: DiskBench) -> None:
        sample = Sample(2 * MIB + 1024, share_count=7)
        cut, whole = sample.manifest, sample.divided(0)
        piece = cut.cut_pieces[0]
        disk.begin(sample)
        disk.write(sample, *piece)
        sample.manifest = whole
        disk.begin(sample)
        disk.store.write(sample.file_id, *piece, memoryview(bytes(piece.chunk_count * 1024)))
        sample.manifest = cut
        disk.restart()
        assert not disk.begin(sample).verified

    def test_instance_id_survives_a_restart(self, disk: DiskBench, tmp_path: Path) -> None:
        instance_id = disk.store.instance_id
        assert len(instance_id) == 16
        disk.restart()
        assert disk.store.instance_id == instance_id
        other = DiskStore(tmp_path / "other", blake3_digest)
        assert other.instance_id != instance_id
        other.close()

    def test_torn_instance_id_is_replaced(self, disk: DiskBench) -> None:
        (disk.hidden_folder / "instance").write_bytes(b"short")
        disk.restart()
        assert len(disk.store.instance_id) == 16
        assert (disk.hidden_folder / "instance").read_bytes() == disk.store.instance_id


class TestExternalChanges:
    def test_removed_file_is_forgotten_and_can_return(self, disk: DiskBench) -> None:
        sample = Sample(5000)
        disk.receive(sample)
        (disk.folder / "a.bin").unlink()
        disk.restart()
        assert disk.store.known() == {}
        assert disk.begin(sample) == HeldChunks(RangeSet(), complete=False)
        disk.restart()
        disk.receive(sample)
        assert disk.visible() == {"a.bin": sample.data}

    def test_file_with_a_new_time_is_verified_and_complete(
        self, disk: DiskBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sample = Sample(5000)
        disk.receive(sample)
        os.utime(disk.folder / "a.bin", ns=(0, 0))
        disk.restart()
        assert disk.store.known()[sample.file_id].complete
        monkeypatch.setattr(os, "pread", error_of(errno.EIO))
        disk.restart()
        assert disk.store.known()[sample.file_id].complete

    @pytest.mark.parametrize(
        ("change", "left"),
        [
            (lambda data: data[:1500] + b"!" + data[1501:], [(0, 1), (2, 5)]),
            (lambda data: data[:3000], [(0, 2)]),
            (lambda data: data + b"more", [(0, 5)]),
            (lambda data: b"", []),
        ],
        ids=["spoilt", "cut", "longer", "emptied"],
    )
    def test_changed_file_holds_its_intact_units(
        self, disk: DiskBench, change: Callable[[bytes], bytes], left: list[tuple[int, int]]
    ) -> None:
        sample = Sample(5000)
        disk.receive(sample)
        changed = change(sample.data)
        disk.put("a.bin", changed)
        disk.restart()
        assert disk.store.known() == {sample.file_id: HeldChunks(RangeSet(left), complete=False)}
        for span in left:
            assert disk.payload(sample, *span) == sample.chunks(*span)
        for attempt in (
            lambda: disk.begin(sample),
            lambda: disk.write(sample, 0, 5),
            lambda: disk.store.finish(sample.file_id),
        ):
            with pytest.raises(StorageError, match="another file"):
                attempt()
        assert disk.visible() == {"a.bin": changed}
        (disk.folder / "a.bin").rename(disk.folder / "moved away")
        disk.receive(sample)
        assert disk.visible() == {"a.bin": sample.data, "moved away": changed}

    def test_changed_file_that_is_restored_is_complete(self, disk: DiskBench) -> None:
        sample = Sample(5000)
        disk.receive(sample)
        disk.put("a.bin", b"other")
        disk.restart()
        disk.put("a.bin", sample.data)
        assert disk.begin(sample) == HeldChunks(sample.all, complete=True)

    def test_link_or_folder_of_the_name_is_a_conflict(self, disk: DiskBench, tmp_path: Path) -> None:
        sample, elsewhere = Sample(5000), tmp_path / "elsewhere"
        elsewhere.write_bytes(sample.data)
        (disk.folder / "a.bin").symlink_to(elsewhere)
        with pytest.raises(StorageError, match="another file"):
            disk.begin(sample)
        (disk.folder / "a.bin").unlink()
        disk.begin(sample)
        disk.write_all(sample)
        (disk.folder / "a.bin").symlink_to(tmp_path / "nowhere")
        with pytest.raises(StorageError, match="another file"):
            disk.store.finish(sample.file_id)
        (disk.folder / "a.bin").unlink()
        (disk.folder / "a.bin").mkdir()
        with pytest.raises(StorageError, match="another file"):
            disk.store.finish(sample.file_id)

    def test_garbage_in_the_hidden_folder_is_ignored(self, disk: DiskBench, caplog: pytest.LogCaptureFixture) -> None:
        sample, other = Sample(5000), Sample(6000, name="b.bin")
        disk.receive(sample)
        disk.begin(other)
        for name in ("ff", "00" * 32, other.file_id.hex()[:-2] + "00"):
            (disk.hidden_folder / f"{name}.manifest").write_bytes(b"rubbish" * 20)
        (disk.hidden_folder / f"{'11' * 32}.manifest").write_bytes(disk.path(other, "manifest").read_bytes())
        (disk.hidden_folder / f"{'22' * 32}.manifest").mkdir()
        (disk.hidden_folder / f"{'33' * 32}.manifest").write_bytes(b"")
        (disk.hidden_folder / f"{'44' * 32}.part").write_bytes(b"orphan")
        disk.path(other, "done").write_bytes(b"[1]")
        with caplog.at_level(logging.WARNING):
            disk.restart()
        assert disk.store.known().keys() == {sample.file_id, other.file_id}
        assert len(caplog.records) == 7
        disk.receive(other)
        assert disk.visible() == {"a.bin": sample.data, "b.bin": other.data}

    def test_file_that_cannot_be_loaded_leaves_others_alone(
        self, disk: DiskBench, caplog: pytest.LogCaptureFixture
    ) -> None:
        sample, other = Sample(5000), Sample(6000, name="b.bin")
        disk.begin(sample)
        disk.begin(other)
        disk.path(sample, "part").unlink()
        disk.path(sample, "part").mkdir()
        with caplog.at_level(logging.WARNING):
            disk.restart()
        assert disk.store.known().keys() == {other.file_id}
        assert "cannot load 'a.bin'" in caplog.text
        with pytest.raises(StorageError, match="cannot open"):
            disk.begin(sample)


class TestFinish:
    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
    def test_finish_sets_the_default_mode_under_any_umask(self, disk: DiskBench, umask: int) -> None:
        with umask_of(umask):
            disk.receive(Sample(5000))
        assert mode_of(disk.folder / "a.bin") == 0o644

    def test_finish_leaves_only_records(self, disk: DiskBench) -> None:
        sample = Sample(5000)
        disk.receive(sample)
        names = {path.name for path in disk.hidden_folder.iterdir()}
        identity = sample.file_id.hex()
        assert names == {"lock", "instance", "boot", f"{identity}.manifest", f"{identity}.done"}

    def test_finished_file_keeps_its_descriptor(self, disk: DiskBench) -> None:
        sample = Sample(5000)
        disk.begin(sample)
        disk.write_all(sample)
        before = disk.store.payload(sample.file_id, 0, 5)
        disk.store.finish(sample.file_id)
        assert disk.store.payload(sample.file_id, 0, 5) == before

    @pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP])
    def test_finish_renames_where_links_are_unsupported(
        self, disk: DiskBench, code: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "link", error_of(code))
        sample = Sample(5000)
        disk.begin(sample)
        disk.write_all(sample)
        disk.put("a.bin", b"other")
        with pytest.raises(StorageError, match="another file"):
            disk.store.finish(sample.file_id)
        (disk.folder / "a.bin").unlink()
        disk.store.finish(sample.file_id)
        assert disk.visible() == {"a.bin": sample.data}
        disk.restart()
        assert disk.store.known()[sample.file_id].complete

    def test_failed_finish_can_be_repeated(self, disk: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
        sample = Sample(5000)
        disk.begin(sample)
        disk.write_all(sample)
        with monkeypatch.context() as patch:
            patch.setattr(os, "link", error_of(errno.EIO))
            with pytest.raises(StorageError, match=r"cannot finish .*a\.bin: Input/output error: check the disk"):
                disk.store.finish(sample.file_id)
        disk.store.finish(sample.file_id)
        assert disk.visible() == {"a.bin": sample.data}


class TestJournal:
    def test_journal_has_one_record_per_run_of_units(self, disk: DiskBench) -> None:
        sample = Sample(100 * 1024)
        disk.begin(sample)
        disk.write(sample, 0, 50)
        assert disk.path(sample, "held").stat().st_size == RECORD_BYTES
        spoilt = bytearray(sample.chunks(50, 100))
        spoilt[10 * 1024] ^= 1
        disk.store.write(sample.file_id, 50, 100, memoryview(spoilt))
        assert disk.path(sample, "held").stat().st_size == 3 * RECORD_BYTES

    def test_journal_is_written_after_the_bytes(self, disk: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
        sample = Sample(5000)
        disk.begin(sample)
        monkeypatch.setattr(os, "write", error_of(errno.ENOSPC))
        with pytest.raises(StorageError, match=r"\.held: No space left on device"):
            disk.write(sample, 0, 2)
        monkeypatch.undo()
        assert disk.path(sample, "part").read_bytes() == sample.chunks(0, 2)
        disk.restart()
        assert not disk.store.known()[sample.file_id].verified

    def test_torn_record_is_removed(self, disk: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
        sample = Sample(5000)
        disk.begin(sample)
        disk.write(sample, 0, 1)
        whole_write = os.write
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda fd, data: whole_write(fd, data[:5]))
            with pytest.raises(StorageError, match="No space left"):
                disk.write(sample, 1, 2)
        disk.write(sample, 2, 3)
        disk.restart()
        assert disk.store.known()[sample.file_id].verified == RangeSet([(0, 1), (2, 3)])

    def test_truncated_partial_file_is_not_finished(self, disk: DiskBench) -> None:
        sample = Sample(2 * MIB + 1024)
        disk.begin(sample)
        disk.write_all(sample)
        (part,) = (disk.folder / ".psp").glob("*.part")
        os.truncate(part, MIB)
        with pytest.raises(IntegrityError):
            disk.store.finish(sample.file_id)
        assert disk.visible() == {}
        disk.restart()
        assert 0 < disk.begin(sample).verified.chunk_count <= 1024
        disk.write_all(sample)
        disk.store.finish(sample.file_id)
        assert disk.visible() == {"a.bin": sample.data}


class TestDiskErrors:
    def test_unit_in_parts_is_verified_from_the_disk(self, disk: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
        sample = Sample(2 * MIB + 1024)  # its units have two chunks
        disk.begin(sample)
        whole_write = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda fd, data, at: whole_write(fd, bytes(len(data)), at))
        assert disk.write(sample, 0, 1) == WriteResult()
        assert disk.write(sample, 1, 2) == WriteResult(corrupt=[Range(0, 2)])

    def test_wrong_whole_unit_is_never_saved(self, disk: DiskBench) -> None:
        sample = Sample(5000)
        disk.begin(sample)
        data = bytearray(sample.chunks(0, 3))
        data[1024:2048] = bytes([7]) * 1024
        written = disk.store.write(sample.file_id, 0, 3, memoryview(data))
        assert written == WriteResult(verified=RangeSet([(0, 1), (2, 3)]), corrupt=[Range(1, 2)])
        saved = disk.path(sample, "part").read_bytes()
        assert saved == b"".join((sample.chunks(0, 1), bytes(1024), sample.chunks(2, 3)))

    def test_short_writes_continue(self, disk: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
        whole_write = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda fd, data, at: whole_write(fd, data[:700], at))
        sample = Sample(5000)
        disk.receive(sample)
        assert disk.visible() == {"a.bin": sample.data}

    @pytest.mark.parametrize(
        ("code", "said"),
        [
            (errno.ENOSPC, "No space left on device: free some space there"),
            (errno.EDQUOT, "quota"),
            (errno.EIO, "check the disk"),
            (errno.EBADF, "check the folder"),
        ],
    )
    def test_failed_write_raises_and_can_be_repeated(
        self, disk: DiskBench, code: int, said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sample = Sample(5000)
        disk.begin(sample)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", error_of(code))
            with pytest.raises(StorageError, match=said) as caught:
                disk.write(sample, 0, 5)
        assert str(caught.value).startswith(f"cannot write {disk.path(sample, 'part')}: ")
        assert "\n" not in str(caught.value)
        assert disk.store.missing(sample.file_id) == sample.all
        disk.receive(sample)

    def test_failed_read_raises(self, disk: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
        sample = Sample(2 * MIB + 1024)
        disk.begin(sample)
        disk.write(sample, 0, 1)
        monkeypatch.setattr(os, "pread", error_of(errno.EIO))
        with pytest.raises(StorageError, match="cannot read"):
            disk.write(sample, 1, 2)

    def test_division_that_cannot_be_saved_can_be_repeated(
        self, disk: DiskBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sample = Sample(2 * MIB + 1024)
        disk.begin(sample)
        disk.write(sample, 0, 100)
        sample.manifest = sample.divided(7)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", error_of(errno.ENOSPC))
            with pytest.raises(StorageError, match="No space left"):
                disk.begin(sample)
        assert disk.begin(sample) == HeldChunks(RangeSet([(0, 100)]), complete=False)
        disk.restart()
        assert disk.store.manifest(sample.file_id) == sample.manifest

    def test_full_disk_raises_and_loses_nothing(self, small_disk: Path) -> None:
        ballast = small_disk / "ballast"
        ballast.unlink()
        bench, sample = DiskBench(small_disk / "client"), Sample(3 * MIB)
        try:
            bench.begin(sample)
            ballast.write_bytes(bytes(2 * MIB))
            with pytest.raises(StorageError, match=r"cannot write .*\.part: No space left on device"):
                bench.write_all(sample, 64)
            assert 0 < bench.store.missing(sample.file_id).chunk_count < sample.manifest.chunk_count
            ballast.unlink()
            bench.write_parts(sample, bench.store.missing(sample.file_id))
            bench.store.finish(sample.file_id)
            assert bench.visible() == {"a.bin": sample.data}
        finally:
            bench.store.close()

    def test_file_without_space_is_refused_before_any_write(self, small_disk: Path) -> None:
        large, small = Sample(MIB + MIB // 2), Sample(MIB, name="b.bin")
        with closing(DiskStore(small_disk / "client", blake3_digest)) as store:
            store.begin(small.manifest)
            with pytest.raises(
                StorageError,
                match=r"'a.bin' needs 1.5 MiB, .* more than are free in /.*/client beside 1.0 MiB for other",
            ):
                store.begin(large.manifest)
            assert set(store.known()) == {small.file_id}
            (small_disk / "ballast").unlink()
            store.begin(large.manifest)

    def test_files_of_other_networks_reserve_no_space(self, small_disk: Path) -> None:
        left, new = Sample(3 * MIB), Sample(MIB, name="b.bin")
        (small_disk / "ballast").unlink()
        with closing(DiskStore(small_disk / "client", blake3_digest)) as store:
            store.begin(left.manifest)
        with closing(DiskStore(small_disk / "client", blake3_digest)) as store:
            store.begin(new.manifest)
            with pytest.raises(StorageError, match=r"needs 3\.0 MiB"):
                store.begin(Sample(3 * MIB, name="c.bin").manifest)

    def test_saved_part_of_a_file_needs_no_space(self, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (small_disk / "ballast").unlink()
        bench, sample = DiskBench(small_disk / "client"), Sample(3 * MIB)
        try:
            bench.begin(sample)
            bench.write(sample, 0, 2 * MIB // 1024 + 512)
            sample.manifest = sample.divided(7)
            with monkeypatch.context() as patch:
                patch.setattr(os, "write", error_of(errno.ENOSPC))
                with pytest.raises(StorageError, match="No space left"):
                    bench.begin(sample)
            assert bench.begin(sample).verified.chunk_count > 0
        finally:
            bench.store.close()

    def test_file_system_without_a_size_is_tried(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        nothing = os.statvfs_result((4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255))
        with closing(DiskStore(tmp_path, blake3_digest)) as store:
            monkeypatch.setattr(os, "statvfs", lambda _: nothing)
            store.begin(Sample(3000).manifest)

    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        """A file system of 4 MiB, 2 MiB of them filled by ``ballast``."""
        folder = tmp_path / "small"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("only root can mount a small disk; failing writes are tested without")
        try:
            (folder / "ballast").write_bytes(bytes(2 * MIB))
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)


class TestOpenFiles:
    def test_open_files_are_bounded_and_reopened(self, disk: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(disk.store._open_files, "_count_max", 4)
        before = len(os.listdir("/proc/self/fd"))
        samples = [Sample(3000 + index, name=f"f{index}") for index in range(10)]
        for sample in samples:
            disk.begin(sample)
        for chunk in range(3):
            for sample in samples:
                disk.write(sample, chunk, chunk + 1)
        for sample in samples[:5]:
            disk.store.finish(sample.file_id)
        for sample in samples:
            assert disk.payload(sample, 0, 3) == sample.data
            assert len(os.listdir("/proc/self/fd")) <= before + 4
        assert disk.visible() == {sample.manifest.name: sample.data for sample in samples[:5]}
        disk.store.close()
        assert len(os.listdir("/proc/self/fd")) == before - 1

    def test_missing_finished_file_raises(self, disk: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(disk.store._open_files, "_count_max", 2)
        samples = [Sample(3000, name=f"f{index}", seed=index) for index in range(3)]
        for sample in samples:
            disk.receive(sample)
        (disk.folder / "f0").unlink()
        with pytest.raises(StorageError, match=r"cannot open .*f0: No such file .*: put it back"):
            disk.payload(samples[0], 0, 3)


def test_errors_name_the_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "client").mkdir()
    (tmp_path / "client" / "a.bin").write_bytes(b"another")
    other = rf"another file named 'a.bin' is in {tmp_path}/client"
    with closing(DiskStore(Path("client"), blake3_digest)) as store, pytest.raises(StorageError, match=other):
        store.begin(Sample(3000).manifest)


class TestMaxBytes:
    def test_file_over_max_bytes_is_refused(self, tmp_path: Path) -> None:
        first, large, small = Sample(6000), Sample(5000, name="b.bin"), Sample(4000, name="c.bin")
        with closing(DiskStore(tmp_path, blake3_digest, max_bytes=10_000)) as store:
            store.begin(first.manifest)
            with pytest.raises(
                StorageError, match=r"'b.bin' needs 4\.9 KiB, 1000 B more than are left of --max-bytes 9\.8 KiB"
            ):
                store.begin(large.manifest)
            assert set(store.known()) == {first.file_id}
            store.begin(small.manifest)
            store.begin(first.manifest)

    def test_files_of_other_networks_do_not_count(self, tmp_path: Path) -> None:
        left, new = Sample(9000), Sample(5000, name="b.bin")
        with closing(DiskStore(tmp_path, blake3_digest)) as store:
            store.begin(left.manifest)
        with closing(DiskStore(tmp_path, blake3_digest, max_bytes=10_000)) as store:
            store.begin(new.manifest)

    def test_removed_file_does_not_count(self, tmp_path: Path) -> None:
        first, second = Sample(6000), Sample(5000, name="b.bin")
        with closing(DiskStore(tmp_path, blake3_digest, max_bytes=10_000)) as store:
            store.begin(first.manifest)
            store.discard(first.file_id)
            store.begin(second.manifest)

    def test_existing_file_counts_once(self, tmp_path: Path) -> None:
        sample = Sample(6000)
        with closing(DiskStore(tmp_path, blake3_digest)) as store:
            store.begin(sample.manifest)
        with closing(DiskStore(tmp_path, blake3_digest, max_bytes=1)) as store:
            assert not store.begin(sample.manifest).complete


def test_folder_behind_a_symbolic_link_is_flushed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    sample = Sample(5000)
    with closing(DiskStore(tmp_path / "link", blake3_digest)) as store:
        store.begin(sample.manifest)
        chunk_count = sample.manifest.chunk_count
        store.write(sample.file_id, 0, chunk_count, sample.chunks(0, chunk_count))
        store.finish(sample.file_id)
        store.flush_job(sample.file_id)()
        store.record_flushed(sample.file_id)
    assert (tmp_path / "real" / "a.bin").read_bytes() == sample.data


def test_removed_link_to_the_folder_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to("real")
    with closing(DiskStore(link, blake3_digest)) as store:
        store.require_usable()
        link.unlink()
        with pytest.raises(StorageError):
            store.require_usable()
