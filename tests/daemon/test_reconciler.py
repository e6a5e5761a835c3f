"""A member's files on a disk, while its user changes or removes some of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from pspd.core.model.parameters import FAST
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import Kind
from pspd.daemon.member.reconciler import FileHooks, FileReconciler
from pspd.daemon.member.reports import Reports
from pspd.errors import PspError, StorageError
from pspd.rpc.client.member import MemberClient
from pspd.rpc.translate import Declined, Report
from pspd.store.digests import blake3_digest
from pspd.store.files.disk import DiskStore
from tests.daemon.members import retry_after, watch_every
from tests.store.stores import FolderSample, Sample
from tests.support.loops import on_loop, until

SESSION = 7


class RecordedReports(Reports):
    """Reports that are recorded instead of sent."""

    def __init__(self) -> None:
        super().__init__("amy", cast("MemberClient", cast("Any", None)))
        self.all: list[Report] = []

    def add(self, report: Report) -> None:
        self.all.append(report)


DIVISION = 7


class ReconcilerBench:
    """A reconciler of the files in a folder, within a session.

    Attributes:
        gate: the event that unpacking waits for.
    """

    def __init__(self, folder: Path) -> None:
        self.store = DiskStore(folder, blake3_digest)
        self.reports = RecordedReports()
        self.failures: list[PspError] = []
        self.gate = threading.Event()
        hooks = FileHooks(self._gated_unpack_job, lambda _: None, self.store.external_changes)
        self.files = FileReconciler("amy", self.store, self.reports, hooks, self.failures.append, None)
        self.files.machine.joined(SESSION, ("127.0.0.1", 9), FAST, 1)

    def _gated_unpack_job(self, file_id: bytes) -> Callable[[], None] | None:
        unpack = self.store.unpack_job(file_id)

        def wait_and_unpack() -> None:
            assert unpack is not None
            self.gate.wait(10.0)
            unpack()

        return unpack and wait_and_unpack

    def take(self, sample: Sample | FolderSample) -> None:
        """Assign a file, and deliver all of it."""
        self.files.take(sample.manifest, (), exchange_started=True, division=DIVISION)
        if not self.store.known()[sample.file_id].complete:
            self.deliver(sample)

    def deliver(self, sample: Sample | FolderSample) -> None:
        """Deliver all of a file."""
        count = sample.manifest.chunk_count
        frame = Frame(Kind.DELIVERY, SESSION, sample.file_id, 0, count, len(sample.data), 1)
        written = self.store.write(sample.file_id, 0, count, memoryview(sample.data))
        self.files.machine.delivery_stored(frame, written, 1)
        self.files.plane.pump()

    def is_complete(self, sample: Sample | FolderSample) -> bool:
        held = self.store.known().get(sample.file_id)
        return held is not None and held.complete


@asynccontextmanager
async def bench_in(folder: Path) -> AsyncIterator[ReconcilerBench]:
    bench = ReconcilerBench(folder)
    yield bench
    bench.gate.set()
    await until("nothing is unpacked", lambda: not bench.files._unpacking)
    bench.files.close()
    assert not bench.failures


@on_loop
async def test_folder_reseeded_while_unpacking_is_finished(
    tmp_path: Path,
) -> None:
    folder = FolderSample()
    async with bench_in(tmp_path / "amy") as bench:
        bench.take(folder)
        await until("it is being unpacked", lambda: bench.files._unpacking)
        bench.files.drop(folder.file_id)
        bench.take(folder)
        bench.gate.set()
        await until("it is there", lambda: bench.is_complete(folder))
        assert not [report for report in bench.reports.all if isinstance(report, Declined)]


@on_loop
async def test_folder_dropped_while_unpacking_does_not_appear(tmp_path: Path) -> None:
    folder = FolderSample()
    async with bench_in(tmp_path / "amy") as bench:
        bench.take(folder)
        await until("it is being unpacked", lambda: bench.files._unpacking)
        bench.files.drop(folder.file_id)
        bench.gate.set()
        await until("that has ended", lambda: not bench.files._unpacking)
        assert not bench.store.known()
    assert [path.name for path in (tmp_path / "amy").iterdir()] == [".psp"]


@on_loop
async def test_file_moved_away_and_back_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    retry_after(monkeypatch, 0.01)
    watch_every(monkeypatch, 0.01)
    sample = Sample(7 * 1024)
    place, elsewhere = tmp_path / "amy" / "a.bin", tmp_path / "a.bin"
    async with bench_in(tmp_path / "amy") as bench:
        bench.take(sample)
        assert bench.is_complete(sample)
        work = [asyncio.ensure_future(each()) for each in (bench.files.watch_finished, bench.files.retry_declined)]
        place.rename(elsewhere)
        await until("it is declined", lambda: any(isinstance(report, Declined) for report in bench.reports.all))
        assert not bench.store.known()
        bench.files.begin_session()
        bench.files.take(sample.manifest, (), exchange_started=True, division=DIVISION)
        assert not bench.store.known(), "it is not restored in the next session either"
        elsewhere.rename(place)
        await until("it is complete again", lambda: bench.is_complete(sample))
        for each in work:
            each.cancel()


@on_loop
async def test_unfinishable_file_is_declined_and_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    retry_after(monkeypatch, 0.01)
    sample = Sample(7 * 1024)
    in_the_way = tmp_path / "amy" / "a.bin"
    async with bench_in(tmp_path / "amy") as bench:
        bench.files.take(sample.manifest, (), exchange_started=True, division=DIVISION)
        in_the_way.write_bytes(b"another")
        bench.deliver(sample)
        (declined,) = [report for report in bench.reports.all if isinstance(report, Declined)]
        assert "move it away" in declined.reason
        assert declined.division == DIVISION
        work = asyncio.ensure_future(bench.files.retry_declined())
        await until("attempts fail", lambda: bench.files._declined[sample.file_id].delay > 0.01)
        in_the_way.unlink()
        await until("it is complete after all", lambda: bench.is_complete(sample))
        work.cancel()


@on_loop
async def test_file_that_fails_to_finish_again_is_retried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retry_after(monkeypatch, 0.01)
    sample, tries = Sample(7 * 1024), 0

    def fail(_: bytes) -> None:
        nonlocal tries
        tries += 1
        raise StorageError("cannot finish it: Permission denied")

    async with bench_in(tmp_path / "amy") as bench:
        with monkeypatch.context() as patch:
            patch.setattr(bench.store, "finish", fail)
            bench.take(sample)
            work = asyncio.ensure_future(bench.files.retry_declined())
            await until("attempts fail", lambda: tries > 3)
            assert bench.files._declined[sample.file_id].delay == 0.01 * 2 ** (tries - 1)
        await until("it is complete after all", lambda: bench.is_complete(sample))
        work.cancel()
