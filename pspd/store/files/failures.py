"""Errors of the operating system: which concern one file, which the whole store, and what to do about each.

This is the only place that decides it. An error of one file declines that file, and the client goes on with the others.
An error of the store ends the client, since it would meet every other file as well.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pspd.errors import StorageError, StoreFailed

OF_ONE_FILE: dict[int, str] = {
    # The file does not fit. Others may, and there may be room later.
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there, or raise the quota",
    errno.EFBIG: "use a folder whose file system takes files of this size, or raise the limit (ulimit -f)",
    errno.ENOMEM: "free some memory",
    # Something else is where the file is to be, or its name cannot be used there.
    errno.EEXIST: "move away what is there",
    errno.ENOTEMPTY: "move away what is there",
    errno.EISDIR: "give a file",
    errno.ENOTDIR: "use a folder",
    errno.ELOOP: "move away the link that is there",
    errno.ENOENT: "put it back, or give another path",
    errno.ENAMETOOLONG: "use shorter names",
    errno.EINVAL: "use a folder whose file system takes this name and size",
    errno.EILSEQ: "seed it again under a name that this file system takes (--name)",
    # Somebody keeps this user from it, or uses it.
    errno.EACCES: "grant this user access, or use another folder",
    errno.EPERM: "grant this user access, or use another folder",
    errno.EBUSY: "close what uses it",
    errno.ETXTBSY: "close what uses it",
    # A limit of this process or of the machine; it may be met again or not.
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "raise the machine's limit on open files (fs.file-max)",
    errno.EMLINK: "use another file system",
    errno.EXDEV: "use a folder that is one file system",
}
"""Declines a file. So does an error that is in neither table: if it concerns every file, every file is declined."""

OF_THE_STORE: dict[int, str] = {
    # A write that fails so may have lost bytes that earlier ones saved: nothing on this disk is certain any more.
    errno.EIO: "check the disk",
    errno.EUCLEAN: "check the file system (fsck)",
    errno.EBADMSG: "check the file system (fsck)",
    # The file system takes no write, is gone, or answers no more.
    errno.EROFS: "use a folder that can be written to",
    errno.ENODEV: "check the disk",
    errno.ENXIO: "check the disk",
    errno.ENOMEDIUM: "check the disk",
    errno.ESTALE: "mount the folder again",
    errno.ENOTCONN: "mount the folder again",
    errno.ESHUTDOWN: "mount the folder again",
    errno.ETIMEDOUT: "check the file server",
    errno.EHOSTDOWN: "check the file server",
    errno.EREMOTEIO: "check the disk",
    # An encrypted folder is locked.
    errno.ENOKEY: "unlock the folder",
    errno.EKEYEXPIRED: "unlock the folder",
    errno.EKEYREVOKED: "unlock the folder",
}
"""Ends the client."""

_BAD_SECTORS = {errno.EIO, errno.EBADMSG}
_READING = "read"


def failed(action: str, path: Path, error: OSError) -> StorageError:
    """An error of the operating system as one line: what cannot be done, to what, why, and what to do.

    Args:
        action: what was tried, such as "write"; to "read" is the only action that leaves the disk as it is.
        path: to what.
        error: what came of it.

    Returns:
        A ``StoreFailed`` if the store as a whole is affected.
    """
    number = error.errno or 0
    why = os.strerror(number) if number else str(error)
    advice = OF_THE_STORE.get(number) or OF_ONE_FILE.get(number, "check the folder and its disk")
    kind = StoreFailed if _is_of_the_store(action, number) else StorageError
    return kind(f"cannot {action} {path}: {why}: {advice}")


def _is_of_the_store(action: str, number: int) -> bool:
    """Whether an error concerns every file; where a file cannot be read, most likely only its own sectors are bad."""
    return number in OF_THE_STORE and not (action == _READING and number in _BAD_SECTORS)
