"""An error with one file declines that file; the client continues with the others."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pspd.core.client.download import Stage
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import Kind
from pspd.errors import StoreFailed
from pspd.rpc.translate import Declined
from tests.daemon.members import retry_after, watch_every
from tests.daemon.test_reconciler import SESSION, ReconcilerBench, bench_in
from tests.store.stores import Sample, error_of
from tests.support.loops import on_loop, until

FILE, OTHER = Sample(7 * 1024, name="a.bin"), Sample(5 * 1024, name="b.bin")


class FakeLink:
    """A link that receives one delivery."""

    closed = False
    peer = ("127.0.0.1", 9)

    def close(self, error: object = None) -> None:
        self.closed = True


def deliver(bench: ReconcilerBench, sample: Sample, start: int = 0, stop: int | None = None) -> bool:
    """Deliver chunks as a link does; return whether the client accepted them."""
    stop = sample.manifest.chunk_count if stop is None else stop
    data = sample.chunks(start, stop)
    frame = Frame(Kind.DELIVERY, SESSION, sample.file_id, start, stop, len(data), 1)
    link: Any = FakeLink()
    targets = bench.files.plane.frame_started(link, frame)
    if targets is None:
        return False
    targets[0][:] = data
    bench.files.plane.frame_received(link, frame)
    return True


def declined(bench: ReconcilerBench) -> list[Declined]:
    return [report for report in bench.reports.all if isinstance(report, Declined)]


def raises(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    retry_after(monkeypatch, 0.01)


@pytest.mark.parametrize("number", [errno.EFBIG, errno.EDQUOT, errno.ENOSPC, errno.EINVAL, errno.ELOOP])
@on_loop
async def test_unwritable_file_is_declined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    async with bench_in(tmp_path / "amy") as bench:
        bench.files.take(FILE.manifest, (), exchange_started=True, division=7)
        deliver(bench, FILE, 0, 2)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", error_of(number))
            assert deliver(bench, FILE, 2, 3)
            assert not deliver(bench, FILE, 3, 4), "it accepts no more"
        (report,) = declined(bench)
        assert os.strerror(number) in report.reason
        assert (report.division, report.still_holds) == (7, True)
        bench.take(OTHER)
        assert bench.is_complete(OTHER)
        work = asyncio.ensure_future(bench.files.retry_declined())
        await until("it is tried again", lambda: bench.files.machine.downloads[FILE.file_id].stage is Stage.EXCHANGE)
        work.cancel()
        deliver(bench, FILE)
        assert bench.is_complete(FILE)


@on_loop
async def test_unwritable_journal_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench_in(tmp_path / "amy") as bench:
        bench.files.take(FILE.manifest, (), exchange_started=True, division=7)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", error_of(errno.ENOSPC))
            deliver(bench, FILE)
        assert len(declined(bench)) == 1
        work = asyncio.ensure_future(bench.files.retry_declined())
        await until("the saved chunks suffice", lambda: bench.is_complete(FILE))
        work.cancel()


@pytest.mark.parametrize("operation", ["begin", "write", "finish", "unpack_job"])
@on_loop
async def test_any_error_with_a_file_declines_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "pspd")
    async with bench_in(tmp_path / "amy") as bench:
        with monkeypatch.context() as patch:
            patch.setattr(bench.store, operation, raises(RecursionError("too deep")))
            bench.files.take(FILE.manifest, (), exchange_started=True, division=7)
            deliver(bench, FILE)
        (report,) = declined(bench)
        assert report.reason == "RecursionError: too deep: this is a bug; PSPD_LOG=DEBUG shows where"
        assert not report.still_holds
        (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert report.reason in line.message
        assert line.exc_info is None
        assert any(record.exc_info for record in caplog.records if record.levelno == logging.DEBUG)
        bench.take(OTHER)
        assert bench.is_complete(OTHER)


@on_loop
async def test_unencodable_name_declines_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = Sample(1024, name="日本.bin")
    async with bench_in(tmp_path / "amy") as bench:
        error = UnicodeEncodeError("latin-1", "日本.bin", 0, 2, "ordinal not in range(256)")
        with monkeypatch.context() as patch:
            patch.setattr(os, "lstat", raises(error))
            bench.files.take(named.manifest, (), exchange_started=True, division=7)
        assert "UnicodeEncodeError" in declined(bench)[0].reason


@on_loop
async def test_send_error_requires_reverification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench_in(tmp_path / "amy") as bench:
        bench.take(FILE)
        monkeypatch.setattr(bench.store, "payload", raises(ValueError("odd")))
        bench.files.plane._contribute(Frame(Kind.CONTRIBUTION, SESSION, FILE.file_id, 0, 1, 1024, 1))
        assert bench.files.reverification_needed.is_set()


@on_loop
async def test_unverifiable_file_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench_in(tmp_path / "amy") as bench:
        bench.take(FILE)
        bench.take(OTHER)
        monkeypatch.setattr(os, "pread", error_of(errno.EIO))
        bench.files.require_reverification(FILE.file_id)
        with pytest.raises(Exception, match="Input/output error"):
            await bench.files.reverify()
        assert set(bench.store.known()) == {OTHER.file_id}


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ESTALE])
@on_loop
async def test_store_error_ends_the_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    async with bench_in(tmp_path / "amy") as bench:
        bench.files.take(FILE.manifest, (), exchange_started=True, division=7)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", error_of(number))
            deliver(bench, FILE)
        (failure,) = bench.failures
        assert isinstance(failure, StoreFailed)
        assert os.strerror(number) in str(failure)
        bench.failures.clear()


@on_loop
async def test_missing_folder_ends_the_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch_every(monkeypatch, 0.01)
    async with bench_in(tmp_path / "amy") as bench:
        shutil.rmtree(tmp_path / "amy")
        work = asyncio.ensure_future(bench.files.watch_finished())
        await until("it is noticed", lambda: bench.failures)
        await work
        assert "cannot use" in str(bench.failures.pop())
        bench.failures.clear()


@on_loop
async def test_replaced_folder_ends_the_client(tmp_path: Path) -> None:
    async with bench_in(tmp_path / "amy") as bench:
        (tmp_path / "amy").rename(tmp_path / "old")
        (tmp_path / "amy" / ".psp").mkdir(parents=True)
        with pytest.raises(StoreFailed, match="another folder"):
            bench.store.require_usable()
