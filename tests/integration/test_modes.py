"""Permission bits are copied from a source to every client, and survive restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.stores import mode_of
from tests.support.daemons import Network
from tests.support.files import random_file


def file_of(path: Path, mode: int) -> Path:
    random_file(path, 300_000, seed=mode)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("profile", ["fast", "classic"])
def test_every_copy_has_mode_of_original(network: Network, tmp_path: Path, profile: str) -> None:
    modes = {"run.sh": 0o755, "key": 0o600, "shared": 0o664, "usual": 0o644}
    server = network.server("--profile", profile)
    names = network.clients(2)
    for name, mode in modes.items():
        network.ctl("seed", file_of(tmp_path / name, mode), "--wait", "--clients", 2)
    server.kill()
    network.restarted_server(server, "--profile", profile)
    network.client("late")
    for name, mode in modes.items():
        network.ctl("wait", name)
        copies = [network.copy(client, name) for client in (*names, "late")]
        network.until(f"{name} is everywhere", lambda copies=copies: all(copy.exists() for copy in copies))
        assert [mode_of(copy) for copy in copies] == [mode] * 3


def test_same_file_with_another_mode_is_refused(network: Network, tmp_path: Path) -> None:
    network.server()
    network.client("a")
    path = file_of(tmp_path / "run.sh", 0o644)
    network.ctl("seed", path, "--wait")
    path.chmod(0o755)
    done = network.ctl("seed", path, code=4)
    assert "'run.sh' is in the network with mode 644, not 755: change it with chmod" in done.stderr
