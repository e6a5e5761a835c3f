"""Calls the control API for a command: runs each asynchronous call on an event loop, and waits for the result."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Generic, Self, TypeVar

from pspd.errors import Unreachable
from pspd.host.addresses import grpc_target, resolve
from pspd.host.environment import require_descriptors, require_threads
from pspd.rpc.client.connection import DaemonClient, Peer, open_channel
from pspd.rpc.client.server import ServerClient
from pspd.text.addresses import parse_address
from pspd.v1 import status_service_pb2

T = TypeVar("T")
C = TypeVar("C", bound=DaemonClient)


class Api(Generic[C]):
    """A connection to one daemon, and the event loop that its calls run on. Use it in a ``with`` block.

    Attributes:
        client: the object whose methods call the daemon; `run` runs these calls.
        address: the daemon's address.
    """

    def __init__(self, client: C, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        """Resolve the daemon's address, and open a channel, which connects at the first call.

        Args:
            client: the object whose methods call the daemon.
            loop_factory: the function that makes the event loop; None for Python's default loop.

        Raises:
            BadArgument: the daemon's address is not an address.
            Unreachable: the host is unknown.
            LimitReached: too few threads or descriptors are left for gRPC, which would abort the process.
        """
        require_descriptors()
        require_threads()
        self.client = client
        self.address = client.peer.address
        self._target = self._resolve()
        self._runner = asyncio.Runner(loop_factory=loop_factory)
        self._is_closed = False
        self.run(self._open())

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, and return its result; Ctrl-C cancels it and raises KeyboardInterrupt."""
        try:
            return self._runner.run(call)
        except asyncio.CancelledError:  # the runner did not notice the signal, which came while it started
            raise KeyboardInterrupt from None

    def _resolve(self) -> str:
        return grpc_target(resolve(*parse_address(self.address), self.client.peer.option))

    async def _open(self) -> None:
        self._channel = open_channel(self._target, keepalive=False)
        self.client.use(self._channel)

    def reopen(self) -> None:
        """Replace the channel, because gRPC reconnects a channel only after a pause that grows with each failure."""
        self.run(self._channel.close())
        with contextlib.suppress(Unreachable):  # if the name cannot be resolved now, keep the known addresses
            self._target = self._resolve()
        self.run(self._open())

    def __enter__(self) -> Self:
        """Return the API."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection and the event loop."""
        self._is_closed = True
        with self._runner:
            self.run(self._channel.close())


class ServerApi(Api[ServerClient]):
    """A connection to a server.

    If the server refuses a call, fails, or cannot be reached, the call raises `pspd.errors.PspError`. If an argument is
    not valid Unicode, the call raises UnicodeEncodeError.
    """

    def __init__(self, address: str, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        """Resolve the server's address, and open a channel, which connects at the first call.

        Args:
            address: the server's address with port.
            loop_factory: the function that makes the event loop; None for Python's default loop.

        Raises:
            PspError: as in `Api`.
        """
        super().__init__(ServerClient(Peer(address)), loop_factory)

    def watch_status(
        self, file: str, timeout_seconds: float | None
    ) -> Iterator[status_service_pb2.WatchStatusResponse]:
        """Yield a snapshot of the network, then its changes, until the server ends the stream.

        Args:
            file: the id or name of the only file to include; empty for all files.
            timeout_seconds: the time after which the stream raises `TimedOut`; None for no limit.

        Raises:
            PspError: the server refuses the call, fails, or cannot be reached, or the time is over.
        """
        stream = self.client.watch_status(file, timeout_seconds)

        async def next_change() -> status_service_pb2.WatchStatusResponse | None:
            return await anext(stream, None)

        try:
            while (change := self.run(next_change())) is not None:
                yield change
        except GeneratorExit:
            if not self._is_closed:  # a traceback may keep this iterator longer than the connection is open
                self.run(stream.aclose())
            raise
