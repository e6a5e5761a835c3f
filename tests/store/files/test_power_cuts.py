"""The store's life, cut at every step that changes the disk: killed there, or with the machine losing power there.

What a step is: a file made, a write (the cut leaves half of it), a name given, moved or removed, a length set. After
a kill the disk is as it was left. After a power loss, what was not flushed may be gone: here it is all gone, once as
zeros, once as nothing; the names are there, as a journalling file system keeps them in their order.
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

import pspd.store.files.disk
import pspd.store.files.recovery
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import FileSlice, Held
from pspd.errors import StorageError
from tests.store.stores import MIB, DiskBench, FolderSample, Sample

STEPS_MAX = 1000


class Cut(BaseException):
    """The process is no more."""


class Disk:
    """Lets a number of steps be done, and cuts the one after. Knows what was not flushed by then."""

    def __init__(self, steps: int) -> None:
        self.unflushed: set[int] = set()
        self._steps_left = steps

    def _step(self) -> bool:
        self._steps_left -= 1
        return self._steps_left < 0

    def changes(self, change: Callable[..., Any]) -> Callable[..., Any]:
        """A call that is done, or not done."""

        def done(*arguments: Any, **more: Any) -> Any:
            if self._step():
                raise Cut
            return change(*arguments, **more)

        return done

    def writes(self, write: Callable[..., int]) -> Callable[..., int]:
        """A write of a descriptor, which may be half done."""

        def written(fd: int, data: bytes, *offset: int) -> int:
            self.unflushed.add(os.fstat(fd).st_ino)
            if self._step():
                write(fd, data[: len(data) // 2], *offset)
                raise Cut
            return write(fd, data, *offset)

        return written

    def opens(self, open_file: Callable[..., int]) -> Callable[..., int]:
        """An opening, which may make the file."""

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
    """Receives files, in pieces and with wrong bytes among them, divided anew midway; flushes one, and drops others."""
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
    """What was written and not flushed is not there."""
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
def test_wherever_its_life_is_cut_it_goes_on_with_what_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    monkeypatch.setattr(pspd.store.files.disk, "boot_id", lambda: "the first boot")
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
                    patch.setattr(pspd.store.files.disk, "boot_id", lambda: "the second boot")
                goes_on(folder, f"{loss} after {steps} steps", killed=content is None)
            shutil.rmtree(folder)
        if not was_cut:
            break
    assert steps > 50


def goes_on(folder: Path, when: str, *, killed: bool) -> None:
    """A new store on what is left: what it says that it holds is right, and it gets the rest."""
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


def test_what_is_flushed_is_not_read_again_after_a_power_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pspd.store.files.disk, "boot_id", lambda: "the first boot")
    bench = DiskBench(tmp_path / "client")
    bench.receive(SMALL)
    bench.store.flush_job(SMALL.file_id)()
    bench.store.record_flushed(SMALL.file_id)
    monkeypatch.setattr(pspd.store.files.disk, "boot_id", lambda: "the second boot")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", None)
        bench.restart()
    assert bench.store.known()[SMALL.file_id].complete
    bench.store.close()


@pytest.fixture
def lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DiskBench]:
    """A file that was finished, and not flushed when the machine went down; its folder before the next start."""
    monkeypatch.setattr(pspd.store.files.disk, "boot_id", lambda: "the first boot")
    bench = DiskBench(tmp_path / "client")
    bench.receive(SMALL)
    bench.store.close()
    monkeypatch.setattr(pspd.store.files.disk, "boot_id", lambda: "the second boot")
    yield bench
    bench.store.close()


def test_what_did_not_reach_the_disk_is_set_aside_and_what_is_right_of_it_kept(lost: DiskBench) -> None:
    damaged = SMALL.data[:2048] + bytes(1024) + SMALL.data[3072:]
    (lost.folder / "small.bin").write_bytes(damaged)
    lost.restart()
    assert lost.store.known()[SMALL.file_id] == Held(RangeSet([(0, 2), (3, 5)]), complete=False)
    assert lost.visible() == {"small.bin.damaged-1": damaged}
    lost.restart()
    lost.write(SMALL, 2, 3)
    lost.store.finish(SMALL.file_id)
    assert lost.visible() == {"small.bin.damaged-1": damaged, "small.bin": SMALL.data}


@pytest.mark.parametrize("torn_mark", [False, True])
def test_what_somebody_put_there_since_is_theirs(
    lost: DiskBench, monkeypatch: pytest.MonkeyPatch, torn_mark: bool
) -> None:
    """However old it says that it is: who copies, moves or restores a file gives it a new time of change."""
    monkeypatch.setattr(pspd.store.files.recovery, "_FINISHING_NS", -(10**15))  # in a test no time passes
    path = lost.folder / "small.bin"
    path.write_bytes(b"mine")
    os.utime(path, ns=(0, 0))
    if torn_mark:
        lost.path(SMALL, "done").write_bytes(bytes(100))
    lost.restart()
    assert lost.visible() == {"small.bin": b"mine"}
    assert not lost.store.known()[SMALL.file_id].complete


def test_a_second_kill_while_it_is_copied_costs_nothing(lost: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest was lost as well, so that it is found out late, when journals are trusted again."""
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


def test_what_is_flushed_is_noted_only_if_it_is_as_it_was(lost: DiskBench) -> None:
    lost.restart()
    flush = lost.store.flush_job(SMALL.file_id)
    flush()
    (lost.folder / "small.bin").write_bytes(b"mine")
    lost.store.record_flushed(SMALL.file_id)
    lost.store.close()
    lost.store.record_flushed(SMALL.file_id)  # too late
    lost.restart()
    assert lost.visible() == {"small.bin": b"mine"}


def test_a_flush_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
