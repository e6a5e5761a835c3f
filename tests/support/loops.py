"""Tests that are coroutines: each runs in an event loop of its own, to a deadline, and no error in it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, ParamSpec

import uvloop

SECONDS_MAX = 20.0
POLL_SECONDS = 0.002
EAGER_POLLS = 50
"""So often the loop is only let go round once: most conditions need no more."""

GRPC_STRAY = "PollerCompletionQueue._handle_events"
"""gRPC has one queue for all loops, and may find a late event of a loop that is closed: no fault of ours."""

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
LOOPS: dict[str, LoopFactory] = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}

P = ParamSpec("P")


class Chosen:
    """The loop that the tests run on: that of the daemons unless a fixture says otherwise.

    Attributes:
        expects_faults: whether the test provokes errors that the program catches and logs.
    """

    factory: LoopFactory = uvloop.new_event_loop
    expects_faults = False


@contextlib.contextmanager
def faults_expected() -> Iterator[None]:
    """Lets the program catch and log errors that it does not know; elsewhere each of them fails the test."""
    Chosen.expects_faults = True
    try:
        yield
    finally:
        Chosen.expects_faults = False


class CaughtFaults(logging.Handler):
    """Notes errors that the program logs with a traceback: catching them must not hide a fault from a test.

    Args:
        lost: takes them.
    """

    def __init__(self, lost: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._lost = lost

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and not Chosen.expects_faults:
            self._lost.append(logging.Formatter().format(record))


def on_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Makes a test of a coroutine function."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_on_loop(lambda: test(*args, **kwargs))

    return run


def run_on_loop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a coroutine to its end.

    Raises:
        TimeoutError: it is not over after :data:`SECONDS_MAX`.
        AssertionError: a callback or a task failed where nobody waited for it, or the program caught an error that it
            does not know.
    """
    lost: list[str] = []
    caught, logger = CaughtFaults(lost), logging.getLogger("pspd")

    def note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if GRPC_STRAY not in context["message"]:
            lost.append(f"{context['message']}: {context.get('exception')!r}")

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(note)
        async with asyncio.timeout(SECONDS_MAX):
            await main()

    logger.addHandler(caught)
    try:
        with asyncio.Runner(loop_factory=Chosen.factory) as runner:
            runner.run(watched())
            gc.collect(1)  # a task that failed unheard says so when it goes; the old are none of this test's
    finally:
        logger.removeHandler(caught)
    assert not lost, lost


async def until(what: str, condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Lets the loop work until something is so.

    Raises:
        AssertionError: it is not so after ``seconds``.
    """
    deadline, eager = time.monotonic() + seconds, EAGER_POLLS
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(POLL_SECONDS if eager <= 0 else 0)
        eager -= 1
