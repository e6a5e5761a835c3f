"""Connections to a server that belong to no session, or to another one: they are closed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from pspd.core.model.parameters import CLASSIC, FAST, Parameters
from pspd.core.server.machine import ServerMachine
from pspd.core.wire.frames import Frame, encode_frame
from pspd.core.wire.header import DropReason, Kind
from pspd.net.server import ServerPlane
from pspd.store.digests import blake3_digest
from tests.core.samples import sessions
from tests.net.connections import Far
from tests.support.loops import on_loop

pytestmark = pytest.mark.usefixtures("each_loop")

UNKNOWN = Frame(Kind.CONTRIBUTION, 1, bytes(32), 0, 1, 1024)


@contextmanager
def served(parameters: Parameters) -> Iterator[tuple[ServerMachine, Far]]:
    """Yield a server, and a connection to it."""
    machine = ServerMachine(parameters, 64, blake3_digest, 1, sessions(1))
    with (
        closing(ServerPlane(machine, lambda _: None, ["127.0.0.1"], 0)) as plane,
        socket.create_connection(("127.0.0.1", plane.port)) as stream,
    ):
        yield machine, Far(stream)


async def is_closed(far: Far) -> bool:
    """Wait for the end of the stream."""
    async with asyncio.timeout(10):
        try:
            return await far.receive(1) == b""
        except ConnectionResetError:
            return True


@pytest.mark.parametrize("parameters", [CLASSIC, FAST], ids=["classic", "fast"])
@on_loop
async def test_frame_of_unknown_session_closes_connection(parameters: Parameters) -> None:
    with served(parameters) as (machine, far):
        await far.send(encode_frame(UNKNOWN) + bytes(100))
        assert await is_closed(far)
        is_link_due = parameters.kept_links
        assert machine.drop_counts == {DropReason.MISPLACED if is_link_due else DropReason.UNKNOWN_SESSION: 1}


@on_loop
async def test_frame_of_another_session_closes_link() -> None:
    with served(FAST) as (machine, far):
        first, second = (
            machine.member_joined(name, name.encode(), 0, is_source=False, delivery_port=0).session for name in "ab"
        )
        await far.send(encode_frame(Frame(Kind.LINK, first)))
        await far.send(encode_frame(Frame(Kind.CONTRIBUTION, second, bytes(32), 0, 1, 100, 1)) + bytes(100))
        assert await is_closed(far)
        assert machine.drop_counts == {DropReason.UNKNOWN_SESSION: 1}


@on_loop
async def test_unidentified_connection_is_closed_despite_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pspd.net.server.IDENTIFY_SECONDS_MAX", 0.05)
    with served(FAST) as (machine, far):
        await far.send(encode_frame(Frame(Kind.LINK, 1))[:10])
        assert await is_closed(far)
        assert machine.drop_counts[DropReason.SILENT] == 1
