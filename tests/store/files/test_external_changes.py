"""Files on disk that somebody changes while a client runs: found when they are sent, and verified anew."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pspd.core.model.ranges import RangeSet
from pspd.core.model.storage import Held
from pspd.errors import IntegrityError, StorageError
from pspd.store.digests import blake3_digest
from pspd.store.files.disk import DiskStore, ExternalChanges
from tests.store.stores import DiskBench, Sample, alter_byte, error_of

PUT_BACK = 0
"""How much later the time of change of an altered file is: not at all."""


def cut_short(path: Path, size_bytes: int) -> None:
    """Cuts a file short, a second after it was last changed."""
    changed_at_ns = path.stat().st_mtime_ns
    os.truncate(path, size_bytes)
    os.utime(path, ns=(changed_at_ns, changed_at_ns + 1_000_000_000))


def alter(path: Path) -> None:
    """Changes a byte of a file."""
    alter_byte(path, 2048)


def longer(path: Path) -> None:
    """Adds to a file."""
    with path.open("ab") as file:
        file.write(b"more")


def replaced(path: Path) -> None:
    """Puts another file in the place of one."""
    other = path.with_suffix(".other")
    other.write_bytes(b"other")
    other.rename(path)


def linked(path: Path) -> None:
    """Puts a link in a file's place."""
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.fixture
def sample() -> Sample:
    return Sample(7 * 1024)


class TestAPart:
    @pytest.fixture
    def part(self, disk: DiskBench, sample: Sample) -> Path:
        """The bytes of a file of which all but the last chunk is there."""
        disk.begin(sample)
        disk.write(sample, 0, 6)
        return disk.path(sample, "part")

    def test_that_was_altered_is_not_sent(self, disk: DiskBench, sample: Sample, part: Path) -> None:
        alter_byte(part, 2048)
        for span in [(0, 1), (2, 3), (0, 6)]:
            with pytest.raises(StorageError, match=r"\.part was changed by another program"):
                disk.payload(sample, *span)

    def test_that_was_altered_is_held_as_far_as_it_is_right(self, disk: DiskBench, sample: Sample, part: Path) -> None:
        alter_byte(part, 2048)
        disk.store.verify(sample.file_id)
        left = Held(RangeSet([(0, 2), (3, 6)]), complete=False)
        assert disk.store.known() == {sample.file_id: left}
        disk.restart()
        assert disk.store.known() == {sample.file_id: left}

    def test_that_was_altered_while_the_store_was_closed_is_verified_when_it_opens(
        self, disk: DiskBench, sample: Sample, part: Path
    ) -> None:
        alter_byte(part, 2048)
        disk.restart()
        assert disk.begin(sample) == Held(RangeSet([(0, 2), (3, 6)]), complete=False)

    def test_whose_time_of_change_was_put_back_is_found_by_its_digests(
        self, disk: DiskBench, sample: Sample, part: Path
    ) -> None:
        alter_byte(part, 2048, PUT_BACK)
        disk.store.verify(sample.file_id)
        assert disk.store.known()[sample.file_id].verified == RangeSet([(0, 2), (3, 6)])

    def test_that_was_altered_after_it_was_verified_is_not_sent_again(
        self, disk: DiskBench, sample: Sample, part: Path
    ) -> None:
        alter_byte(part, 2048)
        disk.store.verify(sample.file_id)
        assert disk.payload(sample, 3, 6) == sample.chunks(3, 6)
        alter_byte(part, 0)
        with pytest.raises(StorageError, match="was changed"):
            disk.payload(sample, 3, 6)

    def test_that_was_altered_can_be_completed(self, disk: DiskBench, sample: Sample, part: Path) -> None:
        alter_byte(part, 2048)
        disk.store.verify(sample.file_id)
        disk.write_parts(sample, disk.store.missing(sample.file_id))
        assert disk.payload(sample, 0, 7) == sample.data
        disk.store.finish(sample.file_id)
        assert disk.visible() == {"a.bin": sample.data}

    @pytest.mark.parametrize("chunks_left", [0, 2, 5])
    def test_that_was_cut_short_is_not_sent(
        self, disk: DiskBench, sample: Sample, part: Path, chunks_left: int
    ) -> None:
        cut_short(part, chunks_left * 1024)
        with pytest.raises(StorageError, match=r"\.part was "):
            disk.payload(sample, 5, 6)

    @pytest.mark.parametrize("chunks_left", [0, 2, 5])
    def test_that_was_cut_short_is_held_as_far_as_it_is_there(
        self, disk: DiskBench, sample: Sample, part: Path, chunks_left: int
    ) -> None:
        cut_short(part, chunks_left * 1024)
        disk.store.verify(sample.file_id)
        left = Held(RangeSet([(0, chunks_left)] if chunks_left else []), complete=False)
        assert disk.store.known() == {sample.file_id: left}
        disk.restart()
        assert disk.store.known() == {sample.file_id: left}
        disk.write_parts(sample, disk.store.missing(sample.file_id))
        disk.store.finish(sample.file_id)
        assert disk.visible() == {"a.bin": sample.data}

    def test_that_was_cut_short_is_not_shown_though_later_chunks_made_it_long_again(
        self, disk: DiskBench, sample: Sample, part: Path
    ) -> None:
        cut_short(part, 1024)
        disk.write(sample, 6, 7)
        assert part.stat().st_size == sample.manifest.size_bytes
        with pytest.raises(IntegrityError, match="changed by another program"):
            disk.store.finish(sample.file_id)
        disk.store.verify(sample.file_id)
        with pytest.raises(IntegrityError, match="2 of its 7 chunks"):
            disk.store.finish(sample.file_id)
        assert disk.visible() == {}

    def test_is_not_suspected_for_what_the_store_itself_wrote(
        self, disk: DiskBench, sample: Sample, part: Path
    ) -> None:
        disk.restart()
        assert disk.payload(sample, 0, 6) == sample.chunks(0, 6)
        disk.write(sample, 6, 7)
        assert disk.payload(sample, 0, 7) == sample.data
        disk.store.finish(sample.file_id)
        assert disk.payload(sample, 0, 7) == sample.data
        disk.restart()
        assert disk.payload(sample, 0, 7) == sample.data

    def test_that_cannot_be_read_is_told_and_can_be_verified_later(
        self, disk: DiskBench, sample: Sample, part: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alter_byte(part, 2048)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", error_of(errno.EIO))
            with pytest.raises(StorageError, match="cannot read"):
                disk.store.verify(sample.file_id)
        assert disk.store.known() == {}
        assert disk.begin(sample).verified == RangeSet([(0, 2), (3, 6)])

    def test_that_was_altered_and_then_written_to_is_verified_when_the_store_opens_again(
        self, disk: DiskBench, sample: Sample, part: Path
    ) -> None:
        alter_byte(part, 2048)
        disk.write(sample, 6, 7)
        disk.restart()
        assert disk.begin(sample) == Held(RangeSet([(0, 2), (3, 6)]), complete=False)


class TestAFinishedFile:
    @pytest.fixture
    def shown(self, disk: DiskBench, sample: Sample) -> Path:
        """A file as its user sees it."""
        disk.receive(sample)
        return disk.folder / "a.bin"

    def test_that_was_altered_is_not_sent(self, disk: DiskBench, sample: Sample, shown: Path) -> None:
        alter_byte(shown, 2048)
        with pytest.raises(StorageError, match=r"a\.bin was changed by another program"):
            disk.payload(sample, 0, 1)

    @pytest.mark.parametrize("later_ns", [PUT_BACK, 1], ids=["time-put-back", "later"])
    def test_that_was_altered_is_no_longer_complete(
        self, disk: DiskBench, sample: Sample, shown: Path, later_ns: int
    ) -> None:
        alter_byte(shown, 2048, later_ns)
        changed = shown.read_bytes()
        disk.store.verify(sample.file_id)
        left = Held(RangeSet([(0, 2), (3, 7)]), complete=False)
        assert disk.store.known() == {sample.file_id: left}
        assert disk.payload(sample, 3, 7) == sample.chunks(3, 7)
        disk.restart()
        assert disk.store.known() == {sample.file_id: left}
        with pytest.raises(StorageError, match="another file"):
            disk.begin(sample)
        assert disk.visible() == {"a.bin": changed}

    def test_that_was_altered_and_put_right_is_complete_again(
        self, disk: DiskBench, sample: Sample, shown: Path
    ) -> None:
        for _ in range(2):
            alter_byte(shown, 2048, PUT_BACK)
            disk.store.verify(sample.file_id)
        assert disk.store.known() == {sample.file_id: Held(sample.all, complete=True)}
        assert disk.payload(sample, 0, 7) == sample.data

    def test_that_was_altered_and_moved_away_can_be_had_again(
        self, disk: DiskBench, sample: Sample, shown: Path
    ) -> None:
        alter_byte(shown, 2048, PUT_BACK)
        disk.store.verify(sample.file_id)
        shown.rename(shown.with_name("mine"))
        disk.receive(sample)
        assert disk.visible().pop("a.bin") == sample.data

    def test_that_is_right_is_not_read_again_afterwards(
        self, disk: DiskBench, sample: Sample, shown: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        disk.store.verify(sample.file_id)
        monkeypatch.setattr(os, "pread", error_of(errno.EIO))
        disk.restart()
        assert disk.store.known() == {sample.file_id: Held(sample.all, complete=True)}

    def test_that_was_removed_is_forgotten(self, disk: DiskBench, sample: Sample, shown: Path) -> None:
        shown.unlink()
        disk.store.verify(sample.file_id)
        assert disk.store.known() == {}
        disk.receive(sample)
        assert disk.visible() == {"a.bin": sample.data}

    def test_that_is_what_it_was_is_not_touched(self, disk: DiskBench, sample: Sample, shown: Path) -> None:
        assert disk.store.external_changes() == ExternalChanges({}, [])
        disk.restart()
        assert disk.store.external_changes() == ExternalChanges({}, [])

    def test_is_looked_at_without_being_opened(
        self, disk: DiskBench, sample: Sample, shown: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alter_byte(shown, 2048)
        for call in ("open", "pread"):
            monkeypatch.setattr(os, call, error_of(errno.EIO))
        assert disk.store.external_changes().changed == [sample.file_id]

    @pytest.mark.parametrize("meddle", [alter, longer, replaced, linked])
    def test_that_was_changed_is_seen_to_be(
        self, disk: DiskBench, sample: Sample, shown: Path, meddle: Callable[[Path], None]
    ) -> None:
        meddle(shown)
        assert disk.store.external_changes() == ExternalChanges({}, [sample.file_id])
        disk.store.verify(sample.file_id)
        assert not any(held.complete for held in disk.store.known().values())
        assert disk.store.external_changes() == ExternalChanges({}, []), "it is known by now"

    def test_that_was_only_touched_is_verified_once(self, disk: DiskBench, sample: Sample, shown: Path) -> None:
        shown.touch()
        assert disk.store.external_changes() == ExternalChanges({}, [sample.file_id])
        disk.store.verify(sample.file_id)
        assert disk.store.known()[sample.file_id].complete
        assert disk.store.external_changes() == ExternalChanges({}, [])

    def test_that_cannot_be_looked_at_is_not_taken_for_removed(
        self, disk: DiskBench, sample: Sample, shown: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "lstat", error_of(errno.EIO))
        assert disk.store.external_changes() == ExternalChanges({}, [])

    def test_that_was_removed_is_seen_to_be(self, disk: DiskBench, sample: Sample, shown: Path) -> None:
        shown.unlink()
        assert disk.store.external_changes() == ExternalChanges({sample.file_id: shown}, [])
        disk.store.discard(sample.file_id)
        assert disk.store.external_changes() == ExternalChanges({}, [])

    def test_that_could_not_be_verified_is_not_trusted_after_a_restart(
        self, disk: DiskBench, sample: Sample, shown: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alter_byte(shown, 2048, PUT_BACK)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", error_of(errno.EIO))
            with pytest.raises(StorageError, match="cannot read"):
                disk.store.verify(sample.file_id)
        disk.restart()
        assert disk.store.known() == {sample.file_id: Held(RangeSet([(0, 2), (3, 7)]), complete=False)}


class TestVerifying:
    """A store that is told to trust nothing."""

    @pytest.fixture
    def verifying(self, disk: DiskBench) -> Iterator[Callable[[], DiskStore]]:
        stores: list[DiskStore] = []

        def reopen() -> DiskStore:
            disk.store.close()
            stores.append(DiskStore(disk.folder, blake3_digest, verifies=True))
            return stores[-1]

        yield reopen
        for store in stores:
            store.close()

    def test_takes_what_is_right(self, disk: DiskBench, verifying: Callable[[], DiskStore]) -> None:
        finished, begun = Sample(5000), Sample(7 * 1024, name="b.bin")
        disk.receive(finished)
        disk.begin(begun)
        disk.write(begun, 1, 3)
        assert verifying().known() == {
            finished.file_id: Held(finished.all, complete=True),
            begun.file_id: Held(RangeSet([(1, 3)]), complete=False),
        }

    def test_finds_what_the_disk_has_damaged(self, disk: DiskBench, verifying: Callable[[], DiskStore]) -> None:
        finished, begun = Sample(5000), Sample(7 * 1024, name="b.bin")
        disk.receive(finished)
        disk.begin(begun)
        disk.write(begun, 1, 3)
        alter_byte(disk.folder / "a.bin", 3000, later_ns=PUT_BACK)
        alter_byte(disk.path(begun, "part"), 1500, later_ns=PUT_BACK)
        damaged = (disk.folder / "a.bin").read_bytes()
        disk.restart()
        assert disk.store.known()[finished.file_id].complete
        assert verifying().known() == {
            finished.file_id: Held(RangeSet([(0, 2), (3, 5)]), complete=False),
            begun.file_id: Held(RangeSet([(2, 3)]), complete=False),
        }
        assert disk.visible() == {"a.bin.damaged-1": damaged}

    @pytest.mark.parametrize("name", ["n" * 254, "日" * 84 + "ab", "x" + "é" * 126], ids=["one", "three", "two bytes"])
    def test_a_long_name_is_shortened_for_the_damaged_copy(
        self, disk: DiskBench, verifying: Callable[[], DiskStore], name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        sample = Sample(5000, name=name)
        disk.receive(sample)
        alter_byte(disk.folder / name, 3000, later_ns=PUT_BACK)
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
    def test_a_copy_that_cannot_be_set_aside_is_never_trusted_again(
        self,
        disk: DiskBench,
        verifying: Callable[[], DiskStore],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        code: int,
    ) -> None:
        sample = Sample(5000)
        disk.receive(sample)
        alter_byte(disk.folder / "a.bin", 3000, later_ns=PUT_BACK)
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", error_of(code))
            store = verifying()
            assert not store.known()
            with pytest.raises(StorageError, match=f"cannot set aside .*: {os.strerror(code)}"):
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

    def test_a_damaged_copy_is_not_trusted_if_its_mark_cannot_be_written(
        self, disk: DiskBench, verifying: Callable[[], DiskStore], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sample = Sample(5000)
        disk.receive(sample)
        alter_byte(disk.folder / "a.bin", 3000, later_ns=PUT_BACK)
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

    def test_a_running_client_does_not_trust_what_it_could_not_verify(
        self, disk: DiskBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sample = Sample(5000)
        disk.receive(sample)
        alter_byte(disk.folder / "a.bin", 3000, later_ns=PUT_BACK)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", error_of(errno.ENOSPC))
            with pytest.raises(StorageError, match="No space left"):
                disk.store.verify(sample.file_id)
        disk.restart()
        held = disk.store.known().get(sample.file_id)
        assert held is None or not held.complete
