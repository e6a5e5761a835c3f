"""After a client is killed or the machine crashes, no corrupt bytes are trusted."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import pspd.store.files.recovery
import pspd.store.filesystem.file_bytes
from pspd.core.model.ranges import RangeSet
from pspd.core.model.storage import HeldChunks
from tests.store.stores import MIB, DiskBench, Sample, error_of

RECORD_BYTES = 12


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return inode, change time and bytes of every file below a folder."""
    return {
        str(path): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


class TestCrash:
    def test_close_writes_nothing(self, disk: DiskBench) -> None:
        disk.receive(Sample(5000))
        other = Sample(2 * MIB + 1024, name="b.bin")
        disk.begin(other)
        disk.write_parts(other, [(0, 5), (7, 9)])
        before = snapshot(disk.folder)
        disk.store.close()
        disk.store.close()
        assert snapshot(disk.folder) == before

    def test_killed_client_keeps_its_chunks(self, tmp_path: Path) -> None:
        program = (
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from tests.store.stores import DiskBench, Sample\n"
            "bench, sample = DiskBench(Path(sys.argv[1])), Sample(5000)\n"
            "bench.begin(sample)\n"
            "bench.write(sample, 1, 3)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        killed = subprocess.run([sys.executable, "-c", program, tmp_path / "client"], check=False)
        assert killed.returncode == -signal.SIGKILL
        bench, sample = DiskBench(tmp_path / "client"), Sample(5000)
        assert bench.store.known() == {sample.file_id: HeldChunks(RangeSet([(1, 3)]), complete=False)}
        bench.store.close()

    def test_torn_journal_loses_only_the_missing_records(self, disk: DiskBench) -> None:
        sample = Sample(7 * 1024)
        disk.begin(sample)
        order = [3, 0, 6, 1, 5, 2, 4]
        disk.write_parts(sample, [(chunk, chunk + 1) for chunk in order])
        whole = disk.path(sample, "held").read_bytes()
        assert len(whole) == len(order) * RECORD_BYTES
        for size in range(len(whole) + 1):
            disk.path(sample, "held").write_bytes(whole[:size])
            disk.restart()
            trusted = RangeSet((chunk, chunk + 1) for chunk in order[: size // RECORD_BYTES])
            assert disk.store.known() == {sample.file_id: HeldChunks(trusted, complete=False)}
            disk.write_parts(sample, disk.store.missing(sample.file_id))
            disk.restart()
            assert disk.store.known()[sample.file_id].verified == sample.all
        disk.store.finish(sample.file_id)
        assert disk.visible() == {"a.bin": sample.data}

    @pytest.mark.parametrize("position", range(RECORD_BYTES))
    def test_bad_record_ends_the_reading(self, disk: DiskBench, position: int) -> None:
        sample = Sample(7 * 1024)
        disk.begin(sample)
        disk.write_parts(sample, [(0, 1), (2, 3), (4, 5)])
        records = bytearray(disk.path(sample, "held").read_bytes())
        records[RECORD_BYTES + position] ^= 0x10
        disk.path(sample, "held").write_bytes(records)
        disk.restart()
        assert disk.store.known()[sample.file_id].verified == RangeSet([(0, 1)])

    def test_partial_file_shorter_than_its_journal_is_verified(self, disk: DiskBench) -> None:
        sample = Sample(7 * 1024)
        disk.begin(sample)
        disk.write_all(sample)
        os.truncate(disk.path(sample, "part"), 3000)
        disk.restart()
        assert disk.store.known()[sample.file_id].verified == RangeSet([(0, 2)])
        disk.restart()
        assert disk.store.known()[sample.file_id].verified == RangeSet([(0, 2)])

    def test_missing_partial_file_starts_over(self, disk: DiskBench) -> None:
        sample = Sample(7 * 1024)
        disk.begin(sample)
        disk.write(sample, 0, 3)
        disk.path(sample, "part").unlink()
        disk.restart()
        assert disk.store.known() == {sample.file_id: HeldChunks(RangeSet(), complete=False)}

    def test_crash_between_name_and_completion_record(self, disk: DiskBench) -> None:
        sample = Sample(5000)
        disk.begin(sample)
        disk.write_all(sample)
        os.link(disk.path(sample, "part"), disk.folder / "a.bin")
        disk.restart()
        assert disk.begin(sample) == HeldChunks(sample.all, complete=False)
        disk.store.finish(sample.file_id)
        assert disk.visible() == {"a.bin": sample.data}
        assert not disk.path(sample, "part").exists()
        disk.restart()
        assert disk.store.known()[sample.file_id].complete

    def test_crash_before_the_partial_file_is_removed(self, disk: DiskBench) -> None:
        sample = Sample(5000)
        disk.receive(sample)
        os.link(disk.folder / "a.bin", disk.path(sample, "part"))
        disk.path(sample, "held").write_bytes(b"")
        disk.restart()
        assert disk.store.known()[sample.file_id].complete
        assert not disk.path(sample, "part").exists()
        assert not disk.path(sample, "held").exists()

    def test_crash_before_completion_record_without_links(self, disk: DiskBench) -> None:
        sample = Sample(5000)
        disk.begin(sample)
        disk.write_all(sample)
        disk.path(sample, "part").rename(disk.folder / "a.bin")
        disk.restart()
        assert disk.begin(sample) == HeldChunks(sample.all, complete=True)
        assert disk.visible() == {"a.bin": sample.data}


class TestPowerLoss:
    """After a crash of the machine, journals and completion records may describe bytes that never reached the disk."""

    @pytest.fixture
    def reboot(self, disk: DiskBench, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        boots = iter(range(1000))

        def restart() -> None:
            boot = f"boot {next(boots)}"
            monkeypatch.setattr(pspd.store.files.recovery, "current_boot_id", lambda: boot)
            disk.restart()

        return restart

    def test_lost_bytes_of_unfinished_file_are_noticed(self, disk: DiskBench, reboot: Callable[[], None]) -> None:
        sample = Sample(7 * 1024)
        disk.begin(sample)
        disk.write(sample, 0, 6)
        with disk.path(sample, "part").open("r+b") as part:
            part.seek(2048)
            part.write(bytes(1024))
        reboot()
        left = RangeSet([(0, 2), (3, 6)])
        assert disk.store.known() == {sample.file_id: HeldChunks(left, complete=False)}
        disk.restart()
        assert disk.store.known()[sample.file_id].verified == left

    def test_lost_bytes_of_finished_file_are_noticed(self, disk: DiskBench, reboot: Callable[[], None]) -> None:
        sample = Sample(7 * 1024)
        disk.receive(sample)
        state = (disk.folder / "a.bin").stat()
        disk.put("a.bin", sample.data[:2048] + bytes(1024) + sample.data[3072:])
        os.utime(disk.folder / "a.bin", ns=(state.st_atime_ns, state.st_mtime_ns))
        reboot()
        assert disk.store.known() == {sample.file_id: HeldChunks(RangeSet([(0, 2), (3, 7)]), complete=False)}

    def test_finished_file_is_read_once_after_a_reboot(
        self, disk: DiskBench, reboot: Callable[[], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sample = Sample(7 * 1024)
        disk.receive(sample)
        reboot()
        assert disk.store.known()[sample.file_id].complete
        monkeypatch.setattr(os, "pread", error_of(errno.EIO))
        for _ in range(2):
            reboot()
            assert disk.store.known()[sample.file_id].complete

    def test_failed_verification_is_repeated_at_the_next_start(
        self, disk: DiskBench, reboot: Callable[[], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sample = Sample(7 * 1024)
        disk.begin(sample)
        disk.write(sample, 0, 3)
        disk.path(sample, "part").write_bytes(bytes(7 * 1024))
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", error_of(errno.EIO))
            reboot()
        assert disk.store.known() == {}
        disk.restart()
        assert disk.store.known() == {sample.file_id: HeldChunks(RangeSet(), complete=False)}
