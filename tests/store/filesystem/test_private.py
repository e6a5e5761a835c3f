"""A client's hidden folder is private under any umask."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from pspd.store.digests import blake3_digest
from pspd.store.files.disk import DiskStore
from pspd.store.filesystem.files import create_private_folder, open_private
from tests.store.stores import DiskBench, FolderSample, Sample, error_of, mode_of, umask_of

FINISHED, FOLDER, UNFINISHED = Sample(5000), FolderSample(), Sample(5000, name="b.bin")


def not_private(work: Path) -> dict[str, int]:
    """Return the modes of the hidden folder and its files that are not private."""
    modes = {path.name: mode_of(path) for path in (work, *work.iterdir())}
    return {name: mode for name, mode in modes.items() if mode != (0o700 if name == work.name else 0o600)}


def fill(bench: DiskBench) -> None:
    """Receive a file and a folder, and part of another file."""
    bench.receive(FINISHED)
    bench.receive(FOLDER)
    bench.begin(UNFINISHED)
    bench.write(UNFINISHED, 0, 2)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_hidden_folder_is_private_under_any_umask(tmp_path: Path, umask: int) -> None:
    with umask_of(umask):
        bench = DiskBench(tmp_path / "client")
        fill(bench)
    try:
        assert not_private(bench.hidden_folder) == {}
        assert bench.path(FOLDER, "tar").exists()
        assert bench.path(UNFINISHED, "part").exists()
    finally:
        bench.store.close()


def test_old_hidden_folder_is_made_private(tmp_path: Path) -> None:
    bench = DiskBench(tmp_path / "client")
    fill(bench)
    bench.store.close()
    for path in (bench.hidden_folder, *bench.hidden_folder.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    bench.restart()
    assert not_private(bench.hidden_folder) == {}
    known = bench.store.known()
    assert [known[sample.file_id].complete for sample in (FINISHED, FOLDER, UNFINISHED)] == [True, True, False]
    bench.store.close()


def test_finished_file_with_two_names_keeps_its_mode(tmp_path: Path) -> None:
    """The client was killed after the file got its name, before the partial file was removed."""
    bench = DiskBench(tmp_path / "client")
    sample = Sample(5000)
    bench.receive(sample)
    os.link(bench.folder / "a.bin", bench.path(sample, "part"))
    bench.restart()
    assert mode_of(bench.folder / "a.bin") == 0o644
    bench.store.close()


def test_folder_of_another_user_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".psp").mkdir(0o755)
    (tmp_path / ".psp").chmod(0o755)
    monkeypatch.setattr(os, "chmod", error_of(1))
    with caplog.at_level(logging.WARNING):
        DiskStore(tmp_path, blake3_digest).close()
    assert f"other users may be able to read {tmp_path / '.psp'}: cannot change its mode" in caplog.text


def test_file_system_without_modes_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = DiskBench(tmp_path)
    monkeypatch.setattr(os, "fchmod", error_of(1))
    with caplog.at_level(logging.WARNING):
        bench.receive(Sample(5000))
    assert bench.visible() == {"a.bin": Sample(5000).data}
    assert f"cannot set mode 644 on {tmp_path / 'a.bin'}" in caplog.text
    bench.store.close()


def test_umask_of_the_owners_bits_is_harmless(as_nobody: Path) -> None:
    bench = DiskBench(as_nobody)
    with umask_of(0o777):
        fill(bench)
        bench.restart()
    assert not_private(bench.hidden_folder) == {}
    bench.store.close()
    with umask_of(0o777):
        create_private_folder(as_nobody / "made")
    assert mode_of(as_nobody / "made") == 0o700


def test_private_file_without_its_mode_is_opened(as_nobody: Path) -> None:
    path = as_nobody / "part"
    path.touch()
    path.chmod(0o400)
    os.close(open_private(path, os.O_RDWR | os.O_CREAT))
    assert mode_of(path) == 0o600
