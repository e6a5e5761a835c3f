"""The commit-msg hook, and how ``scripts/install`` sets it up."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HOOK = Path(__file__).resolve().parent.parent / "scripts" / "hooks" / "commit-msg"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("Extract share monitor from catalogue\n\n" + "A long line of the body. " * 9, 0),
        ("x" * 72, 0),
        ("x" * 73, 1),
        ("# A comment of git, which may be as long as it likes; it is not the subject at all\nAdd a test", 0),
        ("fixup! " + "x" * 72, 0),
        ("\u00e9" * 72, 0),
        ("", 0),
    ],
)
def test_commit_hook_limits_the_subject(tmp_path: Path, message: str, code: int) -> None:
    file = tmp_path / "COMMIT_EDITMSG"
    file.write_text(message)
    result = subprocess.run(
        [HOOK, file], capture_output=True, text=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    )
    assert result.returncode == code
    assert bool(result.stderr) == bool(code)
