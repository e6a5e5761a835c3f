"""Fixtures of the lab tests; the tests skip, with the reason, where no lab can be built."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab.network import Lab, obstacle
from tests.support.daemons import Network


@pytest.fixture(scope="session")
def laboratory() -> None:
    """Skip the test where no lab can be built."""
    if reason := obstacle():
        pytest.skip(reason)


@pytest.fixture
def lab(laboratory: None) -> Iterator[Callable[[int], Lab]]:
    """Provide a function that builds labs: ``lab(3)`` has three hosts. The labs end with the test."""
    with ExitStack() as stack:
        yield lambda host_count: stack.enter_context(Lab(host_count))


@pytest.fixture
def here(lab: Callable[[int], Lab], request: pytest.FixtureRequest) -> Lab:
    """Provide a lab with a host for the server and one for each of the module's ``CLIENTS``."""
    return lab(1 + len(request.module.CLIENTS))


@pytest.fixture
def network(here: Lab, tmp_path: Path) -> Iterator[Network]:
    """Provide an empty network; its server and its ``pspctl`` run on the first host."""
    with Network(tmp_path / "network", here.hosts[0]) as network:
        yield network
