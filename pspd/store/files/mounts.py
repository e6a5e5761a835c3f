"""Whether a client's folder is on a disk of its own, or on the file system that shows where a disk is not mounted."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pspd.errors import BadArgument, WrongState
from pspd.store.files.failures import failed

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")
_MOUNT_POINT_FIELD = 4
_ROOT = Path("/")


def require_mount(folder: Path, mount_point: Path | None = None) -> None:
    """Makes sure that a disk is mounted before anything is written to a folder.

    Links are followed. The folder need not be there yet.

    Args:
        folder: the folder.
        mount_point: where the disk is to be mounted; None if any mount point will do that is the folder itself or above
            it, but ``/``.

    Raises:
        WrongState: nothing is mounted there.
        BadArgument: the folder is not below the mount point.
        StorageError: it cannot be told.
    """
    place = Path(os.path.realpath(folder))
    _reach(place)
    if mount_point is None:
        if not _mounted().intersection([place, *place.parents]) - {_ROOT}:
            raise WrongState(
                f"{folder} is on no mounted disk: neither it nor a folder above it, but /, is a mount point:"
                " mount the disk first"
            )
        return
    wanted = Path(os.path.realpath(mount_point))
    if wanted not in (place, *place.parents):
        raise BadArgument(f"{folder} is not in {mount_point}: name a mount point above it with --require-mount")
    if wanted not in _mounted():
        raise WrongState(f"{mount_point} is no mount point: mount the disk first")


def _reach(place: Path) -> None:
    """Has an automounter mount what it can."""
    try:
        os.listdir(place)
    except OSError:
        return


def _mounted() -> set[Path]:
    """Every mount point that this process sees, but those at which an automounter only waits.

    Raises:
        StorageError: the kernel does not tell.
    """
    try:
        lines = os.fsdecode(_MOUNTS.read_bytes()).rstrip("\n").split("\n")
    except OSError as error:
        raise failed("read", _MOUNTS, error) from None
    found = set()
    for line in lines:
        known, _, told = line.partition(" - ")
        if not told.startswith("autofs "):
            point = known.split(" ")[_MOUNT_POINT_FIELD]
            found.add(Path(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), point)))
    return found
