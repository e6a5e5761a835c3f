"""Error messages that several stores share: one line each, with what the user can do."""

from __future__ import annotations

from pathlib import Path

from pspd.core.model.manifest import FileId
from pspd.errors import InternalError, StorageError


def changed_while_read(path: Path) -> StorageError:
    """Return the error for a source that changed after it was opened."""
    return StorageError(f"{path} was changed while it was read: seed it again when nothing writes to it")


def name_conflict(name: str, where: Path | str) -> str:
    """Return the message for a name that another file already has; that file is never overwritten.

    Args:
        name: the file's name.
        where: the folder that contains the other file, or "memory".
    """
    return f"another file named {name!r} is in {where}: move it away to receive this one"


def not_begun(file_id: FileId) -> InternalError:
    """Return the error for a file that the caller uses before ``begin``."""
    return InternalError(f"file {file_id.hex()} was not begun in this store")
