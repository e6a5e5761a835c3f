"""Calls a server or an agent for an operator."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc

from pspd.rpc.client.connection import DaemonClient
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

LAUNCH_SECONDS = 120.0
"""How long the launch of clients may take: the call returns when the clients are ready."""


class ServerClient(DaemonClient):
    """Calls a server. A failed call raises ``PspError``."""

    def use(self, channel: grpc.aio.Channel) -> None:
        """Send all further calls over `channel`."""
        self._status = status_service_pb2_grpc.StatusServiceStub(channel)
        self._files = file_service_pb2_grpc.FileServiceStub(channel)
        self._clients = client_service_pb2_grpc.ClientServiceStub(channel)
        self._cache = cache_service_pb2_grpc.CacheServiceStub(channel)

    async def status(self, file: str = "", *, with_file_clients: bool = True) -> status_service_pb2.GetStatusResponse:
        """Return the state of the network.

        Args:
            file: the id or name of the only file to include; empty for all files.
            with_file_clients: whether each file lists its clients.
        """
        request = status_service_pb2.GetStatusRequest(file=file, with_file_clients=with_file_clients)
        return await self._call(self._status.GetStatus, request)

    def watch_status(
        self, file: str, timeout_seconds: float | None
    ) -> AsyncGenerator[status_service_pb2.WatchStatusResponse, None]:
        """Yield a snapshot of the network, then its changes, until the server ends the stream.

        Args:
            file: the id or name of the only file to include; empty for all files.
            timeout_seconds: the time after which the stream raises `TimedOut`; None for no limit.
        """
        request = status_service_pb2.WatchStatusRequest(file=file, with_file_clients=True)
        return self._stream(self._status.WatchStatus, request, timeout_seconds)

    async def stop_server(self) -> None:
        """Stop the server."""
        await self._call(self._status.StopServer, status_service_pb2.StopServerRequest())

    async def files(self) -> list[network_pb2.File]:
        """Return all files, oldest first."""
        return list((await self._call(self._files.ListFiles, file_service_pb2.ListFilesRequest())).files)

    async def release_file(self, file: str) -> network_pb2.File:
        """Release a file that is held back, so that its exchange can start; return the file."""
        request = file_service_pb2.ReleaseFileRequest(file=file)
        return (await self._call(self._files.ReleaseFile, request)).file

    async def remove_file(self, file: str, *, force: bool = False) -> network_pb2.File:
        """Remove a file from the network; return its last state.

        Args:
            file: the file's id or name.
            force: whether to remove the file even if not every client has it.
        """
        request = file_service_pb2.RemoveFileRequest(file=file, force=force)
        return (await self._call(self._files.RemoveFile, request)).file

    async def clients(self) -> list[network_pb2.Client]:
        """Return all members and lost clients, sorted by name."""
        return list((await self._call(self._clients.ListClients, client_service_pb2.ListClientsRequest())).clients)

    async def launch_clients(self, count: int, folder: str) -> list[str]:
        """Start clients on the server's machine; return their names.

        Args:
            count: how many clients to start.
            folder: the folder in which each client gets its own folder; empty for the default.
        """
        request = client_service_pb2.LaunchClientsRequest(count=count, dir=folder)
        return list((await self._call(self._clients.LaunchClients, request, LAUNCH_SECONDS)).names)

    async def stop_clients(self, names: list[str], *, all_clients: bool = False, force: bool = False) -> list[str]:
        """Ask clients to stop; return the names of the clients that were asked.

        Args:
            names: the names of the clients to ask.
            all_clients: whether to ask every client instead.
            force: whether to ask even if other clients need chunks that only these clients hold.
        """
        request = client_service_pb2.StopClientsRequest(names=names, all_clients=all_clients, force=force)
        return list((await self._call(self._clients.StopClients, request)).names)

    async def cache(self) -> network_pb2.Cache:
        """Return the state of the cache."""
        return (await self._call(self._cache.GetCache, cache_service_pb2.GetCacheRequest())).cache

    async def clear_cache(self) -> cache_service_pb2.ClearCacheResponse:
        """Drop every cached chunk that is not in use; return how many, and the state of the cache."""
        return await self._call(self._cache.ClearCache, cache_service_pb2.ClearCacheRequest())

    async def resize_cache(self, capacity_bytes: int) -> network_pb2.Cache:
        """Set the capacity of the cache; return its new state."""
        request = cache_service_pb2.ResizeCacheRequest(capacity_bytes=capacity_bytes)
        return (await self._call(self._cache.ResizeCache, request)).cache


class AgentClient(DaemonClient):
    """Calls an agent. A failed call raises ``PspError``."""

    def use(self, channel: grpc.aio.Channel) -> None:
        """Send all further calls over `channel`."""
        self._agent = client_service_pb2_grpc.AgentServiceStub(channel)

    async def launch_clients(self, count: int, folder: str, server: str) -> list[str]:
        """Start clients on the agent's machine; return their names.

        Args:
            count: how many clients to start.
            folder: the folder in which each client gets its own folder; empty for the default.
            server: the address of the server that the clients join.
        """
        request = client_service_pb2.AgentServiceLaunchClientsRequest(count=count, dir=folder, server=server)
        return list((await self._call(self._agent.LaunchClients, request, LAUNCH_SECONDS)).names)
