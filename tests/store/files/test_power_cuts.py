"""Interrupt a store at every step that changes the disk, by a kill or a power loss; then it must recover.

A step creates a file, writes (an interrupted write leaves half of it), links, renames or removes a name, or sets a
length. A kill leaves the disk as it is. A power loss may lose everything that was not flushed. These tests lose all of
it: in one case the bytes become zeros, in another the files become empty. Names survive, as in a journaling file
system.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import pspd.store.files.recovery
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import FileSlice, HeldChunks
from pspd.errors import StorageError
from pspd.store.digests import blake3_digest
from pspd.store.files.disk import DiskStore
from tests.store.stores import MIB, DiskBench, FolderSample, Sample

STEPS_MAX = 1000


class Cut(BaseException):
    """Ends the store at a step."""


class Disk:
    """Allows a number of steps and interrupts the next one. Tracks the inodes of files that are not flushed."""

    def __init__(self, steps: int) -> None:
        self.unflushed: set[int] = set()
        self._steps_left = steps

    def _step(self) -> bool:
        self._steps_left -= 1
        return self._steps_left < 0

    def changes(self, change: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a system call; an interruption prevents it."""

        def done(*arguments: Any, **more: Any) -> Any:
            if self._step():
                raise Cut
            return change(*arguments, **more)

        return done

    def writes(self, write: Callable[..., int]) -> Callable[..., int]:
        """Wrap a write; an interruption leaves half of it."""

        def written(fd: int, data: bytes, *offset: int) -> int:
            self.unflushed.add(os.fstat(fd).st_ino)
            if self._step():
                write(fd, data[: len(data) // 2], *offset)
                raise Cut
            return write(fd, data, *offset)

        return written

    def opens(self, open_file: Callable[..., int]) -> Callable[..., int]:
        """Wrap ``os.open``, which is a step if it creates the file."""

        def opened(path: Path, flags: int, *mode: int, **more: Any) -> int:
            if flags & os.O_CREAT and not os.path.lexists(path) and self._step():
                raise Cut
            return open_file(path, flags, *mode, **more)

        return opened

    def flushes(self, flush: Callable[[int], None]) -> Callable[[int], None]:
        def flushed(fd: int) -> None:
            flush(fd)
            self.unflushed.discard(os.fstat(fd).st_ino)

        return flushed


@contextmanager
def cut_after(steps: int) -> Iterator[Disk]:
    disk = Disk(steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", disk.opens(os.open))
        patch.setattr(os, "pwrite", disk.writes(os.pwrite))
        patch.setattr(os, "write", disk.writes(os.write))
        patch.setattr(os, "fsync", disk.flushes(os.fsync))
        for name in (
            "link",
            "rename",
            "replace",
            "unlink",
            "ftruncate",
            "mkdir",
            "symlink",
            "chmod",
            "fchmod",
            "rmdir",
        ):
            patch.setattr(os, name, disk.changes(getattr(os, name)))
        yield disk


SMALL = Sample(5000, name="small.bin")
LARGE = Sample(2 * MIB + 3 * 1024 + 7, share_count=3, name="large.bin")
EMPTY = Sample(0, name="empty.bin")
DROPPED = Sample(3000, name="dropped.bin")
FOLDER = FolderSample()
SAMPLES = (SMALL, LARGE, EMPTY, DROPPED, FOLDER)


def live(folder: Path) -> None:
    """Receive files, with wrong bytes and a new division in between; flush one, discard others."""
    bench = DiskBench(folder)
    try:
        bench.begin(SMALL)
        bench.begin(LARGE)
        bench.write_parts(SMALL, [(3, 5), (0, 1)])
        bench.store.write(SMALL.file_id, 1, 3, memoryview(bytes(2048)))
        bench.write_parts(LARGE, [(0, 500), (700, 1400)])
        bench.write(SMALL, 1, 3)
        bench.store.finish(SMALL.file_id)
        bench.store.flush_job(SMALL.file_id)()
        bench.store.record_flushed(SMALL.file_id)
        bench.store.begin(LARGE.divided(7))
        bench.write_parts(LARGE, [(500, 700), (1400, LARGE.manifest.chunk_count)])
        bench.store.verify(LARGE.file_id)
        bench.store.finish(LARGE.file_id)
        bench.begin(FOLDER)
        bench.write_all(FOLDER, step_chunks=100)
        unpack = bench.store.unpack_job(FOLDER.file_id)
        assert unpack is not None
        unpack()
        bench.store.finish(FOLDER.file_id)
        bench.receive(EMPTY)
        bench.begin(DROPPED)
        bench.write(DROPPED, 0, 2)
        bench.store.discard(DROPPED.file_id)
        bench.store.discard(EMPTY.file_id)
        bench.restart()
        bench.store.verify(SMALL.file_id)
        bench.store.flush_job(FOLDER.file_id)()
        bench.store.record_flushed(FOLDER.file_id)
    finally:
        bench.store.close()


def lose(folder: Path, unflushed: set[int], content: Callable[[int], bytes]) -> None:
    """Replace the content of files that were not flushed."""
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_ino in unflushed:
            size = path.stat().st_size
            with path.open("r+b") as file:
                file.truncate()
                file.write(content(size))


LOSSES: dict[str, Callable[[int], bytes] | None] = {
    "killed": None,
    "power lost, and bytes are zeros": bytes,
    "power lost, and files are empty": lambda _: b"",
}


@pytest.mark.parametrize("loss", LOSSES)
def test_store_recovers_from_a_cut_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str) -> None:
    monkeypatch.setattr(pspd.store.files.recovery, "current_boot_id", lambda: "the first boot")
    for steps in itertools.count():
        assert steps < STEPS_MAX
        folder = tmp_path / str(steps)
        with cut_after(steps) as disk:
            try:
                live(folder)
                was_cut = False
            except Cut:
                was_cut = True
        if folder.exists():
            content = LOSSES[loss]
            if content is not None:
                lose(folder, disk.unflushed, content)
            with monkeypatch.context() as patch:
                if content is not None:
                    patch.setattr(pspd.store.files.recovery, "current_boot_id", lambda: "the second boot")
                assert_recovers(folder, f"{loss} after {steps} steps", killed=content is None)
            shutil.rmtree(folder)
        if not was_cut:
            break
    assert steps > 50


def assert_recovers(folder: Path, when: str, *, killed: bool) -> None:
    """Check that a new store holds only right bytes, and can receive the rest."""
    bench = DiskBench(folder)
    try:
        truth = {sample.file_id: sample for sample in SAMPLES}
        if killed:
            assert_visible_is_right(bench, when)
        for file_id, held in bench.store.known().items():
            for start, stop in held.verified:
                payload = bench.store.payload(file_id, start, stop)
                assert isinstance(payload, FileSlice)
                found = os.pread(payload.fd, payload.length, payload.offset)
                assert found == truth[file_id].chunks(start, stop), when
        for sample in SAMPLES:
            if bench.begin(sample).complete:
                continue
            assert_visible_is_right(bench, when)
            bench.write_parts(sample, list(bench.store.missing(sample.file_id)))
            bench.store.finish(sample.file_id)
        visible = bench.visible()
        aside = [name for name in visible if ".damaged-" in name]
        assert not (killed and aside), when
        for name in aside:
            del visible[name]
        assert visible == {sample.manifest.name: sample.data for sample in SAMPLES}, when
    finally:
        bench.store.close()


def assert_visible_is_right(bench: DiskBench, when: str) -> None:
    truth = {sample.manifest.name: sample for sample in SAMPLES}
    known = {bench.store.manifest(file_id).name for file_id in bench.store.known()}
    for name, data in bench.visible().items():
        if name in known:
            assert data == truth[name].data, f"{name}: {when}"


def test_flushed_file_is_not_read_after_power_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pspd.store.files.recovery, "current_boot_id", lambda: "the first boot")
    bench = DiskBench(tmp_path / "client")
    bench.receive(SMALL)
    bench.store.flush_job(SMALL.file_id)()
    bench.store.record_flushed(SMALL.file_id)
    monkeypatch.setattr(pspd.store.files.recovery, "current_boot_id", lambda: "the second boot")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", None)
        bench.restart()
    assert bench.store.known()[SMALL.file_id].complete
    bench.store.close()


def test_verified_files_are_flushed(tmp_path: Path) -> None:
    with cut_after(STEPS_MAX) as disk:
        bench = DiskBench(tmp_path / "client")
        for sample in (SMALL, FOLDER):
            bench.receive(sample)
        bench.store.close()
        DiskStore(bench.folder, blake3_digest, trusts_records=False).close()
    files = [bench.path(FOLDER, "tar"), bench.folder / "small.bin", *(bench.folder / "folder").rglob("*.*")]
    assert not disk.unflushed.intersection(path.stat().st_ino for path in files)


@pytest.fixture
def lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DiskBench]:
    """A client with a finished file; the machine crashed before the flush, and the client is not started again yet."""
    monkeypatch.setattr(pspd.store.files.recovery, "current_boot_id", lambda: "the first boot")
    bench = DiskBench(tmp_path / "client")
    bench.receive(SMALL)
    bench.store.close()
    monkeypatch.setattr(pspd.store.files.recovery, "current_boot_id", lambda: "the second boot")
    yield bench
    bench.store.close()


def test_damaged_file_is_renamed_and_intact_units_kept(lost: DiskBench) -> None:
    damaged = SMALL.data[:2048] + bytes(1024) + SMALL.data[3072:]
    (lost.folder / "small.bin").write_bytes(damaged)
    lost.restart()
    assert lost.store.known()[SMALL.file_id] == HeldChunks(RangeSet([(0, 2), (3, 5)]), complete=False)
    assert lost.visible() == {"small.bin.damaged-1": damaged}
    lost.restart()
    lost.write(SMALL, 2, 3)
    lost.store.finish(SMALL.file_id)
    assert lost.visible() == {"small.bin.damaged-1": damaged, "small.bin": SMALL.data}


@pytest.mark.parametrize("torn_record", [False, True])
def test_file_replaced_after_power_loss_is_left_alone(
    lost: DiskBench, monkeypatch: pytest.MonkeyPatch, torn_record: bool
) -> None:
    """An old modification time does not matter: copying, moving or restoring a file sets a new change time."""
    monkeypatch.setattr(
        pspd.store.files.recovery, "_FINISHING_NS", -(10**15)
    )  # in a test no time passes between the steps
    path = lost.folder / "small.bin"
    path.write_bytes(b"mine")
    os.utime(path, ns=(0, 0))
    if torn_record:
        lost.path(SMALL, "done").write_bytes(bytes(100))
    lost.restart()
    assert lost.visible() == {"small.bin": b"mine"}
    assert not lost.store.known()[SMALL.file_id].complete


def test_salvage_survives_a_second_crash(lost: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest was lost too, so the damage is found only by ``begin``, when journals are trusted again."""
    damaged = bytes(1024) + SMALL.data[1024:]
    (lost.folder / "small.bin").write_bytes(damaged)
    manifest = lost.path(SMALL, "manifest")
    manifest.write_bytes(b"")
    for steps in itertools.count():
        lost.restart()
        with cut_after(steps):
            try:
                lost.begin(SMALL)
                was_cut = False
            except Cut:
                was_cut = True
        lost.restart()
        held = lost.begin(SMALL)
        assert (list(held.verified), held.complete) == ([Range(1, 5)], False), steps
        assert lost.visible() == {"small.bin.damaged-1": damaged}, steps
        if not was_cut:
            break
        lost.store.discard(SMALL.file_id)
        (lost.folder / "small.bin.damaged-1").rename(lost.folder / "small.bin")
        lost.path(SMALL, "done").write_bytes(bytes(100))
    assert steps > 5


def test_changed_file_is_not_recorded_as_flushed(lost: DiskBench) -> None:
    lost.restart()
    flush = lost.store.flush_job(SMALL.file_id)
    flush()
    (lost.folder / "small.bin").write_bytes(b"mine")
    lost.store.record_flushed(SMALL.file_id)
    lost.store.close()
    lost.store.record_flushed(SMALL.file_id)  # too late
    lost.restart()
    assert lost.visible() == {"small.bin": b"mine"}


def test_failed_flush_raises_and_closes_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = DiskBench(tmp_path / "client")
    bench.receive(SMALL)
    flush = bench.store.flush_job(SMALL.file_id)
    before = len(os.listdir("/proc/self/fd"))

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="cannot flush"):
        flush()
    assert len(os.listdir("/proc/self/fd")) == before
    bench.store.close()
