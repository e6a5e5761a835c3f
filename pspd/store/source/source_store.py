"""The read-only store of a source: it contains the one file or folder that the source seeds."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pspd.core.model.manifest import MODE_BITS, OWNER_READ_BIT, DigestFunction, FileId, Manifest, validate_name
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import FileSlice, HeldChunks, WriteResult
from pspd.errors import BadArgument, InternalError
from pspd.store.errors import changed_while_read, unknown_file
from pspd.store.filesystem.failures import storage_error
from pspd.store.source.parallel_hash import FileState, ParallelHash
from pspd.store.tree.archive import FolderArchive

Progress = Callable[[int], None]
"""A function that is called with the number of bytes hashed so far."""

_PROGRESS_INTERVAL_BYTES = 16 * 1024 * 1024


def name_of(path: Path) -> str:
    """Return the name of a file or folder, also for paths such as ``.`` and ``folder/..``."""
    return os.path.basename(os.path.abspath(path))


class FileContent:
    """One regular file, read through one descriptor, even if another file replaces it at its path.

    :class:`FolderArchive` has the same interface.

    Attributes:
        size_bytes: the file's size when it was opened.
        mode: the permission bits for copies: those of the opened file, and the owner's right to read.
        state: the file's state when it was opened.
    """

    def __init__(self, path: Path) -> None:
        """Open the file.

        Args:
            path: the file.

        Raises:
            BadArgument: the path is not a regular file, or the kernel generates the file when it is read.
            StorageError: the file cannot be opened.
        """
        self._path = path
        try:
            # Without O_NONBLOCK, opening a named pipe could wait forever for a writer.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise storage_error("read", path, error) from None
        opened = os.fstat(self._fd)
        self.size_bytes = opened.st_size
        self.mode = opened.st_mode & MODE_BITS | OWNER_READ_BIT
        self.state = FileState.of(opened)
        if not stat.S_ISREG(opened.st_mode):
            self.close()
            raise BadArgument(f"cannot seed {path}: it is not a regular file: name one, or a folder")
        if opened.st_size == 0 and self._is_generated():
            self.close()
            raise BadArgument(f"cannot seed {path}: its size is unknown until it is read: seed a copy of it")

    def _is_generated(self) -> bool:
        """Return whether a file of size 0 has content, as in ``/proc``; also True if it cannot be read."""
        try:
            return bool(os.pread(self._fd, 1, 0))
        except OSError:
            return True

    def read_at(self, offset: int, length: int) -> bytes:
        """Return bytes of the file.

        Args:
            offset: the position in the file, in bytes.
            length: the number of bytes.

        Raises:
            StorageError: the file has become shorter, or cannot be read.
        """
        try:
            data = os.pread(self._fd, length, offset)
        except OSError as error:
            raise storage_error("read", self._path, error) from None
        if len(data) != length:
            raise changed_while_read(self._path)
        return data

    def payload(self, offset: int, length: int) -> FileSlice:
        """Return a part of the file for sending. The descriptor stays valid until :meth:`close`.

        Args:
            offset: the position in the file, in bytes.
            length: the number of bytes.
        """
        return FileSlice(self._fd, offset, length)

    def require_unwritten(self) -> None:
        """Raise ``StorageError`` if the opened file was written to. This takes one system call."""
        if FileState.of(os.fstat(self._fd)) != self.state:
            raise changed_while_read(self._path)

    def require_unchanged(self) -> None:
        """Raise ``StorageError`` if the opened file was written to, or if its path leads elsewhere."""
        with suppress(OSError):
            if FileState.of(os.stat(self._path)) == self.state:
                return
        raise changed_while_read(self._path)

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class SourceStore:
    """Implements ``pspd.core.model.storage.Storage`` for a source, which has every chunk from the start.

    Call :meth:`build_manifest` before any method that takes a ``file_id``.
    """

    def __init__(self, path: Path, name: str, digest: DigestFunction) -> None:
        """Open the file or folder.

        Args:
            path: the file or folder.
            name: the name under which the network distributes it.
            digest: the digest function of manifests.

        Raises:
            BadName: the name is not allowed.
            BadArgument: the path, or something in the folder, cannot be distributed.
            StorageError: the file or folder cannot be read.
        """
        self._path = path
        self._name = validate_name(name)
        self._digest = digest
        self._manifest: Manifest | None = None
        self._content: FolderArchive | FileContent = FolderArchive(path) if path.is_dir() else FileContent(path)

    @property
    def size_bytes(self) -> int:
        """The number of bytes to distribute: the size of the file, or of the folder's archive."""
        return self._content.size_bytes

    def build_manifest(self, progress: Progress = lambda _: None, hashing: ParallelHash | None = None) -> Manifest:
        """Hash the file or folder, and return its manifest, which is not divided yet.

        Args:
            progress: a function that is called with the number of bytes hashed so far.
            hashing: the processes that hash the file; None if there are none. Their digests are used only if no
                process failed, and the processes were started for the same file in the same state.

        Raises:
            BadArgument: the file is too large, or something that was added to the folder cannot be distributed.
            StorageError: the file or folder cannot be read, or was changed since it was opened.
        """
        content, digests = self._content, None
        if hashing is not None and isinstance(content, FileContent) and content.state == hashing.state:
            digests = hashing.block_digests(progress)
        if digests is None:
            manifest = self._hash_blocks(progress)
        else:
            manifest = Manifest.parse(self._name, content.size_bytes, digests, self._digest, mode=content.mode)
        content.require_unchanged()
        progress(content.size_bytes)
        self._manifest = manifest
        return manifest

    def _hash_blocks(self, progress: Progress) -> Manifest:
        """Hash the blocks in this process, and return the manifest."""
        content, reported_bytes = self._content, 0

        def read_at(offset: int, length: int) -> bytes:
            nonlocal reported_bytes
            if offset - reported_bytes >= _PROGRESS_INTERVAL_BYTES:
                reported_bytes = offset
                progress(offset)
            return content.read_at(offset, length)

        is_folder = isinstance(content, FolderArchive)
        size_bytes, mode = content.size_bytes, content.mode
        return Manifest.build(self._name, size_bytes, read_at, self._digest, is_folder=is_folder, mode=mode)

    def divide(self, share_count: int) -> Manifest:
        """Divide the file into shares (R1), keep the new manifest, and return it.

        Raises:
            StorageError: the file or folder cannot be read, or was changed since it was opened.
        """
        divided = self._require_manifest().divided(share_count, self._content.read_at, self._digest)
        self._content.require_unwritten()
        self._manifest = divided
        return divided

    def manifest(self, file_id: FileId) -> Manifest:
        """Return the file's latest manifest."""
        manifest = self._require_manifest()
        if manifest.file_id != file_id:
            raise unknown_file(file_id)
        return manifest

    def _require_manifest(self) -> Manifest:
        if self._manifest is None:
            raise InternalError(f"the manifest of {self._path} is not built yet")
        return self._manifest

    def known(self) -> dict[FileId, HeldChunks]:
        """See ``Storage.known``: the file with every chunk; no file before :meth:`build_manifest`."""
        return {self._manifest.file_id: _all_held(self._manifest)} if self._manifest is not None else {}

    def begin(self, manifest: Manifest) -> HeldChunks:
        """See ``Storage.begin``: accept another division of the same file."""
        self.manifest(manifest.file_id)
        self._manifest = manifest
        return _all_held(manifest)

    def write(self, file_id: FileId, start: int, stop: int, data: memoryview) -> WriteResult:
        """See ``Storage.write``. This raises ``InternalError``, because a source requests no chunks."""
        raise InternalError(f"the source of {file_id.hex()} received chunks [{start}, {stop}), but requests none")

    def payload(self, file_id: FileId, start: int, stop: int) -> FileSlice | memoryview:
        """See ``Storage.payload``. The descriptor of a ``FileSlice`` stays valid until :meth:`close`.

        Raises:
            InternalError: the file is unknown, or the chunks are not in it.
            StorageError: the file or folder was changed since it was opened, or the folder cannot be read.
        """
        manifest = self.manifest(file_id)
        if not 0 <= start < stop <= manifest.chunk_count:
            raise InternalError(f"no chunks [{start}, {stop}) in a file of {manifest.chunk_count} chunks")
        self._content.require_unwritten()
        return self._content.payload(*manifest.byte_span(start, stop))

    def missing(self, file_id: FileId) -> RangeSet:
        """See ``Storage.missing``: always empty."""
        self.manifest(file_id)
        return RangeSet()

    def finish(self, file_id: FileId) -> None:
        """See ``Storage.finish``. The file is finished from the start."""
        self.manifest(file_id)

    def discard(self, file_id: FileId) -> None:
        """Do nothing: the user's file stays, and the store still knows it."""

    def verify(self, file_id: FileId) -> None:
        """See ``Storage.verify``.

        Raises:
            StorageError: the file or folder was changed since it was opened, or cannot be read.
        """
        manifest = self.manifest(file_id)
        self._content.require_unwritten()
        found = Manifest.build(manifest.name, manifest.size_bytes, self._content.read_at, self._digest)
        if found.block_digests != manifest.block_digests:
            raise changed_while_read(self._path)

    def require_usable(self) -> None:
        """Do nothing: errors are raised when the file is read."""

    def close(self) -> None:
        """Close the file, or all open files of the folder; idempotent."""
        self._content.close()


def _all_held(manifest: Manifest) -> HeldChunks:
    return HeldChunks(RangeSet([Range(0, manifest.chunk_count)]), complete=True)
