"""Whether a file fits: into the client's quota, and on its disk."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from pspd.core.model.manifest import CHUNK_BYTES, STORE_FOLDER, Manifest
from pspd.errors import StorageError
from pspd.store.files.stored_file import FileStatus, StoredFile
from pspd.store.filesystem.failures import storage_error
from pspd.text.sizes import size_text


class Space:
    """The space for a client's files.

    Other clients on the same disk, and other programs, are not known here: the disk can become full all the same.

    Args:
        folder: the client's folder.
        max_bytes: the client's quota; None for no limit.
    """

    def __init__(self, folder: Path, max_bytes: int | None) -> None:
        self._folder = folder
        self._work = folder / STORE_FOLDER
        self._max_bytes = max_bytes

    def require(self, manifest: Manifest, more_bytes: int, others: Collection[StoredFile]) -> None:
        """Check that a file fits beside the others, before it is begun.

        Args:
            manifest: the file's manifest.
            more_bytes: how much more disk space it will take.
            others: the other files of the networks that this client is in.

        Raises:
            StorageError: it exceeds the quota or the free space.
        """
        used_bytes = sum(disk_bytes(file.verifier.manifest) for file in others)
        needed_bytes = disk_bytes(manifest)
        if self._max_bytes is not None and used_bytes + needed_bytes > self._max_bytes:
            raise StorageError(_over_quota(manifest, needed_bytes, self._max_bytes - used_bytes, self._max_bytes))
        try:
            disk = os.statvfs(self._work)
        except OSError as error:
            raise storage_error("use", self._work, error) from None
        reserved_bytes = sum(map(_unwritten_bytes, others))
        free_bytes = max(0, disk.f_bavail * disk.f_frsize - reserved_bytes)
        if more_bytes > free_bytes and disk.f_blocks > 0:  # some file systems report no size
            raise StorageError(_disk_full(manifest, more_bytes, free_bytes, reserved_bytes, self._folder))


def disk_bytes(manifest: Manifest) -> int:
    """Return how much disk space a file takes; a folder takes it twice, for its archive and unpacked."""
    return manifest.size_bytes * (2 if manifest.is_folder else 1)


def _unwritten_bytes(file: StoredFile) -> int:
    """Return how much more disk space a file will take."""
    if file.status is not FileStatus.UNFINISHED:
        return 0
    return max(0, disk_bytes(file.verifier.manifest) - file.verifier.verified.chunk_count * CHUNK_BYTES)


def _over_quota(manifest: Manifest, needed_bytes: int, left_bytes: int, max_bytes: int) -> str:
    advice = "raise it" if left_bytes == max_bytes else "raise it, or remove other files from the network"
    return (
        f"{manifest.name!r} needs {size_text(needed_bytes)}, {size_text(needed_bytes - max(0, left_bytes))} more than"
        f" are left of --max-bytes {size_text(max_bytes)}: {advice}"
    )


def _disk_full(manifest: Manifest, more_bytes: int, free_bytes: int, reserved_bytes: int, folder: Path) -> str:
    beside = f" beside {size_text(reserved_bytes)} for other files that are being received" if reserved_bytes else ""
    return (
        f"{manifest.name!r} needs {size_text(more_bytes)}, {size_text(more_bytes - free_bytes)} more than are free"
        f" in {folder}{beside}: free some space there"
    )
