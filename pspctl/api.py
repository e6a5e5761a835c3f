"""The control API as plain calls: one method per request, and errors of our own tree instead of gRPC's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, cast

import grpc

from pspd import errors
from pspd.host.addresses import grpc_target, resolve
from pspd.host.environment import require_threads
from pspd.text.addresses import parse_address
from pspd.v1 import (
    cache_service_pb2,
    cache_service_pb2_grpc,
    client_service_pb2,
    client_service_pb2_grpc,
    file_service_pb2,
    file_service_pb2_grpc,
    network_pb2,
    status_service_pb2,
    status_service_pb2_grpc,
)

REASON_KEY = "psp-reason"
CONNECT_TIMEOUT_MS = 4_000
"""Where a server's link is full of what it delivers, the first packets of a connection are lost like others: time for
three of them (after 0, 1 and 3 s). Where nothing listens, that is said at once."""
CALL_TIMEOUT_SECONDS = 10.0
LAUNCH_TIMEOUT_SECONDS = 120.0

_CHANNEL_OPTIONS = [
    # gRPC gives an attempt to connect as long as its least backoff: 20 s, unless told otherwise.
    ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
    ("grpc.initial_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
    # Else a new channel would go on with the pauses of the last one to the same address.
    ("grpc.use_local_subchannel_pool", 1),
    # Networks of machines are reached directly; a web proxy would only be in the way.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
]


def error_from(error: grpc.RpcError, unreachable: str, address: str) -> errors.PspError:
    """The error that a failed call stands for.

    Args:
        error: what gRPC raised.
        unreachable: what to say when nobody answers.
        address: who was called.
    """
    call = cast("grpc.Call", error)
    details = call.details() or ""
    reason = dict(call.trailing_metadata() or ()).get(REASON_KEY)
    by_reason = {str(known): cls for known, cls in errors.error_classes().items()}
    if reason in by_reason:
        return by_reason[str(reason)](details)
    match call.code():
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:  # by a server that ends
            return errors.Unreachable(unreachable)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return errors.TimedOut(
                f"{address} did not answer in time: see whether its process is stopped or overloaded"
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            return errors.Unreachable(
                f"{address} does not know this request: something else, or another version, runs there: name another"
            )
        case grpc.StatusCode.RESOURCE_EXHAUSTED:  # gRPC's own limit of a message
            return errors.LimitReached(f"{address} answered: {details}")
        case code:
            return errors.InternalError(f"{address} answered {code.name}: {details or 'without saying why'}")


class _Api:
    """A channel to one daemon. Use it in a ``with`` block.

    Args:
        address: the daemon's, with its port.
        unreachable: what to say when nobody answers.
        option: where the user named the address.

    Raises:
        Unreachable: the host is unknown.
        LimitReached: the machine lets too few threads start.
    """

    def __init__(self, address: str, unreachable: str, option: str = "--server") -> None:
        require_threads()
        self.address = address
        self._unreachable = unreachable
        self._option = option
        self._target = self._resolve()
        self._open()

    def _resolve(self) -> str:
        return grpc_target(resolve(*parse_address(self.address), self._option))

    def _open(self) -> None:
        self._channel = grpc.insecure_channel(self._target, options=_CHANNEL_OPTIONS)

    def reopen(self) -> None:
        """Connects anew with the next request: a channel that was refused makes longer and longer pauses."""
        self._channel.close()
        with contextlib.suppress(errors.Unreachable):  # the name was known before: its server is away, too
            self._target = self._resolve()
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def _call(self, method: Any, request: Any, timeout_seconds: float = CALL_TIMEOUT_SECONDS) -> Any:
        try:
            return method(request, timeout=timeout_seconds)
        except grpc.RpcError as error:
            raise error_from(error, self._unreachable, self.address) from error

    def _stream(self, method: Any, request: Any, timeout_seconds: float | None) -> Iterator[Any]:
        call = method(request, timeout=timeout_seconds)
        try:
            yield from call
        except grpc.RpcError as error:
            raise error_from(error, self._unreachable, self.address) from error
        finally:
            call.cancel()


class ServerApi(_Api):
    """What a server can be asked. Every method raises `pspd.errors.PspError`."""

    def __init__(self, address: str) -> None:
        hint = "start one with `pspd server` or name another with --server"
        super().__init__(address, f"no server answers at {address}: {hint}")

    def _open(self) -> None:
        super()._open()
        self._status = status_service_pb2_grpc.StatusServiceStub(self._channel)
        self._files = file_service_pb2_grpc.FileServiceStub(self._channel)
        self._clients = client_service_pb2_grpc.ClientServiceStub(self._channel)
        self._cache = cache_service_pb2_grpc.CacheServiceStub(self._channel)

    def status(self, file: str = "", *, with_file_clients: bool = True) -> status_service_pb2.GetStatusResponse:
        """The network as it is now, or as far as one file goes."""
        request = status_service_pb2.GetStatusRequest(file=file, with_file_clients=with_file_clients)
        response: status_service_pb2.GetStatusResponse = self._call(self._status.GetStatus, request)
        return response

    def changes(self, file: str, timeout_seconds: float | None) -> Iterator[status_service_pb2.WatchStatusResponse]:
        """A snapshot, then what changes; ends when the server does, raises `TimedOut` at the timeout."""
        request = status_service_pb2.WatchStatusRequest(file=file, with_file_clients=True)
        return self._stream(self._status.WatchStatus, request, timeout_seconds)

    def stop_server(self) -> None:
        """Stops the server."""
        self._call(self._status.StopServer, status_service_pb2.StopServerRequest())

    def files(self) -> list[network_pb2.File]:
        """Every file, oldest first."""
        return list(self._call(self._files.ListFiles, file_service_pb2.ListFilesRequest()).files)

    def release_file(self, file: str) -> network_pb2.File:
        """Starts the exchange of a file that was held back."""
        request = file_service_pb2.ReleaseFileRequest(file=file)
        response: file_service_pb2.ReleaseFileResponse = self._call(self._files.ReleaseFile, request)
        return response.file

    def remove_file(self, file: str, *, force: bool = False) -> network_pb2.File:
        """Takes a file out of the network; returns it as it was."""
        request = file_service_pb2.RemoveFileRequest(file=file, force=force)
        response: file_service_pb2.RemoveFileResponse = self._call(self._files.RemoveFile, request)
        return response.file

    def clients(self) -> list[network_pb2.Client]:
        """Every client, by name; sources included."""
        return list(self._call(self._clients.ListClients, client_service_pb2.ListClientsRequest()).clients)

    def launch_clients(self, count: int, folder: str) -> list[str]:
        """Starts clients on the server's machine; returns their names."""
        request = client_service_pb2.LaunchClientsRequest(count=count, dir=folder)
        return list(self._call(self._clients.LaunchClients, request, LAUNCH_TIMEOUT_SECONDS).names)

    def stop_clients(self, names: list[str], *, all_clients: bool = False, force: bool = False) -> list[str]:
        """Asks clients to stop; returns the names of those that were asked."""
        request = client_service_pb2.StopClientsRequest(names=names, all_clients=all_clients, force=force)
        return list(self._call(self._clients.StopClients, request).names)

    def cache(self) -> network_pb2.Cache:
        """The cache as it is now."""
        request = cache_service_pb2.GetCacheRequest()
        response: cache_service_pb2.GetCacheResponse = self._call(self._cache.GetCache, request)
        return response.cache

    def clear_cache(self) -> cache_service_pb2.ClearCacheResponse:
        """Drops what is cached."""
        request = cache_service_pb2.ClearCacheRequest()
        response: cache_service_pb2.ClearCacheResponse = self._call(self._cache.ClearCache, request)
        return response

    def resize_cache(self, capacity_bytes: int) -> network_pb2.Cache:
        """Gives the cache another size."""
        request = cache_service_pb2.ResizeCacheRequest(capacity_bytes=capacity_bytes)
        response: cache_service_pb2.ResizeCacheResponse = self._call(self._cache.ResizeCache, request)
        return response.cache


class AgentApi(_Api):
    """What an agent can be asked."""

    def __init__(self, address: str) -> None:
        super().__init__(address, f"no agent answers at {address}: start one there with `pspd agent`", "--on")

    def _open(self) -> None:
        super()._open()
        self._agent = client_service_pb2_grpc.AgentServiceStub(self._channel)

    def launch_clients(self, count: int, folder: str, server: str) -> list[str]:
        """Starts clients on the agent's machine that join ``server``; returns their names."""
        request = client_service_pb2.AgentServiceLaunchClientsRequest(count=count, dir=folder, server=server)
        return list(self._call(self._agent.LaunchClients, request, LAUNCH_TIMEOUT_SECONDS).names)
