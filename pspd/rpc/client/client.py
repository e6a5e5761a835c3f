"""The control API from the side of a client or a source."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence

import grpc

from pspd.core.effects.server import Assign, RemoveFile, StartExchange, VerifyFile
from pspd.core.model.manifest import Digest, FileId, Manifest
from pspd.core.model.parameters import Parameters
from pspd.core.model.storage import Held
from pspd.core.model.terms import ONE_COPY, Terms
from pspd.errors import (
    BadArgument,
    BadName,
    LimitReached,
    PspError,
    Reason,
    TimedOut,
    Unreachable,
    WrongState,
    error_classes,
)
from pspd.rpc import translate
from pspd.rpc.client.answers import Session, assign_from_pb, session_from_pb, share_count_from_pb
from pspd.rpc.conventions import REASON_KEY, channel_options
from pspd.rpc.limits import REPORTS_MAX
from pspd.rpc.translate import Report
from pspd.v1 import (
    file_service_pb2,
    file_service_pb2_grpc,
    membership_service_pb2,
    membership_service_pb2_grpc,
    network_pb2,
    status_service_pb2,
    status_service_pb2_grpc,
)

CALL_SECONDS = 10.0
"""How long one ordinary call may take."""
REPORT_SECONDS = 60.0
"""How long a report may take. A busy server hears it in the end; to say it again only makes it busier, and that the
server is gone is known by its connection."""

log = logging.getLogger(__name__)

_KEEPALIVE: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


def open_channel(server: str) -> grpc.aio.Channel:
    """Opens a channel to a server's control API, which connects when it is used.

    It shares no connection, and no pause after a failed one, with earlier channels to the same address.
    """
    return grpc.aio.insecure_channel(server, options=[*channel_options(), *_KEEPALIVE])


def no_answer(server: str) -> Unreachable:
    """The error that nothing answers at an address."""
    return Unreachable(f"no server answers at {server}: start one with `pspd server` or name another with --server")


def error_of(error: grpc.aio.AioRpcError, server: str) -> PspError:
    """The error that a call ended with, as the server meant it."""
    metadata = error.trailing_metadata()
    reason = dict(metadata).get(REASON_KEY) if metadata else None
    details = error.details() or error.code().name
    if isinstance(reason, str) and reason in Reason.__members__:
        return error_classes()[Reason(reason)](details)
    match error.code():
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:  # by a server that ends
            return no_answer(server)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return TimedOut(f"the server at {server} did not answer in time")
        case grpc.StatusCode.UNIMPLEMENTED:
            return Unreachable(
                f"{server} does not know this request: something else, or another version, runs there: name another"
                " with --server"
            )
        case grpc.StatusCode.RESOURCE_EXHAUSTED:  # gRPC's own limit of a message
            return LimitReached(f"the server at {server} said: {details}")
        case _:
            return PspError(f"the server at {server} said: {details}")


class MemberClient:
    """What a member says to the server. Every method may raise ``PspError``.

    Args:
        channel: None where ``use`` names one before the first call.
        server: its address, for messages.
        digest: of manifests.
    """

    def __init__(self, channel: grpc.aio.Channel | None, server: str, digest: Digest) -> None:
        self._server = server
        self._digest = digest
        if channel is not None:
            self.use(channel)

    def use(self, channel: grpc.aio.Channel) -> None:
        """Calls over this channel from now on."""
        self._members = membership_service_pb2_grpc.MembershipServiceStub(channel)
        self._files = file_service_pb2_grpc.FileServiceStub(channel)
        self._status = status_service_pb2_grpc.StatusServiceStub(channel)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Raises what a call ends with as an error of ours.

        Members of one process share a channel. One that joins again closes it once it is broken: gRPC then cancels the
        calls of the others and refuses new ones. To them that is a server that does not answer.
        """
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise error_of(error, self._server) from None
        except grpc.aio.UsageError:
            raise no_answer(self._server) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():  # the caller is cancelled, and not the call alone
                raise
            raise no_answer(self._server) from None

    async def parameters(self) -> Parameters:
        """The parameters that a member will have to go by."""
        with self._errors():
            answer = await self._members.GetParameters(
                membership_service_pb2.GetParametersRequest(), timeout=CALL_SECONDS
            )
        return translate.parameters_from_pb(answer.parameters)

    async def join(
        self, name: str, instance_id: bytes, *, source: bool, delivery_port: int, held: Mapping[FileId, Held]
    ) -> Session:
        """Becomes a member."""
        role = membership_service_pb2.MEMBER_ROLE_SOURCE if source else membership_service_pb2.MEMBER_ROLE_CLIENT
        request = membership_service_pb2.JoinRequest(
            name=name,
            role=role,
            instance_id=instance_id,
            delivery_port=delivery_port,
            holdings=translate.holdings_to_pb(held),
        )
        with self._errors():
            answer = await self._members.Join(request, timeout=CALL_SECONDS)
        return session_from_pb(answer, self._server)

    async def attend(self, session: int) -> AsyncGenerator[translate.MemberEvent, None]:
        """What is to be done, as it comes up; None means to stop."""
        with self._errors():
            call = self._members.Attend(membership_service_pb2.AttendRequest(session_id=session))
            try:
                async for message in call:
                    match message.WhichOneof("event"):
                        case "file_assigned":
                            if (told := self._assigned(session, message.file_assigned)) is not None:
                                yield told
                        case "exchange_started":
                            yield StartExchange(session, message.exchange_started.file_id)
                        case "file_suspected":
                            yield VerifyFile(session, message.file_suspected.file_id)
                        case "file_removed":
                            yield RemoveFile(session, message.file_removed.file_id)
                        case "session_ended":
                            yield translate.session_ended_from_pb(session, message.session_ended)
                        case "stop_asked":
                            yield None
            finally:
                call.cancel()

    def _assigned(self, session: int, message: membership_service_pb2.FileAssigned) -> Assign | None:
        """A file to get; None if it is malformed: the client ignores it."""
        try:
            return assign_from_pb(session, message, self._digest)
        except (BadArgument, BadName) as error:
            log.warning("the server at %s assigned a file that cannot be: %s", self._server, error)
            return None

    async def renew(self, session: int) -> None:
        """Keeps the session alive."""
        with self._errors():
            await self._members.RenewLease(
                membership_service_pb2.RenewLeaseRequest(session_id=session), timeout=CALL_SECONDS
            )

    async def report(self, session: int, reports: Sequence[Report]) -> None:
        """Says what was reached with files, or that they cannot be taken, in this order."""
        for first in range(0, len(reports), REPORTS_MAX):
            request = membership_service_pb2.ReportFilesRequest(
                session_id=session, reports=map(translate.report_to_pb, reports[first : first + REPORTS_MAX])
            )
            with self._errors():
                await self._members.ReportFiles(request, timeout=REPORT_SECONDS)

    async def leave(self, session: int, timeout_seconds: float) -> None:
        """Ends the session."""
        with self._errors():
            await self._members.Leave(membership_service_pb2.LeaveRequest(session_id=session), timeout=timeout_seconds)

    async def announce(
        self, manifest: Manifest, session: int, client_count: int, terms: Terms = ONE_COPY
    ) -> tuple[int, network_pb2.File]:
        """Tells of a file; waits for clients. Returns the share count (0: known already) and the file.

        Raises:
            WrongState: the server does not understand all of the manifest: it knows the file by another id.
            PspError: the server cannot be reached, or refuses.
        """
        request = file_service_pb2.AnnounceFileRequest(
            session_id=session,
            manifest=translate.manifest_to_pb(manifest),
            client_count=client_count,
            replica_count=terms.replica_count,
            stays=terms.stays,
        )
        with self._errors():
            answer = await self._files.AnnounceFile(request)
        if answer.file_id != manifest.file_id:
            raise WrongState(
                f"the server at {self._server} takes {manifest.name!r} for another file, as it is of another version:"
                " run the same version on both"
            )
        return share_count_from_pb(answer.share_count, self._server), answer.file

    async def divide(self, manifest: Manifest, session: int, hold_back: bool) -> None:
        """Has the shares given out."""
        request = file_service_pb2.DivideFileRequest(
            session_id=session, manifest=translate.manifest_to_pb(manifest), hold_back=hold_back
        )
        with self._errors():
            await self._files.DivideFile(request)

    async def status(self, file: str, *, with_file_clients: bool) -> status_service_pb2.GetStatusResponse:
        """The network as it is now."""
        request = status_service_pb2.GetStatusRequest(file=file, with_file_clients=with_file_clients)
        with self._errors():
            return await self._status.GetStatus(request, timeout=CALL_SECONDS)
