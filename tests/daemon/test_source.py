"""The source: how long a file needs it, and what ends it early."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pspd.core.model.manifest import Manifest
from pspd.core.model.parameters import FAST, PROFILES, Parameters
from pspd.core.model.terms import ONE_COPY, Terms
from pspd.daemon.source import POLL_SECONDS_MIN, _needs_source, _require_accepting_client, poll_seconds
from pspd.errors import StorageError, TimedOut, Unreachable, WrongState
from pspd.rpc.client.member import MemberClient, Session
from pspd.v1 import network_pb2 as pb
from tests.daemon.members import InProcess, in_process
from tests.support.files import random_file
from tests.support.loops import on_loop, until

EACH_PROFILE = pytest.mark.parametrize("parameters", PROFILES.values(), ids=lambda profile: profile.profile)


class TestNeedsSource:
    @pytest.mark.parametrize("divided_here", [True, False])
    @pytest.mark.parametrize("state", [pb.FILE_STATE_SEEDING, pb.FILE_STATE_STALLED])
    def test_needed_until_the_file_is_seeded(self, state: pb.FileState, divided_here: bool) -> None:
        file = pb.File(state=state, seeded=False, min_holder_count=5)
        assert _needs_source(file, ONE_COPY, divided_here=divided_here)

    @pytest.mark.parametrize("min_holder_count", [0, 1, 2])
    @pytest.mark.parametrize("state", [pb.FILE_STATE_SEEDED, pb.FILE_STATE_DISTRIBUTING, pb.FILE_STATE_STALLED])
    def test_not_needed_after_its_own_seeding(self, state: pb.FileState, min_holder_count: int) -> None:
        """A share that is lost later needs a repair by another seeding."""
        file = pb.File(state=state, seeded=True, min_holder_count=min_holder_count)
        assert not _needs_source(file, ONE_COPY, divided_here=True)

    @pytest.mark.parametrize(("min_holder_count", "needed"), [(0, True), (1, False), (2, False)])
    @pytest.mark.parametrize("state", [pb.FILE_STATE_DISTRIBUTING, pb.FILE_STATE_STALLED])
    def test_needed_for_repair_until_each_chunk_has_a_holder(
        self, state: pb.FileState, min_holder_count: int, needed: bool
    ) -> None:
        file = pb.File(state=state, seeded=True, min_holder_count=min_holder_count)
        assert _needs_source(file, ONE_COPY, divided_here=False) is needed

    @pytest.mark.parametrize("divided_here", [True, False])
    @pytest.mark.parametrize(("min_holder_count", "needed"), [(0, True), (1, True), (2, False)])
    def test_staying_source_needed_until_two_holders(
        self, min_holder_count: int, needed: bool, divided_here: bool
    ) -> None:
        file = pb.File(state=pb.FILE_STATE_DISTRIBUTING, seeded=True, min_holder_count=min_holder_count)
        assert _needs_source(file, Terms(source_stays=True), divided_here=divided_here) is needed

    def test_staying_source_not_needed_by_a_complete_client(self) -> None:
        file = pb.File(state=pb.FILE_STATE_COMPLETE, seeded=True, min_holder_count=1)
        assert not _needs_source(file, Terms(source_stays=True), divided_here=True)

    @pytest.mark.parametrize("min_holder_count", [0, 1])
    def test_not_needed_to_repair_a_complete_file(self, min_holder_count: int) -> None:
        file = pb.File(state=pb.FILE_STATE_COMPLETE, seeded=True, min_holder_count=min_holder_count)
        assert not _needs_source(file, ONE_COPY, divided_here=False)


class TestRequireAcceptingClient:
    REFUSALS = (pb.FileClient(name="a", refusal="no room"), pb.FileClient(name="b", refusal="another file"))

    def test_file_declined_by_all_raises_the_first_reason(self) -> None:
        with pytest.raises(WrongState, match=r"^no client takes 'f'; a says: no room$"):
            _require_accepting_client(pb.File(name="f", client_count=0, clients=self.REFUSALS))

    def test_one_accepting_client_is_enough(self) -> None:
        clients = [*self.REFUSALS, pb.FileClient(name="c")]
        _require_accepting_client(pb.File(name="f", client_count=1, clients=clients))

    @pytest.mark.parametrize("clients", [[], [pb.FileClient(name="a")]], ids=["nobody", "out of reach"])
    def test_lost_clients_may_come_back(self, clients: list[pb.FileClient]) -> None:
        _require_accepting_client(pb.File(name="f", client_count=0, clients=clients))


def source_of(network: InProcess) -> str:
    """Return the name of the only connected source; empty if no source is connected."""
    return next((client.name for client in network.server.messages.clients() if client.source), "")


@EACH_PROFILE
@on_loop
async def test_source_asked_to_stop_reports_unfinished(tmp_path: Path, parameters: Parameters) -> None:
    source = random_file(tmp_path / "file.bin", 40_001)
    async with in_process(parameters) as network:
        await network.join("a")
        seeding = asyncio.ensure_future(network.seed(source, client_count=2))
        await until("it is announced", lambda: network.server.messages.files(with_clients=False))
        network.server.stop_clients([source_of(network)], all_clients=False, force=True)
        with pytest.raises(WrongState, match="the server asked the source to stop: seed again to finish"):
            await seeding
        assert source_of(network) == ""
        assert not network.server.messages.files(with_clients=False)


@on_loop
async def test_stopping_all_clients_spares_the_source(tmp_path: Path) -> None:
    source = random_file(tmp_path / "file.bin", 40_001)
    async with in_process(FAST) as network:
        (client,) = await network.join("a")
        seeding = asyncio.ensure_future(network.seed(source, client_count=2))
        await until("it is announced", lambda: network.server.messages.files(with_clients=False))
        network.server.stop_clients([], all_clients=True)
        await until("the client has ended", client.running.done)
        await network.join("b", "c")
        await seeding
        await network.copies(source, "b", "c")


@on_loop
async def test_repairing_source_stays_until_chunks_have_holders(tmp_path: Path) -> None:
    source = random_file(tmp_path / "file.bin", 40_001)
    async with in_process(FAST) as network:
        lost, _ = await network.join("a", "b")
        await network.seed(source, client_count=2, hold_back=True)
        await lost.end()
        await until("the file is stalled", lambda: network.file("file.bin").state == pb.FILE_STATE_STALLED)
        repairing = asyncio.ensure_future(network.seed(source))
        await until("the source is back", lambda: network.file("file.bin").state == pb.FILE_STATE_SEEDED)
        assert not repairing.done()
        network.server.release("file.bin")
        await repairing
        await network.copies(source, "b")


@pytest.mark.parametrize(("client_count", "seconds"), [(0, POLL_SECONDS_MIN), (50, POLL_SECONDS_MIN), (500, 2.0)])
def test_source_polls_less_often_with_more_clients(client_count: int, seconds: float) -> None:
    assert poll_seconds(client_count) == seconds


@on_loop
async def test_changed_file_advises_to_remove_its_old_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = random_file(tmp_path / "file.bin", 40_001)
    divide = MemberClient.divide

    async def divide_and_change(client: MemberClient, manifest: Manifest, session: int, hold_back: bool) -> None:
        path.write_bytes(b"changed")
        await divide(client, manifest, session, hold_back)

    monkeypatch.setattr(MemberClient, "divide", divide_and_change)
    async with in_process(FAST) as network:
        await network.join("a")
        with pytest.raises(
            StorageError, match=r"seed it again when nothing writes to it, after `pspctl rm --force file.bin`"
        ):
            await network.seed(path)
        file = network.file("file.bin")
        network.server.remove(file.file_id.hex(), force=True)
        monkeypatch.setattr(MemberClient, "divide", divide)
        await network.seed(path)
        await network.copies(path, "a")


@on_loop
async def test_source_waits_for_a_server_that_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = random_file(tmp_path / "file.bin", 40_001)
    join = MemberClient.join
    errors = [Unreachable("nobody there"), TimedOut("too slow")]

    async def fail_twice(client: MemberClient, name: str, instance_id: bytes, **told: Any) -> Session:
        if told["source"] and errors:
            raise errors.pop()
        return await join(client, name, instance_id, **told)

    monkeypatch.setattr(MemberClient, "join", fail_twice)
    async with in_process(FAST) as network:
        await network.join("a")
        told = await network.seed(path)
        phases = [step.phase for step in told if step.phase != "hashing"]
        assert phases[:2] == ["reconnecting"] * 2
        assert "reconnecting" not in phases[2:]
        await network.copies(path, "a")
