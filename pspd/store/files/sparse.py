"""Writes bytes so that runs of zeros take no room on the disk, where the file system has holes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

BLOCK_BYTES = 4096
"""The allocation unit of nearly all file systems: a shorter run of zeros would save nothing."""

_ZEROS = bytes(1024 * 1024)
"""As many as are saved at a time."""


def write_sparse(fd: int, offset: int, data: memoryview) -> None:
    """Saves all of ``data`` at a byte offset; zeros are written only where the file has no hole.

    The file is as long afterwards as if all had been written.

    Args:
        fd: a file that can be read and written.
        offset: where in the file.
        data: the bytes.

    Raises:
        OSError: it cannot be written.
    """
    at = 0
    is_short = False
    for start, stop in zero_runs(offset, data):
        _write(fd, offset + at, data[at:start])
        for written, end in _data_in(fd, offset + start, offset + stop):
            _write(fd, written, data[written - offset : end - offset])
        is_short = stop == len(data)
        at = stop
    _write(fd, offset + at, data[at:])
    if is_short and os.fstat(fd).st_size < offset + len(data):
        os.ftruncate(fd, offset + len(data))


def zero_runs(offset: int, data: memoryview) -> list[tuple[int, int]]:
    """Where ``data`` is zeros for a whole block of the file, or for all that it has of one: ``[start, stop)`` each.

    One byte of each block decides nearly always, so that this costs some 2 us for a MiB that has no zeros.

    Args:
        offset: where in the file ``data`` belongs.
        data: bytes, contiguous.
    """
    if not data:
        return []
    lead = min(-offset % BLOCK_BYTES, len(data))  # what belongs to a block that begins before
    firsts = bytes(data[lead::BLOCK_BYTES])
    if not any(firsts) and len(data) <= len(_ZEROS) and _is_zeros(data, 0, len(data)):
        return [(0, len(data))]
    runs = [(0, lead)] if lead and _is_zeros(data, 0, lead) else []
    index = firsts.find(0)
    while index >= 0:
        start = lead + index * BLOCK_BYTES
        stop = min(start + BLOCK_BYTES, len(data))
        if _is_zeros(data, start, stop):
            runs.append((runs.pop()[0] if runs and runs[-1][1] == start else start, stop))
        index = firsts.find(0, index + 1)
    return runs


def _is_zeros(data: memoryview, start: int, stop: int) -> bool:
    """Whether a run of bytes, no longer than ``_ZEROS``, is all zeros. If not, its ends tell nearly always."""
    return data[start] == data[stop - 1] == 0 and bytes(data[start:stop]) == _ZEROS[: stop - start]


def _data_in(fd: int, offset: int, end: int) -> Iterator[tuple[int, int]]:
    """Where the file is no hole; all of it on a file system that cannot tell."""
    while offset < end:
        try:
            offset = os.lseek(fd, offset, os.SEEK_DATA)
            hole = os.lseek(fd, offset, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the file's end
                return
            hole = end
        if offset < end:
            yield offset, min(hole, end)
        offset = hole


def _write(fd: int, offset: int, data: memoryview) -> None:
    """Writes all of it: the kernel may take less at a time, at the very least when the disk fills up."""
    while data:
        count = os.pwrite(fd, data, offset)
        data = data[count:]
        offset += count
