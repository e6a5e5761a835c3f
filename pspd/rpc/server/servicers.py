"""The services of the control API. Each method translates its request, asks the daemon, and translates the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from pspd.core.model.manifest import CHUNK_BYTES
from pspd.core.model.terms import Terms
from pspd.errors import BadArgument, LimitReached, PspError
from pspd.rpc import translate
from pspd.rpc.limits import INSTANCE_ID_BYTES, STOP_NAMES_MAX, WATCH_INTERVAL_MS_MAX
from pspd.rpc.server.changes import changes
from pspd.rpc.server.errors import Context, answering, refuse
from pspd.rpc.server.network import Network
from pspd.v1 import (
    cache_service_pb2,
    cache_service_pb2_grpc,
    client_service_pb2,
    client_service_pb2_grpc,
    file_service_pb2,
    file_service_pb2_grpc,
    membership_service_pb2,
    membership_service_pb2_grpc,
    status_service_pb2,
    status_service_pb2_grpc,
)

WATCH_INTERVAL_MS_DEFAULT = 200
WATCH_INTERVAL_MS_MIN = 20
WATCH_PAUSE_FACTOR = 10
"""A watch pauses for this many times as long as a status takes, which is long with hundreds of clients."""


class MembershipServicer(membership_service_pb2_grpc.MembershipServiceServicer):
    """Joins, sessions and reports of clients and sources."""

    def __init__(self, network: Network) -> None:
        self._network = network

    @answering
    async def GetParameters(
        self, request: membership_service_pb2.GetParametersRequest, context: Context
    ) -> membership_service_pb2.GetParametersResponse:
        """Return the protocol's parameters."""
        parameters = translate.parameters_to_pb(self._network.parameters)
        return membership_service_pb2.GetParametersResponse(parameters=parameters)

    @answering
    async def Join(
        self, request: membership_service_pb2.JoinRequest, context: Context
    ) -> membership_service_pb2.JoinResponse:
        """Add a member."""
        is_source = request.role == membership_service_pb2.MEMBER_ROLE_SOURCE
        if not (is_source or request.role == membership_service_pb2.MEMBER_ROLE_CLIENT):
            raise BadArgument("role is missing: a member is a client or a source")
        if len(request.instance_id) != INSTANCE_ID_BYTES:
            raise BadArgument(f"instance_id has {len(request.instance_id)} bytes: it must have {INSTANCE_ID_BYTES}")
        member, parameters, data_port, lease_ms = self._network.join(
            request.name,
            request.instance_id,
            source=is_source,
            delivery_port=request.delivery_port,
            held=translate.holdings_from_pb(request.holdings),
            peer=translate.peer_text(context.peer()),
        )
        return membership_service_pb2.JoinResponse(
            session_id=member.session,
            data_port=data_port,
            lease_ms=lease_ms,
            parameters=translate.parameters_to_pb(parameters),
        )

    async def Attend(
        self, request: membership_service_pb2.AttendRequest, context: Context
    ) -> AsyncIterator[membership_service_pb2.AttendResponse]:
        """Stream instructions to a member; an empty response first shows that the session is attended."""
        try:
            events = self._network.attend(request.session_id)
            yield membership_service_pb2.AttendResponse()
            async for event in events:
                yield translate.attend_response(event)
        except PspError as error:
            await refuse(context, error)

    @answering
    async def RenewLease(
        self, request: membership_service_pb2.RenewLeaseRequest, context: Context
    ) -> membership_service_pb2.RenewLeaseResponse:
        """Renew a session's lease."""
        return membership_service_pb2.RenewLeaseResponse(lease_ms=self._network.renew(request.session_id))

    @answering
    async def ReportFiles(
        self, request: membership_service_pb2.ReportFilesRequest, context: Context
    ) -> membership_service_pb2.ReportFilesResponse:
        """Take in a member's reports."""
        self._network.report(request.session_id, translate.reports_from_pb(request.reports))
        return membership_service_pb2.ReportFilesResponse()

    @answering
    async def Leave(
        self, request: membership_service_pb2.LeaveRequest, context: Context
    ) -> membership_service_pb2.LeaveResponse:
        """End a session."""
        self._network.leave(request.session_id)
        return membership_service_pb2.LeaveResponse()


class FileServicer(file_service_pb2_grpc.FileServiceServicer):
    """Announces, divides, releases, removes and lists files."""

    def __init__(self, network: Network) -> None:
        self._network = network

    @answering
    async def AnnounceFile(
        self, request: file_service_pb2.AnnounceFileRequest, context: Context
    ) -> file_service_pb2.AnnounceFileResponse:
        """Announce a file, and answer once enough clients have joined."""
        manifest = translate.manifest_from_pb(request.manifest, self._network.digest)
        terms = Terms(max(1, request.replica_count), request.stays)
        session, client_count = request.session_id, request.client_count
        del request  # the call may last, and would keep the digests in memory twice
        file, share_count = await self._network.announce(manifest, session, client_count, terms)
        return file_service_pb2.AnnounceFileResponse(
            file_id=file.file_id, share_count=share_count, file=self._network.file_message(file)
        )

    @answering
    async def DivideFile(
        self, request: file_service_pb2.DivideFileRequest, context: Context
    ) -> file_service_pb2.DivideFileResponse:
        """Assign a file's shares."""
        manifest = translate.manifest_from_pb(request.manifest, self._network.digest)
        file = self._network.divide(manifest, request.session_id, request.hold_back)
        return file_service_pb2.DivideFileResponse(file=self._network.file_message(file))

    @answering
    async def ReleaseFile(
        self, request: file_service_pb2.ReleaseFileRequest, context: Context
    ) -> file_service_pb2.ReleaseFileResponse:
        """Start the exchange of a file that was seeded with --hold."""
        file = self._network.release(request.file)
        return file_service_pb2.ReleaseFileResponse(file=self._network.file_message(file))

    @answering
    async def RemoveFile(
        self, request: file_service_pb2.RemoveFileRequest, context: Context
    ) -> file_service_pb2.RemoveFileResponse:
        """Remove a file from the network."""
        return file_service_pb2.RemoveFileResponse(file=self._network.remove(request.file, request.force))

    @answering
    async def ListFiles(
        self, request: file_service_pb2.ListFilesRequest, context: Context
    ) -> file_service_pb2.ListFilesResponse:
        """Return all files."""
        return file_service_pb2.ListFilesResponse(files=self._network.file_messages(with_clients=True))


class CacheServicer(cache_service_pb2_grpc.CacheServiceServicer):
    """Shows and changes the server's cache (R4)."""

    def __init__(self, network: Network) -> None:
        self._network = network

    @answering
    async def GetCache(
        self, request: cache_service_pb2.GetCacheRequest, context: Context
    ) -> cache_service_pb2.GetCacheResponse:
        """Return the state of the cache."""
        return cache_service_pb2.GetCacheResponse(cache=self._network.cache_message())

    @answering
    async def ClearCache(
        self, request: cache_service_pb2.ClearCacheRequest, context: Context
    ) -> cache_service_pb2.ClearCacheResponse:
        """Drop every cached chunk that is not in use."""
        dropped = self._network.clear_cache()
        return cache_service_pb2.ClearCacheResponse(cache=self._network.cache_message(), dropped_chunk_count=dropped)

    @answering
    async def ResizeCache(
        self, request: cache_service_pb2.ResizeCacheRequest, context: Context
    ) -> cache_service_pb2.ResizeCacheResponse:
        """Set the capacity of the cache."""
        self._network.resize_cache(request.capacity_bytes // CHUNK_BYTES)
        return cache_service_pb2.ResizeCacheResponse(cache=self._network.cache_message())


class ClientServicer(client_service_pb2_grpc.ClientServiceServicer):
    """Lists, launches and stops clients."""

    def __init__(self, network: Network) -> None:
        self._network = network

    @answering
    async def ListClients(
        self, request: client_service_pb2.ListClientsRequest, context: Context
    ) -> client_service_pb2.ListClientsResponse:
        """Return all members."""
        return client_service_pb2.ListClientsResponse(clients=self._network.client_messages())

    @answering
    async def LaunchClients(
        self, request: client_service_pb2.LaunchClientsRequest, context: Context
    ) -> client_service_pb2.LaunchClientsResponse:
        """Start clients on the server's machine."""
        names = await self._network.launch(request.count, request.dir)
        return client_service_pb2.LaunchClientsResponse(names=names)

    @answering
    async def StopClients(
        self, request: client_service_pb2.StopClientsRequest, context: Context
    ) -> client_service_pb2.StopClientsResponse:
        """Ask clients to stop."""
        if request.names and request.all_clients:
            raise BadArgument("names and all_clients contradict each other: send one of them")
        if len(request.names) > STOP_NAMES_MAX:
            raise LimitReached(
                f"{len(request.names)} clients are too many to stop by name: name {STOP_NAMES_MAX} at most"
            )
        names = self._network.stop_clients(list(request.names), request.all_clients, request.force)
        return client_service_pb2.StopClientsResponse(names=names)


class StatusServicer(status_service_pb2_grpc.StatusServiceServicer):
    """Shows the whole network, and its changes."""

    def __init__(self, network: Network) -> None:
        self._network = network

    @answering
    async def GetStatus(
        self, request: status_service_pb2.GetStatusRequest, context: Context
    ) -> status_service_pb2.GetStatusResponse:
        """Return the state of the network."""
        return self._network.status(request.file, with_file_clients=request.with_file_clients)

    async def WatchStatus(
        self, request: status_service_pb2.WatchStatusRequest, context: Context
    ) -> AsyncIterator[status_service_pb2.WatchStatusResponse]:
        """Stream the state of the network, then its changes."""
        interval_ms = max(WATCH_INTERVAL_MS_MIN, request.interval_ms or WATCH_INTERVAL_MS_DEFAULT)
        seen: status_service_pb2.GetStatusResponse | None = None
        try:
            if interval_ms > WATCH_INTERVAL_MS_MAX:
                raise BadArgument(f"interval_ms is {interval_ms}: the most is {WATCH_INTERVAL_MS_MAX}")
            while True:
                began = time.perf_counter()
                status = self._network.status(request.file, with_file_clients=request.with_file_clients)
                change = changes(seen, status)
                pause_seconds = WATCH_PAUSE_FACTOR * (time.perf_counter() - began)
                if change is not None:
                    yield change
                seen = status
                # At the same time: a change during the pause must not be waited for again.
                await asyncio.gather(asyncio.sleep(pause_seconds), self._network.changed(interval_ms / 1000))
        except PspError as error:
            await refuse(context, error)

    @answering
    async def StopServer(
        self, request: status_service_pb2.StopServerRequest, context: Context
    ) -> status_service_pb2.StopServerResponse:
        """Stop the server."""
        self._network.stop()
        return status_service_pb2.StopServerResponse()
