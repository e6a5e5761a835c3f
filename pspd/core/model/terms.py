"""The terms of a seeding: how many clients hold each share, and how long the source stays."""

from __future__ import annotations

from dataclasses import dataclass

SAFE_HOLDERS = 2
"""With so many holders a chunk is safe: it survives the loss of a client and of the original."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a source requires when it announces a file.

    Attributes:
        replica_count: how many clients must hold each share before the file is seeded; R1 requires one.
        stays: the source stays as the holder of last resort until each chunk has :data:`SAFE_HOLDERS`.
    """

    replica_count: int = 1
    stays: bool = False


ONE_COPY = Terms()
"""The terms of R1 and R2."""


def source_is_needed(*, stays: bool, divided_here: bool, is_complete: bool, min_holder_count: int) -> bool:
    """Return whether the source of a seeded file is still needed.

    A source that has divided the file has given every share away, and stays only if its terms say so. A source of a
    file that was already in the network stays until the clients hold every chunk without it.

    Args:
        stays: the terms say that the source stays.
        divided_here: the file was divided for this source.
        is_complete: every client has the file.
        min_holder_count: how many clients hold the rarest chunk.
    """
    if stays:
        return not is_complete and min_holder_count < SAFE_HOLDERS
    return not divided_here and not is_complete and min_holder_count < 1
