"""Write bytes so that runs of zeros take no disk space, where the file system supports holes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

BLOCK_BYTES = 4096
"""The allocation unit of nearly all file systems. Shorter runs of zeros save nothing."""

_ZEROS = bytes(1024 * 1024)
"""As many as are saved at a time."""


def write_sparse(fd: int, offset: int, data: memoryview) -> None:
    """Write all of ``data``. Zeros are written only where the file has no hole.

    The file's length afterwards is the same as after a plain write.

    Args:
        fd: a file open for reading and writing.
        offset: where in the file, in bytes.
        data: the bytes.

    Raises:
        OSError: the data cannot be written.
    """
    at = 0
    ends_in_hole = False
    for start, stop in zero_runs(offset, data):
        _write(fd, offset + at, data[at:start])
        for written, end in _data_ranges(fd, offset + start, offset + stop):
            _write(fd, written, data[written - offset : end - offset])
        ends_in_hole = stop == len(data)
        at = stop
    _write(fd, offset + at, data[at:])
    if ends_in_hole and os.fstat(fd).st_size < offset + len(data):
        os.ftruncate(fd, offset + len(data))


def zero_runs(offset: int, data: memoryview) -> list[tuple[int, int]]:
    """Return the runs ``[start, stop)`` in which ``data`` fills blocks of the file with zeros.

    A block that ``data`` covers only in part counts if that part is zeros. Nearly always one byte of each block
    decides.

    Args:
        offset: where in the file ``data`` belongs, in bytes.
        data: contiguous bytes.
    """
    if not data:
        return []
    lead = min(-offset % BLOCK_BYTES, len(data))  # bytes of a block that begins before ``offset``
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
    """Return whether a run of bytes, no longer than ``_ZEROS``, is all zeros. Its ends are checked first."""
    return data[start] == data[stop - 1] == 0 and bytes(data[start:stop]) == _ZEROS[: stop - start]


def _data_ranges(fd: int, offset: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield where the file has no hole; all of it on a file system that cannot tell."""
    while offset < end:
        try:
            offset = os.lseek(fd, offset, os.SEEK_DATA)
            hole = os.lseek(fd, offset, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the file's end
                return
            hole = end
        if offset < end:
            yield offset, min(hole, end)
        offset = hole


def _write(fd: int, offset: int, data: memoryview) -> None:
    """Write all of ``data``. The kernel may take less at a time, for example when the disk fills up."""
    while data:
        count = os.pwrite(fd, data, offset)
        data = data[count:]
        offset += count
