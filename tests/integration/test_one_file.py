"""A problem with one file does not affect the client's other files."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from pspd.store.tree.traverse import remove_tree
from tests.store.tree.test_traverse import deepen
from tests.support.daemons import Network
from tests.support.files import random_file

LIMIT_BYTES = 2048 * 1024


def test_client_declines_file_that_is_too_large(network: Network, tmp_path: Path) -> None:
    network.server()
    limited = network.client("a")
    network.client("b")
    before = resource.prlimit(limited.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(limited.pid, resource.RLIMIT_FSIZE, (LIMIT_BYTES, before[1]))
    large, small = random_file(tmp_path / "large", 5_000_000), random_file(tmp_path / "small", 300_000)
    assert "a declined it: cannot write " in network.ctl("seed", large, "--wait", code=4).stderr
    network.ctl("seed", small, "--wait")
    network.await_copies(small, "ab")
    network.await_copies(large, "b")
    assert limited.alive
    assert "File too large" in limited.log_text()
    resource.prlimit(limited.pid, resource.RLIMIT_FSIZE, before)
    network.await_copies(large, "ab")


def test_declining_client_still_serves_its_chunks(network: Network, tmp_path: Path) -> None:
    network.server()
    limited = network.client("a")
    network.client("b")
    large = random_file(tmp_path / "large", 5_000_000)
    network.ctl("seed", large, "--clients", 2, "--hold")
    before = resource.prlimit(limited.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(limited.pid, resource.RLIMIT_FSIZE, (0, before[1]))
    network.ctl("release", "large")
    network.until("a declines it", lambda: network.file("large")["declined_client_count"] == 1)
    network.await_copies(large, "b")
    assert limited.alive


def test_japanese_name_arrives_in_any_locale(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}.items():
        monkeypatch.setenv(name, value)
    network.server()
    network.client("a")
    file = random_file(tmp_path / "日本語.bin", 100_000)
    folder = tmp_path / "フォルダ"
    folder.mkdir()
    (folder / "ファイル").write_text("x")
    network.ctl("seed", file, "--wait")
    network.ctl("seed", folder, "--wait")
    network.await_copies(file, "a")
    assert (network.copy("a", "フォルダ") / "ファイル").read_text() == "x"


def test_users_deep_folder_makes_client_decline_that_name(network: Network, tmp_path: Path) -> None:
    network.server()
    mine = deepen(network.folder / "a" / "data")
    try:
        client = network.client("a")
        (tmp_path / "data").mkdir()
        other = random_file(tmp_path / "other", 1000)
        assert "another file named 'data'" in network.ctl("seed", tmp_path / "data", "--wait", code=4).stderr
        network.ctl("seed", other, "--wait")
        assert client.alive
        assert "cannot seed" in network.ctl("seed", mine, code=2).stderr
    finally:
        remove_tree(mine)


def test_client_ends_when_its_folder_is_removed(network: Network, tmp_path: Path) -> None:
    network.server()
    client = network.client("a")
    client.expect_end()
    os.rename(network.folder / "a", network.folder / "moved")
    network.until("it ends", lambda: not client.alive)
    assert "cannot use " in client.log_text()
