"""The standard streams of a program: closed, full, broken or replaced."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pspd.host import streams

PREPARED = "import os, sys\nfrom pspd.host import streams\nstreams.prepare()\n"


def program(code: str, redirected: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python code with prepared streams, under a redirection of bash."""
    return subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" {redirected}', sys.executable, PREPARED + code],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def test_closed_descriptors_are_opened_first() -> None:
    done = program("fd = os.open('/', os.O_RDONLY); print(fd, file=open('/dev/fd/9', 'w'))", "9>&1 <&- >&- 2>&-")
    assert int(done.stdout) > 2
    assert done.returncode == 0


def test_closed_streams_are_usable() -> None:
    code = "print('x', flush=True); print('y', file=sys.stderr); sys.exit(len(sys.stdin.read()) + 7)"
    assert program(code, "<&- >&- 2>&-").returncode == 7


def test_child_inherits_opened_streams() -> None:
    code = "import subprocess; sys.exit(subprocess.run(['sh', '-c', 'echo x && echo y >&2']).returncode)"
    assert program(code, ">&- 2>&-").returncode == 0


def test_failing_stderr_is_no_error() -> None:
    done = program("print('x' * 100_000, file=sys.stderr); print('done')", "2>/dev/full")
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_failing_stdout_raises_once() -> None:
    code = (
        "from pspd.errors import StorageError\n"
        "try: print('x', flush=True)\n"
        "except StorageError as error: print(error, file=sys.stderr)\n"
        "print('y')"
    )
    done = program(code, ">/dev/full")
    assert (done.returncode, done.stderr) == (0, "cannot write to stdout: No space left on device\n")


def test_replaced_streams_stay(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    streams.prepare()
    assert (sys.stdout, sys.stderr) == before
    print("captured")
    assert capsys.readouterr().out == "captured\n"


def test_reader_is_required_of_pipes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(streams, "STDOUT", writing)
    try:
        streams.require_reader()
        os.close(reading)
        with pytest.raises(streams.ReaderGone):
            streams.require_reader()
    finally:
        os.close(writing)
    with open(os.devnull, "w") as device:
        monkeypatch.setattr(streams, "STDOUT", device.fileno())
        streams.require_reader()
