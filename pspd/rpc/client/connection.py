"""Connects to one daemon's control API, and converts gRPC's errors to ``PspError``."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from pspd.errors import InternalError, LimitReached, PspError, Reason, TimedOut, Unreachable, error_classes
from pspd.rpc.conventions import REASON_KEY, channel_options

CALL_SECONDS = 10.0
"""How long an ordinary call may take."""
CONNECT_TIMEOUT_MS = 4_000
"""How long gRPC tries to connect: time for three SYN packets (after 0, 1 and 3 s) if packets are lost.
A refused connection fails at once. gRPC calls this timeout its minimum reconnect backoff; the default is 20 s."""

_CONNECT_OPTIONS: list[tuple[str, int]] = [
    ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
]
_KEEPALIVE_OPTIONS: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


@dataclass(frozen=True, slots=True)
class Peer:
    """The called daemon, as error messages name it.

    Attributes:
        address: the address as the user wrote it.
        role: "server" or "agent".
        option: the option with which the user names another daemon.
        start_hint: advice on how to start or name such a daemon.
    """

    address: str
    role: str = "server"
    option: str = "--server"
    start_hint: str = "start one with `pspd server` or name another with --server"

    @classmethod
    def agent(cls, address: str) -> Peer:
        """Return the peer for an agent at `address`."""
        return cls(address, "agent", "--on", "start one there with `pspd agent`")

    def no_answer_error(self) -> Unreachable:
        """Return the error for a peer that does not answer."""
        return Unreachable(f"no {self.role} answers at {self.address}: {self.start_hint}")


def open_channel(target: str, *, keepalive: bool = True) -> grpc.aio.Channel:
    """Open a channel to a control API; it connects with the first call.

    The channel has its own connection and its own backoff: it shares neither with earlier channels to the address.

    Args:
        target: a gRPC target with one or more addresses; gRPC tries them in order.
        keepalive: whether to ping the peer, so that a call without a deadline notices a dead connection.
    """
    keepalive_options = _KEEPALIVE_OPTIONS if keepalive else []
    return grpc.aio.insecure_channel(target, options=[*channel_options(), *_CONNECT_OPTIONS, *keepalive_options])


def error_of(error: grpc.aio.AioRpcError, peer: Peer) -> PspError:
    """Return the project's error for a failed call.

    Args:
        error: the error that gRPC raised.
        peer: the daemon that was called.
    """
    metadata = error.trailing_metadata()
    reason = dict(metadata).get(REASON_KEY) if metadata else None
    details = error.details() or ""
    if isinstance(reason, str) and reason in Reason.__members__:
        return error_classes()[Reason[reason]](details)
    match error.code():
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:  # CANCELLED: the server is stopping
            return peer.no_answer_error()
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return TimedOut(f"the {peer.role} at {peer.address} did not answer in time: is it stopped or overloaded?")
        case grpc.StatusCode.UNIMPLEMENTED:
            failure = (
                f"{peer.address} does not know this request: no {peer.role}, or one of another version, runs there"
            )
            return Unreachable(f"{failure}: name another {peer.role} with {peer.option}")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:  # gRPC's own limit on the size of a message
            return LimitReached(f"the {peer.role} at {peer.address} answered: {details}")
        case code:
            return InternalError(
                f"the {peer.role} at {peer.address} answered {code.name}: {details or 'no reason given'}"
            )


class DaemonClient(ABC):
    """Calls the control API of one daemon. A failed call raises ``PspError``.

    Args:
        peer: the daemon.
        channel: the channel to the daemon; None if `use` is called before the first call.
    """

    def __init__(self, peer: Peer, channel: grpc.aio.Channel | None = None) -> None:
        self.peer = peer
        if channel is not None:
            self.use(channel)

    @abstractmethod
    def use(self, channel: grpc.aio.Channel) -> None:
        """Send all further calls over `channel`."""

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise gRPC's errors as ``PspError``.

        The members of one process share a channel. A member that joins again closes a broken channel: gRPC then
        cancels the calls of the other members and refuses new ones. Such calls fail as if the server did not answer.
        """
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise error_of(error, self.peer) from None
        except grpc.aio.UsageError:
            raise self.peer.no_answer_error() from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():  # the caller was cancelled, not only the call
                raise
            raise self.peer.no_answer_error() from None

    async def _call(self, method: Any, request: Any, timeout_seconds: float | None = CALL_SECONDS) -> Any:
        """Make one call; return the response.

        Args:
            method: the stub's method.
            request: the request.
            timeout_seconds: how long the call may take; None for no limit.
        """
        with self._errors():
            return await method(request, timeout=timeout_seconds)

    async def _stream(self, method: Any, request: Any, timeout_seconds: float | None) -> AsyncGenerator[Any, None]:
        """Make one streaming call; yield the responses. Closing this generator cancels the call.

        Args:
            method: the stub's method.
            request: the request.
            timeout_seconds: how long the whole stream may take; None for no limit.
        """
        with self._errors():
            call = method(request, timeout=timeout_seconds)
            try:
                async for response in call:
                    yield response
            finally:
                call.cancel()
