"""The archive of a folder: read, parsed, unpacked."""

from __future__ import annotations

import errno
import os
import random
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pspd.core.model.manifest import Manifest
from pspd.errors import BadArgument, StorageError
from pspd.store.digests import blake3_digest
from pspd.store.source.source_store import SourceStore
from pspd.store.tree import archive, entries
from pspd.store.tree.archive import FolderArchive, padded_size, parse_entries
from pspd.store.tree.entries import FILE, FOLDER, LINK, ArchiveError, Entry
from pspd.store.tree.traverse import flush_tree, is_changed_since, remove_tree
from pspd.store.tree.unpack import folder_matches, unpack
from tests.store.stores import FolderSample, archived, error_of, filled_folder, seen_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return filled_folder(tmp_path / "data")


def manifest_of(folder: Path) -> Manifest:
    with closing(SourceStore(folder, folder.name, blake3_digest)) as store:
        return store.build_manifest()


SAMPLE = FolderSample()
TOP = Entry(".", FOLDER, 0o755)


def packed(path: Path, *things: tuple[Entry, bytes] | bytes) -> Path:
    """Write an archive of entries with their content, and of raw bytes; the entries need not be valid."""
    parts = []
    for thing in things:
        if isinstance(thing, bytes):
            parts.append(thing)
        else:
            entry, data = thing
            parts += [entry.header(), data, bytes(padded_size(len(data)) - len(data))]
    path.write_bytes(b"".join([*parts, bytes(1024)]))
    return path


def file(name: str, data: bytes = b"x") -> tuple[Entry, bytes]:
    return Entry(name, FILE, 0o644, len(data)), data


def folder_named(name: str) -> tuple[Entry, bytes]:
    return Entry(name, FOLDER, 0o755), b""


def link(name: str, target: str) -> tuple[Entry, bytes]:
    return Entry(name, LINK, 0o777, target=target), b""


def foreign(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **more: Any) -> bytes:
    """Return a header that no source writes."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, size, 0o644
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT if size < 0 else tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def parsed(data: bytes) -> list[tuple[Entry, int]]:
    """Return the entries of an archive, each with the offset of its content."""
    return parse_entries(lambda offset, length: data[offset : offset + length], len(data))


def never_stopped() -> None:
    """Never stop the unpacking."""


class TestFolderArchive:
    def test_archive_is_a_tar(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "data.tar").write_bytes(archived(folder))
        with tarfile.open(tmp_path / "data.tar") as tar:
            tar.extractall(tmp_path / "out", filter="tar")
        assert seen_in(tmp_path / "out") == seen_in(folder)

    def test_reading_in_parts_gives_the_same_bytes(self, folder: Path) -> None:
        whole, draw = archived(folder), random.Random(1)
        with closing(FolderArchive(folder)) as found:
            for _ in range(300):
                start = draw.randrange(len(whole))
                length = min(draw.choice([1, 511, 512, 513, 5000]), len(whole) - start)
                assert found.read_at(start, length) == whole[start : start + length]

    def test_archives_of_equal_folders_are_equal(self, folder: Path, tmp_path: Path) -> None:
        other = filled_folder(tmp_path / "other")
        os.utime(other / "sub" / "a.bin", ns=(1, 1))
        assert archived(other) == archived(folder)
        (other / "sub" / "a.bin").chmod(0o600)
        assert archived(other) != archived(folder)

    def test_folder_and_file_of_equal_bytes_differ(self, folder: Path, tmp_path: Path) -> None:
        plain = tmp_path / "plain" / "data"
        plain.parent.mkdir()
        plain.write_bytes(archived(folder))
        assert manifest_of(folder).is_folder
        assert not manifest_of(plain).is_folder
        assert manifest_of(plain).block_digests == manifest_of(folder).block_digests
        assert manifest_of(plain).file_id != manifest_of(folder).file_id

    def test_empty_folder_has_an_archive(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        unpack(packed_of(tmp_path / "empty", tmp_path), tmp_path / "out", never_stopped)
        assert seen_in(tmp_path / "out") == seen_in(tmp_path / "empty")

    @pytest.mark.parametrize("name", ["long " * 30 + "/" + "name " * 30, "ünï", "new\nline", "tr\udce9s"])
    def test_unusual_names_are_kept(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
        unpack(packed_of(tmp_path / "data", tmp_path), tmp_path / "out", never_stopped)
        assert seen_in(tmp_path / "out") == seen_in(tmp_path / "data")

    @pytest.mark.parametrize(
        "change", [lambda path: path.write_bytes(b"other"), lambda path: os.utime(path, ns=(1, 1))]
    )
    def test_changed_file_is_refused(self, folder: Path, change: Callable[[Path], object]) -> None:
        with closing(FolderArchive(folder)) as found:
            change(folder / "sub" / "a.bin")
            with pytest.raises(StorageError, match="was changed while it was read: seed it again"):
                found.read_at(0, found.size_bytes)

    def test_missing_file_is_refused(self, folder: Path) -> None:
        with closing(FolderArchive(folder)) as found:
            (folder / "sub" / "a.bin").unlink()
            with pytest.raises(StorageError, match="was changed while it was read"):
                found.read_at(0, found.size_bytes)

    def test_link_to_the_folder_is_followed(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(folder)
        assert archived(tmp_path / "link") == archived(folder)

    def test_added_file_is_refused(self, folder: Path) -> None:
        with closing(FolderArchive(folder)) as found:
            (folder / "late").touch()
            with pytest.raises(StorageError, match="was changed while it was read"):
                found.require_unchanged()

    def test_failed_read_raises(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with closing(FolderArchive(folder)) as found:
            monkeypatch.setattr(os, "pread", error_of(errno.EIO))
            with pytest.raises(StorageError, match=r"cannot read .*run\.sh: Input/output error"):
                found.read_at(0, found.size_bytes)


class TestRefusals:
    def test_too_many_long_paths_are_refused(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        header_bytes = sum(len(entry.header()) for entry, _ in parsed(archived(folder)))
        monkeypatch.setattr(archive, "HEADER_BYTES_MAX", header_bytes)
        FolderArchive(folder).close()
        monkeypatch.setattr(archive, "HEADER_BYTES_MAX", header_bytes - 1)
        with pytest.raises(BadArgument, match=r"^cannot seed .*: its paths are too many or too long: seed its parts"):
            FolderArchive(folder)

    def test_pipe_is_refused(self, folder: Path) -> None:
        os.mkfifo(folder / "pipe")
        with pytest.raises(BadArgument, match=r"data/pipe: it is not a file, folder or symbolic link: remove it"):
            FolderArchive(folder)

    @pytest.mark.parametrize("target", ["/etc/passwd", "../..", "sub/../../x", "../data", "stray"])
    def test_links_that_lead_out_are_refused(self, folder: Path, target: str) -> None:
        (folder / "stray").symlink_to(target)
        with pytest.raises(BadArgument, match="its link 'stray' is absolute, leads out of it, or loops"):
            FolderArchive(folder)

    def test_client_folder_of_another_user_is_refused(self, as_nobody: Path) -> None:
        (as_nobody / "a.bin").touch()
        (as_nobody / ".psp").mkdir(0o000)
        with pytest.raises(BadArgument, match="it is a client's folder"):
            FolderArchive(as_nobody)

    def test_client_folder_is_refused(self, folder: Path) -> None:
        (folder / "sub" / ".psp").mkdir()
        assert len(archived(folder)) > 0
        (folder / "sub" / ".psp" / "instance").touch()
        with pytest.raises(BadArgument, match=r"cannot seed .*/sub: it is a client's folder"):
            FolderArchive(folder)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
    def test_unreadable_folder_is_refused(self, folder: Path) -> None:
        (folder / "sub").chmod(0)
        with pytest.raises(StorageError, match="cannot read"):
            FolderArchive(folder)


def packed_of(folder: Path, place: Path) -> Path:
    path = place / "folder.tar"
    path.write_bytes(archived(folder))
    return path


class TestUnpack:
    def test_unpack_restores_the_folder(self, folder: Path, tmp_path: Path) -> None:
        path = packed_of(folder, tmp_path)
        unpack(path, tmp_path / "out", never_stopped)
        assert seen_in(tmp_path / "out") == seen_in(folder)
        assert folder_matches(manifest_of(folder), tmp_path / "out", blake3_digest)
        unpack(path, tmp_path / "out", never_stopped)  # an existing folder is removed
        assert seen_in(tmp_path / "out") == seen_in(folder)
        flush_tree(tmp_path / "out")
        now_ns = (tmp_path / "out").stat().st_ctime_ns
        assert not is_changed_since(tmp_path / "out", now_ns)
        assert is_changed_since(tmp_path / "out", now_ns - 60_000_000_000)
        assert is_changed_since(tmp_path / "nothing", now_ns)
        os.mkfifo(tmp_path / "out" / "pipe")
        flush_tree(tmp_path / "out")  # does not wait for the pipe
        remove_tree(tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_folder_matches_notices_differences(self, folder: Path, tmp_path: Path) -> None:
        manifest = manifest_of(folder)
        (folder / "sub" / "a.bin").write_bytes(b"other")
        assert not folder_matches(manifest, folder, blake3_digest)
        assert not folder_matches(manifest, tmp_path / "nothing", blake3_digest)

    @pytest.mark.parametrize(
        "things",
        [
            [],
            [file("a")],
            [(TOP, b""), (TOP, b"")],
            [(Entry(".", FILE, 0o644), b"")],
            [(Entry(".", LINK, 0o777, target="/"), b"")],
            [(Entry("", FOLDER, 0o755), b"")],
            [(TOP, b""), file("../stray")],
            [(TOP, b""), file("/tmp/stray")],
            [(TOP, b""), folder_named("sub"), file("sub/../../stray")],
            [(TOP, b""), file("./a")],
            [(TOP, b""), folder_named(".."), file("../.bashrc")],
            [(TOP, b""), (Entry("a", FILE, 0o644, 1, target="/etc"), b"x")],
            [(TOP, b""), (Entry("a", FILE, 0o000, 1), b"x")],
            [(TOP, b""), (Entry("a", FOLDER, 0o300), b"")],
            [(Entry(".", FOLDER, 0o500), b"")],
            [(TOP, b""), *[folder_named("/".join(["a"] * depth)) for depth in range(1, 220)]],
            [(TOP, b""), link("a", "/".join(["x"] * 300))],
            [(TOP, b""), file("sub/a")],
            [(TOP, b""), file("b"), file("a")],
            [(TOP, b""), file("a"), file("a")],
            [(TOP, b""), file("a"), file("a/b")],
            [(TOP, b""), link("link", ".."), file("link/stray")],
            [(TOP, b""), link("link", "..")],
            [(TOP, b""), link("link", "/etc")],
            [(TOP, b""), link("a", "b"), link("b", "a")],
            [(TOP, b""), link("b", "d/c/.."), folder_named("d"), link("d/c", "..")],
            [(TOP, b""), folder_named("d"), link("d/c", ".."), link("e", "d/c/..")],
            [(TOP, b""), file("a"), foreign("hard", tarfile.LNKTYPE, linkname="a")],
            [(TOP, b""), foreign("device", tarfile.CHRTYPE)],
            [(TOP, b""), foreign("pipe", tarfile.FIFOTYPE)],
            [(TOP, b""), foreign("sparse", tarfile.GNUTYPE_SPARSE)],
            [(TOP, b""), foreign("a", size=-512)],
            [(TOP, b""), foreign("a", size=-1536)],
            [(TOP, b""), foreign("a", uid=7)],
            [(TOP, b""), foreign("a", pax_headers={"size": "-1536"})],
            [(TOP, b""), foreign("a", pax_headers={"comment": "x"})],
            [(TOP, b""), foreign("a", pax_headers={"path": "b\0c"})],
            [(TOP, b""), foreign("a", pax_headers={f"key{number}": "x" for number in range(5000)})],
            [(TOP, b""), foreign("a", size=2**60)],
            [(TOP, b""), (Entry("a", FILE, 0o644, 2**70), b"")],
            [(TOP, b""), bytes(512), file("a")],
            [(TOP, b""), file("a")[0].header() + b"x" * 512],
            [(TOP, b""), b"x" * 512],
        ],
    )
    def test_hostile_archive_is_refused_and_leaves_nothing(
        self, tmp_path: Path, things: list[tuple[Entry, bytes] | bytes]
    ) -> None:
        inner = tmp_path / "inner"
        inner.mkdir()
        path = packed(inner / "hostile.tar", *things)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(StorageError, match=r"cannot unpack the folder's archive: .*: do not trust its source"):
            unpack(path, inner / "out", never_stopped)
        assert sorted(tmp_path.rglob("*")) == before

    def test_deep_links_are_resolved(self, tmp_path: Path) -> None:
        """A link whose path is too long for the operating system is resolved like any other."""
        deep, path = [], ""
        for _ in range(16):
            path = f"{path}/{'d' * 240}".lstrip("/")
            deep.append(folder_named(path))
        up = "/".join([".."] * 16)
        hostile = [link("L0", deep[-1][0].name), link("out", f"L0/{up}/..")]
        archive_path = packed(
            tmp_path / "hostile.tar", (TOP, b""), *sorted([*deep, *hostile], key=lambda each: each[0].name)
        )
        with pytest.raises(StorageError, match="its link 'out' is absolute, leads out of it"):
            unpack(archive_path, tmp_path / "out", never_stopped)

    def test_link_resolution_is_bounded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(entries, "LINK_STEPS_MAX", 50)
        links = [link(f"l{number:02}", "x/" * 20) for number in range(10)]
        path = packed(tmp_path / "a.tar", (TOP, b""), *links)
        with pytest.raises(StorageError, match="its links are too many or too long"):
            unpack(path, tmp_path / "out", never_stopped)
        path = packed(tmp_path / "b.tar", (TOP, b""), link("l", "x" * 5000))
        with pytest.raises(StorageError, match=r"the path 'l'\.\.\. has more than"):
            unpack(path, tmp_path / "out", never_stopped)

    def test_entry_below_a_link_is_refused(self, tmp_path: Path) -> None:
        path = packed(tmp_path / "a.tar", (TOP, b""), folder_named("d"), link("l", "d"), file("l/x"))
        with pytest.raises(StorageError, match="'l/x' is not in one of its folders"):
            unpack(path, tmp_path / "out", never_stopped)

    @given(st.data())
    def test_archive_with_a_wrong_byte_is_refused_or_harmless(self, data: st.DataObject) -> None:
        whole = bytearray(SAMPLE.data)
        position = data.draw(st.integers(0, len(whole) - 1))
        whole[position] ^= data.draw(st.integers(1, 255))
        try:
            found = parsed(bytes(whole))
        except ArchiveError:
            return
        assert all(".." not in entry.name.split("/") and not entry.name.startswith("/") for entry, _ in found)

    def test_unpack_ends_when_stopped(self, folder: Path, tmp_path: Path) -> None:
        path = packed_of(folder, tmp_path)
        calls = iter(range(3))

        def stop() -> None:
            if next(calls) == 2:
                raise StorageError("it ends")

        with pytest.raises(StorageError, match="it ends"):
            unpack(path, tmp_path / "out", stop)
        assert not (tmp_path / "out").exists()

    def test_garbage_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "bad.tar").write_bytes(b"x" * 5000)
        with pytest.raises(StorageError, match="cannot unpack"):
            unpack(tmp_path / "bad.tar", tmp_path / "out", never_stopped)

    def test_full_disk_raises_and_leaves_nothing(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = packed_of(folder, tmp_path)
        monkeypatch.setattr(os, "pwrite", error_of(errno.ENOSPC))
        with pytest.raises(StorageError, match="No space left on device: free some space there"):
            unpack(path, tmp_path / "out", never_stopped)
        assert not (tmp_path / "out").exists()
