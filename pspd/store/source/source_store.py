"""A source's read-only store: the one file or folder that it seeds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pspd.core.model.manifest import Digest, FileId, Manifest, validate_name
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import FileSlice, Held, Written
from pspd.errors import InternalError
from pspd.store.messages import changed_while_read, not_begun
from pspd.store.source.content import FileContent, SourceContent
from pspd.store.source.parallel_hash import ParallelHash
from pspd.store.tree.archive import FolderArchive

Progress = Callable[[int], None]
"""Called with the number of bytes read so far."""

_PROGRESS_STEP_BYTES = 16 * 1024 * 1024


def name_of(path: Path) -> str:
    """Return the name of a file or folder, also for paths such as ``.`` and ``folder/..``."""
    return os.path.basename(os.path.abspath(path))


class SourceStore:
    """Implements ``pspd.core.model.storage.Storage`` for a source, which has every chunk from the start.

    Call :meth:`build` first, and :meth:`divided` once the number of shares is known. Then the store can serve.
    """

    def __init__(self, path: Path, name: str, digest: Digest) -> None:
        """Open the file or folder.

        Args:
            path: the file or folder.
            name: the name under which it is distributed.
            digest: the digest function of manifests.

        Raises:
            BadName: the name is not allowed.
            BadArgument: it, or something in the folder, is not a file, folder or link.
            StorageError: it cannot be read.
        """
        self._path = path
        self._name = validate_name(name)
        self._digest = digest
        self._manifest: Manifest | None = None
        self._is_folder = path.is_dir()
        self._content: SourceContent = FolderArchive(path) if self._is_folder else FileContent(path)

    @property
    def size_bytes(self) -> int:
        """How many bytes will be distributed."""
        return self._content.size_bytes

    def build(self, progress: Progress = lambda _: None, hashing: ParallelHash | None = None) -> Manifest:
        """Read everything once and build the manifest, not yet divided.

        Args:
            progress: told how many bytes are read so far.
            hashing: digests that other processes are computing. They are used if they are of this very file.

        Raises:
            StorageError: the file cannot be read, or was changed meanwhile.
        """
        digests = hashing.block_digests(progress) if hashing is not None and self._is_hashed_by(hashing) else None
        if digests is None:
            manifest = self._read(progress)
        else:
            manifest = Manifest.parse(self._name, self.size_bytes, digests, self._digest, mode=self._content.mode)
        self._content.require_unchanged()
        progress(self.size_bytes)
        self._manifest = manifest
        return manifest

    def _is_hashed_by(self, hashing: ParallelHash) -> bool:
        return isinstance(self._content, FileContent) and self._content.state == hashing.state

    def _read(self, progress: Progress) -> Manifest:
        """Hash one block after the other; the kernel reads ahead."""
        reported_bytes = 0

        def read_at(offset: int, length: int) -> bytes:
            nonlocal reported_bytes
            if offset - reported_bytes >= _PROGRESS_STEP_BYTES:
                reported_bytes = offset
                progress(offset)
            return self._content.read_at(offset, length)

        return Manifest.build(
            self._name,
            self.size_bytes,
            read_at,
            self._digest,
            is_folder=self._is_folder,
            mode=self._content.mode,
        )

    def divided(self, share_count: int) -> Manifest:
        """Divide the manifest into shares (R1) and return it; :meth:`manifest` then returns the same.

        Raises:
            StorageError: the file cannot be read, or was changed meanwhile.
        """
        divided = self._built().divided(share_count, self._content.read_at, self._digest)
        self._content.require_unwritten()
        self._manifest = divided
        return divided

    def manifest(self, file_id: FileId) -> Manifest:
        """Return the file's manifest, as last divided."""
        return self._own(file_id)

    def known(self) -> dict[FileId, Held]:
        """See ``Storage.known``: the file with every chunk; nothing before :meth:`build`."""
        return {self._manifest.file_id: self._held()} if self._manifest is not None else {}

    def begin(self, manifest: Manifest) -> Held:
        """See ``Storage.begin``: accept another division of the same file."""
        self._own(manifest.file_id)
        self._manifest = manifest
        return self._held()

    def write(self, file_id: FileId, start: int, stop: int, data: memoryview) -> Written:
        """See ``Storage.write``. This raises ``InternalError``, because a source requests nothing."""
        raise InternalError(f"the source of {file_id.hex()} received chunks [{start}, {stop}), but requests none")

    def payload(self, file_id: FileId, start: int, stop: int) -> FileSlice | memoryview:
        """See ``Storage.payload``. A descriptor stays valid until :meth:`close`.

        Raises:
            StorageError: the file was changed since it was opened.
        """
        manifest = self._own(file_id)
        if not 0 <= start < stop <= manifest.chunk_count:
            raise InternalError(f"no chunks [{start}, {stop}) in a file of {manifest.chunk_count} chunks")
        self._content.require_unwritten()
        return self._content.payload(*manifest.byte_span(start, stop))

    def missing(self, file_id: FileId) -> RangeSet:
        """See ``Storage.missing``: always empty."""
        self._own(file_id)
        return RangeSet()

    def finish(self, file_id: FileId) -> None:
        """See ``Storage.finish``: the file is finished from the start."""
        self._own(file_id)

    def discard(self, file_id: FileId) -> None:
        """See ``Storage.discard``: the user's file stays."""

    def verify(self, file_id: FileId) -> None:
        """See ``Storage.verify``.

        Raises:
            StorageError: the file was changed since it was opened, or cannot be read.
        """
        manifest = self._own(file_id)
        self._content.require_unwritten()
        read = Manifest.build(manifest.name, manifest.size_bytes, self._content.read_at, self._digest)
        if read.block_digests != manifest.block_digests:
            raise changed_while_read(self._path)

    def require_usable(self) -> None:
        """See ``Storage.require_usable``: errors of the one file show when it is read."""

    def close(self) -> None:
        """Close what is open; idempotent."""
        self._content.close()

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
