"""A client written from ``docs/protocol.md`` alone interoperates with the real ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemons import Network
from tests.support.files import random_file

ROOT = Path(__file__).resolve().parents[2]
LARGEST_BYTES = {"fast": 3_000_000, "classic": 20_000}
"""In the fast profile, share boundaries cut blocks of this file. It is small, because in the classic profile each chunk
takes a request."""


@contextmanager
def independent_client(network: Network, server: str, name: str, loss: float) -> Iterator[None]:
    """Run an independent client inside the ``with`` block."""
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "tests.support.minimal_client",
        server,
        network.folder / name,
        name,
        str(loss),
    ]
    with subprocess.Popen(command, cwd=ROOT, env=network.environment, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("loss", [0.0, 0.2])
@pytest.mark.parametrize("profile", ["fast", "classic"])
def test_independent_client_interoperates(network: Network, tmp_path: Path, profile: str, loss: float) -> None:
    server = network.server("--profile", profile, "--faults", f"loss={loss}")
    listen = server.ready_line["listen"]
    with independent_client(network, listen, "x", loss), independent_client(network, listen, "y", loss):
        network.client("p")
        network.until("three clients", lambda: len(network.status()["clients"]) == 3)
        for size in (0, 1, 1024, 1025, LARGEST_BYTES[profile]):
            source = random_file(tmp_path / f"file-{size}", size)
            source.chmod(0o600 if size == 1025 else 0o644)
            network.ctl("seed", source, "--clients", 3, "--wait")
            network.await_copies(source, ["x", "y", "p"])
            assert len({network.copy(name, source.name).stat().st_mode for name in "xyp"}) == 1
    dropped = network.status()["server"]["dropped_counts"]
    # A source may still be sending when its session ends.
    assert dropped.keys() <= {"duplicate", "stale", "unknown_session"}
