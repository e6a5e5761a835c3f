"""How a daemon runs: how it ends, its exit code, and its log."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import signal
from collections.abc import Iterator

import pytest

from pspd.daemon.member.member import first_of
from pspd.daemon.process import _PlainFormatter, run, write_ready_line
from pspd.errors import Exit, NotFound, PspError, error_classes
from tests.support.loops import on_loop


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


async def end_at_once(_stopping: asyncio.Event) -> None:
    """A daemon that ends at once."""


@pytest.mark.parametrize(
    ("logger", "error", "is_shown"),
    [
        ("grpc._cython.cygrpc", asyncio.CancelledError(), False),
        ("grpc._cython.cygrpc", ValueError("a fault"), True),
        ("pspd.daemon.server.network", asyncio.CancelledError(), True),
    ],
)
def test_calls_cancelled_by_a_stop_are_not_logged(
    logger: str, error: BaseException, is_shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    async def log_error(_stopping: asyncio.Event) -> None:
        logging.getLogger(logger).error("a call ended", exc_info=error)

    logging.getLogger().handlers.clear()
    assert run("pspd test", log_error) is Exit.OK
    assert ("a call ended" in capsys.readouterr().err) is is_shown


class TestRun:
    def test_daemon_that_ends_exits_with_0(self) -> None:
        assert run("pspd test", end_at_once) is Exit.OK

    @pytest.mark.parametrize("error_class", error_classes().values(), ids=lambda cls: cls.reason)
    def test_error_is_one_line_and_its_code(
        self, error_class: type[PspError], capsys: pytest.CaptureFixture[str]
    ) -> None:
        async def fail(_stopping: asyncio.Event) -> None:
            raise error_class("what happened")

        assert run("pspd test", fail) is error_class("").exit_code
        out, err = capsys.readouterr()
        assert (out, err) == ("", "pspd test: error: what happened\n")

    def test_bug_is_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        async def fail(_stopping: asyncio.Event) -> None:
            raise KeyError("what")

        assert run("pspd test", fail) is Exit.FAILED
        told = "pspd test: error: KeyError: 'what': this is a bug; PSPD_LOG=DEBUG shows where\n"
        assert capsys.readouterr().err == told

    def test_environment_error_is_no_bug(self, capsys: pytest.CaptureFixture[str]) -> None:
        async def fail(_stopping: asyncio.Event) -> None:
            raise OSError(errno.EROFS, "Read-only file system", "/srv")

        assert run("pspd test", fail) is Exit.FAILED
        assert capsys.readouterr().err.startswith("pspd test: error: cannot use /srv: Read-only file system: ")

    def test_cancelled_daemon_was_terminated(self) -> None:
        async def cancelled(_stopping: asyncio.Event) -> None:
            raise asyncio.CancelledError

        assert run("pspd test", cancelled) is Exit.TERMINATED

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_signal_stops_it_cleanly(self, number: signal.Signals) -> None:
        ended: list[str] = []

        async def main(stopping: asyncio.Event) -> None:
            os.kill(os.getpid(), number)
            await stopping.wait()
            ended.append("in good order")

        assert run("pspd test", main) is Exit.OK
        assert ended == ["in good order"]

    def test_second_signal_ends_it_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        codes: list[int] = []
        monkeypatch.setattr(os, "_exit", codes.append)

        async def main(stopping: asyncio.Event) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            await stopping.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            while not codes:
                await asyncio.sleep(0)
                assert len(codes) < 2

        run("pspd test", main)
        assert codes == [Exit.TERMINATED]


def test_ready_line_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    write_ready_line(role="server", listen="[::1]:7070", names=["ä\n"])
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {
        "ready": True,
        "role": "server",
        "listen": "[::1]:7070",
        "names": ["ä\n"],
        "pid": os.getpid(),
    }


class Waiting:
    """Wait forever; record the cancellation."""

    def __init__(self) -> None:
        self.ended = False

    async def __call__(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


class TestFirstOf:
    @on_loop
    async def test_first_to_end_cancels_the_others(self) -> None:
        waiting = Waiting()
        await first_of(waiting(), asyncio.sleep(0), waiting())
        assert waiting.ended

    @on_loop
    async def test_error_of_the_first_is_raised(self) -> None:
        async def fail() -> None:
            raise NotFound("gone")

        waiting = Waiting()
        with pytest.raises(NotFound, match="gone"):
            await first_of(waiting(), fail())
        assert waiting.ended

    @on_loop
    async def test_errors_of_cancelled_tasks_are_dropped(self) -> None:
        async def fail_when_ended() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise NotFound("too late")

        await first_of(fail_when_ended(), asyncio.sleep(0))

    @on_loop
    async def test_cancellation_ends_all(self) -> None:
        waiting = Waiting()
        task = asyncio.ensure_future(first_of(waiting(), waiting()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert waiting.ended


def test_control_characters_are_escaped_in_the_log() -> None:
    record = logging.LogRecord("", logging.INFO, "", 0, "%s is complete", ("a\u202e\x1b[2J",), None)
    assert _PlainFormatter("%(message)s").format(record) == "a\\u202e\\x1b[2J is complete"


def test_control_characters_of_exceptions_are_escaped() -> None:
    try:
        raise ValueError("evil\x1b[2J\nname")
    except ValueError as error:
        told = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("", logging.ERROR, "", 0, "it failed", (), told)
    lines = _PlainFormatter("%(message)s").format(record).split("\n")
    assert lines[0] == "it failed"
    assert lines[-2:] == ["ValueError: evil\\x1b[2J", "name"]
