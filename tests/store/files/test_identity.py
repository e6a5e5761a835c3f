"""Creating and locking a client's folder, and the boot id."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from pspd.errors import StorageError, WrongState
from pspd.store.digests import blake3_digest
from pspd.store.files import records
from pspd.store.files.disk import DiskStore
from tests.store.stores import DiskBench, error_of


class TestFolder:
    def test_second_client_is_refused(self, disk: DiskBench) -> None:
        folder = re.escape(str(disk.folder))
        said = rf"^folder {folder} is in use by another client \(process {os.getpid()}\): name .*--dir$"
        with pytest.raises(WrongState, match=said):
            DiskStore(disk.folder, blake3_digest)
        disk.restart()

    def test_folder_that_cannot_be_created_raises(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StorageError, match=r"cannot use .*: Not a directory: name a folder"):
            DiskStore(tmp_path / "file" / "client", blake3_digest)

    def test_file_in_place_of_the_hidden_folder_raises(self, tmp_path: Path) -> None:
        (tmp_path / ".psp").write_bytes(b"")
        with pytest.raises(StorageError, match="File exists: move away"):
            DiskStore(tmp_path, blake3_digest)

    @pytest.mark.parametrize("name", ["lock", "instance"])
    def test_unusable_lock_or_instance_raises_and_unlocks(self, tmp_path: Path, name: str) -> None:
        (tmp_path / ".psp" / name).mkdir(parents=True)
        with pytest.raises(StorageError, match="Is a directory"):
            DiskStore(tmp_path, blake3_digest)
        # The failed attempt leaves nothing locked.
        (tmp_path / ".psp" / name).rmdir()
        DiskStore(tmp_path, blake3_digest).close()

    def test_link_to_an_endless_device_is_no_instance_id(self, tmp_path: Path) -> None:
        instance = tmp_path / ".psp" / "instance"
        instance.parent.mkdir()
        instance.symlink_to("/dev/full")
        DiskStore(tmp_path, blake3_digest).close()
        assert instance.is_file()
        assert not instance.is_symlink()

    def test_failed_lock_raises(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fcntl.flock", error_of(errno.ENOLCK))
        with pytest.raises(StorageError, match="cannot lock"):
            DiskStore(tmp_path, blake3_digest)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
    def test_read_only_folder_raises(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(StorageError, match="Permission denied: grant"):
            DiskStore(tmp_path, blake3_digest)


def test_boot_id_is_random_where_the_machine_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert records.current_boot_id() == records.current_boot_id()
    monkeypatch.setattr(records, "_BOOT_ID", tmp_path / "nothing")
    assert records.current_boot_id() != records.current_boot_id()
