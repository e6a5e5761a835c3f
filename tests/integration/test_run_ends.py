"""Ending ``pspctl run`` with a signal, and starting the next run."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.daemons import BIN, Network
from tests.support.files import random_file, visible_files

LARGE_BYTES = 2 << 30
"""A sparse file, too large to be distributed before the signal."""


class Run:
    """A run of a large file whose clients have started."""

    def __init__(self, network: Network, folder: Path, **options: object) -> None:
        self.network = network
        self.to = folder / "copies"
        self.source = folder / "large.bin"
        self.source.touch()
        os.truncate(self.source, LARGE_BYTES)
        command = [BIN / "pspctl", "run", self.source, "--clients", 2, "--to", self.to]
        self.process = network.host.popen(command, env=network.environment, **options)
        network.until("both clients have started", lambda: len(list(self.to.glob("client-*/.psp/instance"))) == 2)

    def daemons(self) -> list[str]:
        """Return the command lines of the run's daemons."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if "-m pspd" in line and str(self.to) in line:
                found.append(line)
        return found


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (signal.SIGHUP, 129, b"pspctl: error: hung up"),
        (signal.SIGINT, 130, b"pspctl: error: interrupted"),
        (signal.SIGTERM, 143, b"pspctl: error: terminated"),
    ],
)
def test_signal_leaves_nothing(
    network: Network, tmp_path: Path, number: signal.Signals, code: int, message: bytes
) -> None:
    run = Run(network, tmp_path, stderr=subprocess.PIPE)
    assert len(run.daemons()) >= 2
    run.process.send_signal(number)
    _, errors = run.process.communicate(timeout=30)
    assert run.process.returncode == code
    assert errors.startswith(message)
    assert errors.count(b"\n") == 1
    assert not run.to.exists()
    assert not run.daemons()


def test_second_interrupt_leaves_no_daemon(network: Network, tmp_path: Path) -> None:
    run = Run(network, tmp_path, stderr=subprocess.DEVNULL)
    run.process.send_signal(signal.SIGINT)
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(30) == 130
    network.until("no daemon is left", lambda: not run.daemons())


def test_closed_terminal_ends_run(network: Network, tmp_path: Path) -> None:
    screen, terminal = pty.openpty()
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    run = Run(network, tmp_path, **streams)
    os.close(terminal)
    os.close(screen)
    run.process.send_signal(signal.SIGHUP)  # as the kernel does when a terminal closes
    assert run.process.wait(30) == 129
    assert not run.to.exists()
    assert not run.daemons()


def test_killed_run_does_not_block_the_next(network: Network, tmp_path: Path) -> None:
    killed = Run(network, tmp_path)
    killed.process.kill()
    killed.process.wait(10)
    small = random_file(tmp_path / "small.bin", 50_000)
    answer = network.json("run", small, "--clients", 2, "--to", killed.to)
    assert answer["verified_client_count"] == 2
    assert [copy.name for copy in visible_files(killed.to)] == ["small.bin", "small.bin"]
    assert not list(killed.to.rglob(".psp*"))
    assert not killed.daemons()


def test_folder_is_used_by_one_run_at_a_time(network: Network, tmp_path: Path) -> None:
    run = Run(network, tmp_path)
    done = network.ctl("run", __file__, "--clients", 2, "--to", run.to, code=4)
    assert done.stderr == (f"pspctl: error: another run still uses {run.to}: wait for it, or name another with --to\n")
    assert run.process.poll() is None
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(30) == 143
