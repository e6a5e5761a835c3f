"""The folder itself: made, locked, and its files replaced."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from pspd.errors import StorageError, WrongState
from pspd.store.digests import blake3_digest
from pspd.store.files import identity
from pspd.store.files.disk import DiskStore
from pspd.store.filesystem import atomic
from tests.store.stores import DiskBench, error_of


class TestFolder:
    def test_is_one_clients_alone(self, disk: DiskBench) -> None:
        folder = re.escape(str(disk.folder))
        said = rf"^folder {folder} is in use by another client \(process {os.getpid()}\): name .*--dir$"
        with pytest.raises(WrongState, match=said):
            DiskStore(disk.folder, blake3_digest)
        disk.restart()

    def test_that_cannot_be_made_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StorageError, match=r"cannot use .*: Not a directory: name a folder"):
            DiskStore(tmp_path / "file" / "client", blake3_digest)

    def test_whose_hidden_folder_is_a_file_is_told(self, tmp_path: Path) -> None:
        (tmp_path / ".psp").write_bytes(b"")
        with pytest.raises(StorageError, match="File exists: move away"):
            DiskStore(tmp_path, blake3_digest)

    @pytest.mark.parametrize("name", ["lock", "instance"])
    def test_whose_records_cannot_be_opened_is_told(self, tmp_path: Path, name: str) -> None:
        (tmp_path / ".psp" / name).mkdir(parents=True)
        with pytest.raises(StorageError, match="Is a directory"):
            DiskStore(tmp_path, blake3_digest)
        # Nothing is left locked by the attempt.
        (tmp_path / ".psp" / name).rmdir()
        DiskStore(tmp_path, blake3_digest).close()

    def test_that_cannot_be_locked_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fcntl.flock", error_of(errno.ENOLCK))
        with pytest.raises(StorageError, match="cannot lock"):
            DiskStore(tmp_path, blake3_digest)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
    def test_that_may_not_be_written_to_is_told(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(StorageError, match="Permission denied: grant"):
            DiskStore(tmp_path, blake3_digest)


class TestFiles:
    def test_a_file_that_cannot_be_replaced_stays(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        with pytest.raises(StorageError, match="cannot write"):
            atomic.replace_file(tmp_path / "a", b"new")
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_a_file_that_cannot_be_removed_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        with pytest.raises(StorageError, match="cannot remove"):
            atomic.remove_file(tmp_path / "a")

    def test_where_no_boot_is_named_none_is_known_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert identity.boot_id() == identity.boot_id()
        monkeypatch.setattr(identity, "_BOOT_ID", tmp_path / "nothing")
        assert identity.boot_id() != identity.boot_id()
