"""A file's permission bits are taken from the source, put into the manifest and set on every copy."""

from __future__ import annotations

import logging
import os
from contextlib import closing
from pathlib import Path

import pytest

from pspd.core.model.storage import HeldChunks
from pspd.errors import StorageError
from pspd.store.digests import blake3_digest
from pspd.store.filesystem.files import publish_file
from pspd.store.source.source_store import SourceStore
from tests.store.stores import Bench, DiskBench, Sample, mode_of, umask_of

MODES = [0o400, 0o444, 0o600, 0o640, 0o644, 0o664, 0o755, 0o777]


class TestSource:
    @pytest.mark.parametrize(
        ("mode", "carried"),
        [*zip(MODES, MODES, strict=True), (0o000, 0o400), (0o200, 0o600), (0o011, 0o411), (0o6755, 0o755)],
    )
    def test_source_reports_permission_bits(self, tmp_path: Path, mode: int, carried: int) -> None:
        """The owner of a copy may read it, and no copy has a set-user-id bit."""
        path = tmp_path / "a.bin"
        path.write_bytes(b"bytes")
        path.chmod(mode)
        if not os.access(path, os.R_OK):
            pytest.skip("only root may read it")
        with closing(SourceStore(path, "a.bin", blake3_digest)) as store:
            assert store.build_manifest().mode == carried

    def test_source_of_a_folder_reports_the_default_mode(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir(0o700)
        with closing(SourceStore(tmp_path / "data", "data", blake3_digest)) as store:
            assert store.build_manifest().mode == 0o644

    def test_source_ignores_a_change_of_mode(self, tmp_path: Path) -> None:
        path = tmp_path / "a.bin"
        path.write_bytes(bytes(5000))
        path.chmod(0o755)
        with closing(SourceStore(path, "a.bin", blake3_digest)) as store:
            manifest = store.build_manifest()
            path.chmod(0o600)
            assert store.divide(2).mode == manifest.mode == 0o755


class TestCopy:
    @pytest.mark.parametrize("mode", MODES)
    def test_copy_gets_the_mode(self, bench: Bench, mode: int) -> None:
        with umask_of(0o027):
            bench.receive(Sample(5000, mode=mode))
        assert bench.mode("a.bin") == mode

    @pytest.mark.parametrize("mode", MODES)
    def test_copy_has_the_mode_before_its_name(
        self, disk: DiskBench, monkeypatch: pytest.MonkeyPatch, mode: int
    ) -> None:
        seen = []

        def publish(path: Path, visible: Path) -> None:
            publish_file(path, visible)
            seen.append(mode_of(visible))

        monkeypatch.setattr("pspd.store.files.disk.publish_file", publish)
        disk.receive(Sample(5000, mode=mode))
        assert seen == [mode]

    def test_copy_with_a_mode_is_known_after_restart(self, disk: DiskBench) -> None:
        sample = Sample(5000, mode=0o400)
        disk.receive(sample)
        disk.restart()
        assert disk.store.known() == {sample.file_id: HeldChunks(sample.all, complete=True)}
        assert disk.store.manifest(sample.file_id) == sample.manifest
        assert disk.begin(sample).complete

    @pytest.mark.parametrize("mode", [0o600, 0o755])
    def test_copy_keeps_the_mode_its_user_sets(self, disk: DiskBench, mode: int) -> None:
        """The mode is not part of the bytes: the copy stays complete, even after a full verification."""
        sample = Sample(5000, mode=0o640)
        disk.receive(sample)
        (disk.folder / "a.bin").chmod(mode)
        assert disk.store.external_changes() == ({}, [])
        disk.store.verify(sample.file_id)
        disk.restart()
        assert disk.store.known()[sample.file_id].complete
        assert disk.mode("a.bin") == mode

    def test_adopted_file_keeps_its_mode(self, disk: DiskBench, caplog: pytest.LogCaptureFixture) -> None:
        sample = Sample(5000, mode=0o755)
        disk.put("a.bin", sample.data)
        (disk.folder / "a.bin").chmod(0o600)
        with caplog.at_level(logging.INFO):
            assert disk.begin(sample).complete
        assert disk.mode("a.bin") == 0o600
        assert f"{disk.folder / 'a.bin'} keeps its mode 600; its source has 755" in caplog.text

    def test_file_id_depends_on_the_mode(self, bench: Bench) -> None:
        one, other = Sample(5000, mode=0o600), Sample(5000, mode=0o644)
        assert one.file_id != other.file_id
        bench.receive(one)
        assert bench.begin(other).complete


class TestReadOnlyCopy:
    """Modes do not restrict root, so these tests run as another user."""

    def test_read_only_copy_is_served(self, as_nobody: Path) -> None:
        sample = Sample(5000, mode=0o400)
        disk = DiskBench(as_nobody)
        disk.receive(sample)
        disk.restart()
        assert disk.payload(sample, 0, 5) == sample.data
        disk.store.flush_job(sample.file_id)()
        disk.store.verify(sample.file_id)
        assert disk.store.known()[sample.file_id].complete
        disk.store.close()

    def test_read_only_copy_finishes_once_its_name_is_free(self, as_nobody: Path) -> None:
        """The partial file has its final mode when another file takes the name and the store is closed."""
        sample = Sample(5000, mode=0o400)
        disk = DiskBench(as_nobody)
        disk.begin(sample)
        disk.write_all(sample)
        disk.put("a.bin", b"other")
        with pytest.raises(StorageError, match="another file"):
            disk.store.finish(sample.file_id)
        assert mode_of(disk.path(sample, "part")) == 0o400
        (disk.folder / "a.bin").unlink()
        disk.restart()
        assert disk.begin(sample) == HeldChunks(sample.all, complete=False)
        disk.store.finish(sample.file_id)
        assert disk.mode("a.bin") == 0o400
        disk.store.close()

    def test_read_only_copy_finishes_after_a_crash(self, as_nobody: Path) -> None:
        sample = Sample(5000, mode=0o400)
        disk = DiskBench(as_nobody)
        disk.begin(sample)
        disk.write_all(sample)
        disk.path(sample, "part").chmod(0o400)
        os.link(disk.path(sample, "part"), disk.folder / "a.bin")
        disk.restart()
        assert disk.begin(sample) == HeldChunks(sample.all, complete=False)
        disk.store.finish(sample.file_id)
        assert disk.visible() == {"a.bin": sample.data}
        assert disk.mode("a.bin") == 0o400
        assert not disk.path(sample, "part").exists()
        disk.store.close()
