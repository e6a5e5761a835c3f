"""On what terms a file is seeded: how many clients hold each share, and how long its source stays."""

from __future__ import annotations

from dataclasses import dataclass

SAFE_HOLDERS = 2
"""On so many clients each chunk is safe: one of them may be lost, and so may the original."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a source asks for when it announces a file.

    Attributes:
        replica_count: on how many clients each share is to be before the file counts as seeded; R1 has one.
        stays: the source stays in the exchange, as the holder of last resort, until each chunk is safe.
    """

    replica_count: int = 1
    stays: bool = False


ONE_COPY = Terms()
"""Those of R1 and R2."""


def source_is_needed(*, stays: bool, divided_here: bool, is_complete: bool, min_holder_count: int) -> bool:
    """Whether the source of a file that is seeded is still to stay.

    Who divided the file has given every share away, and stays only on those terms. Who came with a file that was there
    already stays until its clients have every chunk without it.
    """
    if stays:
        return not is_complete and min_holder_count < SAFE_HOLDERS
    return not divided_here and not is_complete and min_holder_count < 1
