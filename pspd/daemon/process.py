"""How a daemon runs: its loop, its signals, its log, its ready line."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from pspd.errors import Exit, PspError

log = logging.getLogger(__name__)


def run(name: str, main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> int:
    """Runs a daemon until it ends or is told to stop. Returns its exit code.

    Args:
        name: what goes before an error line.
        main: the daemon; ends in good order when the event is set.
    """
    level = logging.getLevelNamesMapping().get(os.environ.get("PSPD_LOG", "INFO").upper(), logging.INFO)
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(message)s")
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            runner.run(_until_stopped(main))
        except PspError as error:
            print(f"{name}: error: {error}", file=sys.stderr)
            return error.exit_code
        except asyncio.CancelledError:
            return Exit.TERMINATED
    return Exit.OK


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _until_stopped(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stopping = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stopping.is_set():
            os._exit(128 + number)  # asked twice: at once
        log.info("stopping (%s); again to stop at once", number.name)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    await main(stopping)


def say_ready(**fields: object) -> None:
    """Writes the one machine-readable line that a daemon has for its standard output."""
    print(json.dumps({"ready": True, **fields, "pid": os.getpid()}), flush=True)


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
