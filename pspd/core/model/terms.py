"""The terms of a seeding: how many clients hold each share, and whether the source stays."""

from __future__ import annotations

from dataclasses import dataclass

SAFE_HOLDERS = 2
"""The number of clients that must hold a chunk so that the loss of one client does not lose the chunk."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms that a source states when it announces a file.

    Attributes:
        replica_count: the number of clients that must hold each share before the file is seeded, or all clients that
            accept the file if they become fewer; R1 requires one.
        source_stays: whether the source stays until :data:`SAFE_HOLDERS` clients hold each chunk, or until the file is
            complete. If not, the source leaves when the file is seeded.
    """

    replica_count: int = 1
    source_stays: bool = False


ONE_COPY = Terms()
"""The terms of R1 and R2."""


def source_is_needed(terms: Terms, *, divided_here: bool, is_complete: bool, min_holder_count: int) -> bool:
    """Return whether the source of a seeded file is still needed.

    A source that stays is needed until :data:`SAFE_HOLDERS` clients hold each chunk. Any other source that divided the
    file is not needed, because clients hold every share. A source that repairs a file which was divided before is
    needed until clients hold every chunk. A complete file needs no source.

    Args:
        terms: the terms of the seeding.
        divided_here: whether this source divided the file.
        is_complete: whether the file is complete.
        min_holder_count: the number of clients that hold the rarest chunk.
    """
    if terms.source_stays:
        return not is_complete and min_holder_count < SAFE_HOLDERS
    return not divided_here and not is_complete and min_holder_count < 1
