"""Fixtures of the laboratory tests; all of them skip, with the reason, where no laboratory can be made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab.network import Lab, obstacle
from tests.support.daemons import Network


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


@pytest.fixture
def here(lab: Callable[[int], Lab], request: pytest.FixtureRequest) -> Lab:
    """A laboratory with a host for the server and one for each of the module's ``CLIENTS``."""
    return lab(1 + len(request.module.CLIENTS))


@pytest.fixture
def network(here: Lab, tmp_path: Path) -> Iterator[Network]:
    """An empty network; its server and its ``pspctl`` run on the first host."""
    with Network(tmp_path / "network", here.hosts[0]) as made:
        yield made
