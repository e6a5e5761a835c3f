"""Check that a disk is mounted where a client's folder is: an unmounted mount point is only an empty folder."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from pspd.errors import BadArgument, WrongState
from pspd.store.filesystem.failures import storage_error

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")
_MOUNT_POINT_FIELD = 4


def require_mount(folder: Path, mount_point: Path | None = None) -> None:
    """Check that a folder is on a mounted disk.

    Args:
        folder: the folder. It need not exist yet; symbolic links are followed.
        mount_point: the path where a disk must be mounted, at or above the folder. None allows any such path except
            ``/``.

    Raises:
        WrongState: no disk is mounted there.
        BadArgument: the folder is neither the mount point nor below it.
        StorageError: the mounts cannot be read.
    """
    real_folder = Path(os.path.realpath(folder))
    with suppress(OSError):
        os.listdir(real_folder)  # makes an automounter mount the disk
    if mount_point is None:
        if not _mount_points().intersection([real_folder, *real_folder.parents]) - {Path("/")}:
            raise WrongState(
                f"{folder} is not on a mounted disk: neither it nor a parent folder other than / is a mount point:"
                " mount the disk first"
            )
        return
    wanted = Path(os.path.realpath(mount_point))
    if wanted not in (real_folder, *real_folder.parents):
        raise BadArgument(f"{folder} is not below {mount_point}: name a mount point above it with --require-mount")
    if wanted not in _mount_points():
        raise WrongState(f"{mount_point} is not a mount point: mount the disk first")


def _mount_points() -> set[Path]:
    """Return every mount point that this process sees, except those where an automounter has mounted no disk yet.

    Raises:
        StorageError: the kernel's list cannot be read.
    """
    try:
        lines = os.fsdecode(_MOUNTS.read_bytes()).rstrip("\n").split("\n")
    except OSError as error:
        raise storage_error("read", _MOUNTS, error) from None
    found = set()
    for line in lines:
        mount, _, source = line.partition(" - ")
        if not source.startswith("autofs "):
            point = mount.split(" ")[_MOUNT_POINT_FIELD]
            found.add(Path(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), point)))
    return found
