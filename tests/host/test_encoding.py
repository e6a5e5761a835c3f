"""File names are UTF-8 in every locale."""

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
    """Run the code; return the words of its output, and the process id that it started with."""
    command = [sys.executable, *options, "-c", CODE, "日本"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | locale) as process:
        assert process.stdout is not None
        output = process.stdout.read().decode("ascii")
    assert process.returncode == 0
    return output.split(), process.pid


@pytest.mark.parametrize(
    ("locale", "stdout_encoding"), [(FOREIGN, "ascii"), ({"LC_ALL": "C.UTF-8"}, "utf-8")], ids=["ascii", "utf-8"]
)
def test_names_are_utf8_in_any_locale(locale: dict[str, str], stdout_encoding: str) -> None:
    output, pid = run(locale=locale)
    assert output[:3] == ["utf-8", "['\\u65e5\\u672c']", str(pid)]
    assert output[3].lower() == stdout_encoding


def test_forbidden_utf8_mode_stays_off() -> None:
    output, _ = run("-X", "utf8=0", locale=FOREIGN)
    assert output[0] != "utf-8"
