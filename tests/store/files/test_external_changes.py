"""Changes by other programs while a client runs are noticed before a file is sent; then it is verified again."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pspd.core.model.ranges import RangeSet
from pspd.core.model.storage import HeldChunks
from pspd.errors import IntegrityError, StorageError
from pspd.store.digests import blake3_digest
from pspd.store.files.disk import DiskStore, ExternalChanges
from tests.store.stores import DiskBench, Sample, alter_byte, error_of

SAME_TIME = 0
"""The ``later_ns`` of a change that keeps the modification time."""


def cut_short(path: Path, size_bytes: int) -> None:
    """Truncate a file, and set its modification time a second later."""
    changed_at_ns = path.stat().st_mtime_ns
    os.truncate(path, size_bytes)
    os.utime(path, ns=(changed_at_ns, changed_at_ns + 1_000_000_000))


def alter(path: Path) -> None:
    """Change a byte of a file."""
    alter_byte(path, 2048)


def longer(path: Path) -> None:
    """Append to a file."""
    with path.open("ab") as file:
        file.write(b"more")


def replaced(path: Path) -> None:
    """Replace a file by another."""
    other = path.with_suffix(".other")
    other.write_bytes(b"other")
    other.rename(path)


def linked(path: Path) -> None:
    """Replace a file by a symbolic link."""
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.fixture
def sample() -> Sample:
    return Sample(7 * 1024)


class TestUnfinishedFile:
    @pytest.fixture
    def part(self, disk: DiskBench, sample: Sample) -> Path:
        """The partial file of a file whose last chunk is missing."""
        disk.begin(sample)
        disk.write(sample, 0, 6)
        return disk.path(sample, "part")

    def test_changed_file_is_not_sent(self, disk: DiskBench, sample: Sample, part: Path) -> None:
        alter_byte(part, 2048)
        for span in [(0, 1), (2, 3), (0, 6)]:
            with pytest.raises(StorageError, match=r"\.part was changed by another program"):
                disk.payload(sample, *span)

    def test_changed_file_holds_its_intact_units(self, disk: DiskBench, sample: Sample, part: Path) -> None:
        alter_byte(part, 2048)
        disk.store.verify(sample.file_id)
        left = HeldChunks(RangeSet([(0, 2), (3, 6)]), complete=False)
        assert disk.store.known() == {sample.file_id: left}
        disk.restart()
        assert disk.store.known() == {sample.file_id: left}

    def test_change_while_closed_is_found_at_the_next_start(self, disk: DiskBench, sample: Sample, part: Path) -> None:
        alter_byte(part, 2048)
        disk.restart()
        assert disk.begin(sample) == HeldChunks(RangeSet([(0, 2), (3, 6)]), complete=False)

    def test_change_with_restored_time_is_found_by_verify(self, disk: DiskBench, sample: Sample, part: Path) -> None:
        alter_byte(part, 2048, SAME_TIME)
        disk.store.verify(sample.file_id)
        assert disk.store.known()[sample.file_id].verified == RangeSet([(0, 2), (3, 6)])

    def test_second_change_is_noticed_too(self, disk: DiskBench, sample: Sample, part: Path) -> None:
        alter_byte(part, 2048)
        disk.store.verify(sample.file_id)
        assert disk.payload(sample, 3, 6) == sample.chunks(3, 6)
        alter_byte(part, 0)
        with pytest.raises(StorageError, match="was changed"):
            disk.payload(sample, 3, 6)

    def test_changed_file_can_be_completed(self, disk: DiskBench, sample: Sample, part: Path) -> None:
        alter_byte(part, 2048)
        disk.store.verify(sample.file_id)
        disk.write_parts(sample, disk.store.missing(sample.file_id))
        assert disk.payload(sample, 0, 7) == sample.data
        disk.store.finish(sample.file_id)
        assert disk.visible() == {"a.bin": sample.data}

    @pytest.mark.parametrize("chunks_left", [0, 2, 5])
    def test_truncated_file_is_not_sent(self, disk: DiskBench, sample: Sample, part: Path, chunks_left: int) -> None:
        cut_short(part, chunks_left * 1024)
        with pytest.raises(StorageError, match=r"\.part was "):
            disk.payload(sample, 5, 6)

    @pytest.mark.parametrize("chunks_left", [0, 2, 5])
    def test_truncated_file_holds_what_is_left(
        self, disk: DiskBench, sample: Sample, part: Path, chunks_left: int
    ) -> None:
        cut_short(part, chunks_left * 1024)
        disk.store.verify(sample.file_id)
        left = HeldChunks(RangeSet([(0, chunks_left)] if chunks_left else []), complete=False)
        assert disk.store.known() == {sample.file_id: left}
        disk.restart()
        assert disk.store.known() == {sample.file_id: left}
        disk.write_parts(sample, disk.store.missing(sample.file_id))
        disk.store.finish(sample.file_id)
        assert disk.visible() == {"a.bin": sample.data}

    def test_truncated_file_that_grew_again_is_not_finished(self, disk: DiskBench, sample: Sample, part: Path) -> None:
        cut_short(part, 1024)
        disk.write(sample, 6, 7)
        assert part.stat().st_size == sample.manifest.size_bytes
        with pytest.raises(IntegrityError, match="changed by another program"):
            disk.store.finish(sample.file_id)
        disk.store.verify(sample.file_id)
        with pytest.raises(IntegrityError, match="2 of its 7 chunks"):
            disk.store.finish(sample.file_id)
        assert disk.visible() == {}

    def test_own_writes_are_not_external_changes(self, disk: DiskBench, sample: Sample, part: Path) -> None:
        disk.restart()
        assert disk.payload(sample, 0, 6) == sample.chunks(0, 6)
        disk.write(sample, 6, 7)
        assert disk.payload(sample, 0, 7) == sample.data
        disk.store.finish(sample.file_id)
        assert disk.payload(sample, 0, 7) == sample.data
        disk.restart()
        assert disk.payload(sample, 0, 7) == sample.data

    def test_unreadable_file_can_be_verified_later(
        self, disk: DiskBench, sample: Sample, part: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alter_byte(part, 2048)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", error_of(errno.EIO))
            with pytest.raises(StorageError, match="cannot read"):
                disk.store.verify(sample.file_id)
        assert disk.store.known() == {}
        assert disk.begin(sample).verified == RangeSet([(0, 2), (3, 6)])

    def test_change_before_a_write_is_found_at_the_next_start(
        self, disk: DiskBench, sample: Sample, part: Path
    ) -> None:
        alter_byte(part, 2048)
        disk.write(sample, 6, 7)
        disk.restart()
        assert disk.begin(sample) == HeldChunks(RangeSet([(0, 2), (3, 6)]), complete=False)


class TestFinishedFile:
    @pytest.fixture
    def shown(self, disk: DiskBench, sample: Sample) -> Path:
        """A finished file."""
        disk.receive(sample)
        return disk.folder / "a.bin"

    def test_changed_file_is_not_sent(self, disk: DiskBench, sample: Sample, shown: Path) -> None:
        alter_byte(shown, 2048)
        with pytest.raises(StorageError, match=r"a\.bin was changed by another program"):
            disk.payload(sample, 0, 1)

    @pytest.mark.parametrize("later_ns", [SAME_TIME, 1], ids=["time-put-back", "later"])
    def test_changed_file_is_no_longer_complete(
        self, disk: DiskBench, sample: Sample, shown: Path, later_ns: int
    ) -> None:
        alter_byte(shown, 2048, later_ns)
        changed = shown.read_bytes()
        disk.store.verify(sample.file_id)
        left = HeldChunks(RangeSet([(0, 2), (3, 7)]), complete=False)
        assert disk.store.known() == {sample.file_id: left}
        assert disk.payload(sample, 3, 7) == sample.chunks(3, 7)
        disk.restart()
        assert disk.store.known() == {sample.file_id: left}
        with pytest.raises(StorageError, match="another file"):
            disk.begin(sample)
        assert disk.visible() == {"a.bin": changed}

    def test_restored_file_is_complete_again(self, disk: DiskBench, sample: Sample, shown: Path) -> None:
        for _ in range(2):
            alter_byte(shown, 2048, SAME_TIME)
            disk.store.verify(sample.file_id)
        assert disk.store.known() == {sample.file_id: HeldChunks(sample.all, complete=True)}
        assert disk.payload(sample, 0, 7) == sample.data

    def test_changed_file_moved_away_can_be_fetched_again(self, disk: DiskBench, sample: Sample, shown: Path) -> None:
        alter_byte(shown, 2048, SAME_TIME)
        disk.store.verify(sample.file_id)
        shown.rename(shown.with_name("mine"))
        disk.receive(sample)
        assert disk.visible().pop("a.bin") == sample.data

    def test_verified_file_is_not_read_again(
        self, disk: DiskBench, sample: Sample, shown: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        disk.store.verify(sample.file_id)
        monkeypatch.setattr(os, "pread", error_of(errno.EIO))
        disk.restart()
        assert disk.store.known() == {sample.file_id: HeldChunks(sample.all, complete=True)}

    def test_removed_file_is_forgotten(self, disk: DiskBench, sample: Sample, shown: Path) -> None:
        shown.unlink()
        disk.store.verify(sample.file_id)
        assert disk.store.known() == {}
        disk.receive(sample)
        assert disk.visible() == {"a.bin": sample.data}

    def test_unchanged_file_is_not_reported(self, disk: DiskBench, sample: Sample, shown: Path) -> None:
        assert disk.store.external_changes() == ExternalChanges({}, [])
        disk.restart()
        assert disk.store.external_changes() == ExternalChanges({}, [])

    def test_external_changes_opens_no_file(
        self, disk: DiskBench, sample: Sample, shown: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alter_byte(shown, 2048)
        for call in ("open", "pread"):
            monkeypatch.setattr(os, call, error_of(errno.EIO))
        assert disk.store.external_changes().changed == [sample.file_id]

    @pytest.mark.parametrize("meddle", [alter, longer, replaced, linked])
    def test_changed_file_is_reported(
        self, disk: DiskBench, sample: Sample, shown: Path, meddle: Callable[[Path], None]
    ) -> None:
        meddle(shown)
        assert disk.store.external_changes() == ExternalChanges({}, [sample.file_id])
        disk.store.verify(sample.file_id)
        assert not any(held.complete for held in disk.store.known().values())
        assert disk.store.external_changes() == ExternalChanges({}, []), "it is known by now"

    def test_file_with_a_new_time_is_verified_once(self, disk: DiskBench, sample: Sample, shown: Path) -> None:
        shown.touch()
        assert disk.store.external_changes() == ExternalChanges({}, [sample.file_id])
        disk.store.verify(sample.file_id)
        assert disk.store.known()[sample.file_id].complete
        assert disk.store.external_changes() == ExternalChanges({}, [])

    def test_file_that_cannot_be_examined_is_not_reported(
        self, disk: DiskBench, sample: Sample, shown: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "lstat", error_of(errno.EIO))
        assert disk.store.external_changes() == ExternalChanges({}, [])

    def test_removed_file_is_reported(self, disk: DiskBench, sample: Sample, shown: Path) -> None:
        shown.unlink()
        assert disk.store.external_changes() == ExternalChanges({sample.file_id: shown}, [])
        disk.store.discard(sample.file_id)
        assert disk.store.external_changes() == ExternalChanges({}, [])

    def test_unverified_file_is_not_trusted_after_a_restart(
        self, disk: DiskBench, sample: Sample, shown: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alter_byte(shown, 2048, SAME_TIME)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", error_of(errno.EIO))
            with pytest.raises(StorageError, match="cannot read"):
                disk.store.verify(sample.file_id)
        disk.restart()
        assert disk.store.known() == {sample.file_id: HeldChunks(RangeSet([(0, 2), (3, 7)]), complete=False)}


class TestVerifying:
    """A store that is opened with ``trusts_records=False``."""

    @pytest.fixture
    def verifying(self, disk: DiskBench) -> Iterator[Callable[[], DiskStore]]:
        stores: list[DiskStore] = []

        def reopen() -> DiskStore:
            disk.store.close()
            stores.append(DiskStore(disk.folder, blake3_digest, trusts_records=False))
            return stores[-1]

        yield reopen
        for store in stores:
            store.close()

    def test_intact_files_are_kept(self, disk: DiskBench, verifying: Callable[[], DiskStore]) -> None:
        finished, begun = Sample(5000), Sample(7 * 1024, name="b.bin")
        disk.receive(finished)
        disk.begin(begun)
        disk.write(begun, 1, 3)
        assert verifying().known() == {
            finished.file_id: HeldChunks(finished.all, complete=True),
            begun.file_id: HeldChunks(RangeSet([(1, 3)]), complete=False),
        }

    def test_damaged_bytes_are_found(self, disk: DiskBench, verifying: Callable[[], DiskStore]) -> None:
        finished, begun = Sample(5000), Sample(7 * 1024, name="b.bin")
        disk.receive(finished)
        disk.begin(begun)
        disk.write(begun, 1, 3)
        alter_byte(disk.folder / "a.bin", 3000, later_ns=SAME_TIME)
        alter_byte(disk.path(begun, "part"), 1500, later_ns=SAME_TIME)
        damaged = (disk.folder / "a.bin").read_bytes()
        disk.restart()
        assert disk.store.known()[finished.file_id].complete
        assert verifying().known() == {
            finished.file_id: HeldChunks(RangeSet([(0, 2), (3, 5)]), complete=False),
            begun.file_id: HeldChunks(RangeSet([(2, 3)]), complete=False),
        }
        assert disk.visible() == {"a.bin.damaged-1": damaged}

    @pytest.mark.parametrize("name", ["n" * 254, "日" * 84 + "ab", "x" + "é" * 126], ids=["one", "three", "two bytes"])
    def test_long_name_is_shortened_for_the_damaged_copy(
        self, disk: DiskBench, verifying: Callable[[], DiskStore], name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        sample = Sample(5000, name=name)
        disk.receive(sample)
        alter_byte(disk.folder / name, 3000, later_ns=SAME_TIME)
        damaged = (disk.folder / name).read_bytes()
        store = verifying()
        assert not store.known()[sample.file_id].complete
        ((aside, data),) = disk.visible().items()
        assert data == damaged
        assert 252 < len(aside.encode("utf-8")) <= 255
        assert name.startswith(aside.removesuffix(".damaged-1"))
        assert f"it is now named {aside}, and is fetched again" in caplog.text
        store.close()
        disk.restart()
        assert not disk.store.known()[sample.file_id].complete

    @pytest.mark.parametrize("code", [errno.EACCES, errno.ENAMETOOLONG, errno.ENOSPC, errno.EBUSY])
    def test_copy_that_cannot_be_renamed_is_not_trusted(
        self,
        disk: DiskBench,
        verifying: Callable[[], DiskStore],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        code: int,
    ) -> None:
        sample = Sample(5000)
        disk.receive(sample)
        alter_byte(disk.folder / "a.bin", 3000, later_ns=SAME_TIME)
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", error_of(code))
            store = verifying()
            assert not store.known()
            with pytest.raises(StorageError, match=f"cannot rename .*: {os.strerror(code)}"):
                store.begin(sample.manifest)
            assert "is fetched again" not in caplog.text
            store.close()
            disk.restart()
            assert not disk.store.known()
        disk.restart()
        assert not disk.store.known()[sample.file_id].complete
        assert list(disk.visible()) == ["a.bin.damaged-1"]
        disk.write_parts(sample, disk.store.missing(sample.file_id))
        disk.store.finish(sample.file_id)
        assert disk.visible()["a.bin"] == sample.data

    def test_damaged_copy_without_a_record_is_not_trusted(
        self, disk: DiskBench, verifying: Callable[[], DiskStore], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sample = Sample(5000)
        disk.receive(sample)
        alter_byte(disk.folder / "a.bin", 3000, later_ns=SAME_TIME)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", error_of(errno.ENOSPC))
            store = verifying()
            assert not store.known()
        store.close()
        disk.restart()
        held = disk.store.known().get(sample.file_id)
        assert held is None or not held.complete
        with pytest.raises(StorageError, match=r"another file named 'a\.bin'"):
            disk.begin(sample)

    def test_running_client_does_not_trust_a_failed_verification(
        self, disk: DiskBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sample = Sample(5000)
        disk.receive(sample)
        alter_byte(disk.folder / "a.bin", 3000, later_ns=SAME_TIME)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", error_of(errno.ENOSPC))
            with pytest.raises(StorageError, match="No space left"):
                disk.store.verify(sample.file_id)
        disk.restart()
        held = disk.store.known().get(sample.file_id)
        assert held is None or not held.complete
