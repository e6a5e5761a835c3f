"""A process raises its limit of file descriptors, and shares them among its clients."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from pspd.daemon.process import OPEN_FILES_PER_CLIENT_MIN, open_files_per_client, raise_open_files_limit
from pspd.store.filesystem.file_bytes import OPEN_FILES_MAX


@pytest.fixture(autouse=True)
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_soft_limit_is_raised(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
    raise_open_files_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limits[1], limits[1])


@pytest.mark.parametrize(
    ("clients", "each"), [(1, OPEN_FILES_MAX), (4, 125), (50, 10), (1000, OPEN_FILES_PER_CLIENT_MIN)]
)
def test_half_the_descriptors_are_shared_by_clients(limits: tuple[int, int], clients: int, each: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, limits[1]))
    assert open_files_per_client(clients) == each
