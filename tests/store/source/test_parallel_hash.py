"""Hashing in several processes gives the same digests, or none."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pspd.core.model.manifest import Manifest
from pspd.store.digests import blake3_digest
from pspd.store.source import parallel_hash
from pspd.store.source.parallel_hash import ParallelHash
from pspd.store.source.source_store import SourceStore
from tests.support.files import random_file

BLOCK_BYTES = 64 * 1024
MIB = 1024 * 1024

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash small files too, and ignore the test runner's own threads."""
    monkeypatch.setattr(parallel_hash, "PARALLEL_BYTES_MIN", 1)
    monkeypatch.setattr(parallel_hash.threading, "active_count", lambda: 1)


@pytest.fixture(params=[1, 2, 3], ids="{} processors".format)
def processors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(request.param)))
    return request.param


def alone(path: Path) -> Manifest:
    """Return the manifest that one process builds."""
    with closing(SourceStore(path, "a.bin", blake3_digest)) as store:
        return store.build_manifest()


@pytest.mark.usefixtures("processors")
@pytest.mark.parametrize("size_bytes", [1, 1023, 3 * 1024, 3 * MIB + 5, 129 * BLOCK_BYTES, 200 * MIB + 1])
def test_manifest_equals_that_of_one_process(tmp_path: Path, size_bytes: int) -> None:
    path, told = random_file(tmp_path / "a.bin", size_bytes), list[int]()
    hashing = ParallelHash.start(path, blake3_digest)
    assert hashing is not None
    with hashing, closing(SourceStore(path, "a.bin", blake3_digest)) as store:
        assert store.build_manifest(told.append, hashing) == alone(path)
    assert told == sorted(told)
    assert told[-1] == size_bytes


def test_digests_of_another_file_are_ignored(tmp_path: Path) -> None:
    path = random_file(tmp_path / "a.bin", MIB)
    with ParallelHash.start(path, blake3_digest) as hashing:  # type: ignore[union-attr]
        path.unlink()
        random_file(path, MIB + 1)
        with closing(SourceStore(path, "a.bin", blake3_digest)) as store:
            assert store.build_manifest(hashing=hashing) == alone(path)


def test_store_reads_if_a_process_dies(tmp_path: Path) -> None:
    path = random_file(tmp_path / "a.bin", 3 * MIB)

    def dying(parts: object) -> bytes:
        os._exit(1)

    with ParallelHash.start(path, dying) as hashing:  # type: ignore[union-attr]
        assert hashing.block_digests(lambda _: None) is None
    with ParallelHash.start(path, dying) as hashing, closing(SourceStore(path, "a.bin", blake3_digest)) as store:  # type: ignore[union-attr]
        assert store.build_manifest(hashing=hashing) == alone(path)


def test_close_ends_the_processes(tmp_path: Path) -> None:
    path = random_file(tmp_path / "a.bin", 3 * MIB)
    hangs = threading.Event()
    hashing = ParallelHash.start(path, lambda _: bytes(32 * hangs.wait()))
    assert hashing is not None
    pids = list(hashing._pids)
    hashing.close()
    hashing.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_exception_in_progress_ends_the_hashing(tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with ParallelHash.start(random_file(tmp_path / "a.bin", 20 * MIB), blake3_digest) as hashing:  # type: ignore[union-attr]
        with pytest.raises(KeyboardInterrupt):
            hashing.block_digests(stop)
        assert hashing._pids == []


def test_kill_ends_block_digests_in_another_thread(tmp_path: Path) -> None:
    hangs = threading.Event()
    path = random_file(tmp_path / "a.bin", 3 * MIB)
    with ParallelHash.start(path, lambda _: bytes(32 * hangs.wait())) as hashing:  # type: ignore[union-attr]
        heard: list[bytes | None] = []
        listener = threading.Thread(target=lambda: heard.append(hashing.block_digests(lambda _: None)))
        listener.start()
        hashing.kill()
        listener.join(10)
        assert heard == [None]


@pytest.mark.parametrize("ends_by_itself", [True, False])
def test_ignored_sigchld_is_harmless(tmp_path: Path, ends_by_itself: bool) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with ParallelHash.start(random_file(tmp_path / "a.bin", MIB), blake3_digest) as hashing:  # type: ignore[union-attr]
            if ends_by_itself:
                assert hashing.block_digests(lambda _: None) is not None
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_no_more_processes_than_stripes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    for size_bytes, count in ((128 * 1024, 1), (200 * MIB, parallel_hash.PROCESSES_MAX)):
        with ParallelHash.start(random_file(tmp_path / "a.bin", size_bytes), blake3_digest) as hashing:  # type: ignore[union-attr]
            assert len(hashing._pids) == count


def test_start_returns_none_where_it_cannot_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = random_file(tmp_path / "a.bin", MIB)
    assert ParallelHash.start(tmp_path, blake3_digest) is None
    assert ParallelHash.start(tmp_path / "nothing", blake3_digest) is None
    monkeypatch.setattr(parallel_hash, "PARALLEL_BYTES_MIN", MIB + 1)
    assert ParallelHash.start(path, blake3_digest) is None


def test_start_returns_none_beside_other_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_hash.threading, "active_count", lambda: 2)
    assert ParallelHash.start(random_file(tmp_path / "a.bin", MIB), blake3_digest) is None
