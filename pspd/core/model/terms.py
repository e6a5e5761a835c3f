"""The terms of a seeding: how many clients hold each share, and how long the source stays."""

from __future__ import annotations

from dataclasses import dataclass

SAFE_HOLDERS = 2
"""A chunk with so many holders survives the loss of one client, without the source."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The requirements of a source when it announces a file.

    Attributes:
        replica_count: how many clients must hold each share before the file is seeded; R1 requires one.
        stays: whether the source remains the holder of last resort until each chunk has :data:`SAFE_HOLDERS`.
    """

    replica_count: int = 1
    stays: bool = False


ONE_COPY = Terms()
"""The terms of R1 and R2."""


def source_is_needed(*, stays: bool, divided_here: bool, is_complete: bool, min_holder_count: int) -> bool:
    """Return whether the source of a seeded file is still needed.

    A source that has divided the file is needed only if its terms say so, because clients own every share. The source
    of a file that was already in the network is needed until the clients hold every chunk.

    Args:
        stays: whether the terms say that the source stays.
        divided_here: whether the file was divided for this source.
        is_complete: whether every client has the file.
        min_holder_count: how many clients hold the rarest chunk.
    """
    if stays:
        return not is_complete and min_holder_count < SAFE_HOLDERS
    return not divided_here and not is_complete and min_holder_count < 1
