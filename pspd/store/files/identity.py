"""Who uses a client's folder: its lock, its client's identity, and the boot of the machine."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from pspd.errors import WrongState
from pspd.store.filesystem.failures import storage_error
from pspd.store.filesystem.files import open_private, replace_file

INSTANCE_BYTES = 16

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_OWNER_BYTES_MAX = 80


def lock_folder(folder: Path, lock: Path) -> int:
    """Lock a folder for this process and return the descriptor; closing it releases the lock.

    Args:
        folder: the folder, for messages.
        lock: the file to lock.

    Raises:
        WrongState: another client uses the folder.
        StorageError: the folder cannot be locked.
    """
    try:
        fd = open_private(lock, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise storage_error("lock", lock, error) from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, _OWNER_BYTES_MAX, 0).decode("ascii", "replace")
            raise WrongState(
                f"folder {folder} is in use by another client ({owner or 'process unknown'}):"
                " name another folder with --dir"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"process {os.getpid()}".encode(), 0)
    except BaseException as error:
        os.close(fd)
        if isinstance(error, OSError):
            raise storage_error("lock", lock, error) from None
        raise
    return fd


def load_instance_id(path: Path) -> bytes:
    """Return the 16 random bytes that identify a folder's client; create them on first use.

    Raises:
        StorageError: they cannot be read or saved.
    """
    try:
        saved = path.read_bytes()
    except FileNotFoundError:
        saved = b""
    except OSError as error:
        raise storage_error("read", path, error) from None
    if len(saved) != INSTANCE_BYTES:
        saved = os.urandom(INSTANCE_BYTES)
        replace_file(path, saved)
    return saved


def boot_id() -> str:
    """Return the id of the machine's present boot; a new random id where the machine has none.

    A killed process loses no byte that it has written. A machine that loses power may keep the journal and lose the
    bytes that it vouches for, because nothing is flushed. So saved bytes are trusted within one boot, and verified once
    after the next.
    """
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return os.urandom(16).hex()
