"""File descriptors: as many as the system allows, shared equally by the clients of a process."""

from __future__ import annotations

import contextlib
import resource

from pspd.store.filesystem.file_bytes import OPEN_FILES_MAX

FILES_FRACTION = 2
"""One in this many descriptors is for stored files; the others are for sockets and for files that are being sent."""
FILES_EACH_MIN = 4
"""With fewer, a client would open and close files all the time; it ends with an error that says what to raise."""


def raise_limit() -> None:
    """Raise the soft limit to the hard one. Systems keep the soft limit low for programs that use ``select``."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # the system may refuse
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def files_each(client_count: int) -> int:
    """Return how many files each of the clients in this process may keep open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return OPEN_FILES_MAX
    return max(FILES_EACH_MIN, min(OPEN_FILES_MAX, limit // FILES_FRACTION // max(1, client_count)))
