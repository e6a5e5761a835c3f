"""Names are UTF-8, in whatever locale a command runs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = (
    "from pspd.host.encoding import ensure_utf8; ensure_utf8(); import os, sys;"
    "print(sys.getfilesystemencoding(), ascii(sys.argv[1:]), os.getpid(), sys.stdout.encoding)"
)
FOREIGN = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def run(*options: str, locale: dict[str, str]) -> tuple[list[str], int]:
    """Runs the code; returns what it said, and its process number at the start."""
    command = [sys.executable, *options, "-c", CODE, "日本"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | locale) as process:
        assert process.stdout is not None
        said = process.stdout.read().decode("ascii")
    assert process.returncode == 0
    return said.split(), process.pid


@pytest.mark.parametrize(
    ("locale", "output"), [(FOREIGN, "ascii"), ({"LC_ALL": "C.UTF-8"}, "utf-8")], ids=["ascii", "utf-8"]
)
def test_names_are_utf8_in_any_locale(locale: dict[str, str], output: str) -> None:
    said, pid = run(locale=locale)
    assert said[:3] == ["utf-8", "['\\u65e5\\u672c']", str(pid)]
    assert said[3].lower() == output


def test_who_forbids_utf8_mode_is_obeyed() -> None:
    said, _ = run("-X", "utf8=0", locale=FOREIGN)
    assert said[0] != "utf-8"
