"""How a daemon runs: its loop, its signals, its log, its ready line."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from pspd.daemon.descriptors import raise_limit
from pspd.errors import BadArgument, Exit, InternalError, PspError, StorageError
from pspd.host.command import EXIT_WITH_PARENT
from pspd.host.environment import environment_error, require_descriptors, require_threads
from pspd.host.streams import ReaderGone
from pspd.net.loop import loop_factory
from pspd.text.plain import plain_text

GARBAGE_OBJECTS = 20_000
"""So many objects are made before cycles among them are looked for: what moves data makes hardly any, and thousands of
objects a second that go by themselves. At Python's 700 the looking took a twentieth of the classic profile's time."""

log = logging.getLogger(__name__)


def run(name: str, main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> int:
    """Runs a daemon until it ends or is told to stop. Returns its exit code.

    Args:
        name: what goes before an error line.
        main: the daemon; ends in good order when the event is set.
    """
    try:
        _open_log(os.environ.get("PSPD_LOG", "INFO"))
        raise_limit()
        require_descriptors()
        require_threads()
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE_OBJECTS)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_until_stopped(main))
    except asyncio.CancelledError:
        return Exit.TERMINATED
    except Exception as error:
        return _report(name, error)
    return Exit.OK


def _report(name: str, error: Exception) -> Exit:
    """Tells in one line why the daemon ends; returns its exit code."""
    known = error if isinstance(error, PspError) else environment_error(error)
    if known is None:
        known = InternalError(f"{type(error).__name__}: {error}: this is a bug; PSPD_LOG=DEBUG shows where")
    log.debug("the daemon ends", exc_info=error)
    print(plain_text(f"{name}: error: {known}"), file=sys.stderr)
    return known.exit_code


def _open_log(level: str) -> None:
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise BadArgument(f"PSPD_LOG is {level!r}: set it to DEBUG, INFO, WARNING or ERROR")
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(_PlainLines("%(asctime)s %(message)s"))
    lines.addFilter(_is_no_cancelled_call)
    logging.basicConfig(level=number, handlers=[lines])


def _is_no_cancelled_call(record: logging.LogRecord) -> bool:
    """Tells whether a record is worth a line: gRPC logs calls that a stop cancels as errors, with a traceback."""
    is_cancelled = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not (is_cancelled and record.name.startswith("grpc."))


class _PlainLines(logging.Formatter):
    """Names come from elsewhere: what a terminal would not print, but obey, is shown as an escape."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return plain_text(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return "\n".join(map(plain_text, super().formatException(ei).split("\n")))


async def _until_stopped(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stopping = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stopping.is_set():
            os._exit(128 + number)  # asked twice: at once
        log.info("stopping (%s); again to stop at once", number.name)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # started by nohup: it outlives its terminal
        loop.add_signal_handler(number, on_signal, number)
    if os.environ.get(EXIT_WITH_PARENT):
        try:
            loop.add_reader(sys.stdin, _pull_leash, loop, stopping)
        except PermissionError:  # the kernel watches neither files nor /dev/null
            raise BadArgument(
                f"{EXIT_WITH_PARENT} is set, and standard input is no pipe: unset it, or give a pipe"
            ) from None
    await main(stopping)


def _pull_leash(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1):
        loop.remove_reader(sys.stdin)
        log.info("stopping: whoever started this is gone")
        stopping.set()


def say_ready(**fields: object) -> None:
    """Writes the one machine-readable line that a daemon has for its standard output; goes on if nobody takes it."""
    try:
        print(json.dumps({"ready": True, **fields, "pid": os.getpid()}), flush=True)
    except (ReaderGone, StorageError) as error:
        log.warning("nobody reads that this is ready: %s", str(error) or "stdout is closed")


async def first_of(*awaitables: Awaitable[Any]) -> None:
    """Waits until one of several has ended, ends the others, and raises what the one raised."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
