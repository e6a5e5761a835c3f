"""Sample data for tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random


def sessions(seed: int) -> Callable[[], int]:
    """Return a generator of session numbers, the same for the same seed."""
    return partial(Random(seed).getrandbits, 64)


def sample_bytes(size_bytes: int, seed: int = 7) -> bytes:
    """Return bytes with a different content in each chunk."""
    return Random(seed).randbytes(size_bytes)
