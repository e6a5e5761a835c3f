"""Changed files are verified between two sessions; their wrong chunks are fetched again."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from pspd.core.effects.server import VerifyFile
from pspd.core.model.parameters import FAST, PROFILES, Parameters
from pspd.core.wire.datagrams import Hello, encode_datagram
from pspd.errors import StorageError
from pspd.store.files.disk import ExternalChanges
from pspd.v1 import network_pb2 as pb
from tests.daemon.members import Client, InProcess, in_process, retry_after, watch_every
from tests.support.files import random_file
from tests.support.loops import on_loop, until

EACH_PROFILE = pytest.mark.parametrize("parameters", PROFILES.values(), ids=lambda profile: profile.profile)
SIZE_BYTES = 40_001


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return random_file(tmp_path / "file.bin", SIZE_BYTES)


def alter_share(network: InProcess, client: Client) -> int:
    """Change a byte of a chunk that a client holds, without its knowledge; return the chunk."""
    file = network.file("file.bin")
    (held,) = next(each for each in file.clients if each.name == client.name).held_ranges
    chunk = (held.start + held.stop) // 2
    client.store.alter(file.file_id, chunk * 1024)
    return chunk


def holdings(file: pb.File) -> dict[str, int]:
    """Return how many chunks each client holds."""
    return {client.name: client.held_chunk_count for client in file.clients}


def missing_chunks(network: InProcess) -> list[tuple[int, int]]:
    """Return the ranges without a holder."""
    return [(each.range.start, each.range.stop) for each in network.file("file.bin").missing_ranges]


@EACH_PROFILE
@on_loop
async def test_second_seeding_repairs_altered_bytes(source: Path, parameters: Parameters) -> None:
    async with in_process(parameters) as network:
        garbled, _ = await network.join("a", "b")
        await network.seed(source, client_count=2, hold_back=True)
        chunk = alter_share(network, garbled)
        network.server.release("file.bin")
        await until("the missing chunk is known", lambda: missing_chunks(network) == [(chunk, chunk + 1)])
        assert network.file("file.bin").missing_ranges[0].last_holder == "a"
        await network.seed(source)
        await network.copies(source, "a", "b")
        await until("the server knows", lambda: network.file("file.bin").state == pb.FILE_STATE_COMPLETE)


@EACH_PROFILE
@on_loop
async def test_file_is_reverified_before_the_next_session(source: Path, parameters: Parameters) -> None:
    async with in_process(parameters) as network:
        suspected, other = await network.join("a", "b")
        await network.seed(source, client_count=2, hold_back=True)
        alter_share(network, suspected)
        before, file = suspected.daemon.session_number, network.file("file.bin")
        held = holdings(file)
        others_session = other.daemon.session_number
        network.server.control.execute(VerifyFile(before, file.file_id))
        await until(
            "it is a member again",
            lambda: network.connected() == ["a", "b"] and suspected.daemon.session_number != before,
        )
        assert holdings(network.file("file.bin")) == {"a": held["a"] - 1, "b": held["b"]}
        assert other.daemon.session_number == others_session


@on_loop
async def test_needless_reverification_costs_one_session(source: Path) -> None:
    async with in_process(FAST) as network:
        suspected, _ = await network.join("a", "b")
        await network.seed(source, client_count=2, hold_back=True)
        before, file = suspected.daemon.session_number, network.file("file.bin")
        for file_id in (file.file_id, bytes(32)):
            network.server.control.execute(VerifyFile(before, file_id))
        await until(
            "it is a member again",
            lambda: network.connected() == ["a", "b"] and suspected.daemon.session_number != before,
        )
        assert holdings(network.file("file.bin")) == holdings(file)
        delivered = file.traffic.delivered_bytes
        network.server.release("file.bin")
        await network.copies(source, "a", "b")
        await until("the server knows", lambda: network.file("file.bin").state == pb.FILE_STATE_COMPLETE)
        # What each had was not fetched again: the exchange brought each of them the other's share.
        assert network.file("file.bin").traffic.delivered_bytes == delivered + SIZE_BYTES


@on_loop
async def test_client_that_cannot_verify_a_file_stays(
    source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_file_id: bytes) -> None:
        raise StorageError("cannot read it: check the disk")

    async with in_process(FAST) as network:
        (client,) = await network.join("a")
        await network.seed(source)
        await network.copies(source, "a")
        monkeypatch.setattr(client.store, "verify", fail)
        network.server.control.execute(VerifyFile(client.daemon.session_number, network.file("file.bin").file_id))
        session = client.daemon.session_number
        await until("it has joined again", lambda: client.daemon.session_number not in (0, session))
        assert "check the disk" in caplog.text
        assert not client.running.done()


def remove_copy(network: InProcess, client: Client, copy: Path) -> None:
    """Remove a client's finished copy, as its user might."""
    del client.store.finished["file.bin"]
    client.touched = ExternalChanges({network.file("file.bin").file_id: copy}, [])


def refusals(network: InProcess) -> dict[str, str]:
    """Return why clients declined the file, by client."""
    return {client.name: client.refusal for client in network.file("file.bin").clients if client.refusal}


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make clients check their files all the time."""
    retry_after(monkeypatch, 0.01)
    watch_every(monkeypatch, 0.01)


@pytest.mark.usefixtures("often")
@on_loop
async def test_removed_copy_is_declined_and_not_fetched_again(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "there.bin"
    async with in_process(FAST) as network:
        client, other = await network.join("a", "b")
        await network.seed(source)
        await network.copies(source, "a", "b")
        await until("all is done", lambda: network.file("file.bin").state == pb.FILE_STATE_COMPLETE)
        remove_copy(network, client, copy)
        await until("one holds it", lambda: network.file("file.bin").min_holder_count == 1)
        client.touched = ExternalChanges({}, [])
        assert refusals(network)["a"].startswith(f"{copy} was removed")
        told = next(each for each in network.file("file.bin").clients if each.name == "a")
        assert (told.complete, told.held_chunk_count) == (False, 0)
        session = client.daemon.session_number
        network.server.control.execute(VerifyFile(session, bytes(32)))
        await until("it is a member again", lambda: client.daemon.session_number not in (0, session))
        await until("it reports the file again", lambda: "a" in refusals(network))
        assert not client.store.known()
        await other.end()
        await until("it has no holder", lambda: network.file("file.bin").state == pb.FILE_STATE_STALLED)


@pytest.mark.usefixtures("often")
@on_loop
async def test_removed_copy_is_taken_again_when_it_is_back(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "there.bin"
    async with in_process(FAST) as network:
        (client,) = await network.join("a")
        await network.seed(source)
        await network.copies(source, "a")
        saved = client.store.finished["file.bin"]
        remove_copy(network, client, copy)
        await until("it reports the file", lambda: bool(refusals(network)))
        client.touched = ExternalChanges({}, [])
        client.store.finished["file.bin"] = saved
        copy.touch()
        await until("it has it", lambda: network.file("file.bin").state == pb.FILE_STATE_COMPLETE)
        assert not refusals(network)


@pytest.mark.usefixtures("often")
@on_loop
async def test_removed_unverified_copy_is_not_fetched_again(source: Path, tmp_path: Path) -> None:
    async with in_process(FAST) as network:
        (client,) = await network.join("a")
        await network.seed(source)
        await network.copies(source, "a")
        session = client.daemon.session_number
        remove_copy(network, client, tmp_path / "there.bin")
        network.server.control.execute(VerifyFile(session, network.file("file.bin").file_id))
        await until("it is a member again", lambda: client.daemon.session_number not in (0, session))
        await until("it reports the file", lambda: bool(refusals(network)))
        assert not client.store.known()


@pytest.mark.usefixtures("often")
@on_loop
async def test_copy_missing_once_does_not_count_as_removed(source: Path, tmp_path: Path) -> None:
    async with in_process(FAST) as network:
        (client,) = await network.join("a")
        await network.seed(source)
        await network.copies(source, "a")
        removed = {network.file("file.bin").file_id: tmp_path / "there.bin"}
        looks = 0

        def look() -> ExternalChanges:
            nonlocal looks
            looks += 1
            return ExternalChanges(removed if looks % 2 else {}, [])

        client.look = look
        await until("it has checked often", lambda: looks > 6)
        assert client.store.known()
        assert not refusals(network)


@pytest.mark.usefixtures("often")
@on_loop
async def test_share_of_a_removed_copy_is_reassigned(source: Path, tmp_path: Path) -> None:
    """Otherwise the file would count as seeded without a holder of that share, and its source would leave."""
    data = await asyncio.to_thread(source.read_bytes)
    async with in_process(FAST) as network:
        client, _ = await network.join("a", "b")
        client.store.finished["file.bin"] = data
        seeding = asyncio.ensure_future(network.seed(source, client_count=3))
        await until("it is announced", lambda: network.server.messages.files(with_clients=False))
        file_id = network.file("file.bin").file_id
        idle = network.server.join("c", b"c", source=False, delivery_port=0, held={}, peer="")
        hello = encode_datagram(Hello(idle, 1, 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:  # who says nothing is given no share
            datagrams.sendto(hello, ("127.0.0.1", network.server.data_port))
        await until("one has it", lambda: network.file("file.bin").complete_client_count)
        client.touched = ExternalChanges({file_id: tmp_path / "there.bin"}, [])
        del client.store.finished["file.bin"]
        await until("it reports the file", lambda: "a" in refusals(network))
        network.server.leave(idle)
        await seeding
        await network.copies(source, "b")
        await until("the server hears of it", lambda: network.file("file.bin").state == pb.FILE_STATE_COMPLETE)


@pytest.mark.usefixtures("often")
@on_loop
async def test_file_removed_everywhere_is_taken_when_reseeded(source: Path, tmp_path: Path) -> None:
    async with in_process(FAST) as network:
        (client,) = await network.join("a")
        await network.seed(source)
        await network.copies(source, "a")
        remove_copy(network, client, tmp_path / "there.bin")
        await until("it reports the file", lambda: bool(refusals(network)))
        client.touched = ExternalChanges({}, [])
        network.server.remove("file.bin", force=True)
        await until("it is gone", lambda: not network.server.status("", with_file_clients=False).files)
        await network.seed(source)
        await network.copies(source, "a")


@on_loop
async def test_touched_copy_is_verified(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch_every(monkeypatch, 0.01)
    async with in_process(FAST) as network:
        (client,) = await network.join("a")
        await network.seed(source)
        await network.copies(source, "a")
        verified: list[bytes] = []
        file_id, session = network.file("file.bin").file_id, client.daemon.session_number

        def verify(file_id: bytes) -> None:
            verified.append(file_id)
            client.touched = ExternalChanges({}, [])

        monkeypatch.setattr(client.store, "verify", verify)
        client.touched = ExternalChanges({}, [file_id])
        await until("it has joined again", lambda: client.daemon.session_number not in (0, session))
        assert verified == [file_id]
        await until("it has it", lambda: network.file("file.bin").state == pb.FILE_STATE_COMPLETE)
