"""Allocates memory for the server's cache without a pause, and limits the cache to what the machine allows."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from pspd.core.model.manifest import CHUNK_BYTES
from pspd.errors import LimitReached
from pspd.text.sizes import size_text

CACHE_MEMORY_PERCENT_MAX = 75
"""The largest part of the machine's memory for the cache, in percent. With more, the machine might swap or kill the
server."""
MMAP_BYTES_MIN = 1 << 20
"""The smallest allocation that is mapped from the kernel. Smaller ones come from the heap, because a cache that grows
with the number of clients makes thousands of them, and Linux limits the number of mappings of a process."""
_CGROUP_MEMORY_MAX = Path("/sys/fs/cgroup/memory.max")


def allocate(size_bytes: int) -> memoryview:
    """Return zeroed memory. The kernel provides each page of a large block only at its first use.

    Raises:
        MemoryError: the system has not enough memory.
        OverflowError: the size exceeds the address space.
    """
    if size_bytes < MMAP_BYTES_MIN:
        return memoryview(bytearray(size_bytes))
    try:
        return memoryview(mmap.mmap(-1, size_bytes))
    except OSError:
        raise MemoryError from None


def memory_limit_bytes() -> int:
    """Return the bytes of memory of this machine, or the limit of the server's container if that is lower."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(installed, int(_CGROUP_MEMORY_MAX.read_text()))
    except (OSError, ValueError):  # no control group, or "max"
        return installed


def validate_cache_size(chunk_count: int) -> int:
    """Return the given size of a cache in chunks, if this machine has enough memory for the cache.

    Raises:
        LimitReached: the size is more than ``CACHE_MEMORY_PERCENT_MAX`` of the machine's memory.
    """
    most_bytes = memory_limit_bytes() * CACHE_MEMORY_PERCENT_MAX // 100
    if chunk_count * CHUNK_BYTES > most_bytes:
        raise LimitReached(
            f"a cache of {size_text(chunk_count * CHUNK_BYTES)} is too large: this machine has memory for"
            f" {size_text(most_bytes)}: name a smaller size"
        )
    return chunk_count
