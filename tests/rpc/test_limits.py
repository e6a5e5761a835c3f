"""The size of each request is limited before it is parsed; some fields have further limits."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import pspd.v1
from pspd.core.effects.client import ReportMilestone
from pspd.core.model.manifest import BLOCK_COUNT_MAX, DIGEST_BYTES, SHARE_COUNT_MAX
from pspd.core.model.ranges import RangeSet
from pspd.core.model.storage import HeldChunks
from pspd.errors import BadArgument, LimitReached, PspError, WrongState
from pspd.reflection_v1 import reflection_pb2 as reflection_v1_pb2
from pspd.rpc import limits, translate
from pspd.rpc.client.connection import Peer, error_of
from pspd.rpc.client.member import MemberClient
from pspd.rpc.limits import LARGEST_REQUEST_BYTES, REQUEST_BYTES_MAX
from pspd.rpc.server.requests import _parser
from pspd.rpc.translate import Declined, Report
from pspd.store.digests import blake3_digest
from pspd.v1 import (
    client_service_pb2,
    file_service_pb2,
    membership_service_pb2,
    network_pb2,
    status_service_pb2,
)
from tests.rpc.test_errors import Refusing
from tests.support.control import control
from tests.support.loops import on_loop

ASKED = WrongState("the network was asked")
FILE_ID = bytes(DIGEST_BYTES)


def descriptors() -> Iterator[FileDescriptor]:
    """Yield the descriptor of every proto file of the control API and of the libraries' services."""
    for path in sorted(Path(pspd.v1.__path__[0]).glob("*_pb2.py")):
        yield import_module(f"pspd.v1.{path.stem}").DESCRIPTOR
    yield from (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR, reflection_v1_pb2.DESCRIPTOR)


def methods() -> dict[str, MethodDescriptor]:
    """Return every rpc by its path."""
    return {
        f"/{service.full_name}/{method.name}": method
        for file in descriptors()
        for service in file.services_by_name.values()
        for method in service.methods
    }


def padded(size_bytes: int) -> bytes:
    """Return a request of the given size that consists of one unknown field."""
    head = b"\xfa\x7f"  # field 2047, with a length
    rest = size_bytes - len(head)
    length_bytes = next(n for n in range(1, 6) if rest - n < 1 << 7 * n)
    length = rest - length_bytes
    varint = bytes(length >> 7 * n & 0x7F | (0x80 if n + 1 < length_bytes else 0) for n in range(length_bytes))
    return head + varint + bytes(length)


async def answer_of(channel: grpc.aio.Channel, path: str, data: bytes) -> PspError | None:
    """Return the error of a call; None if it is answered. A busy machine may need longer to connect."""
    method = methods()[path]
    try:
        if method.client_streaming:
            await channel.stream_stream(path)(iter([data]), wait_for_ready=True).read()
        elif method.server_streaming:
            await channel.unary_stream(path)(data, wait_for_ready=True).read()
        else:
            await channel.unary_unary(path)(data, timeout=60, wait_for_ready=True)
    except grpc.aio.AioRpcError as error:
        return error_of(error, Peer("here"))
    return None


def test_every_method_has_a_limit() -> None:
    assert methods().keys() == REQUEST_BYTES_MAX.keys()


def test_requests_without_long_lists_stay_below_a_mebibyte() -> None:
    large = {path.rpartition("/")[2] for path, most in REQUEST_BYTES_MAX.items() if most > 1 << 20}
    assert large == {"Join", "ReportFiles", "AnnounceFile", "DivideFile"}


@pytest.mark.parametrize("path", REQUEST_BYTES_MAX)
@on_loop
async def test_request_one_byte_too_large_is_refused(path: str) -> None:
    async with control(Refusing(ASKED)) as (channel, _):
        assert isinstance(await answer_of(channel, path, padded(REQUEST_BYTES_MAX[path] + 1)), LimitReached)
        assert not isinstance(await answer_of(channel, path, padded(REQUEST_BYTES_MAX[path])), LimitReached)


class TestLargestRequests:
    """A request whose fields are at their limits fits into the limit of its method."""

    def test_largest_join_is_accepted(self) -> None:
        spans = 10  # of each file
        ranges = RangeSet((2**32 - 2 - 2 * index, 2**32 - 1 - 2 * index) for index in range(spans))
        held = {index.to_bytes(32, "big"): HeldChunks(ranges, complete=True) for index in range(limits.HELD_FILES_MAX)}
        request = membership_service_pb2.JoinRequest(
            name="\U0001f600" * 100,
            role=membership_service_pb2.MEMBER_ROLE_CLIENT,
            instance_id=bytes(16),
            delivery_port=65535,
            holdings=translate.holdings_to_pb(held),
        )
        assert sum(len(holding.ranges) for holding in request.holdings) == limits.HELD_RANGES_MAX
        assert request.ByteSize() <= REQUEST_BYTES_MAX["/pspd.v1.MembershipService/Join"]

    def test_largest_file_is_accepted(self) -> None:
        manifest = network_pb2.Manifest(
            name="n" * 254,
            size_bytes=2**64 - 1,
            block_digests=bytes(BLOCK_COUNT_MAX * DIGEST_BYTES),
            share_count=SHARE_COUNT_MAX,
            folder=True,
        )
        announced = file_service_pb2.AnnounceFileRequest(
            session_id=1, manifest=manifest, client_count=2**32 - 1, replica_count=2**32 - 1, stays=True
        )
        assert announced.ByteSize() <= REQUEST_BYTES_MAX["/pspd.v1.FileService/AnnounceFile"]
        manifest.cut_digests = bytes(2 * (SHARE_COUNT_MAX - 1) * DIGEST_BYTES)
        divided = file_service_pb2.DivideFileRequest(session_id=1, manifest=manifest, hold_back=True)
        assert divided.ByteSize() <= REQUEST_BYTES_MAX["/pspd.v1.FileService/DivideFile"] == LARGEST_REQUEST_BYTES

    def test_most_reports_are_accepted(self) -> None:
        refusal = translate.report_to_pb(Declined(FILE_ID, "\U0001f600" * 1000, 2**32 - 1))
        refusal.share_chunk_count = refusal.request_number = 2**32 - 1
        request = membership_service_pb2.ReportFilesRequest(session_id=1, reports=[refusal] * limits.REPORTS_MAX)
        assert request.ByteSize() <= REQUEST_BYTES_MAX["/pspd.v1.MembershipService/ReportFiles"]

    def test_most_names_to_stop_are_accepted(self) -> None:
        names = ["\U0001f600" * 100] * limits.STOP_NAMES_MAX
        request = client_service_pb2.StopClientsRequest(names=names, force=True)
        assert request.ByteSize() <= REQUEST_BYTES_MAX["/pspd.v1.ClientService/StopClients"]


def joining(**fields: Any) -> Any:
    given = {"name": "a", "role": membership_service_pb2.MEMBER_ROLE_CLIENT, "instance_id": bytes(16)}
    return membership_service_pb2.JoinRequest(**(given | fields))


def holding(range_count: int) -> Any:
    spans = [network_pb2.ChunkRange(start=2 * index, stop=2 * index + 1) for index in range(range_count)]
    return network_pb2.Holding(file_id=FILE_ID, ranges=spans)


REPORT = membership_service_pb2.FileReport(file_id=FILE_ID, milestone=membership_service_pb2.FILE_MILESTONE_COMPLETE)
SHORT = membership_service_pb2.FileReport(file_id=bytes(31), milestone=membership_service_pb2.FILE_MILESTONE_COMPLETE)

FIELDS: list[tuple[str, Any, Any, type[PspError]]] = [
    ("Membership/Join", joining(), joining(instance_id=bytes(17)), BadArgument),
    ("Membership/Join", joining(), joining(instance_id=bytes(15)), BadArgument),
    ("Membership/Join", joining(), joining(role=0), BadArgument),
    (
        "Membership/Join",
        joining(holdings=[holding(0)] * limits.HELD_FILES_MAX),
        joining(holdings=[holding(0)] * (limits.HELD_FILES_MAX + 1)),
        LimitReached,
    ),
    (
        "Membership/Join",
        joining(holdings=[holding(limits.HELD_RANGES_MAX)]),
        joining(holdings=[holding(limits.HELD_RANGES_MAX), holding(1)]),
        LimitReached,
    ),
    (
        "Membership/ReportFiles",
        membership_service_pb2.ReportFilesRequest(reports=[REPORT] * limits.REPORTS_MAX),
        membership_service_pb2.ReportFilesRequest(reports=[REPORT] * (limits.REPORTS_MAX + 1)),
        LimitReached,
    ),
    (
        "Membership/ReportFiles",
        membership_service_pb2.ReportFilesRequest(reports=[REPORT]),
        membership_service_pb2.ReportFilesRequest(reports=[REPORT, SHORT]),
        BadArgument,
    ),
    (
        "Client/StopClients",
        client_service_pb2.StopClientsRequest(names=["a"] * limits.STOP_NAMES_MAX),
        client_service_pb2.StopClientsRequest(names=["a"] * (limits.STOP_NAMES_MAX + 1)),
        LimitReached,
    ),
    (
        "Client/StopClients",
        client_service_pb2.StopClientsRequest(all_clients=True),
        client_service_pb2.StopClientsRequest(all_clients=True, names=["a"]),
        BadArgument,
    ),
    (
        "Status/WatchStatus",
        status_service_pb2.WatchStatusRequest(interval_ms=limits.WATCH_INTERVAL_MS_MAX),
        status_service_pb2.WatchStatusRequest(interval_ms=limits.WATCH_INTERVAL_MS_MAX + 1),
        BadArgument,
    ),
]


@pytest.mark.parametrize(("method", "most", "more", "error"), FIELDS)
@on_loop
async def test_field_beyond_its_limit_is_refused(method: str, most: Any, more: Any, error: type[PspError]) -> None:
    service, _, name = method.partition("/")
    path = f"/pspd.v1.{service}Service/{name}"
    async with control(Refusing(ASKED)) as (channel, _):
        assert type(await answer_of(channel, path, most.SerializeToString())) is WrongState
        assert type(await answer_of(channel, path, more.SerializeToString())) is error


@on_loop
async def test_reports_beyond_the_limit_go_with_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[Report]] = []

    class Heard:
        def report(self, session: int, reports: list[Report]) -> None:
            calls.append(reports)

    reports = [Declined(bytes([index]) * DIGEST_BYTES, "no room") for index in range(5)]
    monkeypatch.setattr("pspd.rpc.client.member.REPORTS_MAX", 2)
    async with control(Heard()) as (channel, address):
        await MemberClient(channel, address, blake3_digest).report(1, reports)
    assert calls == [reports[:2], reports[2:4], reports[4:]]
    assert not isinstance(reports[0], ReportMilestone)


@on_loop
async def test_client_cuts_a_long_reason() -> None:
    told = translate.report_to_pb(Declined(FILE_ID, "x" * (limits.REPORT_REASON_CHARACTERS_MAX + 1)))
    assert told.reason == "x" * limits.REPORT_REASON_CHARACTERS_MAX


@on_loop
async def test_error_does_not_keep_the_request_in_memory() -> None:
    too_large = _parser("/no/such", bytes)(bytes(limits.FIXED_BYTES_MAX + 1)).request
    assert isinstance(too_large, LimitReached)
    assert too_large.__traceback__ is None
    refusal = WrongState("the network was asked")
    async with control(Refusing(refusal)) as (channel, _):
        assert isinstance(await answer_of(channel, "/pspd.v1.CacheService/GetCache", b""), WrongState)
    assert refusal.__traceback__ is None


class Waiting:
    """A network whose announcements never return."""

    def __init__(self) -> None:
        self.is_waiting = asyncio.Event()

    async def announce(self, *_: object) -> None:
        self.is_waiting.set()
        await asyncio.get_running_loop().create_future()


@on_loop
async def test_long_call_does_not_keep_its_request() -> None:
    network = Waiting()
    request = file_service_pb2.AnnounceFileRequest(manifest=network_pb2.Manifest(name="a.bin")).SerializeToString()
    async with control(network) as (channel, _):
        announcing = asyncio.ensure_future(answer_of(channel, "/pspd.v1.FileService/AnnounceFile", request))
        await network.is_waiting.wait()
        gc.collect()
        assert not [each for each in gc.get_objects() if isinstance(each, file_service_pb2.AnnounceFileRequest)]
        announcing.cancel()
