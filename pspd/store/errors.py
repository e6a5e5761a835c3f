"""Errors that several stores raise."""

from __future__ import annotations

from pathlib import Path

from pspd.core.model.manifest import FileId
from pspd.errors import InternalError, StorageError


def changed_while_read(path: Path) -> StorageError:
    """Return the error for a seeded file or folder that was changed since it was opened."""
    return StorageError(f"{path} was changed while it was read: seed it again when nothing writes to it")


def name_conflict(name: str, where: Path | str) -> StorageError:
    """Return the error for a file whose name another file already has.

    Args:
        name: the file's name.
        where: the folder that contains the other file; "memory" for a store in memory.
    """
    return StorageError(f"another file named {name!r} is in {where}: move it away to receive this one")


def unknown_file(file_id: FileId) -> InternalError:
    """Return the error for a call with the id of a file that the store does not know."""
    return InternalError(f"file {file_id.hex()} is not known to this store")
