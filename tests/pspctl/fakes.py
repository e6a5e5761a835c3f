"""A fake server: real gRPC on a real port, with answers from lists that a test fills."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc

from pspd.errors import NotFound, PspError
from pspd.v1 import cache_service_pb2, client_service_pb2, file_service_pb2, network_pb2, status_service_pb2
from pspd.v1.cache_service_pb2_grpc import CacheServiceServicer, add_CacheServiceServicer_to_server
from pspd.v1.client_service_pb2_grpc import (
    AgentServiceServicer,
    ClientServiceServicer,
    add_ClientServiceServicer_to_server,
)
from pspd.v1.file_service_pb2_grpc import FileServiceServicer, add_FileServiceServicer_to_server
from pspd.v1.status_service_pb2_grpc import StatusServiceServicer, add_StatusServiceServicer_to_server

THREAD_COUNT = 8


def file(name: str = "big.iso", held: tuple[int, ...] = (4, 2), chunk_count: int = 8, **fields: Any) -> Any:
    """Return a file.

    Args:
        name: its name.
        held: how many chunks each of its clients holds.
        chunk_count: how many chunks the file has.
        fields: other fields of the message.
    """
    clients = [
        network_pb2.FileClient(
            name=f"client-{index}", held_chunk_count=count, share_chunk_count=4, complete=count == chunk_count
        )
        for index, count in enumerate(held)
    ]
    complete_count = sum(client.complete for client in clients)
    state = network_pb2.FILE_STATE_DISTRIBUTING
    if complete_count == len(clients):
        state = network_pb2.FILE_STATE_COMPLETE
    given: dict[str, Any] = {
        "file_id": name.encode().ljust(32, b"\xab"),
        "name": name,
        "size_bytes": chunk_count * 1024,
        "chunk_count": chunk_count,
        "state": state,
        "client_count": len(clients),
        "complete_client_count": complete_count,
        "min_holder_count": max(1, complete_count),
        "recipient_count": len(clients),
        "clients": clients,
        "seeding_seconds": 0.5,
        "exchange_seconds": 1.5,
    }
    return network_pb2.File(**(given | fields))


def client(name: str, **fields: Any) -> Any:
    """Return a connected client; `fields` override its fields."""
    given: dict[str, Any] = {
        "name": name,
        "address": "10.0.0.1:4000",
        "state": network_pb2.CLIENT_STATE_CONNECTED,
        "srtt_ms": 1.25,
    }
    return network_pb2.Client(**(given | fields))


@dataclass
class FakeServer:
    """The state that the servicers answer from, and the requests that they received.

    Attributes:
        address: the server's address.
        clients: the clients and sources of the network.
        files: the files of the network.
        cache: the cache's message.
        files_after_restarts: the files that replace `files` at each next watch, as after a restart of the server.
        changes: what a watch sends after its snapshot, in order.
        stream_stays: whether a watch then stays open, as in an idle network.
        stream_breaks: how many watches end as if their connection had broken.
        refusal: the error of every request, if set.
        stop_refusal: the error of a request to stop clients without force, if set.
        last_requests: the last request of each kind.
        watch_count: the number of watches so far.
        dropped_chunk_count: how many chunks clearing the cache drops.
    """

    address: str = ""
    clients: list[Any] = field(default_factory=lambda: [client("client-0"), client("client-1")])
    files: list[Any] = field(default_factory=list)
    cache: Any = field(
        default_factory=lambda: network_pb2.Cache(capacity_bytes=64 << 20, used_bytes=8192, hit_count=3, miss_count=1)
    )
    files_after_restarts: list[list[Any]] = field(default_factory=list)
    changes: list[Any] = field(default_factory=list)
    stream_stays: bool = False
    stream_breaks: int = 0
    refusal: PspError | None = None
    stop_refusal: PspError | None = None
    last_requests: dict[str, Any] = field(default_factory=dict)
    watch_count: int = 0
    dropped_chunk_count: int = 8

    @property
    def server(self) -> Any:
        return network_pb2.Server(
            address=self.address, version="9.9.9", profile="fast", uptime_seconds=75.0, data_port=7071
        )

    def find_files(self, name: str) -> list[Any]:
        """Return the files that a request names."""
        found = [file for file in self.files if name in ("", file.name) or file.file_id.hex().startswith(name)]
        if name and not found:
            raise NotFound(f"the network has no file {name!r}: see `pspctl files`")
        return found


def abort_with(context: grpc.ServicerContext, error: PspError) -> None:
    """End a call with an error as the real servicers do."""
    context.set_trailing_metadata((("psp-reason", str(error.reason)),))
    context.abort(grpc.StatusCode[error.reason.grpc_status], str(error))


class Servicer(
    StatusServiceServicer,
    FileServiceServicer,
    ClientServiceServicer,
    CacheServiceServicer,
):
    """All services that ``pspctl`` calls."""

    def __init__(self, fake: FakeServer) -> None:
        self.fake = fake

    def answer(self, context: grpc.ServicerContext, request: Any, make: Callable[[], Any]) -> Any:
        self.fake.last_requests[type(request).__name__] = request
        try:
            if self.fake.refusal:
                raise self.fake.refusal
            return make()
        except PspError as error:
            abort_with(context, error)

    def GetStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        fake = self.fake
        return self.answer(
            context,
            request,
            lambda: status_service_pb2.GetStatusResponse(
                server=fake.server, cache=fake.cache, clients=fake.clients, files=fake.find_files(request.file)
            ),
        )

    def WatchStatus(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        fake = self.fake
        fake.watch_count += 1
        if fake.files_after_restarts:
            fake.files = fake.files_after_restarts.pop(0)
        first = self.GetStatus(request, context)
        yield status_service_pb2.WatchStatusResponse(
            snapshot=True, server=first.server, cache=first.cache, clients=first.clients, files=first.files
        )
        yield from fake.changes
        if fake.watch_count <= fake.stream_breaks:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the connection broke")
        if fake.stream_stays:
            over = threading.Event()
            if context.add_callback(over.set):
                over.wait()

    def StopServer(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self.answer(context, request, status_service_pb2.StopServerResponse)

    def ReleaseFile(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self.answer(
            context,
            request,
            lambda: file_service_pb2.ReleaseFileResponse(file=self.fake.find_files(request.file)[0]),
        )

    def RemoveFile(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self.answer(
            context,
            request,
            lambda: file_service_pb2.RemoveFileResponse(file=self.fake.find_files(request.file)[0]),
        )

    def ListFiles(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self.answer(context, request, lambda: file_service_pb2.ListFilesResponse(files=self.fake.files))

    def ListClients(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self.answer(context, request, lambda: client_service_pb2.ListClientsResponse(clients=self.fake.clients))

    def LaunchClients(self, request: Any, context: grpc.ServicerContext) -> Any:
        names = [f"launched-{index}" for index in range(request.count)]
        return self.answer(context, request, lambda: client_service_pb2.LaunchClientsResponse(names=names))

    def StopClients(self, request: Any, context: grpc.ServicerContext) -> Any:
        if self.fake.stop_refusal and not request.force:
            abort_with(context, self.fake.stop_refusal)
        names = [client.name for client in self.fake.clients] if request.all_clients else request.names
        return self.answer(context, request, lambda: client_service_pb2.StopClientsResponse(names=names))

    def GetCache(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self.answer(context, request, lambda: cache_service_pb2.GetCacheResponse(cache=self.fake.cache))

    def ClearCache(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self.answer(
            context,
            request,
            lambda: cache_service_pb2.ClearCacheResponse(
                cache=self.fake.cache, dropped_chunk_count=self.fake.dropped_chunk_count
            ),
        )

    def ResizeCache(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.fake.cache.capacity_bytes = request.capacity_bytes
        return self.answer(context, request, lambda: cache_service_pb2.ResizeCacheResponse(cache=self.fake.cache))


class AgentServicer(AgentServiceServicer):
    """A fake agent that records its requests."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def LaunchClients(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append(request)
        names = [f"agent-client-{len(self.requests)}-{index}" for index in range(request.count)]
        return client_service_pb2.AgentServiceLaunchClientsResponse(names=names)


def start_server(register: Callable[[grpc.Server], None]) -> tuple[grpc.Server, str]:
    """Start a gRPC server on a free port of loopback; return it and its address."""
    server = grpc.server(ThreadPoolExecutor(THREAD_COUNT))
    register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


def register_all(fake: FakeServer) -> Callable[[grpc.Server], None]:
    """Return a function that registers all services of a fake server."""
    servicer = Servicer(fake)

    def register(server: grpc.Server) -> None:
        add_StatusServiceServicer_to_server(servicer, server)
        add_FileServiceServicer_to_server(servicer, server)
        add_ClientServiceServicer_to_server(servicer, server)
        add_CacheServiceServicer_to_server(servicer, server)

    return register
