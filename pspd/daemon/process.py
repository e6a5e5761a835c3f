"""Runs a daemon: sets up its event loop, signals, log and limits, and writes its ready line."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from pspd.errors import BadArgument, Exit, InternalError, PspError, StorageError
from pspd.host.command import STOP_ON_STDIN_EOF
from pspd.host.environment import environment_error, require_descriptors, require_threads
from pspd.host.streams import ReaderGone
from pspd.net.loop import loop_factory
from pspd.store.filesystem.file_bytes import OPEN_FILES_MAX
from pspd.text.plain import plain_text

GC_THRESHOLD_OBJECTS = 20_000
"""The growth in objects between two collections of cyclic garbage. Moving data creates thousands of objects per second
but hardly any cycles, so with the default of 700 in Python 3.11, collections would take noticeable time."""
STORED_FILES_DIVISOR = 2
"""The limit on descriptors divided by this number is for stored files. The rest is for sockets and for files that are
being sent."""
OPEN_FILES_PER_CLIENT_MIN = 4
"""The fewest open files for one client. With fewer, a client would open and close files all the time. If a process has
too few descriptors, an error names the limit to raise."""

log = logging.getLogger(__name__)


def run(name: str, main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> int:
    """Run a daemon until it ends or is asked to stop, and print its error, if any; return its exit code.

    Args:
        name: the name with which an error line begins.
        main: the daemon's main function, which stops cleanly when the event is set.
    """
    try:
        _configure_log(os.environ.get("PSPD_LOG", "INFO"))
        raise_open_files_limit()
        require_descriptors()
        require_threads()
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD_OBJECTS)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_run_with_signals(main))
    except asyncio.CancelledError:
        return Exit.TERMINATED
    except Exception as error:
        return _report_error(name, error)
    return Exit.OK


def _report_error(name: str, error: Exception) -> Exit:
    """Print one line that says why the daemon ends; return the exit code.

    Args:
        name: the name with which the line begins.
        error: the error that ended the daemon.
    """
    known = error if isinstance(error, PspError) else environment_error(error)
    if known is None:
        known = InternalError(f"{type(error).__name__}: {error}: this is a bug; PSPD_LOG=DEBUG shows where")
    log.debug("the daemon ends", exc_info=error)
    print(plain_text(f"{name}: error: {known}"), file=sys.stderr)
    return known.exit_code


def _configure_log(level: str) -> None:
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise BadArgument(f"PSPD_LOG is {level!r}: set it to DEBUG, INFO, WARNING or ERROR")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PlainFormatter("%(asctime)s %(message)s"))
    handler.addFilter(_should_log)
    logging.basicConfig(level=number, handlers=[handler])


def _should_log(record: logging.LogRecord) -> bool:
    """Return False for the errors that gRPC logs when a stop of the daemon cancels calls; otherwise True."""
    is_cancelled = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not (is_cancelled and record.name.startswith("grpc."))


class _PlainFormatter(logging.Formatter):
    """Escapes control characters in log lines, because names come from other machines and may contain them."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Format a record's message."""
        return plain_text(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """Format a traceback."""
        return "\n".join(map(plain_text, super().formatException(ei).split("\n")))


async def _run_with_signals(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run the main function; a signal, or the end of standard input if the environment asks for it, sets its event."""
    stopping = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stopping.is_set():
            os._exit(128 + number)  # the second signal stops the daemon at once
        log.info("stopping (%s); repeat the signal to stop at once", number.name)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # started by nohup: the daemon must outlive the terminal
        loop.add_signal_handler(number, on_signal, number)
    if os.environ.get(STOP_ON_STDIN_EOF):
        try:
            loop.add_reader(sys.stdin, _stop_at_end_of_input, loop, stopping)
        except PermissionError:  # epoll supports neither files nor /dev/null
            raise BadArgument(
                f"{STOP_ON_STDIN_EOF} is set, but standard input is not a pipe: unset it, or give a pipe"
            ) from None
    await main(stopping)


def _stop_at_end_of_input(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1):
        loop.remove_reader(sys.stdin)
        log.info("stopping: standard input has ended")
        stopping.set()


def write_ready_line(**fields: object) -> None:
    """Write the ready line, the only line on standard output; if this fails, log a warning and continue."""
    try:
        print(json.dumps({"ready": True, **fields, "pid": os.getpid()}), flush=True)
    except (ReaderGone, StorageError) as error:
        log.warning("cannot write the ready line: %s", str(error) or "stdout is closed")


def raise_open_files_limit() -> None:
    """Raise the soft limit on open files to the hard limit, if possible.

    The soft limit is low only for programs that use ``select``.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # the system may refuse
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_files_per_client(client_count: int) -> int:
    """Return how many files each of the clients in this process may keep open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return OPEN_FILES_MAX
    return max(OPEN_FILES_PER_CLIENT_MIN, min(OPEN_FILES_MAX, limit // STORED_FILES_DIVISOR // max(1, client_count)))
