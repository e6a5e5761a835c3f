"""Errors of the operating system: their scope (one file, or the whole store), and advice for the user.

After an error of the whole store, the client ends. After an error of one file, the client calls
``Storage.require_usable``. If this raises no error, the client declines the file and continues with the other files.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pspd.errors import StorageError, StoreFailed

FILE_ERROR_ADVICE: dict[int, str] = {
    # The file does not fit. Other files may fit, and there may be room later.
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there, or raise the quota",
    errno.EFBIG: "use a file system that allows files of this size, or raise the limit (ulimit -f)",
    errno.ENOMEM: "free some memory",
    # Something else is at the path, or the path cannot be used.
    **dict.fromkeys((errno.EEXIST, errno.ENOTEMPTY), "move away what is there"),
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "name a folder",
    errno.ELOOP: "move away the link that is there",
    errno.ENOENT: "put it back, or name another path",
    errno.ENAMETOOLONG: "use shorter names",
    errno.EINVAL: "use a folder whose file system allows this name and size",
    errno.EILSEQ: "seed it again under a name that this file system allows (--name)",
    # This user may not access the path, or a program is using it.
    **dict.fromkeys((errno.EACCES, errno.EPERM), "grant this user access, or use another folder"),
    **dict.fromkeys((errno.EBUSY, errno.ETXTBSY), "close the program that uses it"),
    # A limit of the process, the machine or the file system. Some of these errors are temporary.
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "raise the machine's limit on open files (fs.file-max)",
    errno.EMLINK: "use another file system",
    errno.EXDEV: "use a folder that is one file system",
}
"""Advice for errors of one file, by error number. An error in neither table counts as an error of one file."""

STORE_ERROR_ADVICE: dict[int, str] = {
    # The disk or file system is damaged or gone. If a write fails with such an error, earlier writes may be lost too.
    **dict.fromkeys((errno.EIO, errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM, errno.EREMOTEIO), "check the disk"),
    **dict.fromkeys((errno.EUCLEAN, errno.EBADMSG), "check the file system (fsck)"),
    # The file system is read-only, disconnected, or does not answer.
    errno.EROFS: "use a folder that can be written to",
    **dict.fromkeys((errno.ESTALE, errno.ENOTCONN, errno.ESHUTDOWN), "mount the folder again"),
    **dict.fromkeys((errno.ETIMEDOUT, errno.EHOSTDOWN), "check the file server"),
    # An encrypted folder is locked.
    **dict.fromkeys((errno.ENOKEY, errno.EKEYEXPIRED, errno.EKEYREVOKED), "unlock the folder"),
}
"""Advice for errors of the whole store, by error number. For failed reads, see ``_BAD_SECTORS``."""

_BAD_SECTORS = {errno.EIO, errno.EBADMSG}
"""Error numbers in ``STORE_ERROR_ADVICE`` that concern only one file if a read fails: probably bad sectors."""


def storage_error(action: str, path: Path, error: OSError) -> StorageError:
    """Return an error whose message is one line: the failed operation, the path, the reason and advice.

    Args:
        action: the verb of the failed operation, such as "write".
        path: the file or folder.
        error: the error of the operating system.

    Returns:
        A ``StoreFailed`` if the error concerns the whole store; otherwise a plain ``StorageError``.
    """
    number = error.errno or 0
    why = os.strerror(number) if number else str(error)
    advice = STORE_ERROR_ADVICE.get(number) or FILE_ERROR_ADVICE.get(number, "check the folder and its disk")
    concerns_store = number in STORE_ERROR_ADVICE and not (action == "read" and number in _BAD_SECTORS)
    kind = StoreFailed if concerns_store else StorageError
    return kind(f"cannot {action} {path}: {why}: {advice}")
