"""The hidden folder of ``pspctl run``, and the leftovers of a killed run."""

from __future__ import annotations

import fcntl
from pathlib import Path

from pspctl.local import RunFolder


def test_running_client_keeps_its_hidden_folder(tmp_path: Path) -> None:
    """After a run of two clients was killed, the user starts a client in the folder of the first."""
    (tmp_path / ".psp-run").mkdir()
    (tmp_path / ".psp-run" / "lock").write_text("2")
    used, left = (tmp_path / f"client-{index}" / ".psp" for index in range(2))
    for work in (used, left):
        work.mkdir(parents=True)
        (work / "lock").touch()
    with (used / "lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with RunFolder(tmp_path, 2):
            assert (used / "lock").exists()
            assert not left.exists()
