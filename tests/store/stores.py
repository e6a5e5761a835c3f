"""Access to both client stores through one interface, and sample files."""

from __future__ import annotations

import os
import random
import stat
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pspd.core.model.manifest import CHUNK_BYTES, DEFAULT_MODE, FileId, Manifest
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import FileSlice, HeldChunks, WriteResult
from pspd.store.digests import blake3_digest
from pspd.store.files.disk import DiskStore
from pspd.store.files.memory import MemoryStore
from pspd.store.tree.archive import FolderArchive

MIB = 1024 * 1024
SIZES = (0, 1, 1023, 1024, 1025, 5000, 2 * MIB + 3 * 1024 + 7)
"""No chunk, one chunk, exact multiples, several blocks, and blocks of two chunks (which shares can cut)."""


class Sample:
    """A file's bytes and manifest."""

    def __init__(
        self, size_bytes: int, share_count: int = 0, name: str = "a.bin", seed: int = 0, mode: int = DEFAULT_MODE
    ) -> None:
        self.data = random.Random(size_bytes + seed).randbytes(size_bytes)
        self.manifest = Manifest.build(name, size_bytes, self.read_at, blake3_digest, mode=mode)
        if share_count:
            self.manifest = self.divided(share_count)

    @property
    def file_id(self) -> FileId:
        return self.manifest.file_id

    @property
    def all(self) -> RangeSet:
        return RangeSet([(0, self.manifest.chunk_count)])

    def divided(self, share_count: int) -> Manifest:
        return self.manifest.divided(share_count, self.read_at, blake3_digest)

    def read_at(self, offset: int, length: int) -> memoryview:
        return memoryview(self.data)[offset : offset + length]

    def chunks(self, start: int, stop: int) -> memoryview:
        return memoryview(self.data)[start * CHUNK_BYTES : stop * CHUNK_BYTES]


class FolderSample(Sample):
    """A folder's archive and its manifest."""

    def __init__(self, name: str = "folder", share_count: int = 0) -> None:
        with tempfile.TemporaryDirectory() as place:
            self.data = archived(filled_folder(Path(place) / name))
        self.manifest = Manifest.build(name, len(self.data), self.read_at, blake3_digest, is_folder=True)
        if share_count:
            self.manifest = self.divided(share_count)


def archived(folder: Path) -> bytes:
    """Return a folder's archive."""
    with closing(FolderArchive(folder)) as found:
        return found.read_at(0, found.size_bytes)


def in_steps(sample: Sample, step_chunks: int) -> list[Range]:
    """Return the whole file as ranges of ``step_chunks`` chunks."""
    last = sample.manifest.chunk_count
    return [Range(start, min(start + step_chunks, last)) for start in range(0, last, step_chunks)]


class Bench(ABC):
    """A store under test, and its finished files as the user sees them."""

    store: DiskStore | MemoryStore

    @abstractmethod
    def put(self, name: str, data: bytes) -> None:
        """Put a file where finished files are, as a user would."""

    @abstractmethod
    def visible(self) -> dict[str, bytes]:
        """Return every finished file, and the archive of every finished folder, by name."""

    @abstractmethod
    def mode(self, name: str) -> int:
        """Return a finished file's permission bits."""

    @abstractmethod
    def alter(self, sample: Sample, offset: int) -> None:
        """Change one byte of an unfinished file as another program would."""

    def begin(self, sample: Sample) -> HeldChunks:
        return self.store.begin(sample.manifest)

    def write(self, sample: Sample, start: int, stop: int) -> WriteResult:
        return self.store.write(sample.file_id, start, stop, sample.chunks(start, stop))

    def write_all(self, sample: Sample, step_chunks: int = 1000) -> None:
        for span in in_steps(sample, step_chunks):
            self.write(sample, *span)

    def write_parts(self, sample: Sample, parts: Iterable[tuple[int, int]]) -> None:
        for start, stop in parts:
            self.write(sample, start, stop)

    def receive(self, sample: Sample) -> None:
        """Begin, write and finish a file."""
        self.begin(sample)
        self.write_all(sample)
        self.store.finish(sample.file_id)

    def payload(self, sample: Sample, start: int, stop: int) -> bytes:
        payload = self.store.payload(sample.file_id, start, stop)
        if isinstance(payload, FileSlice):
            return os.pread(payload.fd, payload.length, payload.offset)
        assert payload.readonly
        return bytes(payload)


class MemoryBench(Bench):
    def __init__(self) -> None:
        self.store: MemoryStore = MemoryStore(blake3_digest)

    def put(self, name: str, data: bytes) -> None:
        self.store.finished[name] = data

    def visible(self) -> dict[str, bytes]:
        return self.store.finished

    def mode(self, name: str) -> int:
        return self.store.modes[name]

    def alter(self, sample: Sample, offset: int) -> None:
        self.store.alter(sample.file_id, offset)


class DiskBench(Bench):
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store: DiskStore = DiskStore(folder, blake3_digest)

    @property
    def hidden_folder(self) -> Path:
        return self.folder / ".psp"

    def path(self, sample: Sample, suffix: str) -> Path:
        return self.hidden_folder / f"{sample.file_id.hex()}.{suffix}"

    def restart(self) -> None:
        """Open a new store on the folder. Closing writes nothing, so this is like a kill."""
        self.store.close()
        self.store = DiskStore(self.folder, blake3_digest)

    def put(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)

    def visible(self) -> dict[str, bytes]:
        paths = [path for path in self.folder.iterdir() if path != self.hidden_folder]
        return {path.name: archived(path) if path.is_dir() else path.read_bytes() for path in paths}

    def mode(self, name: str) -> int:
        return mode_of(self.folder / name)

    def alter(self, sample: Sample, offset: int) -> None:
        alter_byte(self.path(sample, "part"), offset)


def alter_byte(path: Path, offset: int, later_ns: int = 1_000_000_000) -> None:
    """Change one byte of a file, and move its modification time by ``later_ns``; 0 keeps the time."""
    state = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0xFF]))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + later_ns))


def error_of(code: int) -> Callable[..., int]:
    """Return a system call that fails with an error number."""

    def fail(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail


def filled_folder(folder: Path) -> Path:
    """Create a folder with every kind of content."""
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "empty").mkdir(mode=0o555)
    (folder / "sub" / "a.bin").write_bytes(random.Random(7).randbytes(200_000))
    (folder / "sub" / "nothing").touch()
    (folder / "run.sh").write_bytes(b"#!/bin/sh\n")
    (folder / "run.sh").chmod(0o750)
    (folder / "sub" / "deep" / "link").symlink_to("../a.bin")
    (folder / "dangling").symlink_to("sub/later")
    return folder


def seen_in(folder: Path) -> dict[str, tuple[int, bytes | str]]:
    """Return a folder's content by path: mode, and a file's bytes or a link's target."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in folder.rglob("*"):
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        found[str(path.relative_to(folder))] = path.lstat().st_mode, content
    return found


def mode_of(path: Path) -> int:
    """Return a file's or folder's permission bits."""
    return stat.S_IMODE(path.lstat().st_mode)


@contextmanager
def umask_of(bits: int) -> Iterator[None]:
    """Set the umask while the block runs."""
    before = os.umask(bits)
    try:
        yield
    finally:
        os.umask(before)
