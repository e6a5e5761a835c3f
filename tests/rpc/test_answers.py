"""A member refuses or ignores invalid answers of a server, and continues."""

from __future__ import annotations

from typing import Any

import pytest

from pspd.core.model.manifest import SHARE_COUNT_MAX, Manifest
from pspd.core.model.parameters import FAST
from pspd.core.model.ranges import Range
from pspd.errors import BadArgument, BadName, PspError
from pspd.rpc import translate
from pspd.rpc.client import member
from pspd.store.digests import blake3_digest
from pspd.v1 import membership_service_pb2 as membership
from pspd.v1 import network_pb2 as pb

DATA = bytes(5000)
MANIFEST = Manifest.build("a.bin", len(DATA), lambda offset, length: DATA[offset : offset + length], blake3_digest)
SERVER = "10.0.0.1:7070"


def granted(**fields: Any) -> member.Session:
    parameters = translate.parameters_to_pb(FAST)
    message = membership.JoinResponse(session_id=7, parameters=parameters, **{"data_port": 7071, **fields})
    return member.session_from_pb(message, SERVER)


def assigned(*shares: tuple[int, int], **manifest: Any) -> membership.FileAssigned:
    message = translate.manifest_to_pb(MANIFEST)
    message.MergeFrom(pb.Manifest(**manifest))
    return membership.FileAssigned(manifest=message, shares=[pb.ChunkRange(start=a, stop=b) for a, b in shares])


class TestSession:
    @pytest.mark.parametrize("port", [0, 65_536, 70_000, 2**32 - 1])
    def test_invalid_data_port_is_refused(self, port: int) -> None:
        with pytest.raises(PspError, match=f"the server at {SERVER} names data port {port}, which is not a port"):
            granted(data_port=port)

    @pytest.mark.parametrize(("lease_ms", "seconds"), [(0, 4.0), (1, 4.0), (4000, 4.0), (30_000, 30.0)])
    def test_short_lease_is_raised_to_the_minimum(self, lease_ms: int, seconds: float) -> None:
        assert granted(lease_ms=lease_ms).lease_seconds == seconds


class TestAssignment:
    def test_shares_are_translated(self) -> None:
        told = member.assign_from_pb(7, assigned((0, 2), (3, 3), (4, 5)), blake3_digest)
        assert told.shares == (Range(0, 2), Range(3, 3), Range(4, 5))

    @pytest.mark.parametrize("share", [(3, 2), (0, 6), (5, 2**32 - 1)])
    def test_invalid_share_is_refused(self, share: tuple[int, int]) -> None:
        with pytest.raises(BadArgument, match=r"a share of 'a\.bin' is not a range of its 5 chunks"):
            member.assign_from_pb(7, assigned((0, 1), share), blake3_digest)

    @pytest.mark.parametrize(
        "manifest", [{"name": "../a"}, {"size_bytes": 2**63}, {"share_count": 2**32 - 1}, {"mode": 0o7777}]
    )
    def test_malformed_manifest_is_refused(self, manifest: dict[str, Any]) -> None:
        with pytest.raises((BadArgument, BadName)):
            member.assign_from_pb(7, assigned(**manifest), blake3_digest)


@pytest.mark.parametrize("share_count", [SHARE_COUNT_MAX + 1, 2**32 - 1])
def test_too_many_shares_are_refused(share_count: int) -> None:
    assert member.share_count_from_pb(SHARE_COUNT_MAX, SERVER) == SHARE_COUNT_MAX
    with pytest.raises(PspError, match=f"the server at {SERVER} asks for {share_count} shares"):
        member.share_count_from_pb(share_count, SERVER)
