"""What the stores say to a person: one line each, with what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pspd.core.manifest import FileId, Manifest
from pspd.core.ranges import RangeSet
from pspd.errors import InternalError, StorageError

_ADVICE = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there, or raise the quota",
    errno.EFBIG: "use a folder whose file system takes files of this size",
    errno.EROFS: "use a folder that can be written to",
    errno.EACCES: "grant this user access, or use another folder",
    errno.EPERM: "grant this user access, or use another folder",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.EIO: "check the disk",
    errno.EEXIST: "move away what is there",
    errno.ENOENT: "put it back, or give another path",
    errno.ENOTDIR: "use a folder",
    errno.EISDIR: "give a file",
}


def failed(action: str, path: Path, error: OSError) -> StorageError:
    """An operating system's error as a line for a person: what cannot be done, to what, why, what to do."""
    why = os.strerror(error.errno) if error.errno else str(error)
    advice = _ADVICE.get(error.errno or 0, "check the folder and its disk")
    return StorageError(f"cannot {action} {path}: {why}: {advice}")


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
        f"{manifest.name!r} needs {needed_bytes} bytes, and of --max-bytes {max_bytes} only {max(0, left_bytes)}"
        f" are left: {advice}"
    )


def no_room(manifest: Manifest, more_bytes: int, free_bytes: int, promised_bytes: int, folder: Path) -> str:
    """A file is more than the disk can take, beside what is being received."""
    beside = f" beside {promised_bytes} for other files that are being received" if promised_bytes else ""
    return (
        f"{manifest.name!r} needs {more_bytes} bytes, and {folder} has room for {free_bytes}{beside}:"
        " free some space there"
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
