"""Calls a server as one of its members, and validates the answers, so that no answer makes a member crash or loop."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

import grpc

from pspd.core.effects.server import Assign, RemoveFile, StartExchange, VerifyFile
from pspd.core.model.manifest import SHARE_COUNT_MAX, DigestFunction, FileId, Manifest
from pspd.core.model.parameters import Parameters
from pspd.core.model.storage import HeldChunks
from pspd.core.model.terms import ONE_COPY, Terms
from pspd.errors import BadArgument, BadName, PspError, WrongState
from pspd.rpc import translate
from pspd.rpc.client.connection import Peer
from pspd.rpc.client.server import ServerClient
from pspd.rpc.limits import REPORTS_MAX
from pspd.rpc.translate import Report
from pspd.text.addresses import PORT_MAX
from pspd.v1 import file_service_pb2 as files
from pspd.v1 import membership_service_pb2 as membership
from pspd.v1 import membership_service_pb2_grpc, network_pb2

LEASE_SECONDS_MIN = 4.0
"""The shortest lease that a member assumes. With it, a member renews its lease once a second."""
REPORT_SECONDS = 60.0
"""How long a call with reports may take. A busy server answers late, and a repeated report only adds load. The
keepalive detects a dead connection."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Session:
    """A session that the server granted to a member.

    Attributes:
        number: the number that identifies the session in every message.
        data_port: the server's UDP and TCP port for data.
        lease_seconds: how long the session lasts after the server last received something from the member, in seconds.
        parameters: the protocol's parameters.
    """

    number: int
    data_port: int
    lease_seconds: float
    parameters: Parameters


def session_from_pb(message: membership.JoinResponse, server: str) -> Session:
    """Return the session that a message grants. Its lease is at least ``LEASE_SECONDS_MIN``.

    Args:
        message: the answer to `Join`.
        server: the server's address, for error messages.

    Raises:
        PspError: the data port is not a port.
    """
    if not 0 < message.data_port <= PORT_MAX:
        failure = f"the server at {server} names data port {message.data_port}, which is not a port"
        raise PspError(f"{failure}: name another server with --server")
    return Session(
        message.session_id,
        message.data_port,
        max(LEASE_SECONDS_MIN, message.lease_ms / 1000),
        translate.parameters_from_pb(message.parameters),
    )


def assign_from_pb(session: int, message: membership.FileAssigned, digest: DigestFunction) -> Assign:
    """Return the assignment of a file from a message.

    Args:
        session: the session number of the member.
        message: the message.
        digest: the digest function, for the ids of files.

    Raises:
        BadName: the manifest has a name that no client accepts.
        BadArgument: the manifest is malformed, or a share is not a range of the file's chunks.
    """
    manifest = translate.manifest_from_pb(message.manifest, digest)
    shares = translate.ranges_from_pb(message.shares)
    if any(share.start > share.stop or share.stop > manifest.chunk_count for share in shares):
        raise BadArgument(f"a share of {manifest.name!r} is not a range of its {manifest.chunk_count} chunks")
    return Assign(session, manifest, shares, message.exchange_started, message.division)


def share_count_from_pb(share_count: int, server: str) -> int:
    """Return the number of shares in the answer to an announcement, if it is allowed.

    Args:
        share_count: the number in the answer.
        server: the server's address, for error messages.

    Raises:
        PspError: the number is larger than ``SHARE_COUNT_MAX``.
    """
    if share_count > SHARE_COUNT_MAX:
        failure = f"the server at {server} asks for {share_count} shares, but a file has at most {SHARE_COUNT_MAX}"
        raise PspError(f"{failure}: name another server with --server")
    return share_count


class MemberClient(ServerClient):
    """Calls a server as one of its members. A failed call raises ``PspError``.

    Args:
        channel: the channel to the server; None if `use` is called before the first call.
        server: the server's address, for error messages.
        digest: the digest function, for the ids of files.
    """

    def __init__(self, channel: grpc.aio.Channel | None, server: str, digest: DigestFunction) -> None:
        self._server = server
        self._digest = digest
        super().__init__(Peer(server), channel)

    def use(self, channel: grpc.aio.Channel) -> None:
        """Send all further calls over `channel`."""
        super().use(channel)
        self._members = membership_service_pb2_grpc.MembershipServiceStub(channel)

    async def parameters(self) -> Parameters:
        """Return the parameters that the server prescribes to its members."""
        answer = await self._call(self._members.GetParameters, membership.GetParametersRequest())
        return translate.parameters_from_pb(answer.parameters)

    async def join(
        self, name: str, instance_id: bytes, *, source: bool, delivery_port: int, held: Mapping[FileId, HeldChunks]
    ) -> Session:
        """Join the network; return the session.

        Args:
            name: the member's name.
            instance_id: the identity by which the server recognizes the member when it joins again.
            source: whether the member is a source.
            delivery_port: the TCP port for deliveries, if each transfer has its own connection; otherwise 0.
            held: the chunks that the member holds, by file id.
        """
        role = membership.MEMBER_ROLE_SOURCE if source else membership.MEMBER_ROLE_CLIENT
        request = membership.JoinRequest(
            name=name,
            role=role,
            instance_id=instance_id,
            delivery_port=delivery_port,
            holdings=translate.holdings_to_pb(held),
        )
        return session_from_pb(await self._call(self._members.Join, request), self._server)

    async def attend(self, session: int) -> AsyncGenerator[translate.MemberEvent, None]:
        """Yield the server's valid events for the member as they come."""
        request = membership.AttendRequest(session_id=session)
        async with contextlib.aclosing(self._stream(self._members.Attend, request, None)) as messages:
            async for message in messages:
                match message.WhichOneof("event"):
                    case "file_assigned":
                        if (assign := self._assigned(session, message.file_assigned)) is not None:
                            yield assign
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

    def _assigned(self, session: int, message: membership.FileAssigned) -> Assign | None:
        """Return an assignment from a message; log a malformed one and return None."""
        try:
            return assign_from_pb(session, message, self._digest)
        except (BadArgument, BadName) as error:
            log.warning("the server at %s assigned an invalid file: %s", self._server, error)
            return None

    async def renew(self, session: int) -> None:
        """Renew the session's lease."""
        await self._call(self._members.RenewLease, membership.RenewLeaseRequest(session_id=session))

    async def report(self, session: int, reports: Sequence[Report]) -> None:
        """Send reports about milestones and declined files, in as many calls as they need.

        Args:
            session: the session number of the member.
            reports: the reports, in the order in which to send them.
        """
        for first in range(0, len(reports), REPORTS_MAX):
            request = membership.ReportFilesRequest(
                session_id=session, reports=map(translate.report_to_pb, reports[first : first + REPORTS_MAX])
            )
            await self._call(self._members.ReportFiles, request, REPORT_SECONDS)

    async def leave(self, session: int, timeout_seconds: float) -> None:
        """End the session.

        Args:
            session: the session number of the member.
            timeout_seconds: how long to wait for the server's answer.
        """
        request = membership.LeaveRequest(session_id=session)
        await self._call(self._members.Leave, request, timeout_seconds)

    async def announce(
        self, manifest: Manifest, session: int, client_count: int, terms: Terms = ONE_COPY
    ) -> tuple[int, network_pb2.File]:
        """Announce a file, and wait until enough clients are reachable, unless the file is divided already.

        Args:
            manifest: the file's manifest.
            session: the session number of the source.
            client_count: how many clients to wait for; 0 for one per replica.
            terms: the terms of the seeding.

        Returns:
            The number of shares (0 if the file is divided already), and the status of the file.

        Raises:
            WrongState: the server computes another id for the file, because it runs another version.
            PspError: the server cannot be reached, or refuses.
        """
        request = files.AnnounceFileRequest(
            session_id=session,
            manifest=translate.manifest_to_pb(manifest),
            client_count=client_count,
            replica_count=terms.replica_count,
            stays=terms.source_stays,
        )
        answer = await self._call(self._files.AnnounceFile, request, None)
        if answer.file_id != manifest.file_id:
            failure = f"the server at {self._server} computes another id for {manifest.name!r}"
            raise WrongState(f"{failure}, as it runs another version: run the same version on both")
        return share_count_from_pb(answer.share_count, self._server), answer.file

    async def divide(self, manifest: Manifest, session: int, hold_back: bool) -> None:
        """Ask the server to divide the file and assign the shares.

        Args:
            manifest: the file's manifest, with the number of shares.
            session: the session number of the source.
            hold_back: whether the exchange waits for `pspctl release`.
        """
        request = files.DivideFileRequest(
            session_id=session, manifest=translate.manifest_to_pb(manifest), hold_back=hold_back
        )
        await self._call(self._files.DivideFile, request, None)
