"""A source's read-only view of the file, or the folder, that it seeds."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pspd.core.model.manifest import MODE_BITS, OWNER_READS, Digest, FileId, Manifest, validate_name
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import FileSlice, Held, Written
from pspd.errors import BadArgument, InternalError
from pspd.store.files.failures import failed
from pspd.store.messages import changed, not_begun
from pspd.store.source.parallel_hash import FileState, ReadAhead
from pspd.store.tree.archive import FolderArchive

Progress = Callable[[int], None]
"""Is told how many bytes are read so far."""

_PROGRESS_STEP_BYTES = 16 * 1024 * 1024


def own_name(path: Path) -> str:
    """A file's or folder's own name, however the way to it is written."""
    return os.path.basename(os.path.abspath(path))


class Original(Protocol):
    """What a source reads. Who notices that it was changed since it was opened raises ``StorageError``."""

    @property
    def size_bytes(self) -> int:
        """How many bytes there are."""

    @property
    def mode(self) -> int:
        """The permission bits that its copies get. Their owners may read them, whatever it is itself."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes of it."""

    def payload(self, offset: int, length: int) -> FileSlice | memoryview:
        """Bytes of it, to be sent. A descriptor is good until :meth:`close`."""

    def require_untouched(self) -> None:
        """Looks whether what is open is as it was, if that costs next to nothing."""

    def require_unchanged(self) -> None:
        """Looks whether it is as it was when it was opened, and still in its place."""

    def close(self) -> None:
        """Closes what is open; idempotent."""


class PlainOriginal:
    """One file, read through one descriptor: it may be replaced meanwhile, and is still served as it was."""

    def __init__(self, path: Path) -> None:
        """Opens it.

        Raises:
            BadArgument: it is not a plain file.
            StorageError: it cannot be read.
        """
        self._path = path
        try:
            # Without O_NONBLOCK the opening of a named pipe would wait for its writer, perhaps forever.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise failed("read", path, error) from None
        self._opened = os.fstat(self._fd)
        if not stat.S_ISREG(self._opened.st_mode):
            os.close(self._fd)
            raise BadArgument(f"cannot seed {path}: it is not a plain file: give one")
        if self._opened.st_size == 0 and self._has_more_than_it_says():
            self.close()
            raise BadArgument(f"cannot seed {path}: its size is not known beforehand: give a copy of it")

    def _has_more_than_it_says(self) -> bool:
        """Whether it is one of the kernel's, as in ``/proc``, which are made as they are read, or cannot be."""
        try:
            return bool(os.pread(self._fd, 1, 0))
        except OSError:
            return True

    @property
    def size_bytes(self) -> int:
        """The file's size when it was opened."""
        return self._opened.st_size

    @property
    def mode(self) -> int:
        """See ``Original.mode``; as it was when the file was opened."""
        return self._opened.st_mode & MODE_BITS | OWNER_READS

    @property
    def state(self) -> FileState:
        """The file's state when it was opened."""
        return FileState.of(self._opened)

    def read_at(self, offset: int, length: int) -> bytes:
        """See ``Original.read_at``."""
        try:
            data = os.pread(self._fd, length, offset)
        except OSError as error:
            raise failed("read", self._path, error) from None
        if len(data) != length:
            raise changed(self._path)
        return data

    def payload(self, offset: int, length: int) -> FileSlice:
        """See ``Original.payload``."""
        return FileSlice(self._fd, offset, length)

    def require_unchanged(self) -> None:
        """See ``Original.require_unchanged``."""
        try:
            now = os.stat(self._path)
        except OSError:
            raise changed(self._path) from None
        if FileState.of(now) != self.state:
            raise changed(self._path)

    def require_untouched(self) -> None:
        """See ``Original.require_untouched``."""
        if FileState.of(os.fstat(self._fd)) != self.state:
            raise changed(self._path)

    def close(self) -> None:
        """See ``Original.close``."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class SourceStore:
    """Implements ``pspd.core.model.storage.Storage`` for a source: it holds everything and wants nothing.

    The order is: open it, :meth:`build`, :meth:`divided` once the shares are known, then serve.
    """

    def __init__(self, path: Path, name: str, digest: Digest) -> None:
        """Opens the file or the folder.

        Raises:
            BadName: it may not be distributed under this name.
            BadArgument: it is neither, or something in the folder is neither.
            StorageError: it cannot be read.
        """
        self._path = path
        self._name = validate_name(name)
        self._digest = digest
        self._manifest: Manifest | None = None
        self._is_folder = path.is_dir()
        self._original: Original = FolderArchive(path) if self._is_folder else PlainOriginal(path)

    @property
    def size_bytes(self) -> int:
        """How many bytes are to be read."""
        return self._original.size_bytes

    def build(self, progress: Progress = lambda _: None, ahead: ReadAhead | None = None) -> Manifest:
        """Reads the whole file once and makes its manifest, not yet divided.

        Args:
            progress: is told how far that is.
            ahead: a file that was read ahead; if it is this one, it need not be read again.

        Raises:
            StorageError: the file cannot be read, or was changed meanwhile.
        """
        digests = ahead.block_digests(progress) if ahead is not None and self._is_of(ahead) else None
        if digests is None:
            manifest = self._read(progress)
        else:
            manifest = Manifest.parse(self._name, self.size_bytes, digests, self._digest, mode=self._original.mode)
        self._original.require_unchanged()
        progress(self.size_bytes)
        self._manifest = manifest
        return manifest

    def _is_of(self, ahead: ReadAhead) -> bool:
        return isinstance(self._original, PlainOriginal) and self._original.state == ahead.state

    def _read(self, progress: Progress) -> Manifest:
        """Reads and hashes one block after the other: reading ahead is the kernel's work."""
        told_bytes = 0

        def read_at(offset: int, length: int) -> bytes:
            nonlocal told_bytes
            if offset - told_bytes >= _PROGRESS_STEP_BYTES:
                told_bytes = offset
                progress(offset)
            return self._original.read_at(offset, length)

        return Manifest.build(
            self._name,
            self.size_bytes,
            read_at,
            self._digest,
            is_folder=self._is_folder,
            mode=self._original.mode,
        )

    def divided(self, share_count: int) -> Manifest:
        """The manifest divided into shares (R1); from now on the one that :meth:`manifest` gives.

        Raises:
            StorageError: the file cannot be read, or was changed meanwhile.
        """
        divided = self._built().divided(share_count, self._original.read_at, self._digest)
        self._original.require_untouched()
        self._manifest = divided
        return divided

    def manifest(self, file_id: FileId) -> Manifest:
        """The file's manifest, as last divided."""
        return self._own(file_id)

    def known(self) -> dict[FileId, Held]:
        """The file, all of it; nothing before :meth:`build`."""
        return {self._manifest.file_id: self._held()} if self._manifest is not None else {}

    def begin(self, manifest: Manifest) -> Held:
        """Takes the manifest of the same file, perhaps divided otherwise; it is all held already."""
        self._own(manifest.file_id)
        self._manifest = manifest
        return self._held()

    def write(self, file_id: FileId, start: int, stop: int, data: memoryview) -> Written:
        """Never: a source wants nothing."""
        raise InternalError(f"chunks [{start}, {stop}) of {file_id.hex()} came to its source, which asked for none")

    def payload(self, file_id: FileId, start: int, stop: int) -> FileSlice | memoryview:
        """See ``Storage.payload``. The descriptor is good until :meth:`close`.

        Raises:
            StorageError: the file was changed since it was opened.
        """
        manifest = self._own(file_id)
        if not 0 <= start < stop <= manifest.chunk_count:
            raise InternalError(f"no chunks [{start}, {stop}) in a file of {manifest.chunk_count} chunks")
        self._original.require_untouched()
        return self._original.payload(*manifest.byte_span(start, stop))

    def missing(self, file_id: FileId) -> RangeSet:
        """Nothing."""
        self._own(file_id)
        return RangeSet()

    def finish(self, file_id: FileId) -> None:
        """Nothing is left to do: the file is visible where it always was."""
        self._own(file_id)

    def discard(self, file_id: FileId) -> None:
        """See ``Storage.discard``. A source's file is its own business."""

    def verify(self, file_id: FileId) -> None:
        """See ``Storage.verify``. A source has nothing but its one file.

        Raises:
            StorageError: the file was changed since it was opened, or cannot be read.
        """
        manifest = self._own(file_id)
        self._original.require_untouched()
        read = Manifest.build(manifest.name, manifest.size_bytes, self._original.read_at, self._digest)
        if read.block_digests != manifest.block_digests:
            raise changed(self._path)

    def require_usable(self) -> None:
        """See ``Storage.require_usable``. A source has nothing but its one file."""

    def close(self) -> None:
        """Closes what is open; idempotent."""
        self._original.close()

    def _built(self) -> Manifest:
        if self._manifest is None:
            raise InternalError(f"the manifest of {self._path} is not built yet")
        return self._manifest

    def _own(self, file_id: FileId) -> Manifest:
        manifest = self._built()
        if manifest.file_id != file_id:
            raise not_begun(file_id)
        return manifest

    def _held(self) -> Held:
        return Held(RangeSet([Range(0, self._built().chunk_count)]), complete=True)
