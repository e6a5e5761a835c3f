"""A member's end of the control API: events arrive unchanged, and a dead server is detected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from pspd.core.effects.server import Assign, EndCause, EndSession, StartExchange, VerifyFile
from pspd.core.model.manifest import Manifest
from pspd.core.model.ranges import Range
from pspd.errors import Unreachable, WrongState
from pspd.rpc.client.connection import CALL_SECONDS, open_channel
from pspd.rpc.client.member import MemberClient
from pspd.rpc.server.server import serve
from pspd.rpc.translate import END_REASON_CHARACTERS_MAX, MemberEvent
from pspd.store.digests import blake3_digest
from pspd.v1 import network_pb2 as pb
from tests.support.control import HOST, control
from tests.support.loops import on_loop, until

SESSION = 7
DATA = bytes(5000)


def read_at(offset: int, length: int) -> bytes:
    return DATA[offset : offset + length]


MANIFEST = Manifest.build("a.bin", len(DATA), read_at, blake3_digest).divided(3, read_at, blake3_digest)


class EventNetwork:
    """A network that sends the given events to a member."""

    def __init__(self, *events: MemberEvent) -> None:
        self._events = events

    async def attend(self, session: int) -> AsyncIterator[MemberEvent]:
        assert session == SESSION
        for event in self._events:
            yield event


@on_loop
async def test_every_event_arrives_unchanged() -> None:
    events: list[MemberEvent] = [
        Assign(SESSION, MANIFEST, (Range(0, 1), Range(3, 5)), True, 5),
        StartExchange(SESSION, MANIFEST.file_id),
        VerifyFile(SESSION, MANIFEST.file_id),
        None,
        EndSession(SESSION, "the file is seeded", EndCause.SOURCE_DONE),
    ]
    async with control(EventNetwork(*events)) as (channel, address):
        member = MemberClient(channel, address, blake3_digest)
        assert [event async for event in member.attend(SESSION)] == events


@on_loop
async def test_invalid_file_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    impossible = Assign(SESSION, MANIFEST, (Range(3, 2),), False, 5)
    async with control(EventNetwork(impossible, None)) as (channel, address):
        member = MemberClient(channel, address, blake3_digest)
        assert [event async for event in member.attend(SESSION)] == [None]
        assert f"the server at {address} assigned an invalid file" in caplog.text


class WithoutModes:
    """A network of a version whose manifests have no mode: it ignores this field."""

    def __init__(self) -> None:
        self.messages = self

    async def announce(self, manifest: Manifest, *_: object) -> tuple[SimpleNamespace, int]:
        known = Manifest.parse(manifest.name, manifest.size_bytes, manifest.block_digests, blake3_digest)
        return SimpleNamespace(file_id=known.file_id), 3

    def file(self, file: SimpleNamespace) -> pb.File:
        return pb.File(file_id=file.file_id)


@on_loop
async def test_server_without_modes_is_reported() -> None:
    usual, private = (Manifest.build("a.bin", len(DATA), read_at, blake3_digest, mode=mode) for mode in (0o644, 0o600))
    async with control(WithoutModes()) as (channel, address):
        member = MemberClient(channel, address, blake3_digest)
        assert await member.announce(usual, SESSION, 3) == (3, pb.File(file_id=usual.file_id))
        with pytest.raises(WrongState, match=r"computes another id for 'a\.bin', as it runs another version"):
            await member.announce(private, SESSION, 3)


@pytest.mark.parametrize("cause", [*EndCause, None])
@on_loop
async def test_every_cause_of_an_end_arrives(cause: EndCause | None) -> None:
    async with control(EventNetwork(EndSession(SESSION, "why", cause))) as (channel, address):
        member = MemberClient(channel, address, blake3_digest)
        assert [event async for event in member.attend(SESSION)] == [EndSession(SESSION, "why", cause)]


@on_loop
async def test_long_reason_of_an_end_is_cut() -> None:
    told = EndSession(SESSION, "x" * 1_000_000, EndCause.LEFT)
    async with control(EventNetwork(told)) as (channel, address):
        member = MemberClient(channel, address, blake3_digest)
        ended = [event async for event in member.attend(SESSION)]
    assert ended == [EndSession(SESSION, "x" * END_REASON_CHARACTERS_MAX, EndCause.LEFT)]


@pytest.fixture
def options_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, int]]:
    """Return the options of the last channel or server."""
    seen: dict[str, dict[str, int]] = {}

    def watch(name: str) -> None:
        make = getattr(grpc.aio, name)

        def made(*args: Any, options: list[tuple[str, int]], **others: Any) -> Any:
            seen[name] = dict(options)
            assert len(seen[name]) == len(options), "an option is given twice"
            return make(*args, options=options, **others)

        monkeypatch.setattr(grpc.aio, name, made)

    watch("insecure_channel")
    watch("server")
    return seen.__getitem__


class TestKeepalive:
    @on_loop
    async def test_dead_server_is_noticed_within_a_call(self, options_of: Callable[[str], dict[str, int]]) -> None:
        await open_channel("127.0.0.1:1").close()
        channel = options_of("insecure_channel")
        notice_ms = channel["grpc.keepalive_time_ms"] + channel["grpc.keepalive_timeout_ms"]
        assert 0 < notice_ms <= CALL_SECONDS * 1000

    @on_loop
    async def test_pings_continue_without_calls(self, options_of: Callable[[str], dict[str, int]]) -> None:
        """A member that only listens sends nothing while nothing happens."""
        await open_channel("127.0.0.1:1").close()
        channel = options_of("insecure_channel")
        assert channel["grpc.keepalive_permit_without_calls"] == 1
        assert channel["grpc.http2.max_pings_without_data"] == 0  # no limit

    @on_loop
    async def test_restarted_server_is_found_soon(self, options_of: Callable[[str], dict[str, int]]) -> None:
        await open_channel("127.0.0.1:1").close()
        channel = options_of("insecure_channel")
        assert channel["grpc.initial_reconnect_backoff_ms"] <= channel["grpc.max_reconnect_backoff_ms"] <= 2000

    @on_loop
    async def test_connecting_has_time_for_a_slow_link(self, options_of: Callable[[str], dict[str, int]]) -> None:
        """gRPC uses the minimum backoff as its connect timeout: two round trips, and three SYN packets."""
        await open_channel("127.0.0.1:1").close()
        assert options_of("insecure_channel")["grpc.min_reconnect_backoff_ms"] > 3000

    @on_loop
    async def test_server_accepts_the_pings(self, options_of: Callable[[str], dict[str, int]]) -> None:
        await open_channel("127.0.0.1:1").close()
        server, _ = await serve([HOST], 0, [], lambda _server: None)
        await server.stop(None)
        taken = options_of("server")
        assert taken["grpc.http2.max_ping_strikes"] == 0  # no limit
        every_ms = options_of("insecure_channel")["grpc.keepalive_time_ms"]
        assert taken["grpc.http2.min_ping_interval_without_data_ms"] <= every_ms


class Silent:
    """A network in which nothing happens.

    Attributes:
        called: the calls that have begun.
    """

    def __init__(self) -> None:
        self.called: set[str] = set()

    async def attend(self, session: int) -> AsyncIterator[MemberEvent]:
        self.called.add("attend")
        await asyncio.get_running_loop().create_future()
        yield None

    async def announce(self, *_: object) -> None:
        self.called.add("announce")
        await asyncio.get_running_loop().create_future()


@on_loop
async def test_closed_channel_is_unreachable() -> None:
    async with control(Silent()) as (channel, address):
        member = MemberClient(channel, address, blake3_digest)
        await channel.close()
        with pytest.raises(Unreachable, match="no server answers"):
            await member.leave(SESSION, CALL_SECONDS)
        with pytest.raises(Unreachable, match="no server answers"):
            await anext(member.attend(SESSION))


@on_loop
async def test_closing_the_channel_ends_calls_as_unreachable() -> None:
    network = Silent()
    async with control(network) as (channel, address):
        member = MemberClient(channel, address, blake3_digest)
        attending = asyncio.ensure_future(anext(member.attend(SESSION)))
        announcing = asyncio.ensure_future(member.announce(MANIFEST, SESSION, 1))
        await until("both calls have begun", lambda: network.called == {"attend", "announce"})
        await channel.close()
        for call in (attending, announcing):
            with pytest.raises(Unreachable, match="no server answers"):
                await call


@on_loop
async def test_cancelled_caller_stays_cancelled() -> None:
    network = Silent()
    async with control(network) as (channel, address):
        member = MemberClient(channel, address, blake3_digest)
        announcing = asyncio.ensure_future(member.announce(MANIFEST, SESSION, 1))
        await until("the call has begun", lambda: "announce" in network.called)
        announcing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await announcing
