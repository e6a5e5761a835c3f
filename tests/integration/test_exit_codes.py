"""The exit codes of ``pspctl``, each with a one-line error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import Network
from tests.support.files import random_file

NOWHERE = "127.0.0.1:1"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Start a network with one client that has one file; the tests do not change it."""
    folder = tmp_path_factory.mktemp("exit-codes")
    with Network(folder / "network") as made:
        made.server()
        made.client("a")
        made.ctl("seed", random_file(folder / "held.bin", 9000), "--wait")
        yield made


@pytest.mark.parametrize(
    ("code", "args"),
    [
        (0, ("version",)),
        (0, ("--help",)),
        (0, ("status", "held.bin")),
        (0, ("wait", "held.bin", "--timeout", "5")),
        (2, ("conquer",)),
        (2, ("status", "--server", "7070")),
        (5, ("status", "--server", "nowhere.invalid")),
        (2, ("cache", "resize", "a lot")),
        (2, ("cache", "resize", "0")),
        (2, ("run", "/etc/hostname", "--clients", "0", "--to", "/tmp")),
        (2, ("launch", "none")),
        (2, ("stop",)),
        (3, ("status", "no-such-file")),
        (3, ("wait", "no-such-file")),
        (3, ("stop", "no-such-client")),
        (5, ("status", "--server", NOWHERE)),
        (5, ("launch", "1", "--on", NOWHERE)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_exit_code_tells_the_cause(network: Network, code: int, args: tuple[str, ...]) -> None:
    done = network.ctl(*args, code=code)
    if code not in (0, 2):
        assert done.stdout == ""
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    ("code", "name", "args"),
    [
        (2, "new.bin", ("--name", "../escape")),
        (2, "new.bin", ("--clients", "0")),
        (4, "held.bin", ()),
        (5, "new.bin", ("--server", NOWHERE)),
        (6, "new.bin", ("--clients", "5", "--timeout", "1")),
    ],
)
def test_seed_exit_code_tells_the_cause(
    network: Network, tmp_path: Path, code: int, name: str, args: tuple[str, ...]
) -> None:
    source = random_file(tmp_path / name, 9000, seed=1)
    done = network.ctl("seed", source, *args, code=code)
    assert done.stdout == ""


def test_error_in_json_mode_leaves_stdout_empty(network: Network) -> None:
    done = network.ctl("status", "no-such-file", "-o", "json", code=3)
    assert done.stdout == ""
