"""Whole networks in one event loop: real daemons, without their processes and disks."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from pspd.core.effects.client import ReportMilestone
from pspd.core.effects.server import VerifyFile
from pspd.core.effects.shared import InputDropped, Milestone
from pspd.core.model.parameters import CLASSIC, FAST, PROFILES, Parameters
from pspd.core.model.terms import Terms
from pspd.core.wire.header import DropReason
from pspd.daemon.member.route import Route
from pspd.daemon.source import seed
from pspd.errors import BadArgument, LimitReached, NameTaken, NotFound, SessionUnknown, WrongState
from pspd.rpc.translate import Declined
from pspd.v1 import network_pb2
from tests.daemon.members import Client, in_process, retry_after
from tests.support.files import random_file
from tests.support.loops import on_loop, until

EACH_PROFILE = pytest.mark.parametrize("parameters", PROFILES.values(), ids=lambda profile: profile.profile)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return random_file(tmp_path / "file.bin", 40_001)


@EACH_PROFILE
@on_loop
async def test_every_client_gets_the_file(source: Path, parameters: Parameters) -> None:
    async with in_process(parameters) as network:
        await network.join("a", "b", "c")
        told = await network.seed(source, client_count=3)
        await network.copies(source, "a", "b", "c")
        await until("the server knows", lambda: network.file("file.bin").state == network_pb2.FILE_STATE_COMPLETE)
        file = network.file("file.bin")
        assert (file.client_count, file.complete_client_count, file.min_holder_count) == (3, 3, 3)
        assert file.cached_bytes_when_seeded == 0
        assert {step.phase for step in told} <= {"hashing", "waiting", "seeding"}
        assert (told[0].phase, told[0].total) == ("hashing", 40_001)


@pytest.mark.parametrize("size_bytes", [0, 1, 1024, 3000])
@EACH_PROFILE
@on_loop
async def test_smallest_files_arrive(tmp_path: Path, parameters: Parameters, size_bytes: int) -> None:
    source = random_file(tmp_path / "small", size_bytes)
    async with in_process(parameters) as network:
        await network.join("a", "b", "c", "d")
        await network.seed(source, client_count=4)
        await network.copies(source, "a", "b", "c", "d")


@on_loop
async def test_impossible_counts_are_refused_at_once(source: Path) -> None:
    async with in_process(FAST) as network:
        await network.join("a")
        with pytest.raises(LimitReached, match="20001 clients are more than a network can have"):
            await network.seed(source, client_count=20_001)
        with pytest.raises(BadArgument, match="3 replicas need as many clients"):
            await seed(network.address, source, client_count=2, terms=Terms(3), on_progress=lambda _: None)
        assert network.server.messages.files(with_clients=False) == []


@on_loop
async def test_report_of_unknown_file_does_not_hide_others(source: Path) -> None:
    async with in_process(FAST) as network:
        (client,) = await network.join("a")
        await network.seed(source, hold_back=True)
        file_id = network.file("file.bin").file_id
        complete = ReportMilestone(file_id, Milestone.COMPLETE, 0)
        await client.daemon.client.report(client.daemon.session_number, [Declined(bytes(32), "removed"), complete])
        assert network.file("file.bin").complete_client_count == 1
        assert network.server.status("", with_file_clients=False).server.dropped_counts["unknown_file"] == 1


@EACH_PROFILE
@on_loop
async def test_late_joiner_gets_the_file_without_source(source: Path, parameters: Parameters) -> None:
    async with in_process(parameters) as network:
        await network.join("a")
        await network.seed(source)
        await network.copies(source, "a")
        await network.join("late")
        await network.copies(source, "late")


@EACH_PROFILE
@on_loop
async def test_declined_share_is_reassigned(source: Path, parameters: Parameters) -> None:
    async with in_process(parameters) as network:
        _, blocked, _ = await network.join("a", "b", "c")
        blocked.store.finished["file.bin"] = b"something else"
        await network.seed(source, client_count=3)
        await network.copies(source, "a", "c")
        assert blocked.store.finished["file.bin"] == b"something else"
        await until("the rest is complete", lambda: network.file("file.bin").state == network_pb2.FILE_STATE_COMPLETE)
        file = network.file("file.bin")
        assert (file.client_count, file.complete_client_count) == (2, 2)
        shares = {client.name: client.share_chunk_count for client in file.clients}
        assert shares["b"] == 0
        assert shares["a"] + shares["c"] == file.chunk_count
        refusals = {client.name: client.refusal for client in file.clients}
        assert "file.bin" in refusals.pop("b")
        assert set(refusals.values()) == {""}


@on_loop
async def test_declined_files_are_retried_with_growing_delay(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retry_after(monkeypatch, 0.02)
    second = random_file(tmp_path / "second.bin", 5000)
    async with in_process(FAST) as network:
        _, blocked = await network.join("a", "b")
        blocked.store.finished["file.bin"] = blocked.store.finished["second.bin"] = b"something else"
        await network.seed(source)
        refused = blocked.daemon.reconciler._declined
        await until("it was tried again", lambda: next(iter(refused.values())).delay > 0.1)
        await network.seed(second)
        first_delay, second_delay = (each.delay for each in refused.values())
        assert first_delay > second_delay, "a later file begins with a short delay"
        del blocked.store.finished["second.bin"]
        await network.copies(second, "b")
        assert [each.manifest.name for each in refused.values()] == ["file.bin"]


@EACH_PROFILE
@on_loop
async def test_source_ends_when_all_clients_decline(source: Path, parameters: Parameters) -> None:
    async with in_process(parameters) as network:
        for client in await network.join("a", "b"):
            client.store.finished["file.bin"] = b"something else"
        with pytest.raises(WrongState) as refused:
            await network.seed(source, client_count=2)
        assert re.match("no client takes 'file.bin'; [ab] says: another file named 'file.bin'", str(refused.value))
        await until("both are still there", lambda: network.connected() == ["a", "b"])


@EACH_PROFILE
@on_loop
async def test_client_rejoins_after_its_session_ended(source: Path, parameters: Parameters) -> None:
    async with in_process(parameters) as network:
        first, _ = await network.join("a", "b")
        before = first.daemon.session_number
        network.server.leave(before)
        assert "a" not in network.connected()
        await until("it is a member again", lambda: first.daemon.session_number != before)
        await until("both are heard", lambda: network.connected() == ["a", "b"])
        await network.seed(source, client_count=2)
        await network.copies(source, "a", "b")


@EACH_PROFILE
@on_loop
async def test_held_chunks_are_not_fetched_again_after_rejoin(source: Path, parameters: Parameters) -> None:
    async with in_process(parameters) as network:
        first, _ = await network.join("a", "b")
        await network.seed(source)
        await network.copies(source, "a", "b")
        await until("the server knows", lambda: network.file("file.bin").complete_client_count == 2)
        delivered = network.file("file.bin").traffic.delivered_bytes
        before = first.daemon.session_number
        network.server.leave(before)
        await until("it is a member again", lambda: first.daemon.session_number != before)
        await until("it is complete again", lambda: network.file("file.bin").complete_client_count == 2)
        assert network.file("file.bin").traffic.delivered_bytes == delivered


@on_loop
async def test_source_waits_for_its_clients(source: Path) -> None:
    async with in_process(CLASSIC) as network:
        seeding = asyncio.ensure_future(network.seed(source, client_count=2))
        await network.join("a")
        await until("it is announced", lambda: network.server.messages.files(with_clients=False))
        assert not seeding.done()
        await network.join("b")
        await seeding
        await network.copies(source, "a", "b")


@on_loop
async def test_held_exchange_waits_for_release(source: Path) -> None:
    async with in_process(FAST) as network:
        first, second = await network.join("a", "b")
        await network.seed(source, hold_back=True)
        file = network.file("file.bin")
        assert (file.state, file.held_back) == (network_pb2.FILE_STATE_SEEDED, True)
        assert not first.store.finished
        assert not second.store.finished
        assert sum(client.held_chunk_count for client in file.clients) == file.chunk_count
        network.server.release(file.file_id.hex()[:8])
        await network.copies(source, "a", "b")
        with pytest.raises(WrongState, match="not held back"):
            network.server.release("file.bin")


@on_loop
async def test_second_file_of_same_name_is_refused(source: Path, tmp_path: Path) -> None:
    async with in_process(FAST) as network:
        await network.join("a")
        await network.seed(source)
        with pytest.raises(NameTaken, match=r"file\.bin"):
            await network.seed(random_file(tmp_path / "other" / "file.bin", 5))
        await network.seed(source)  # the same bytes: there is nothing to do


@on_loop
async def test_stopped_clients_end_cleanly(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with in_process(FAST) as network:
        first, second = await network.join("a", "b")
        assert network.server.stop_clients(["a", "a"], all_clients=False) == ["a"]
        await until("it has ended", first.running.done)
        await first.running
        assert "a: stopping: a `pspctl stop` command asked it to stop" in caplog.messages
        await until("the server knows", lambda: network.connected() == ["b"])
        with pytest.raises(NotFound, match="'a'"):
            network.server.stop_clients(["b", "a"], all_clients=False)
        assert network.server.stop_clients([], all_clients=True) == ["b"]
        await until("the other has ended", second.running.done)


@on_loop
async def test_restarted_client_serves_the_others(source: Path) -> None:
    async with in_process(FAST) as network:
        first, _, _ = await network.join("a", "b", "c")
        await network.seed(source, hold_back=True)
        network.server.stop_clients(["a"], all_clients=False, force=True)
        await first.running
        await network.join("a")
        with pytest.raises(WrongState) as refused:
            network.server.stop_clients(["b"], all_clients=False)
        of_b = {client.name: client.held_chunk_count for client in network.file(source.name).clients}["b"]
        assert f"nobody else holds {of_b} chunks" in str(refused.value)


@on_loop
async def test_leaving_client_ends(source: Path) -> None:
    async with in_process(FAST) as network:
        (client,) = await network.join("a")
        await network.seed(source)
        await network.copies(source, "a")
        await client.daemon.leave()
        await until("it has ended", client.running.done)
        await client.running
        assert network.connected() == []


@on_loop
async def test_taken_or_bad_name_is_refused() -> None:
    async with in_process(FAST) as network:
        await network.join("a")
        taken = network.clients["a"].daemon.client
        with pytest.raises(NameTaken, match="a"):
            await taken.join("a", b"somebody else ..", source=False, delivery_port=0, held={})
        with pytest.raises(BadArgument, match="a/b"):
            await taken.join("a/b", bytes(16), source=False, delivery_port=0, held={})


@on_loop
async def test_unknown_session_is_refused() -> None:
    async with in_process(FAST) as network:
        (client,) = await network.join("a")
        with pytest.raises(SessionUnknown):
            await client.daemon.client.renew(12345)
        with pytest.raises(SessionUnknown):
            await anext(client.daemon.client.attend(12345))


@on_loop
async def test_member_that_reads_no_events_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pspd.daemon.server.control.EVENTS_MAX", 3)
    async with in_process(FAST) as network:
        (reader,) = await network.join("reader")
        session = network.server.join("a", bytes(16), source=False, delivery_port=0, held={}, peer="")
        for _ in range(2):
            network.server.stop_clients(["a"], all_clients=False, force=True)
        network.server.renew(session)
        network.server.stop_clients(["a"], all_clients=False, force=True)

        def has_ended() -> bool:
            try:
                network.server.renew(session)
            except SessionUnknown:
                return True
            return False

        await until("its session has ended", has_ended)
        network.server.renew(reader.daemon.session_number)


@on_loop
async def test_session_is_attended_once() -> None:
    async with in_process(FAST) as network:
        (client,) = await network.join("a")
        session = client.daemon.session_number
        with pytest.raises(WrongState, match="the session of 'a' has a stream of events already"):
            await anext(client.daemon.client.attend(session))
        network.server.renew(session)


@pytest.mark.parametrize("wanted", ["no.such", "", "ab", "ffff"])
@on_loop
async def test_unknown_file_is_not_found(wanted: str) -> None:
    async with in_process(FAST) as network:
        with pytest.raises(NotFound, match="pspctl files"):
            network.server.release(wanted)


@on_loop
async def test_cache_is_resized_cleared_and_shown() -> None:
    async with in_process(FAST) as network:
        network.server.resize_cache(7)
        assert network.server.messages.cache().capacity_bytes == 7 * 1024
        assert network.server.clear_cache() == 0


@on_loop
async def test_stop_sets_the_event_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with in_process(FAST) as network:
        network.server.stop()
        assert "stopping: a `pspctl stop` command asked the server to stop" in caplog.messages
        assert network.server.stopping.is_set()


@on_loop
async def test_sender_of_wrong_bytes_is_logged_once(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with in_process(FAST) as network:
        (client,) = await network.join("a")
        await network.seed(source)
        file = network.file("file.bin")
        network.server.control.execute(VerifyFile(client.daemon.session_number, file.file_id))
        assert "file.bin: a sent wrong bytes: it is not asked again" in caplog.text
        for _ in range(3):
            network.server.control.execute(InputDropped(DropReason.CORRUPT, "mallory"))
        assert caplog.text.count("mallory sent wrong bytes") == 1


@on_loop
async def test_reason_to_decline_is_one_short_line(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with in_process(FAST) as network:
        (client,) = await network.join("a")
        await network.seed(source)
        file_id = network.file("file.bin").file_id
        network.server.report(client.daemon.session_number, [Declined(file_id, "no\n\x1b[31mroom" + 10_000 * "!")])
        (told,) = network.file("file.bin").clients
        assert told.refusal.startswith("no  [31mroom!")
        assert len(told.refusal) < 1000
        (line,) = [record.getMessage() for record in caplog.records if "declined it" in record.getMessage()]
        assert line == f"file.bin: a declined it: {told.refusal}"


@on_loop
async def test_second_machine_of_one_identity_waits(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with in_process(FAST) as network:
        (first,) = await network.join("a")
        route = Route(network.address)
        second = Client(route, "a")
        try:
            await second.ready()
            await until("the first is refused", lambda: "waiting for the other client to leave" in caplog.text)
            joins = [record for record in caplog.records if record.getMessage() == "a joined"]
            assert len(joins) == 2
            for told in ("a: refused a second client", "a: waiting for the other client to leave"):
                (record,) = [record for record in caplog.records if record.getMessage().startswith(told)]
                assert record.levelname == "WARNING"
                assert len(re.findall(r"127\.0\.0\.1:\d+", record.getMessage())) == 2
            assert network.server._machine.members["a"].session == second.daemon.session_number
        finally:
            await second.end()
            await route.close()
        await until(
            "the first is back", lambda: first.daemon.session_number in network.server._machine.sessions._by_session
        )
