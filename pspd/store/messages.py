"""What the stores say to a person: one line each, with what to do."""

from __future__ import annotations

from pathlib import Path

from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.ranges import RangeSet
from pspd.errors import InternalError, StorageError
from pspd.text.sizes import size_text


def changed(path: Path) -> StorageError:
    """What a source reads was changed since it was opened."""
    return StorageError(f"{path} was changed while it was read: seed it again when it is at rest")


def name_conflict(name: str, where: Path | str) -> str:
    """Another file bears the name; it is the user's and never overwritten."""
    return f"another file named {name!r} is in {where}: move it away, then this one can be finished"


def over_quota(manifest: Manifest, needed_bytes: int, left_bytes: int, max_bytes: int) -> str:
    """A file is more than the client may take."""
    advice = "raise it" if left_bytes == max_bytes else "raise it, or remove other files from the network"
    return (
        f"{manifest.name!r} needs {size_text(needed_bytes)}, {size_text(needed_bytes - max(0, left_bytes))} more than"
        f" are left of --max-bytes {size_text(max_bytes)}: {advice}"
    )


def no_room(manifest: Manifest, more_bytes: int, free_bytes: int, promised_bytes: int, folder: Path) -> str:
    """A file is more than the disk can take, beside what is being received."""
    beside = f" beside {size_text(promised_bytes)} for other files that are being received" if promised_bytes else ""
    return (
        f"{manifest.name!r} needs {size_text(more_bytes)}, {size_text(more_bytes - free_bytes)} more than there is room"
        f" for in {folder}{beside}: free some space there"
    )


def not_verified(manifest: Manifest, verified: RangeSet) -> str:
    """A file that is to be finished is not all there (R10)."""
    return (
        f"{manifest.name!r} cannot be finished: {verified.chunk_count} of its {manifest.chunk_count} chunks"
        " are verified: fetch the others first"
    )


def not_begun(file_id: FileId) -> InternalError:
    """A file is used that was never begun: the caller's mistake."""
    return InternalError(f"file {file_id.hex()} was not begun in this store")
