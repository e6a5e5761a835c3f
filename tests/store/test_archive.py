"""A folder as one file: its archive, and what is unpacked of one."""

from __future__ import annotations

import errno
import io
import os
import random
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pspd.core.manifest import Manifest
from pspd.errors import BadArgument, StorageError
from pspd.store import archive
from pspd.store.archive import FolderArchive, flush_tree, is_folder_of, remove_tree, unpack
from pspd.store.digests import blake3_digest
from pspd.store.original import OriginalStore
from tests.store.stores import archived, error_of, filled_folder, seen_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return filled_folder(tmp_path / "data")


def manifest_of(folder: Path) -> Manifest:
    with closing(OriginalStore(folder, folder.name, blake3_digest)) as store:
        return store.build()


def packed(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", data: bytes = b""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, data


class TestReading:
    def test_gives_a_tar_that_others_read(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "data.tar").write_bytes(archived(folder))
        with tarfile.open(tmp_path / "data.tar") as tar:
            tar.extractall(tmp_path / "out", filter="tar")
        assert seen_in(tmp_path / "out") == seen_in(folder)

    def test_gives_the_same_piece_by_piece(self, folder: Path) -> None:
        whole, draw = archived(folder), random.Random(1)
        with closing(FolderArchive(folder)) as found:
            for _ in range(300):
                start = draw.randrange(len(whole))
                length = min(draw.choice([1, 511, 512, 513, 5000]), len(whole) - start)
                assert found.read_at(start, length) == whole[start : start + length]

    def test_is_the_same_for_the_same_folder_elsewhere_and_later(self, folder: Path, tmp_path: Path) -> None:
        other = filled_folder(tmp_path / "other")
        os.utime(other / "sub" / "a.bin", ns=(1, 1))
        assert archived(other) == archived(folder)
        (other / "sub" / "a.bin").chmod(0o600)
        assert archived(other) != archived(folder)

    def test_a_folder_is_no_file_with_the_same_bytes(self, folder: Path, tmp_path: Path) -> None:
        plain = tmp_path / "plain" / "data"
        plain.parent.mkdir()
        plain.write_bytes(archived(folder))
        assert manifest_of(folder).is_folder
        assert not manifest_of(plain).is_folder
        assert manifest_of(plain).block_digests == manifest_of(folder).block_digests
        assert manifest_of(plain).file_id != manifest_of(folder).file_id

    def test_an_empty_folder_has_an_archive_too(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        unpack(packed_of(tmp_path / "empty", tmp_path), tmp_path / "out")
        assert seen_in(tmp_path / "out") == seen_in(tmp_path / "empty")

    @pytest.mark.parametrize("name", ["long " * 30 + "/" + "name " * 30, "ünï", "new\nline", "tr\udce9s"])
    def test_names_are_kept_whatever_they_are(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
        unpack(packed_of(tmp_path / "data", tmp_path), tmp_path / "out")
        assert seen_in(tmp_path / "out") == seen_in(tmp_path / "data")

    @pytest.mark.parametrize(
        "change", [lambda path: path.write_bytes(b"other"), lambda path: os.utime(path, ns=(1, 1))]
    )
    def test_a_file_that_was_changed_is_refused(self, folder: Path, change: Callable[[Path], object]) -> None:
        with closing(FolderArchive(folder)) as found:
            change(folder / "sub" / "a.bin")
            with pytest.raises(StorageError, match="was changed while it was read: seed it again"):
                found.read_at(0, found.size_bytes)

    def test_so_is_one_that_is_gone(self, folder: Path) -> None:
        with closing(FolderArchive(folder)) as found:
            (folder / "sub" / "a.bin").unlink()
            with pytest.raises(StorageError, match="was changed while it was read"):
                found.read_at(0, found.size_bytes)

    def test_a_link_to_a_folder_is_followed(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(folder)
        assert archived(tmp_path / "link") == archived(folder)

    def test_so_is_one_that_came_meanwhile(self, folder: Path) -> None:
        with closing(FolderArchive(folder)) as found:
            (folder / "late").touch()
            with pytest.raises(StorageError, match="was changed while it was read"):
                found.require_unchanged()

    def test_a_failing_disk_is_told(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with closing(FolderArchive(folder)) as found:
            monkeypatch.setattr(os, "pread", error_of(errno.EIO))
            with pytest.raises(StorageError, match=r"cannot read .*run\.sh: Input/output error"):
                found.read_at(0, found.size_bytes)


class TestRefusals:
    def test_what_is_neither_file_nor_folder_nor_link(self, folder: Path) -> None:
        os.mkfifo(folder / "pipe")
        with pytest.raises(BadArgument, match=r"data/pipe: it is neither a file, a folder nor a link: take it away"):
            FolderArchive(folder)

    @pytest.mark.parametrize("target", ["/etc/passwd", "../..", "sub/../../x", "../data"])
    def test_links_that_lead_out(self, folder: Path, target: str) -> None:
        (folder / "stray").symlink_to(target)
        if target == "../data":  # comes back in
            assert len(archived(folder)) > 0
        else:
            with pytest.raises(BadArgument, match="its link 'stray' is absolute or leads out of it: take that away"):
                FolderArchive(folder)

    def test_a_clients_folder(self, folder: Path) -> None:
        (folder / "sub" / ".psp").mkdir()
        assert len(archived(folder)) > 0
        (folder / "sub" / ".psp" / "instance").touch()
        with pytest.raises(BadArgument, match=r"cannot seed .*/sub: it is a client's folder"):
            FolderArchive(folder)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
    def test_what_cannot_be_read(self, folder: Path) -> None:
        (folder / "sub").chmod(0)
        with pytest.raises(StorageError, match="cannot read"):
            FolderArchive(folder)


def packed_of(folder: Path, place: Path) -> Path:
    path = place / "folder.tar"
    path.write_bytes(archived(folder))
    return path


class TestUnpacking:
    def test_gives_the_folder_back(self, folder: Path, tmp_path: Path) -> None:
        path = packed_of(folder, tmp_path)
        unpack(path, tmp_path / "out")
        assert seen_in(tmp_path / "out") == seen_in(folder)
        assert is_folder_of(manifest_of(folder), tmp_path / "out", blake3_digest)
        unpack(path, tmp_path / "out")  # what is there is removed
        assert seen_in(tmp_path / "out") == seen_in(folder)
        flush_tree(tmp_path / "out")
        remove_tree(tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_knows_a_folder_that_is_another(self, folder: Path, tmp_path: Path) -> None:
        manifest = manifest_of(folder)
        (folder / "sub" / "a.bin").write_bytes(b"other")
        assert not is_folder_of(manifest, folder, blake3_digest)
        assert not is_folder_of(manifest, tmp_path / "nothing", blake3_digest)

    @pytest.mark.parametrize(
        "members",
        [
            [entry("../stray", data=b"x")],
            [entry("/tmp/stray", data=b"x")],
            [entry("sub/../../stray", data=b"x")],
            [entry("link", tarfile.SYMTYPE, ".."), entry("link/stray", data=b"x")],
            [entry("link", tarfile.SYMTYPE, "..")],
            [entry("link", tarfile.SYMTYPE, "/etc")],
            [entry("b", tarfile.SYMTYPE, "d/c/.."), entry("d/c", tarfile.SYMTYPE, "..")],
            [entry("a", data=b"x"), entry("hard", tarfile.LNKTYPE, "a")],
            [entry("device", tarfile.CHRTYPE)],
            [entry("pipe", tarfile.FIFOTYPE)],
            [entry("a", data=b"x"), entry("./a", data=b"y")],
            [entry("a", tarfile.SYMTYPE, "b"), entry("a", data=b"y")],
        ],
    )
    def test_of_a_hostile_one_nothing_is_left(
        self, tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]
    ) -> None:
        inner = tmp_path / "inner"
        inner.mkdir()
        path = packed(inner / "hostile.tar", *members)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(StorageError):
            unpack(path, inner / "out")
        assert sorted(tmp_path.rglob("*")) == before

    def test_what_is_no_archive_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "bad.tar").write_bytes(b"x" * 5000)
        with pytest.raises(StorageError, match="cannot be unpacked"):
            unpack(tmp_path / "bad.tar", tmp_path / "out")

    def test_a_full_disk_is_told_and_leaves_nothing(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = packed_of(folder, tmp_path)
        monkeypatch.setattr(archive.tarfile.TarFile, "makefile", error_of(errno.ENOSPC))
        with pytest.raises(StorageError, match="No space left on device: free some space there"):
            unpack(path, tmp_path / "out")
        assert not (tmp_path / "out").exists()
