"""Files that are replaced or removed completely, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from pspd.errors import StorageError
from pspd.store.filesystem import files


def test_failed_replace_leaves_the_path_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        files.replace_file(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_failed_remove_raises(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(StorageError, match="cannot remove"):
        files.remove_file(tmp_path / "a")
