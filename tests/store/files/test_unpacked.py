"""Distributed folders at a client: unpacked for the user, and stored as an archive for other clients."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import pspd.store.files.recovery
import pspd.store.files.unpacked
from pspd.core.model.storage import HeldChunks
from pspd.errors import IntegrityError, StorageError
from pspd.store.digests import blake3_digest
from pspd.store.files.disk import DiskStore, ExternalChanges
from pspd.store.tree.traverse import remove_tree
from pspd.text.sizes import size_text
from tests.store.stores import DiskBench, FolderSample, Sample, alter_byte, error_of, filled_folder, seen_in

FOLDER = FolderSample()


def test_finished_folder_is_visible_and_served_from_archive(disk: DiskBench) -> None:
    disk.begin(FOLDER)
    disk.write_all(FOLDER)
    assert disk.visible() == {}
    disk.store.finish(FOLDER.file_id)
    assert disk.visible() == {"folder": FOLDER.data}
    (disk.folder / "folder" / "run.sh").write_bytes(b"mine now")
    assert disk.payload(FOLDER, 0, 200) == FOLDER.chunks(0, 200)


def test_folder_is_unpacked_once_before_finish(disk: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.begin(FOLDER)
    disk.write_all(FOLDER)
    unpack = disk.store.unpack_job(FOLDER.file_id)
    assert unpack is not None
    unpack()
    assert disk.store.unpack_job(FOLDER.file_id) is None
    monkeypatch.setattr(pspd.store.files.unpacked, "unpack", None)
    disk.store.finish(FOLDER.file_id)
    assert disk.visible() == {"folder": FOLDER.data}
    assert disk.store.unpack_job(FOLDER.file_id) is None


def test_file_has_no_unpack_job(disk: DiskBench) -> None:
    sample = Sample(5000)
    disk.begin(sample)
    disk.write_all(sample)
    assert disk.store.unpack_job(sample.file_id) is None


def test_user_may_change_a_finished_folder(disk: DiskBench) -> None:
    disk.receive(FOLDER)
    (disk.folder / "folder" / "run.sh").unlink()
    (disk.folder / "folder" / "new").touch()
    before = seen_in(disk.folder / "folder")
    disk.restart()
    assert disk.store.known() == {FOLDER.file_id: HeldChunks(FOLDER.all, complete=True)}
    disk.store.verify(FOLDER.file_id)
    assert disk.store.known() == {FOLDER.file_id: HeldChunks(FOLDER.all, complete=True)}
    assert seen_in(disk.folder / "folder") == before


def test_changes_in_a_folder_are_not_reported(disk: DiskBench) -> None:
    disk.receive(FOLDER)
    (disk.folder / "folder" / "run.sh").unlink()
    (disk.folder / "folder").touch()
    assert disk.store.external_changes() == ExternalChanges({}, [])


def test_removed_or_replaced_folder_is_reported(disk: DiskBench) -> None:
    disk.receive(FOLDER)
    shutil.rmtree(disk.folder / "folder")
    assert disk.store.external_changes() == ExternalChanges({FOLDER.file_id: disk.folder / "folder"}, [])
    disk.put("folder", b"mine")
    assert disk.store.external_changes() == ExternalChanges({}, [FOLDER.file_id])


def test_changed_archive_is_reported(disk: DiskBench) -> None:
    disk.receive(FOLDER)
    alter_byte(disk.path(FOLDER, "tar"), 5000)
    assert disk.store.external_changes() == ExternalChanges({}, [FOLDER.file_id])
    disk.store.verify(FOLDER.file_id)
    assert not disk.store.known()[FOLDER.file_id].complete
    assert disk.store.external_changes() == ExternalChanges({}, [])


def test_file_in_place_of_a_folder_is_left_alone(disk: DiskBench) -> None:
    disk.receive(FOLDER)
    shutil.rmtree(disk.folder / "folder")
    disk.put("folder", b"mine")
    disk.restart()
    assert not disk.store.known()[FOLDER.file_id].complete
    with pytest.raises(StorageError, match="another file named 'folder'"):
        disk.begin(FOLDER)
    assert disk.visible() == {"folder": b"mine"}
    (disk.folder / "folder").unlink()
    disk.begin(FOLDER)
    disk.write_parts(FOLDER, list(disk.store.missing(FOLDER.file_id)))
    disk.store.finish(FOLDER.file_id)
    assert disk.visible() == {"folder": FOLDER.data}


def test_removed_folder_is_forgotten_with_its_archive(disk: DiskBench) -> None:
    disk.receive(FOLDER)
    shutil.rmtree(disk.folder / "folder")
    disk.restart()
    assert disk.store.known() == {}
    assert not disk.path(FOLDER, "tar").exists()


def test_discarded_folder_stays_without_its_archive(disk: DiskBench) -> None:
    disk.receive(FOLDER)
    disk.store.discard(FOLDER.file_id)
    assert disk.visible() == {"folder": FOLDER.data}
    assert {path.name for path in disk.hidden_folder.iterdir()} == {"lock", "instance", "boot"}


def test_edited_folder_is_left_alone_after_a_crash(disk: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.receive(FOLDER)
    monkeypatch.setattr(pspd.store.files.recovery, "_FINISHING_NS", 0)
    (disk.folder / "folder" / "run.sh").write_bytes(b"mine now")
    before = seen_in(disk.folder / "folder")
    monkeypatch.setattr(pspd.store.files.recovery, "current_boot_id", lambda: "another boot")
    disk.restart()
    assert disk.store.known() == {FOLDER.file_id: HeldChunks(FOLDER.all, complete=True)}
    assert seen_in(disk.folder / "folder") == before
    assert [path.name for path in disk.folder.iterdir() if path != disk.hidden_folder] == ["folder"]


def test_edited_folder_is_left_alone_after_verify(disk: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.receive(FOLDER)
    (disk.folder / "folder" / "run.sh").write_bytes(b"mine now")
    before = seen_in(disk.folder / "folder")
    disk.store.verify(FOLDER.file_id)
    monkeypatch.setattr(pspd.store.files.recovery, "current_boot_id", lambda: "another boot")
    disk.restart()
    assert disk.store.known() == {FOLDER.file_id: HeldChunks(FOLDER.all, complete=True)}
    assert seen_in(disk.folder / "folder") == before


def test_folder_unpacked_from_wrong_bytes_is_not_published(disk: DiskBench) -> None:
    disk.begin(FOLDER)
    disk.write_all(FOLDER)
    disk.alter(FOLDER, 100_000)  # in the bytes of a file
    unpack = disk.store.unpack_job(FOLDER.file_id)
    assert unpack is not None
    unpack()
    with pytest.raises(IntegrityError):
        disk.store.finish(FOLDER.file_id)
    disk.store.verify(FOLDER.file_id)
    disk.write_parts(FOLDER, list(disk.store.missing(FOLDER.file_id)))
    disk.store.finish(FOLDER.file_id)
    assert disk.visible() == {"folder": FOLDER.data}


def test_archive_that_changes_during_unpacking_is_refused(disk: DiskBench) -> None:
    disk.begin(FOLDER)
    disk.write_all(FOLDER)
    unpack = disk.store.unpack_job(FOLDER.file_id)
    assert unpack is not None
    os.utime(disk.path(FOLDER, "part"), ns=(1, 1))
    with pytest.raises(StorageError, match="'folder' was changed while it was unpacked"):
        unpack()
    assert not list(disk.hidden_folder.glob("*.unpack*"))


def test_second_discard_removes_a_folder_being_unpacked(disk: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.begin(FOLDER)
    disk.write_all(FOLDER)
    unpack_really = pspd.store.files.unpacked.unpack

    def discard_meanwhile(part: Path, place: Path, require_going: Callable[[], None]) -> None:
        filled_folder(place)
        disk.store.discard(FOLDER.file_id)
        assert place.exists(), "what a thread is at is left to it"
        with pytest.raises(StorageError):
            unpack_really(part, place, require_going)
        raise StorageError("there is nothing to unpack any more")

    monkeypatch.setattr(pspd.store.files.unpacked, "unpack", discard_meanwhile)
    unpack = disk.store.unpack_job(FOLDER.file_id)
    assert unpack is not None
    with pytest.raises(StorageError, match="nothing to unpack"):
        unpack()
    disk.store.discard(FOLDER.file_id)
    assert {path.name for path in disk.hidden_folder.iterdir()} == {"lock", "instance", "boot"}


def test_close_ends_the_unpacking(disk: DiskBench) -> None:
    disk.begin(FOLDER)
    disk.write_all(FOLDER)
    unpack = disk.store.unpack_job(FOLDER.file_id)
    assert unpack is not None
    disk.store.close()
    with pytest.raises(StorageError, match="the client is stopping"):
        unpack()
    assert not list(disk.hidden_folder.glob("*.unpack*"))


def test_changed_archive_is_fetched_again(disk: DiskBench) -> None:
    disk.receive(FOLDER)
    alter_byte(disk.path(FOLDER, "tar"), 100_000)
    disk.restart()
    held = disk.store.known()[FOLDER.file_id]
    assert not held.complete
    assert 0 < held.verified.chunk_count < FOLDER.manifest.chunk_count
    disk.begin(FOLDER)
    disk.write_parts(FOLDER, list(disk.store.missing(FOLDER.file_id)))
    disk.store.finish(FOLDER.file_id)
    assert disk.visible() == {"folder": FOLDER.data}


def test_equal_folder_is_adopted(disk: DiskBench) -> None:
    filled_folder(disk.folder / "folder")
    assert disk.begin(FOLDER) == HeldChunks(FOLDER.all, complete=False)
    disk.store.finish(FOLDER.file_id)
    assert disk.visible() == {"folder": FOLDER.data}
    assert disk.payload(FOLDER, 0, 200) == FOLDER.chunks(0, 200)


def test_other_folder_or_file_of_the_name_is_left_alone(disk: DiskBench) -> None:
    filled_folder(disk.folder / "folder")
    (disk.folder / "folder" / "mine").touch()
    with pytest.raises(StorageError, match=r"another file named 'folder' is in .*: move it away"):
        disk.begin(FOLDER)
    shutil.rmtree(disk.folder / "folder")
    disk.put("folder", b"mine")
    with pytest.raises(StorageError, match="another file named 'folder'"):
        disk.begin(FOLDER)
    assert disk.visible() == {"folder": b"mine"}


def test_folder_that_appears_later_is_left_alone(disk: DiskBench) -> None:
    disk.begin(FOLDER)
    disk.write_all(FOLDER)
    (disk.folder / "folder").mkdir()
    with pytest.raises(StorageError, match="another file named 'folder'"):
        disk.store.finish(FOLDER.file_id)
    (disk.folder / "folder").rmdir()
    disk.store.finish(FOLDER.file_id)
    assert disk.visible() == {"folder": FOLDER.data}


def test_full_disk_during_unpacking_loses_nothing(disk: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.begin(FOLDER)
    disk.write_all(FOLDER)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", error_of(errno.ENOSPC))
        with pytest.raises(StorageError, match="No space left on device"):
            disk.store.finish(FOLDER.file_id)
    assert disk.visible() == {}
    disk.restart()
    assert disk.begin(FOLDER) == HeldChunks(FOLDER.all, complete=False)
    disk.store.finish(FOLDER.file_id)
    assert disk.visible() == {"folder": FOLDER.data}


def test_half_unpacked_folder_is_removed_at_start(disk: DiskBench) -> None:
    disk.begin(FOLDER)
    filled_folder(disk.path(FOLDER, "unpacking"))
    filled_folder(disk.hidden_folder / f"{bytes(32).hex()}.unpacked")
    disk.restart()
    disk.write_all(FOLDER)
    disk.store.finish(FOLDER.file_id)
    assert disk.visible() == {"folder": FOLDER.data}
    assert not list(disk.hidden_folder.glob("*.unpack*"))


def test_folder_counts_twice_in_max_bytes(disk: DiskBench) -> None:
    disk.store.close()
    size = FOLDER.manifest.size_bytes
    too_much = f"'folder' needs {size_text(2 * size)}, 1 B more than are left of --max-bytes"
    with (
        closing(DiskStore(disk.folder, blake3_digest, max_bytes=2 * size - 1)) as store,
        pytest.raises(StorageError, match=too_much),
    ):
        store.begin(FOLDER.manifest)
    with closing(DiskStore(disk.folder, blake3_digest, max_bytes=2 * size)) as store:
        assert store.begin(FOLDER.manifest) == HeldChunks(FOLDER.all.difference(FOLDER.all), complete=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_read_only_folder_can_be_unpacked_and_removed(disk: DiskBench) -> None:
    disk.receive(FOLDER)
    remove_tree(disk.folder / "folder")
    assert disk.visible() == {}
