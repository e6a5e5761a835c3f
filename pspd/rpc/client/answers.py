"""What a server tells a member, as types that cannot be wrong: no answer makes a client crash or spin."""

from __future__ import annotations

from dataclasses import dataclass

from pspd.core.effects.server import Assign
from pspd.core.model.manifest import SHARE_COUNT_MAX, Digest
from pspd.core.model.parameters import Parameters
from pspd.errors import BadArgument, PspError
from pspd.rpc import translate
from pspd.text.addresses import PORT_MAX
from pspd.v1 import membership_service_pb2 as membership

LEASE_SECONDS_MIN = 4.0
"""A shorter lease is taken for this: a member renews four times in it, and never more often than once a second."""


@dataclass(frozen=True, slots=True)
class Session:
    """What the server granted to a member."""

    session: int
    data_port: int
    lease_seconds: float
    parameters: Parameters


def session_from_pb(message: membership.JoinResponse, server: str) -> Session:
    """A session from a message.

    Args:
        message: the answer to a join.
        server: the server's address, for messages.

    Raises:
        PspError: the data port is not a port.
    """
    if not 0 < message.data_port <= PORT_MAX:
        raise PspError(
            f"the server at {server} names data port {message.data_port}, which is no port: name another with --server"
        )
    return Session(
        message.session_id,
        message.data_port,
        max(LEASE_SECONDS_MIN, message.lease_ms / 1000),
        translate.parameters_from_pb(message.parameters),
    )


def assign_from_pb(session: int, message: membership.FileAssigned, digest: Digest) -> Assign:
    """A file to get, from a message.

    Raises:
        BadName, BadArgument: the manifest is malformed, or a share is no range of the file's chunks.
    """
    manifest = translate.manifest_from_pb(message.manifest, digest)
    shares = translate.ranges_from_pb(message.shares)
    if any(share.start > share.stop or share.stop > manifest.chunk_count for share in shares):
        raise BadArgument(f"a share of {manifest.name!r} is no range of its {manifest.chunk_count} chunks")
    return Assign(session, manifest, shares, message.exchange_started, message.division)


def share_count_from_pb(share_count: int, server: str) -> int:
    """Into how many shares to divide a file, from the answer to its announcement.

    Raises:
        PspError: no file is divided into so many.
    """
    if share_count > SHARE_COUNT_MAX:
        raise PspError(
            f"the server at {server} asks for {share_count} shares: {SHARE_COUNT_MAX} are the most: name another with"
            " --server"
        )
    return share_count
