"""Run coroutines as tests: each in its own event loop, with a time limit and with all errors reported."""

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
"""How often to poll without a pause: most conditions become true after a few rounds of the loop."""

GRPC_STRAY = "PollerCompletionQueue._handle_events"
"""gRPC has one queue for all loops and may find a late event of a closed loop; the program cannot prevent that."""

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
LOOPS: dict[str, LoopFactory] = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}

P = ParamSpec("P")


class Chosen:
    """The event loop for the tests; the default is the event loop of the daemons.

    Attributes:
        factory: creates the event loop.
        expects_faults: whether the test provokes unknown errors that the program catches and logs.
    """

    factory: LoopFactory = uvloop.new_event_loop
    expects_faults = False


@contextlib.contextmanager
def faults_expected() -> Iterator[None]:
    """Allow the program to catch and log unknown errors; otherwise each of them fails the test."""
    Chosen.expects_faults = True
    try:
        yield
    finally:
        Chosen.expects_faults = False


class CaughtFaults(logging.Handler):
    """Records errors that the program logs with a traceback, so that they fail the test."""

    def __init__(self, lost: list[str]) -> None:
        """Append the errors to `lost`."""
        super().__init__(logging.ERROR)
        self._lost = lost

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and not Chosen.expects_faults:
            self._lost.append(logging.Formatter().format(record))


def on_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Turn a coroutine function into a test."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_on_loop(lambda: test(*args, **kwargs))

    return run


def run_on_loop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine to its end.

    Raises:
        TimeoutError: the coroutine takes longer than `SECONDS_MAX`.
        AssertionError: a callback or a task failed without a waiter, or the program caught an unknown error.
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
            gc.collect(1)  # a failed task reports itself when it is collected; older objects belong to other tests
    finally:
        logger.removeHandler(caught)
    assert not lost, lost


async def until(what: str, condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Run the loop until a condition is true.

    Args:
        what: the condition in words, for the message.
        condition: returns whether it is true.
        seconds: how long to wait.

    Raises:
        AssertionError: it is not true after `seconds`.
    """
    deadline, eager = time.monotonic() + seconds, EAGER_POLLS
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(POLL_SECONDS if eager <= 0 else 0)
        eager -= 1
