"""Implements the services of the control API: translates requests to calls of the network, and results to responses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import grpc

from pspd.core.model.manifest import CHUNK_BYTES
from pspd.core.model.terms import Terms
from pspd.daemon.server.network import NetworkDaemon
from pspd.errors import BadArgument, LimitReached
from pspd.rpc import translate
from pspd.rpc.limits import INSTANCE_ID_BYTES, STOP_NAMES_MAX, WATCH_INTERVAL_MS_MAX
from pspd.rpc.server.requests import Context
from pspd.rpc.server.status_messages import status_change
from pspd.store.digests import blake3_digest
from pspd.v1 import cache_service_pb2 as cache
from pspd.v1 import (
    cache_service_pb2_grpc,
    client_service_pb2_grpc,
    file_service_pb2_grpc,
    membership_service_pb2_grpc,
    status_service_pb2_grpc,
)
from pspd.v1 import client_service_pb2 as clients
from pspd.v1 import file_service_pb2 as files
from pspd.v1 import membership_service_pb2 as members
from pspd.v1 import status_service_pb2 as status

SERVICES = [f"pspd.v1.{name}Service" for name in ("Membership", "File", "Cache", "Client", "Status")]

WATCH_INTERVAL_MS_DEFAULT = 200
WATCH_INTERVAL_MS_MIN = 20
WATCH_PAUSE_FACTOR = 10
"""A watch pauses for at least this many times the time to compute a status, which is long with hundreds of clients."""


def register(server: grpc.aio.Server, network: NetworkDaemon) -> None:
    """Add the services of a network to a gRPC server.

    Args:
        server: the gRPC server.
        network: the network that executes the calls.
    """
    servicer = ControlServicer(network)
    membership_service_pb2_grpc.add_MembershipServiceServicer_to_server(servicer, server)
    file_service_pb2_grpc.add_FileServiceServicer_to_server(servicer, server)
    cache_service_pb2_grpc.add_CacheServiceServicer_to_server(servicer, server)
    client_service_pb2_grpc.add_ClientServiceServicer_to_server(servicer, server)
    status_service_pb2_grpc.add_StatusServiceServicer_to_server(servicer, server)


class ControlServicer(
    membership_service_pb2_grpc.MembershipServiceServicer,
    file_service_pb2_grpc.FileServiceServicer,
    cache_service_pb2_grpc.CacheServiceServicer,
    client_service_pb2_grpc.ClientServiceServicer,
    status_service_pb2_grpc.StatusServiceServicer,
):
    """Answers the calls of all services. A ``PspError`` that a method raises ends its call; see `RequestChecker`.

    Args:
        network: the network that executes the calls.
    """

    def __init__(self, network: NetworkDaemon) -> None:
        self._network = network

    # -- MembershipService

    async def GetParameters(
        self, request: members.GetParametersRequest, context: Context
    ) -> members.GetParametersResponse:
        """Return the protocol's parameters."""
        return members.GetParametersResponse(parameters=translate.parameters_to_pb(self._network.parameters))

    async def Join(self, request: members.JoinRequest, context: Context) -> members.JoinResponse:
        """Add a member."""
        is_source = request.role == members.MEMBER_ROLE_SOURCE
        if not (is_source or request.role == members.MEMBER_ROLE_CLIENT):
            raise BadArgument("role is missing: a member is a client or a source")
        if len(request.instance_id) != INSTANCE_ID_BYTES:
            raise BadArgument(f"instance_id has {len(request.instance_id)} bytes: it must have {INSTANCE_ID_BYTES}")
        session = self._network.join(
            request.name,
            request.instance_id,
            source=is_source,
            delivery_port=request.delivery_port,
            held=translate.holdings_from_pb(request.holdings),
            peer=translate.peer_text(context.peer()),
        )
        return members.JoinResponse(
            session_id=session,
            data_port=self._network.data_port,
            lease_ms=self._network.lease_ms,
            parameters=translate.parameters_to_pb(self._network.parameters),
        )

    async def Attend(self, request: members.AttendRequest, context: Context) -> AsyncIterator[members.AttendResponse]:
        """Stream events to a member. The first response is empty, and shows that the stream is open."""
        events = self._network.attend(request.session_id)
        yield members.AttendResponse()
        async for event in events:
            yield translate.member_event_to_pb(event)

    async def RenewLease(self, request: members.RenewLeaseRequest, context: Context) -> members.RenewLeaseResponse:
        """Renew a session's lease."""
        self._network.renew(request.session_id)
        return members.RenewLeaseResponse(lease_ms=self._network.lease_ms)

    async def ReportFiles(self, request: members.ReportFilesRequest, context: Context) -> members.ReportFilesResponse:
        """Apply a member's reports."""
        self._network.report(request.session_id, translate.reports_from_pb(request.reports))
        return members.ReportFilesResponse()

    async def Leave(self, request: members.LeaveRequest, context: Context) -> members.LeaveResponse:
        """End a session."""
        self._network.leave(request.session_id)
        return members.LeaveResponse()

    # -- FileService

    async def AnnounceFile(self, request: files.AnnounceFileRequest, context: Context) -> files.AnnounceFileResponse:
        """Announce a file, and answer when enough clients are reachable, or at once if the file is divided already."""
        manifest = translate.manifest_from_pb(request.manifest, blake3_digest)
        terms = Terms(max(1, request.replica_count), request.stays)
        session, client_count = request.session_id, request.client_count
        del request  # the call may last long: the digests would be in memory twice
        file, share_count = await self._network.announce(manifest, session, client_count, terms)
        message = self._network.messages.file(file)
        return files.AnnounceFileResponse(file_id=file.file_id, share_count=share_count, file=message)

    async def DivideFile(self, request: files.DivideFileRequest, context: Context) -> files.DivideFileResponse:
        """Divide a file and assign its shares."""
        manifest = translate.manifest_from_pb(request.manifest, blake3_digest)
        file = self._network.divide(manifest, request.session_id, request.hold_back)
        return files.DivideFileResponse(file=self._network.messages.file(file))

    async def ReleaseFile(self, request: files.ReleaseFileRequest, context: Context) -> files.ReleaseFileResponse:
        """Release a file that is held back, so that its exchange can start."""
        file = self._network.release(request.file)
        return files.ReleaseFileResponse(file=self._network.messages.file(file))

    async def RemoveFile(self, request: files.RemoveFileRequest, context: Context) -> files.RemoveFileResponse:
        """Remove a file from the network."""
        return files.RemoveFileResponse(file=self._network.remove(request.file, request.force))

    async def ListFiles(self, request: files.ListFilesRequest, context: Context) -> files.ListFilesResponse:
        """Return all files."""
        return files.ListFilesResponse(files=self._network.messages.files(with_clients=True))

    # -- CacheService (R4)

    async def GetCache(self, request: cache.GetCacheRequest, context: Context) -> cache.GetCacheResponse:
        """Return the state of the cache."""
        return cache.GetCacheResponse(cache=self._network.messages.cache())

    async def ClearCache(self, request: cache.ClearCacheRequest, context: Context) -> cache.ClearCacheResponse:
        """Drop every cached chunk that is not in use."""
        dropped = self._network.clear_cache()
        return cache.ClearCacheResponse(cache=self._network.messages.cache(), dropped_chunk_count=dropped)

    async def ResizeCache(self, request: cache.ResizeCacheRequest, context: Context) -> cache.ResizeCacheResponse:
        """Set the capacity of the cache."""
        self._network.resize_cache(request.capacity_bytes // CHUNK_BYTES)
        return cache.ResizeCacheResponse(cache=self._network.messages.cache())

    # -- ClientService

    async def ListClients(self, request: clients.ListClientsRequest, context: Context) -> clients.ListClientsResponse:
        """Return all members and lost clients."""
        return clients.ListClientsResponse(clients=self._network.messages.clients())

    async def LaunchClients(
        self, request: clients.LaunchClientsRequest, context: Context
    ) -> clients.LaunchClientsResponse:
        """Start clients on the server's machine."""
        return clients.LaunchClientsResponse(names=await self._network.launch(request.count, request.dir))

    async def StopClients(self, request: clients.StopClientsRequest, context: Context) -> clients.StopClientsResponse:
        """Ask clients to stop."""
        if request.names and request.all_clients:
            raise BadArgument("names and all_clients contradict each other: send one of them")
        if len(request.names) > STOP_NAMES_MAX:
            raise LimitReached(
                f"{len(request.names)} clients are too many to stop by name: name {STOP_NAMES_MAX} at most"
            )
        names = self._network.stop_clients(list(request.names), request.all_clients, request.force)
        return clients.StopClientsResponse(names=names)

    # -- StatusService

    async def GetStatus(self, request: status.GetStatusRequest, context: Context) -> status.GetStatusResponse:
        """Return the state of the network."""
        return self._network.status(request.file, with_file_clients=request.with_file_clients)

    async def WatchStatus(
        self, request: status.WatchStatusRequest, context: Context
    ) -> AsyncIterator[status.WatchStatusResponse]:
        """Stream the state of the network, then its changes."""
        interval_ms = max(WATCH_INTERVAL_MS_MIN, request.interval_ms or WATCH_INTERVAL_MS_DEFAULT)
        if interval_ms > WATCH_INTERVAL_MS_MAX:
            raise BadArgument(f"interval_ms is {interval_ms}: the most is {WATCH_INTERVAL_MS_MAX}")
        seen: status.GetStatusResponse | None = None
        while True:
            began = time.perf_counter()
            current = self._network.status(request.file, with_file_clients=request.with_file_clients)
            change = status_change(seen, current)
            pause_seconds = WATCH_PAUSE_FACTOR * (time.perf_counter() - began)
            if change is not None:
                yield change
            seen = current
            # The pause and the wait run at the same time, so that a change during the pause is not missed.
            await asyncio.gather(asyncio.sleep(pause_seconds), self._network.control.next_change(interval_ms / 1000))

    async def StopServer(self, request: status.StopServerRequest, context: Context) -> status.StopServerResponse:
        """Stop the server."""
        self._network.stop()
        return status.StopServerResponse()
