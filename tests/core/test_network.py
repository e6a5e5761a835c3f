"""Whole networks: every client gets the file despite losses, faults and clients that leave."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from itertools import combinations
from pathlib import Path

import pytest

from pspd.core.effects.client import Contribute, ReportMilestone
from pspd.core.effects.server import Deliver, FileCompleted, FileDivided, FileResumed, FileSeeded, FileStalled
from pspd.core.effects.shared import SendDatagram
from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import CHUNK_BYTES, Manifest
from pspd.core.model.parameters import CLASSIC, FAST, MILLISECOND_NS, SECOND_NS, Order, Parameters
from pspd.core.model.tuning import SERVER_TUNING
from pspd.core.server.shared_file import SharedFile
from pspd.core.wire.datagrams import Broadcast, decode_datagram
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason
from pspd.sim.hosts import Client, Connection
from tests.core.network import CoreNetwork, Effect
from tests.core.samples import sample_bytes

KIB = 1024
LIMIT_NS = 600 * SECOND_NS
PROFILES = pytest.mark.parametrize("parameters", [CLASSIC, FAST], ids=["classic", "fast"])


def network_of(parameters: Parameters, cache_chunks: int | None, client_count: int, **faults: float) -> CoreNetwork:
    network = CoreNetwork(parameters, cache_chunks, **faults)  # type: ignore[arg-type]
    for index in range(client_count):
        network.join(f"c{index}")
    return network


def file_of(network: CoreNetwork, manifest: Manifest) -> SharedFile:
    return network.server.catalogue.files[manifest.file_id]


def completes(network: CoreNetwork, manifest: Manifest, limit_ns: int = LIMIT_NS) -> bool:
    return network.run(lambda: file_of(network, manifest).completed_at is not None, limit_ns)


def clients(network: CoreNetwork) -> list[Client]:
    return [network.clients[name] for name in network.server.sessions.reachable_clients()]


def assert_everyone_has(network: CoreNetwork, name: str, data: bytes) -> None:
    assert clients(network)
    for peer in clients(network):
        assert peer.store.finished[name] == data


def exchanging(network: CoreNetwork, manifest: Manifest) -> bool:
    return network.run(lambda: file_of(network, manifest).phase is Phase.EXCHANGING, LIMIT_NS)


class TestSeeding:
    @PROFILES
    def test_shares_partition_the_file_and_the_server_forgets_it(self, parameters: Parameters) -> None:
        data = sample_bytes(30 * KIB + 7)
        network = network_of(parameters, 16, 4)
        manifest = network.seed("f", data, hold=True)
        file = file_of(network, manifest)
        assert network.run(lambda: file.phase is Phase.SEEDED, LIMIT_NS)

        held = [peer.machine.downloads[manifest.file_id].verified for peer in clients(network)]
        assert [chunks.chunk_count for chunks in held] == [7, 8, 8, 8]
        assert all(not left.intersection(right) for left, right in combinations(held, 2))
        assert network.server.cache.chunks_of(manifest.file_id) == 0
        assert not any(any(piece) for _, piece in network.server.cache._arena._segments)
        assert "source-0 of f" not in network.server.members
        assert [event for event in network.events if isinstance(event, FileSeeded)] == [
            FileSeeded(manifest.file_id, "f", 4, 31, 0)
        ]
        (divided,) = [event for event in network.events if isinstance(event, FileDivided)]
        assert [name for name, _ in divided.shares] == network.server.sessions.reachable_clients()

        network.pass_time(20 * SECOND_NS)
        assert file.phase is Phase.SEEDED
        network.server.catalogue.release(file, network.now)
        assert completes(network, manifest)
        assert_everyone_has(network, "f", data)
        assert network.used_chunks_max <= 16

    @pytest.mark.parametrize("size_bytes", [0, 1, 1023, 1024, 1025, 5 * KIB])
    @PROFILES
    def test_any_size_works_with_more_clients_than_chunks(self, parameters: Parameters, size_bytes: int) -> None:
        data = sample_bytes(size_bytes)
        network = network_of(parameters, None, 4)
        assert completes(network, network.seed("f", data))
        assert_everyone_has(network, "f", data)

    def test_share_count_may_differ_from_the_client_count(self) -> None:
        data = sample_bytes(20 * KIB)
        for share_count in (1, 9):
            network = network_of(FAST, 16, 3)
            assert completes(network, network.seed("f", data, share_count=share_count))
            assert_everyone_has(network, "f", data)

    @PROFILES
    def test_share_of_a_lost_client_is_reassigned(self, parameters: Parameters) -> None:
        data = sample_bytes(60 * KIB)
        network = network_of(parameters, 8, 3)
        manifest = network.seed("f", data)
        file = file_of(network, manifest)
        store = network.clients["c1"].store
        assert network.run(lambda: any(held.verified for held in store.known().values()), LIMIT_NS)
        assert file.phase is Phase.SEEDING
        network.crash("c1")
        assert completes(network, manifest)
        assert_everyone_has(network, "f", data)
        assert "c1" not in {share.owner for share in file.shares.all}

    def test_shares_wait_for_a_client_when_all_are_lost(self) -> None:
        data = sample_bytes(60 * KIB)
        network = network_of(FAST, 8, 2)
        manifest = network.seed("f", data)
        network.crash("c0")
        network.crash("c1")
        network.pass_time(SECOND_NS)
        network.join("new")
        assert completes(network, manifest)
        assert_everyone_has(network, "f", data)


class TestTraffic:
    @pytest.mark.parametrize("all_holders_answer", [False, True])
    def test_equal_clients_need_each_chunk_once(self, all_holders_answer: bool) -> None:
        data = sample_bytes(600 * KIB)
        network = network_of(replace(FAST, all_holders_answer=all_holders_answer), 64, 12, jitter_ns=0)
        manifest = network.seed("f", data)
        assert completes(network, manifest)
        assert_everyone_has(network, "f", data)
        traffic = file_of(network, manifest).traffic
        assert traffic.seeding_contributed_bytes == traffic.seeding_delivered_bytes == len(data)
        assert traffic.contributed_bytes - traffic.seeding_contributed_bytes == len(data)
        assert traffic.delivered_bytes - traffic.seeding_delivered_bytes == 11 * len(data)
        assert traffic.retransmit_count == traffic.corrupt_bytes == 0
        assert all_holders_answer or traffic.duplicate_bytes == 0
        assert network.server.cache.high_water_chunks <= 64
        assert network.used_chunks_max <= 64

    def test_every_request_order_completes(self) -> None:
        data = sample_bytes(40 * KIB)
        for order in Order:
            network = network_of(replace(CLASSIC, order=order), None, 4)
            assert completes(network, network.seed("f", data))
            assert_everyone_has(network, "f", data)


class TestClassic:
    def test_each_miss_is_broadcast_once_and_all_holders_answer(self) -> None:
        data = sample_bytes(24 * KIB)
        network = network_of(CLASSIC, None, 4)
        manifest = network.seed("f", data)
        assert exchanging(network, manifest)
        misses_before = network.server.cache.miss_count
        heard: dict[tuple[str, int, int], list[int]] = {}
        answers: list[Frame] = []

        def listen(name: str, effect: Effect) -> None:
            match effect:
                case SendDatagram(address, data) if not name:
                    datagram = decode_datagram(data)
                    if isinstance(datagram, Broadcast):
                        (asked,) = datagram.asked
                        assert (asked.responder, asked.stop - asked.start) == (0, 1)
                        heard.setdefault((address[0], datagram.number, asked.start), []).append(asked.stop)
                case Contribute(frame):
                    answers.append(frame)

        network.on_effect = listen
        assert completes(network, manifest)
        assert_everyone_has(network, "f", data)
        misses = network.server.cache.miss_count - misses_before
        assert all(len(times) == 1 for times in heard.values())
        assert len(heard) == 4 * misses
        assert {name for name, _, _ in heard} == {"c0", "c1", "c2", "c3"}

        network.pass_time(SECOND_NS)
        traffic = file_of(network, manifest).traffic
        contributed = traffic.contributed_bytes - traffic.seeding_contributed_bytes
        assert contributed == misses * CHUNK_BYTES
        assert traffic.duplicate_bytes == (len(answers) - misses) * CHUNK_BYTES
        assert network.server.drop_counts[DropReason.DUPLICATE] == len(answers) - misses > 0
        assert network.server.cache.high_water_chunks <= 4


class TestMembership:
    @PROFILES
    def test_late_joiner_gets_the_file(self, parameters: Parameters) -> None:
        data = sample_bytes(40 * KIB)
        network = network_of(parameters, 8, 3)
        manifest = network.seed("f", data)
        assert exchanging(network, manifest)
        network.join("late")
        assert completes(network, manifest)
        network.join("later still")
        assert not file_of(network, manifest).is_complete
        assert network.run(lambda: file_of(network, manifest).is_complete, LIMIT_NS)
        assert_everyone_has(network, "f", data)
        completed = [event for event in network.events if isinstance(event, FileCompleted)]
        assert [event.client_count for event in completed] == [4, 5]

    @PROFILES
    def test_lost_holder_stalls_the_file_until_it_returns(self, parameters: Parameters) -> None:
        data = sample_bytes(60 * KIB)
        network = network_of(parameters, 8, 3)
        manifest = network.seed("f", data)
        file = file_of(network, manifest)
        assert exchanging(network, manifest)
        network.crash("c1")
        assert file.is_stalled
        (stalled,) = [event for event in network.events if isinstance(event, FileStalled)]
        assert {name for _, name in stalled.missing} == {"c1"}
        assert all(20 <= start < stop <= 40 for (start, stop), _ in stalled.missing)
        assert not completes(network, manifest, 30 * SECOND_NS)
        assert [len(peer.store.finished) for peer in clients(network)] == [0, 0]
        network.join("c1")
        assert [type(event) for event in network.events].count(FileResumed) == 1
        assert completes(network, manifest)
        assert_everyone_has(network, "f", data)

    def test_silent_client_delays_others_for_its_lease_at_most(self) -> None:
        data = sample_bytes(200 * KIB)
        network = network_of(FAST, 32, 4)
        network.join("idle")
        manifest = network.seed("f", data, share_count=4)
        assert exchanging(network, manifest)
        network.crash("idle", silently=True)
        assert completes(network, manifest, SERVER_TUNING.lease_ns + SECOND_NS)
        assert_everyone_has(network, "f", data)

    def test_returning_client_resumes_its_download(self) -> None:
        data = sample_bytes(100 * KIB)
        network = network_of(FAST, 16, 3)
        manifest = network.seed("f", data)
        peer = network.clients["c2"]
        assert network.run(
            lambda: (
                file_of(network, manifest).phase is Phase.EXCHANGING
                and peer.store.missing(manifest.file_id).chunk_count < 40
            ),
            LIMIT_NS,
        )
        missing = peer.store.missing(manifest.file_id).chunk_count
        network.crash("c2")
        assert 0 < missing < 40
        delivered = []
        network.join("c2")
        network.on_effect = lambda name, effect: (
            delivered.append(effect.frame.stop - effect.frame.start)
            if isinstance(effect, Deliver) and effect.session == peer.session
            else None
        )
        assert completes(network, manifest)
        assert_everyone_has(network, "f", data)
        assert sum(delivered) <= missing

    def test_links_that_break_repeatedly_only_cost_time(self) -> None:
        data = sample_bytes(300 * KIB)
        network = network_of(FAST, 16, 3)
        manifest = network.seed("f", data)
        for index in range(12):
            network.pass_time(4 * MILLISECOND_NS)
            peer = network.clients[f"c{index % 3}"]
            network.network.control.break_link(peer)
            network.pass_time(MILLISECOND_NS)
            peer.link = Connection()  # another link replaces the one that opens
            network.network.control.dial(peer)
        assert completes(network, manifest)
        assert_everyone_has(network, "f", data)

    def test_client_that_joins_again_continues(self) -> None:
        data = sample_bytes(100 * KIB)
        network = network_of(FAST, 16, 3)
        manifest = network.seed("f", data)
        assert exchanging(network, manifest)
        for _ in range(3):
            network.pass_time(2 * MILLISECOND_NS)
            network.join("c1")
        assert completes(network, manifest)
        assert_everyone_has(network, "f", data)


class TestSeveralFiles:
    @PROFILES
    def test_two_files_at_once_share_the_cache(self, parameters: Parameters) -> None:
        one, two = sample_bytes(50 * KIB, 1), sample_bytes(33 * KIB + 1, 2)
        network = network_of(parameters, 8, 3)
        first = network.seed("one", one)
        second = network.seed("two", two)
        assert completes(network, first)
        assert completes(network, second)
        assert_everyone_has(network, "one", one)
        assert_everyone_has(network, "two", two)
        assert network.used_chunks_max <= 8

    def test_shares_may_cut_blocks(self) -> None:
        data = sample_bytes(8 * KIB * KIB + 3 * KIB + 5)
        network = network_of(replace(FAST, frame_chunks=511), 2048, 2)
        manifest = network.seed("f", data)
        assert manifest.block_chunks > 1
        assert manifest.cut_digests
        assert completes(network, manifest)
        assert_everyone_has(network, "f", data)

    def test_client_that_has_the_file_delays_nobody(self) -> None:
        data = sample_bytes(30 * KIB)
        network = network_of(FAST, 16, 3)
        network.clients["c0"].store.finished["f"] = data
        manifest = network.seed("f", data)
        assert completes(network, manifest, 5 * SECOND_NS)
        assert_everyone_has(network, "f", data)


def flip(frame: Frame, payload: bytes) -> bytes:
    return bytes([payload[0] ^ 1]) + payload[1:]


def break_off(frame: Frame, payload: bytes) -> None:
    return None


class TestFaults:
    @PROFILES
    def test_corrupt_holder_is_counted_and_others_complete(self, parameters: Parameters) -> None:
        data = sample_bytes(40 * KIB)
        network = network_of(parameters, 8, 4)
        manifest = network.seed("f", data)
        assert completes(network, manifest)
        network.clients["c0"].tamper = flip
        network.server.clear_cache(network.now)
        network.join("late")
        assert network.run(lambda: "f" in network.clients["late"].store.finished, LIMIT_NS)
        assert_everyone_has(network, "f", data)
        corrupt = network.server.drop_counts[DropReason.CORRUPT]
        assert corrupt > 0
        assert file_of(network, manifest).traffic.corrupt_bytes >= corrupt * CHUNK_BYTES

    @PROFILES
    def test_aborted_contribution_is_fetched_again(self, parameters: Parameters) -> None:
        data = sample_bytes(40 * KIB)
        network = network_of(parameters, 8, 3)
        source_breaks = iter([True, False] * 1000)
        manifest = network.seed("f", data)
        for peer in network.clients.values():
            peer.tamper = lambda frame, payload: None if next(source_breaks) else payload
        assert completes(network, manifest)
        assert_everyone_has(network, "f", data)
        assert network.server.drop_counts[DropReason.ABORTED] > 0

    @PROFILES
    def test_failed_deliveries_are_repeated(self, parameters: Parameters) -> None:
        data = sample_bytes(40 * KIB)
        network = network_of(parameters, 8, 3)
        manifest = network.seed("f", data)
        network.clients["c1"].reads_deliveries = False
        network.pass_time(2 * SECOND_NS)
        assert file_of(network, manifest).phase is Phase.SEEDING
        network.clients["c1"].reads_deliveries = True
        assert completes(network, manifest)
        assert_everyone_has(network, "f", data)

    @pytest.mark.parametrize("forge", [flip, break_off])
    def test_bad_holder_delays_only_its_own_chunks(self, forge: Callable[[Frame, bytes], bytes | None]) -> None:
        data = sample_bytes(40 * KIB)
        network = network_of(FAST, 8, 4)
        manifest = network.seed("f", data)
        assert exchanging(network, manifest)
        network.clients["c0"].tamper = forge
        assert not completes(network, manifest, 2 * SECOND_NS)
        for name in ("c1", "c2", "c3"):
            missing = network.clients[name].store.missing(manifest.file_id)
            assert missing.chunk_count <= 10
            assert not missing.within(10, 40)
        network.clients["c0"].tamper = None
        network.crash("c0")
        network.join("c0")
        assert completes(network, manifest)
        assert_everyone_has(network, "f", data)

    @PROFILES
    def test_cache_may_be_resized_and_cleared_at_any_time(self, parameters: Parameters) -> None:
        data = sample_bytes(60 * KIB)
        network = network_of(parameters, 8, 3)
        manifest = network.seed("f", data)
        for capacity in (1, 20, 2, 3, 50, 1, 4):
            network.pass_time(3 * MILLISECOND_NS)
            network.server.clear_cache(network.now)
            network.server.resize_cache(capacity, network.now)
        network.used_chunks_max = 0
        network.pass_time(SECOND_NS // 10)
        assert completes(network, manifest)
        assert_everyone_has(network, "f", data)
        assert network.server.cache.high_water_chunks <= max(4, network.used_chunks_max)


class TestLoss:
    @pytest.mark.parametrize("seed", [1, 2, 3])
    @pytest.mark.parametrize("loss", [0.0, 0.1, 0.3, 0.5])
    @PROFILES
    def test_all_complete_despite_lost_and_duplicate_datagrams(
        self, parameters: Parameters, loss: float, seed: int
    ) -> None:
        data = sample_bytes(40 * KIB + 3, seed)
        network = network_of(parameters, None if parameters is CLASSIC else 32, 4, seed=seed, loss=loss, duplicate=0.2)
        manifest = network.seed("f", data)
        assert completes(network, manifest)
        assert_everyone_has(network, "f", data)
        cache = network.server.cache
        assert network.used_chunks_max <= cache.high_water_chunks <= cache.capacity_chunks


def trace_of(parameters: Parameters, seed: int) -> str:
    """Return a digest of every effect of every machine in a run with faults."""
    trace = blake2b(digest_size=16)

    def note(name: str, effect: Effect) -> None:
        shown = repr(effect._replace(views=[])) if isinstance(effect, Deliver) else repr(effect)
        trace.update(f"{network.now} {name} {shown}\n".encode())

    network = CoreNetwork(parameters, 16, seed=seed, loss=0.1, duplicate=0.1)
    network.on_effect = note
    for index in range(6):
        network.join(f"client {index}")
    manifest = network.seed("f", sample_bytes(60 * KIB), share_count=13)
    network.pass_time(5 * MILLISECOND_NS)
    network.crash("client 3")
    network.join("late")
    assert completes(network, manifest)
    return trace.hexdigest()


class TestDeterminism:
    @PROFILES
    def test_effects_depend_on_the_seed_alone(self, parameters: Parameters) -> None:
        assert trace_of(parameters, 1) == trace_of(parameters, 1) != trace_of(parameters, 2)

    def test_effects_do_not_depend_on_the_hash_seed(self) -> None:
        program = (
            "from tests.core.test_network import *\nprint(trace_of(FAST, 1), trace_of(FAST, 2), trace_of(CLASSIC, 1))"
        )
        found = [
            subprocess.run(
                [sys.executable, "-c", program],
                cwd=Path(__file__).parents[2],
                env={**os.environ, "PYTHONHASHSEED": hash_seed},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for hash_seed in ("1", "2")
        ]
        assert found[0] == found[1] == f"{trace_of(FAST, 1)} {trace_of(FAST, 2)} {trace_of(CLASSIC, 1)}\n"


class TestReports:
    def test_reports_are_repeated_in_a_new_session(self) -> None:
        network = network_of(FAST, 16, 2)
        manifest = network.seed("f", sample_bytes(4 * KIB))
        assert completes(network, manifest)
        reports: list[Effect] = []
        network.on_effect = lambda name, effect: reports.append(effect) if isinstance(effect, ReportMilestone) else None
        network.join("c0")
        assert len(reports) == 1
