"""A client's disk is unmounted, and not mounted when the client starts again."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemons import BIN, Network
from tests.support.files import random_file

pytestmark = pytest.mark.lab

END_SECONDS = 20
UNSHARED = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
"""Runs a shell in a separate mount namespace."""


@pytest.fixture
def network(laboratory: None, tmp_path: Path) -> Iterator[Network]:
    """Provide an empty network on this machine."""
    with Network(tmp_path / "network") as network:
        yield network


@pytest.fixture
def start(network: Network, tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Provide a function that starts a client in a separate mount namespace, after a shell command."""
    started: list[subprocess.Popen[str]] = []
    client = f"exec {BIN}/pspd client --name a --server {network.server().ready_line['listen']} --require-mount --dir"

    def started_after(before: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*UNSHARED, f"{before} && {client} {tmp_path}/disk"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield started_after
    for process in started:
        process.kill()
        process.communicate()


def test_client_does_not_write_beside_an_unmounted_disk(
    network: Network, start: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if any(folder.is_mount() for folder in disk.parents if folder != Path("/")):
        pytest.skip("the tests' folder is itself on a mounted disk")
    client = start(f"mount -t tmpfs psp {disk}")
    assert client.stdout is not None
    assert '"ready": true' in client.stdout.readline()
    network.ctl("seed", random_file(tmp_path / "first.bin", 100_000), "--wait")
    subprocess.run(["nsenter", "-t", str(client.pid), "-m", "umount", "-l", disk], check=True)
    seeding = network.ctl("seed", random_file(tmp_path / "second.bin", 100_000), "--timeout", 2, code=None)
    assert seeding.returncode in (4, 6), "the client declines the file before it exits, or exits first"
    assert client.wait(END_SECONDS) == 1
    assert not list(disk.iterdir())
    again = start("true")
    _, message = again.communicate(timeout=END_SECONDS)
    assert message.startswith(f"pspd client: error: {disk} is not on a mounted disk")
    assert again.returncode == 4
    assert not list(disk.iterdir())


def test_read_only_disk_is_reported(
    network: Network, start: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    client = start(f"mount -t tmpfs psp {disk}")
    assert client.stdout is not None
    assert '"ready": true' in client.stdout.readline()
    entered = ["nsenter", "-t", str(client.pid), "-m"]
    # A second mount over the folder: the first cannot become read-only while the client's lock is open.
    subprocess.run([*entered, "mount", "--bind", disk, disk], check=True)
    subprocess.run([*entered, "mount", "-o", "remount,bind,ro", disk], check=True)
    _, message = client.communicate(timeout=END_SECONDS)
    expected = f"pspd client: error: cannot use {disk}/.psp: Read-only file system: use a folder that can be written to"
    assert message.splitlines()[-1] == expected
    assert client.returncode == 1
