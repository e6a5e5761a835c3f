"""Errors of the machine versus bugs, the machine's limits, and the user's folders."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pspd.errors import Exit, LimitReached
from pspd.host.environment import DESCRIPTORS_MIN, THREADS_MIN, environment_error, require_threads, user_folder


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EROFS, Exit.FAILED),
        (errno.EACCES, Exit.FAILED),
        (errno.EIO, Exit.FAILED),
        (errno.ENOSPC, Exit.FAILED),
        (errno.EMFILE, Exit.LIMIT),
        (errno.ENFILE, Exit.LIMIT),
        (errno.ENOMEM, Exit.LIMIT),
    ],
)
def test_machine_error_has_exit_code_and_one_line(number: int, code: Exit) -> None:
    error = environment_error(OSError(number, os.strerror(number), "/srv/file"))
    assert error is not None
    assert error.exit_code is code
    assert "\n" not in str(error)


def test_failing_path_is_named() -> None:
    error = environment_error(OSError(errno.EROFS, os.strerror(errno.EROFS), b"/srv/file"))
    assert str(error).startswith("cannot use /srv/file: Read-only file system")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")], ids=repr)
def test_lack_of_memory_or_threads_is_a_limit(error: Exception) -> None:
    known = environment_error(error)
    assert known is not None
    assert known.exit_code is Exit.LIMIT


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EBADF, "Bad file descriptor"),
        OSError(errno.EINVAL, "Invalid argument"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        OSError("without a number"),
        TypeError("no"),
        RuntimeError("no"),
        KeyError("no"),
    ],
    ids=repr,
)
def test_bug_is_no_machine_error(error: Exception) -> None:
    assert environment_error(error) is None


def test_removed_current_folder_is_reported(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pspd.host.environment import environment_error\n"
        "os.rmdir(os.getcwd())\n"
        "try: os.getcwd()\n"
        "except OSError as error: print(environment_error(error))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "the current folder no longer exists: change to another one\n"


def test_user_folder_is_below_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert user_folder("state") == Path("/home/anna/.local/state/psp")
    assert user_folder("config") == Path("/home/anna/.config/psp")
    assert user_folder("data") == Path("/home/anna/.local/share/psp")


@pytest.mark.parametrize("variable", ["XDG_CONFIG_HOME"])
def test_relative_folder_is_ignored(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    monkeypatch.setenv(variable, "relative")
    assert user_folder("config") == Path("/home/anna/.config/psp")


def test_too_few_threads_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    require_threads()
    start, allowed = threading.Thread.start, iter(range(THREADS_MIN - 1))

    def start_some(thread: threading.Thread) -> None:
        if next(allowed, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    before = threading.active_count()
    monkeypatch.setattr(threading.Thread, "start", start_some)
    with pytest.raises(LimitReached, match="cannot start more threads"):
        require_threads()
    assert threading.active_count() == before


@pytest.mark.parametrize("command", ["server", "client", "agent"])
def test_daemon_with_few_descriptors_reports_limit(command: str) -> None:
    line = f"ulimit -n {DESCRIPTORS_MIN - 1} && exec {sys.executable} -m pspd {command}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.returncode == Exit.LIMIT
    advice = f"raise it to {DESCRIPTORS_MIN} or more (ulimit -n)"
    assert done.stderr == f"pspd {command}: error: the limit on open files is {DESCRIPTORS_MIN - 1}: {advice}\n"
