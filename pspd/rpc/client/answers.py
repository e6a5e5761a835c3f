"""Validates a server's answers to a member: no answer makes a client crash or spin."""

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
"""A shorter lease counts as this one: a member renews four times per lease, and at most once a second."""


@dataclass(frozen=True, slots=True)
class Session:
    """What the server granted to a member.

    Attributes:
        session: the session's id.
        data_port: the server's UDP and TCP port for data.
        lease_seconds: how long the session lasts without a renewal.
        parameters: the protocol's parameters.
    """

    session: int
    data_port: int
    lease_seconds: float
    parameters: Parameters


def session_from_pb(message: membership.JoinResponse, server: str) -> Session:
    """Return the session that a message grants.

    Args:
        message: the answer to `Join`.
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
    """Return the assignment of a file in a message.

    Args:
        session: the member's session.
        message: the message.
        digest: the digest of manifests.

    Raises:
        BadName: the manifest has a name that no client accepts.
        BadArgument: the manifest is malformed, or a share is no range of the file's chunks.
    """
    manifest = translate.manifest_from_pb(message.manifest, digest)
    shares = translate.ranges_from_pb(message.shares)
    if any(share.start > share.stop or share.stop > manifest.chunk_count for share in shares):
        raise BadArgument(f"a share of {manifest.name!r} is no range of its {manifest.chunk_count} chunks")
    return Assign(session, manifest, shares, message.exchange_started, message.division)


def share_count_from_pb(share_count: int, server: str) -> int:
    """Return the number of shares in the answer to an announcement.

    Args:
        share_count: the number in the answer.
        server: the server's address, for messages.

    Raises:
        PspError: the number is larger than any file allows.
    """
    if share_count > SHARE_COUNT_MAX:
        raise PspError(
            f"the server at {server} asks for {share_count} shares: {SHARE_COUNT_MAX} are the most: name another with"
            " --server"
        )
    return share_count
