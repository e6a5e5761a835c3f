"""Every error reaches the caller of the server with its reason and message."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import grpc
import pytest

from pspd.core.effects.client import ReportMilestone
from pspd.core.effects.shared import Milestone
from pspd.core.model.manifest import DIGEST_BYTES, Manifest
from pspd.errors import InternalError, PspError, Reason, TimedOut, Unreachable, error_classes
from pspd.rpc.client.connection import Peer, error_of, open_channel
from pspd.rpc.client.member import MemberClient
from pspd.rpc.conventions import MESSAGE_BYTES_MAX
from pspd.rpc.limits import LARGEST_REQUEST_BYTES
from pspd.rpc.translate import Declined
from pspd.store.digests import blake3_digest
from pspd.v1 import status_service_pb2, status_service_pb2_grpc
from tests.support.control import control
from tests.support.loops import on_loop

LINE = "the file 'Übung €.bin' is held: say 100 % more"
FILE_ID = bytes(32)


class Refusing:
    """A network that raises the same error in every call."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.messages = self

    @property
    def parameters(self) -> Any:
        raise self._error

    async def attend(self, session: int) -> AsyncIterator[Any]:
        raise self._error
        yield

    async def announce(self, *_: object) -> Any:
        raise self._error

    def __getattr__(self, name: str) -> Any:
        def refuse(*_: object, **__: object) -> Any:
            raise self._error

        return refuse


async def make_every_call(member: MemberClient) -> dict[str, PspError]:
    """Make each call of a member; all must be refused. Return the errors by the names of the calls."""
    manifest = Manifest.parse("a.bin", 0, b"", blake3_digest)
    calls: dict[str, Awaitable[object]] = {
        "parameters": member.parameters(),
        "join": member.join("a", bytes(16), source=False, delivery_port=0, held={}),
        "attend": anext(member.attend(1)),
        "renew": member.renew(1),
        "report": member.report(1, [ReportMilestone(FILE_ID, Milestone.COMPLETE, 0), Declined(FILE_ID, "no room")]),
        "leave": member.leave(1, 5),
        "announce": member.announce(manifest, 1, 1),
        "divide": member.divide(manifest, 1, False),
        "status": member.status("", with_file_clients=False),
    }
    errors: dict[str, PspError] = {}
    for name, call in calls.items():
        try:
            await call
        except PspError as error:
            errors[name] = error
    assert errors.keys() == calls.keys()
    return errors


@pytest.mark.parametrize("reason", Reason)
@on_loop
async def test_every_reason_reaches_the_caller_of_every_method(reason: Reason) -> None:
    error_class = error_classes()[reason]
    async with control(Refusing(error_class(LINE))) as (channel, address):
        for name, error in (await make_every_call(MemberClient(channel, address, blake3_digest))).items():
            assert type(error) is error_class, name
            assert str(error) == LINE, name
            assert error.reason is reason


@on_loop
async def test_base_class_error_is_internal() -> None:
    async with control(Refusing(PspError(LINE))) as (channel, address):
        with pytest.raises(InternalError) as refused:
            await MemberClient(channel, address, blake3_digest).parameters()
        assert str(refused.value) == LINE


@on_loop
async def test_unknown_error_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async with control(Refusing(RuntimeError("oops"))) as (channel, address):
        with pytest.raises(PspError) as refused:
            await MemberClient(channel, address, blake3_digest).parameters()
        assert address in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("reason", Reason)
@on_loop
async def test_watch_is_refused_like_other_calls(reason: Reason) -> None:
    error = error_classes()[reason](LINE)
    async with control(Refusing(error)) as (channel, address):
        stub = status_service_pb2_grpc.StatusServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.WatchStatus(status_service_pb2.WatchStatusRequest()).read()
        assert refused.value.code() is grpc.StatusCode[error.reason.grpc_status]
        told = error_of(refused.value, Peer(address))
        assert (type(told), str(told)) == (type(error), LINE)


@pytest.mark.parametrize("status", ["UNAVAILABLE", "CANCELLED"])
def test_peer_that_ends_during_a_call_is_unreachable(status: str) -> None:
    class Ended(grpc.aio.AioRpcError):
        def trailing_metadata(self) -> Any:
            return ()

    error = Ended(grpc.StatusCode[status], grpc.aio.Metadata(), grpc.aio.Metadata(), "the server stops")
    for peer, text in ((Peer("x:1"), "no server answers at x:1"), (Peer.agent("x:1"), "no agent answers at x:1")):
        told = error_of(error, peer)
        assert type(told) is Unreachable
        assert str(told).startswith(text)


@on_loop
async def test_missing_server_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with open_channel(address) as channel:
            for error in (await make_every_call(MemberClient(channel, address, blake3_digest))).values():
                assert type(error) is Unreachable
                assert address in str(error)


@on_loop
async def test_silent_server_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        async with open_channel(address) as channel:
            with pytest.raises(TimedOut, match=address):
                await MemberClient(channel, address, blake3_digest).leave(1, 0.05)


@on_loop
async def test_bad_manifest_is_refused_before_the_daemon_is_asked() -> None:
    bad = Manifest("../a", 0, b"", FILE_ID)
    async with control(Refusing(RuntimeError("asked"))) as (channel, address):
        member = MemberClient(channel, address, blake3_digest)
        for call in (member.announce(bad, 1, 1), member.divide(bad, 1, False)):
            with pytest.raises(PspError) as refused:
                await call
            assert refused.value.reason is Reason.BAD_NAME


def test_largest_manifest_fits_into_a_message() -> None:
    assert MESSAGE_BYTES_MAX >= LARGEST_REQUEST_BYTES >= 2**20 * DIGEST_BYTES + 1024
