"""Fixtures of the laboratory tests; all of them skip, with the reason, where no laboratory can be made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.lab.network import Lab, obstacle


@pytest.fixture(scope="session")
def laboratory() -> None:
    """Skips where no laboratory can be made."""
    if reason := obstacle():
        pytest.skip(reason)


@pytest.fixture
def lab(laboratory: None) -> Iterator[Callable[[int], Lab]]:
    """Makes laboratories: ``lab(3)`` has three hosts. They are taken down with the test."""
    with ExitStack() as stack:
        yield lambda host_count: stack.enter_context(Lab(host_count))
