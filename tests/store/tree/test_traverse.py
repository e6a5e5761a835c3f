"""Folders deeper than Python's recursion limit and the longest path."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pspd.errors import BadArgument, StorageError
from pspd.store.digests import blake3_digest
from pspd.store.files.disk import DiskStore
from pspd.store.tree.archive import FolderArchive
from pspd.store.tree.traverse import flush_tree, is_changed_since, raise_error, remove_tree, walk
from tests.store.stores import DiskBench, FolderSample

LEVELS = sys.getrecursionlimit() + 500


def deepen(folder: Path, levels: int = LEVELS) -> Path:
    """Nest folders, and put a file into the innermost."""
    before = os.open(".", os.O_RDONLY)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        for _ in range(levels):
            os.mkdir("d")
            os.chdir("d")
        Path("leaf").write_text("x")
    finally:
        os.fchdir(before)
        os.close(before)
    return folder


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    yield deepen(tmp_path / "deep")
    remove_tree(tmp_path / "deep")  # pytest's own removal would fail


def test_walk_reaches_the_bottom(deep: Path) -> None:
    found = list(walk(deep, raise_error))
    assert len(found) == LEVELS + 1
    assert found[0] == (str(deep), ["d"], [])
    assert found[-1][1:] == ([], ["leaf"])


def test_walk_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "to" / "in").mkdir(parents=True)
    (tmp_path / "to" / "link").symlink_to("in")
    (tmp_path / "to" / "up").symlink_to("..")
    found = {os.path.relpath(folder, tmp_path): (folders, sorted(rest)) for folder, folders, rest in walk(tmp_path)}
    assert found == {".": (["to"], []), "to": (["in"], ["link", "up"]), "to/in": ([], [])}


def test_walk_reports_unreadable_folders(tmp_path: Path) -> None:
    errors: list[OSError] = []
    assert not list(walk(tmp_path / "none", errors.append))
    assert isinstance(errors[0], FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        list(walk(tmp_path / "none", raise_error))
    assert not list(walk(tmp_path / "none"))


def test_remove_tree_removes_a_deep_folder(tmp_path: Path) -> None:
    deep = deepen(tmp_path / "deep")
    (deep / "link").symlink_to(tmp_path)
    remove_tree(deep)
    assert os.listdir(tmp_path) == []


def test_remove_tree_raises_if_it_fails(tmp_path: Path) -> None:
    deep = deepen(tmp_path / "deep", 3000)  # longer than any path may be
    with pytest.raises(StorageError, match=r"cannot remove .*: File name too long"):
        remove_tree(deep)
    before = os.open(".", os.O_RDONLY)
    try:  # from the inside, where paths are short
        os.chdir(deep)
        for _ in range(2000):
            os.chdir("d")
        remove_tree(Path("d"))
    finally:
        os.fchdir(before)
        os.close(before)
    remove_tree(deep)


def test_deep_folder_is_flushed_and_compared(deep: Path) -> None:
    flush_tree(deep)
    assert is_changed_since(deep, 0)
    assert not is_changed_since(deep, 2**62)


def test_deep_folder_is_refused_in_one_line(deep: Path) -> None:
    with pytest.raises(BadArgument, match=r"cannot seed .*/deep: the path 'd/d.*'....* 200 levels") as told:
        FolderArchive(deep)
    assert "\n" not in str(told.value)


def test_deep_folder_of_the_same_name_is_a_conflict(tmp_path: Path) -> None:
    sample = FolderSample()
    in_the_way = deepen(tmp_path / "client" / "folder")
    with closing(DiskStore(tmp_path / "client", blake3_digest)) as store:
        with pytest.raises(StorageError, match="another file named 'folder' is in"):
            store.begin(sample.manifest)
        remove_tree(in_the_way)
        store.begin(sample.manifest)


def test_finished_folder_made_deep_by_its_user_is_loaded(tmp_path: Path) -> None:
    sample = FolderSample()
    bench = DiskBench(tmp_path / "client")
    try:
        bench.begin(sample)
        bench.write_all(sample)
        bench.store.finish(sample.file_id)
        deepen(tmp_path / "client" / "folder" / "mine")
        bench.restart()
        assert bench.store.known()[sample.file_id].complete
        bench.store.verify(sample.file_id)
        bench.store.flush_job(sample.file_id)()
        bench.store.discard(sample.file_id)
    finally:
        bench.store.close()
    remove_tree(tmp_path / "client" / "folder")
