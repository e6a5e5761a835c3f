"""A client's folder: its lock, its identity, and files that change in one atomic step."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
from contextlib import suppress
from pathlib import Path

from pspd.errors import WrongState
from pspd.store.files.failures import failed

INSTANCE_BYTES = 16
NAME_BYTES_MAX = 255
"""How long a name may be where the file system does not say it."""
PRIVATE_FILE_MODE = 0o600
PRIVATE_FOLDER_MODE = 0o700
PERMISSION_BITS = 0o777

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_OWNER_BYTES_MAX = 80
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}

_LOG = logging.getLogger(__name__)


def open_private(path: Path, flags: int) -> int:
    """Opens a file of the hidden folder. Only its owner may read and write a file that this makes, whatever the umask.

    Args:
        path: the file.
        flags: as of ``os.open``, with ``O_CREAT``.

    Raises:
        OSError: it cannot be opened.
    """
    flags |= os.O_CLOEXEC
    try:
        fd = os.open(path, flags, PRIVATE_FILE_MODE)
    except PermissionError:
        # A part gets the file's own mode just before its name. Without the name it is written to again.
        os.chmod(path, PRIVATE_FILE_MODE)
        return os.open(path, flags)
    if os.fstat(fd).st_mode & PRIVATE_FILE_MODE != PRIVATE_FILE_MODE:
        os.fchmod(fd, PRIVATE_FILE_MODE)
    return fd


def make_folder(path: str | Path) -> None:
    """Makes a folder in which only its owner may do anything, whatever the umask.

    Raises:
        OSError: it cannot be made.
    """
    os.mkdir(path, PRIVATE_FOLDER_MODE)
    if os.lstat(path).st_mode & PRIVATE_FOLDER_MODE != PRIVATE_FOLDER_MODE:
        os.chmod(path, PRIVATE_FOLDER_MODE)


def give_mode(fd: int, mode: int, path: Path) -> None:
    """Gives a file its permission bits, whatever the umask. Where the file system has none, this logs a warning.

    Args:
        fd: of the file.
        mode: the bits.
        path: the file, for the log.
    """
    try:
        os.fchmod(fd, mode)
    except OSError as error:
        _LOG.warning("%s does not get its mode, %03o: %s", path, mode, error.strerror)


def make_private(folder: Path) -> None:
    """Takes a folder, and the plain files in it, from everybody but their owner.

    What has a second name is left as it is: it may be a finished file, which has the mode that its source gave it.
    Where the file system has no modes, or the folder is somebody else's, this logs a warning.
    """
    try:
        if os.stat(folder).st_mode & PERMISSION_BITS != PRIVATE_FOLDER_MODE:
            os.chmod(folder, PRIVATE_FOLDER_MODE)
        for entry in os.scandir(folder):
            state = entry.stat(follow_symlinks=False)
            is_open = state.st_mode & PERMISSION_BITS != PRIVATE_FILE_MODE
            if is_open and stat.S_ISREG(state.st_mode) and state.st_nlink == 1:
                os.chmod(entry.path, PRIVATE_FILE_MODE)
    except OSError as error:
        _LOG.warning("others may read what is in %s: its mode cannot be changed: %s", folder, error.strerror)


def replace_file(path: Path, data: bytes) -> None:
    """Writes a small file whole or not at all.

    Raises:
        StorageError: it cannot be written; what was there is still there.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        fd = open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise failed("write", path, error) from None


def remove_file(path: Path) -> None:
    """Removes a file if it is there.

    Raises:
        StorageError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise failed("remove", path, error) from None


def publish_file(path: Path, visible: Path) -> None:
    """Gives a file a second name, unless that is taken; where there are no links, moves it there.

    Raises:
        FileExistsError: the name is another file's.
        OSError: it cannot be done.
    """
    try:
        os.link(path, visible)
    except OSError as error:
        if is_same_file(path, visible):
            return  # Done already, before a crash.
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(visible):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(visible)) from None
        os.rename(path, visible)


def flush_file(path: Path) -> None:
    """Waits until a file and its name are on the disk.

    Raises:
        StorageError: the disk fails.
    """
    try:
        for each in (path, path.parent):
            fd = os.open(each, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
    except OSError as error:
        raise failed("flush", path, error) from None


def derived_path(path: Path, suffix: str) -> Path:
    """A path beside another, with a suffix. A name that would be too long is shortened, to whole characters."""
    try:
        bytes_max = os.pathconf(path.parent, "PC_NAME_MAX")
    except OSError:
        bytes_max = NAME_BYTES_MAX
    kept = os.fsencode(path.name)[: bytes_max - len(os.fsencode(suffix))]
    return path.with_name(kept.decode("utf-8", "ignore") + suffix)


def plain_state(path: Path) -> os.stat_result | None:
    """The state of a plain file; None if there is none, or something else bears its name."""
    try:
        state = os.lstat(path)
    except OSError:
        return None
    return state if stat.S_ISREG(state.st_mode) else None


def is_same_file(path: Path, other: Path) -> bool:
    """Whether both are names of one plain file."""
    state, other_state = plain_state(path), plain_state(other)
    return state is not None and other_state is not None and os.path.samestat(state, other_state)


def lock_folder(folder: Path, lock: Path) -> int:
    """Takes a folder for this process alone; the lock is held while the descriptor is open.

    Raises:
        WrongState: another client has it.
        StorageError: it cannot be locked.
    """
    try:
        fd = open_private(lock, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise failed("lock", lock, error) from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, _OWNER_BYTES_MAX, 0).decode("ascii", "replace")
            raise WrongState(
                f"folder {folder} is in use by another client: {owner or 'process unknown'}:"
                " give this one a folder of its own with --dir"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"process {os.getpid()}".encode(), 0)
    except BaseException as error:
        os.close(fd)
        if isinstance(error, OSError):
            raise failed("lock", lock, error) from None
        raise
    return fd


def instance_of(path: Path) -> bytes:
    """The 16 random bytes that name a folder's client for good; made when first asked for.

    Raises:
        StorageError: they cannot be read or saved.
    """
    try:
        saved = path.read_bytes()
    except FileNotFoundError:
        saved = b""
    except OSError as error:
        raise failed("read", path, error) from None
    if len(saved) != INSTANCE_BYTES:
        saved = os.urandom(INSTANCE_BYTES)
        replace_file(path, saved)
    return saved


def boot_id() -> str:
    """What names the time since the machine was last started; where nothing does, a name never seen again.

    A process that is killed loses no byte that it has written. A machine that loses power may keep the
    journal and lose the bytes of which it tells, for nobody waits for the disk here. So saved bytes are
    trusted within one boot, and verified once after the next.
    """
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return os.urandom(16).hex()
