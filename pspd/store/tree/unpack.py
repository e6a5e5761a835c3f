"""Unpack a folder's archive, and compare a folder with its archive."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from pspd.core.model.manifest import DigestFunction, Manifest
from pspd.errors import PspError, StorageError
from pspd.store.filesystem.failures import storage_error
from pspd.store.filesystem.file_bytes import write_sparse
from pspd.store.filesystem.files import create_private_folder, open_private
from pspd.store.tree.archive import FolderArchive, parse_entries
from pspd.store.tree.entries import FILE, FOLDER, LINK, ArchiveError, Entry
from pspd.store.tree.traverse import is_real_folder, remove_tree

_COPY_BYTES = 1024 * 1024
"""The most bytes that are copied at once."""


def unpack(archive: Path, folder: Path, raise_if_stopping: Callable[[], None]) -> None:
    """Unpack an archive into a new folder. If this fails, remove the folder.

    Args:
        archive: the path of the archive.
        folder: the path of the new folder. Anything at this path is removed first.
        raise_if_stopping: a function that is called between steps; an exception from it ends the unpacking.

    Raises:
        StorageError: the archive is invalid, or the disk fails.
    """
    remove_tree(folder)
    try:
        with archive.open("rb", buffering=0) as source:
            fd = source.fileno()

            def read_at(offset: int, length: int) -> bytes:
                raise_if_stopping()
                return os.pread(fd, length, offset)

            try:
                found = parse_entries(read_at, os.fstat(fd).st_size)
            except ArchiveError as invalid:
                raise StorageError(f"cannot unpack the folder's archive: {invalid}: do not trust its source") from None
            for entry, content_offset in found:
                raise_if_stopping()
                if entry.kind == FOLDER:
                    create_private_folder(folder / entry.name)
                elif entry.kind == FILE:
                    _unpack_file(fd, content_offset, entry, folder / entry.name, raise_if_stopping)
            for entry, _ in found:
                if entry.kind == LINK:
                    os.symlink(entry.target, folder / entry.name)
            for entry, _ in reversed(found):
                if entry.kind == FOLDER:
                    os.chmod(folder / entry.name, entry.mode)
    except BaseException as error:
        remove_tree(folder)
        if isinstance(error, OSError):
            raise storage_error("unpack into", folder, error) from None
        raise


def _unpack_file(source: int, offset: int, entry: Entry, path: Path, raise_if_stopping: Callable[[], None]) -> None:
    with open(path, "x+b", buffering=0, opener=open_private) as file:
        end = offset + entry.size_bytes
        while offset < end:
            raise_if_stopping()
            data = os.pread(source, min(_COPY_BYTES, end - offset), offset)
            if not data:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            write_sparse(file.fileno(), entry.size_bytes - (end - offset), memoryview(data))
            offset += len(data)
        os.fchmod(file.fileno(), entry.mode)


def folder_matches(manifest: Manifest, folder: Path, digest: DigestFunction) -> bool:
    """Return whether a folder exists, and an archive made from it would match a manifest.

    Args:
        manifest: the manifest of a folder's archive.
        folder: the folder.
        digest: the digest function of manifests.
    """
    if is_real_folder(folder):
        with suppress(PspError), closing(FolderArchive(folder)) as archive:
            if archive.size_bytes == manifest.size_bytes:
                found = Manifest.build(manifest.name, archive.size_bytes, archive.read_at, digest, is_folder=True)
                return found.file_id == manifest.file_id
    return False
