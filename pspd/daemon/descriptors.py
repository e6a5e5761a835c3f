"""File descriptors: as many as the system allows a process, and a fair part of them for each of its clients."""

from __future__ import annotations

import contextlib
import resource

from pspd.store.filesystem.descriptors import OPEN_FILES_MAX

FILES_FRACTION = 2
"""At most this fraction of the descriptors is for stored files: the rest is for sockets, and for what is being sent."""
FILES_EACH_MIN = 4
"""With fewer a client would open and close files all the time: rather it ends with an error that says what to raise."""


def raise_limit() -> None:
    """Lifts the soft limit to the hard one. Systems keep the soft one low for programs that use ``select``."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # where the system refuses, it stays as it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def files_each(client_count: int) -> int:
    """How many files each of the clients in this process may keep open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return OPEN_FILES_MAX
    return max(FILES_EACH_MIN, min(OPEN_FILES_MAX, limit // FILES_FRACTION // max(1, client_count)))
