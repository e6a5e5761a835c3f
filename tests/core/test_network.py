"""Whole networks of machines: everyone gets the file, whatever is lost, whoever goes."""

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
from pspd.core.model.manifest import CHUNK_BYTES, Manifest
from pspd.core.model.parameters import CLASSIC, FAST, MILLISECOND_NS, SECOND_NS, Order, Parameters
from pspd.core.server.file_record import Phase
from pspd.core.server.machine import LEASE_NS
from pspd.core.server.shared_file import SharedFile
from pspd.core.wire.datagrams import Broadcast, decode_datagram
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason
from tests.core.ether import Effect, Ether, Peer, sample_bytes

KIB = 1024
LIMIT_NS = 600 * SECOND_NS
PROFILES = pytest.mark.parametrize("parameters", [CLASSIC, FAST], ids=["classic", "fast"])


def network(parameters: Parameters, cache_chunks: int | None, client_count: int, **faults: float) -> Ether:
    ether = Ether(parameters, cache_chunks, **faults)  # type: ignore[arg-type]
    for index in range(client_count):
        ether.join(f"c{index}")
    return ether


def file_of(ether: Ether, manifest: Manifest) -> SharedFile:
    return ether.server.catalogue.files[manifest.file_id]


def completes(ether: Ether, manifest: Manifest, limit_ns: int = LIMIT_NS) -> bool:
    return ether.run(lambda: file_of(ether, manifest).completed_at is not None, limit_ns)


def clients(ether: Ether) -> list[Peer]:
    return [ether.peers[name] for name in ether.server.catalogue.client_names()]


def assert_everyone_has(ether: Ether, name: str, data: bytes) -> None:
    assert clients(ether)
    for peer in clients(ether):
        assert peer.store.finished[name] == data


def exchanging(ether: Ether, manifest: Manifest) -> bool:
    return ether.run(lambda: file_of(ether, manifest).phase is Phase.EXCHANGING, LIMIT_NS)


class TestSeededMoment:
    @PROFILES
    def test_shares_are_disjoint_and_exhaustive_and_the_server_holds_nothing(self, parameters: Parameters) -> None:
        data = sample_bytes(30 * KIB + 7)
        ether = network(parameters, 16, 4)
        manifest = ether.seed("f", data, hold_back=True)
        file = file_of(ether, manifest)
        assert ether.run(lambda: file.phase is Phase.SEEDED, LIMIT_NS)

        held = [peer.machine.downloads[manifest.file_id].verified for peer in clients(ether)]
        assert [chunks.chunk_count for chunks in held] == [7, 8, 8, 8]
        assert all(not left.common(right) for left, right in combinations(held, 2))
        assert ether.server.cache.chunks_of(manifest.file_id) == 0
        assert not any(any(piece) for _, piece in ether.server.cache._arena._segments)
        assert "source of f" not in ether.server.members
        assert [event for event in ether.events if isinstance(event, FileSeeded)] == [
            FileSeeded(manifest.file_id, "f", 4, 31, 0)
        ]
        (divided,) = [event for event in ether.events if isinstance(event, FileDivided)]
        assert [name for name, _ in divided.shares] == ether.server.catalogue.client_names()

        ether.pass_time(20 * SECOND_NS)
        assert file.phase is Phase.SEEDED
        ether.server.catalogue.release(file, ether.now)
        assert completes(ether, manifest)
        assert_everyone_has(ether, "f", data)
        assert ether.used_chunks_max <= 16

    @pytest.mark.parametrize("size_bytes", [0, 1, 1023, 1024, 1025, 5 * KIB])
    @PROFILES
    def test_any_size_works_and_more_clients_than_chunks(self, parameters: Parameters, size_bytes: int) -> None:
        data = sample_bytes(size_bytes)
        ether = network(parameters, None, 4)
        assert completes(ether, ether.seed("f", data))
        assert_everyone_has(ether, "f", data)

    def test_a_share_count_of_the_user_s_choice(self) -> None:
        data = sample_bytes(20 * KIB)
        for share_count in (1, 9):
            ether = network(FAST, 16, 3)
            assert completes(ether, ether.seed("f", data, share_count))
            assert_everyone_has(ether, "f", data)

    @PROFILES
    def test_the_share_of_a_client_that_is_lost_goes_to_others(self, parameters: Parameters) -> None:
        data = sample_bytes(60 * KIB)
        ether = network(parameters, 8, 3)
        manifest = ether.seed("f", data)
        file = file_of(ether, manifest)
        first_bytes = ether.peers["c1"].machine.downloads[manifest.file_id].verified
        assert ether.run(lambda: bool(first_bytes), LIMIT_NS)
        assert file.phase is Phase.SEEDING
        ether.crash("c1")
        assert completes(ether, manifest)
        assert_everyone_has(ether, "f", data)
        assert "c1" not in {share.owner for share in file.shares}

    def test_with_every_client_lost_it_waits_for_one(self) -> None:
        data = sample_bytes(60 * KIB)
        ether = network(FAST, 8, 2)
        manifest = ether.seed("f", data)
        ether.crash("c0")
        ether.crash("c1")
        ether.pass_time(SECOND_NS)
        ether.join("new")
        assert completes(ether, manifest)
        assert_everyone_has(ether, "f", data)


class TestEconomy:
    @pytest.mark.parametrize("all_holders_answer", [False, True])
    def test_in_lock_step_every_chunk_is_contributed_once(self, all_holders_answer: bool) -> None:
        data = sample_bytes(600 * KIB)
        ether = network(replace(FAST, all_holders_answer=all_holders_answer), 64, 12)
        manifest = ether.seed("f", data)
        assert completes(ether, manifest)
        assert_everyone_has(ether, "f", data)
        traffic = file_of(ether, manifest).traffic
        assert traffic.seeding_contributed_bytes == traffic.seeding_delivered_bytes == len(data)
        assert traffic.contributed_bytes - traffic.seeding_contributed_bytes == len(data)
        assert traffic.delivered_bytes - traffic.seeding_delivered_bytes == 11 * len(data)
        assert traffic.retransmit_count == traffic.corrupt_bytes == 0
        assert all_holders_answer or traffic.duplicate_bytes == 0
        assert ether.server.cache.high_water_chunks <= 64
        assert ether.used_chunks_max <= 64

    def test_clients_that_ask_in_any_order_get_the_file_too(self) -> None:
        data = sample_bytes(40 * KIB)
        for order in Order:
            ether = network(replace(CLASSIC, order=order), None, 4)
            assert completes(ether, ether.seed("f", data))
            assert_everyone_has(ether, "f", data)


class TestClassic:
    def test_every_miss_is_broadcast_once_to_all_and_every_holder_answers(self) -> None:
        data = sample_bytes(24 * KIB)
        ether = network(CLASSIC, None, 4)
        manifest = ether.seed("f", data)
        assert exchanging(ether, manifest)
        misses_before = ether.server.cache.miss_count
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

        ether.on_effect = listen
        assert completes(ether, manifest)
        assert_everyone_has(ether, "f", data)
        misses = ether.server.cache.miss_count - misses_before
        assert all(len(times) == 1 for times in heard.values())
        assert len(heard) == 4 * misses
        assert {name for name, _, _ in heard} == {"c0", "c1", "c2", "c3"}

        ether.pass_time(SECOND_NS)
        traffic = file_of(ether, manifest).traffic
        contributed = traffic.contributed_bytes - traffic.seeding_contributed_bytes
        assert contributed == misses * CHUNK_BYTES
        assert traffic.duplicate_bytes == (len(answers) - misses) * CHUNK_BYTES
        assert ether.server.drop_counts[DropReason.DUPLICATE] == len(answers) - misses > 0
        assert ether.server.cache.high_water_chunks <= 4


class TestMembersThatComeAndGo:
    @PROFILES
    def test_a_late_joiner_gets_the_file_too(self, parameters: Parameters) -> None:
        data = sample_bytes(40 * KIB)
        ether = network(parameters, 8, 3)
        manifest = ether.seed("f", data)
        assert exchanging(ether, manifest)
        ether.join("late")
        assert completes(ether, manifest)
        ether.join("later still")
        assert not file_of(ether, manifest).is_complete
        assert ether.run(lambda: file_of(ether, manifest).is_complete, LIMIT_NS)
        assert_everyone_has(ether, "f", data)
        completed = [event for event in ether.events if isinstance(event, FileCompleted)]
        assert [event.client_count for event in completed] == [4, 5]

    @PROFILES
    def test_a_lost_holder_stalls_the_file_and_its_return_resumes_it(self, parameters: Parameters) -> None:
        data = sample_bytes(60 * KIB)
        ether = network(parameters, 8, 3)
        manifest = ether.seed("f", data)
        file = file_of(ether, manifest)
        assert exchanging(ether, manifest)
        ether.crash("c1")
        assert file.stalled
        (stalled,) = [event for event in ether.events if isinstance(event, FileStalled)]
        assert {name for _, name in stalled.missing} == {"c1"}
        assert all(20 <= start < stop <= 40 for (start, stop), _ in stalled.missing)
        assert not completes(ether, manifest, 30 * SECOND_NS)
        assert [len(peer.store.finished) for peer in clients(ether)] == [0, 0]
        ether.join("c1")
        assert [type(event) for event in ether.events].count(FileResumed) == 1
        assert completes(ether, manifest)
        assert_everyone_has(ether, "f", data)

    def test_one_that_disappears_without_a_word_holds_nobody_up_longer_than_its_lease(self) -> None:
        data = sample_bytes(200 * KIB)
        ether = network(FAST, 32, 4)
        ether.join("idle")
        manifest = ether.seed("f", data, 4)
        assert exchanging(ether, manifest)
        ether.crash("idle", silently=True)
        assert completes(ether, manifest, LEASE_NS + SECOND_NS)
        assert_everyone_has(ether, "f", data)

    def test_a_client_that_comes_back_takes_up_what_it_has(self) -> None:
        data = sample_bytes(100 * KIB)
        ether = network(FAST, 16, 3)
        manifest = ether.seed("f", data)
        peer = ether.peers["c2"]
        assert ether.run(
            lambda: (
                file_of(ether, manifest).phase is Phase.EXCHANGING
                and peer.store.missing(manifest.file_id).chunk_count < 40
            ),
            LIMIT_NS,
        )
        missing = peer.store.missing(manifest.file_id).chunk_count
        ether.crash("c2")
        assert 0 < missing < 40
        delivered = []
        ether.join("c2")
        ether.on_effect = lambda name, effect: (
            delivered.append(effect.frame.stop - effect.frame.start)
            if isinstance(effect, Deliver) and effect.session == peer.session
            else None
        )
        assert completes(ether, manifest)
        assert_everyone_has(ether, "f", data)
        assert sum(delivered) <= missing

    def test_links_that_break_again_and_again_cost_time_alone(self) -> None:
        data = sample_bytes(300 * KIB)
        ether = network(FAST, 16, 3)
        manifest = ether.seed("f", data)
        for index in range(12):
            ether.run(lambda: False, 4 * MILLISECOND_NS)
            peer = ether.peers[f"c{index % 3}"]
            ether.cut_link(peer)
            ether.run(lambda: False, MILLISECOND_NS)
            ether.open_link(peer)
            ether.open_link(peer)  # a second one takes the place of the first
        assert completes(ether, manifest)
        assert_everyone_has(ether, "f", data)

    def test_a_client_that_joins_again_without_having_left_goes_on(self) -> None:
        data = sample_bytes(100 * KIB)
        ether = network(FAST, 16, 3)
        manifest = ether.seed("f", data)
        assert exchanging(ether, manifest)
        for _ in range(3):
            ether.run(lambda: False, 2 * MILLISECOND_NS)
            ether.join("c1")
        assert completes(ether, manifest)
        assert_everyone_has(ether, "f", data)


class TestSeveralFiles:
    @PROFILES
    def test_two_files_at_once_share_the_cache(self, parameters: Parameters) -> None:
        one, two = sample_bytes(50 * KIB, 1), sample_bytes(33 * KIB + 1, 2)
        ether = network(parameters, 8, 3)
        first = ether.seed("one", one)
        second = ether.seed("two", two)
        assert completes(ether, first)
        assert completes(ether, second)
        assert_everyone_has(ether, "one", one)
        assert_everyone_has(ether, "two", two)
        assert ether.used_chunks_max <= 8

    def test_a_file_of_which_blocks_are_cut_by_shares(self) -> None:
        data = sample_bytes(8 * KIB * KIB + 3 * KIB + 5)
        ether = network(replace(FAST, frame_chunks=511), 2048, 2)
        manifest = ether.seed("f", data)
        assert manifest.block_chunks > 1
        assert manifest.cut_digests
        assert completes(ether, manifest)
        assert_everyone_has(ether, "f", data)

    def test_what_a_client_has_already_it_neither_asks_for_nor_delays_the_others_by(self) -> None:
        data = sample_bytes(30 * KIB)
        ether = network(FAST, 16, 3)
        ether.peers["c0"].store.finished["f"] = data
        manifest = ether.seed("f", data)
        assert completes(ether, manifest, 5 * SECOND_NS)
        assert_everyone_has(ether, "f", data)


def flip(frame: Frame, payload: bytes) -> bytes:
    return bytes([payload[0] ^ 1]) + payload[1:]


def break_off(frame: Frame, payload: bytes) -> None:
    return None


class TestFaults:
    @PROFILES
    def test_a_holder_of_corrupt_bytes_is_counted_and_the_others_complete_the_file(
        self, parameters: Parameters
    ) -> None:
        data = sample_bytes(40 * KIB)
        ether = network(parameters, 8, 4)
        manifest = ether.seed("f", data)
        assert completes(ether, manifest)
        ether.peers["c0"].forge = flip
        ether.server.clear_cache(ether.now)
        ether.join("late")
        assert ether.run(lambda: "f" in ether.peers["late"].store.finished, LIMIT_NS)
        assert_everyone_has(ether, "f", data)
        corrupt = ether.server.drop_counts[DropReason.CORRUPT]
        assert corrupt > 0
        assert file_of(ether, manifest).traffic.corrupt_bytes >= corrupt * CHUNK_BYTES

    @PROFILES
    def test_a_contribution_that_breaks_off_is_asked_for_again(self, parameters: Parameters) -> None:
        data = sample_bytes(40 * KIB)
        ether = network(parameters, 8, 3)
        source_breaks = iter([True, False] * 1000)
        manifest = ether.seed("f", data)
        for peer in ether.peers.values():
            peer.forge = lambda frame, payload: None if next(source_breaks) else payload
        assert completes(ether, manifest)
        assert_everyone_has(ether, "f", data)
        assert ether.server.drop_counts[DropReason.ABORTED] > 0

    @PROFILES
    def test_deliveries_that_fail_for_a_while_are_made_good(self, parameters: Parameters) -> None:
        data = sample_bytes(40 * KIB)
        ether = network(parameters, 8, 3)
        manifest = ether.seed("f", data)
        ether.peers["c1"].takes_deliveries = False
        ether.run(lambda: False, 2 * SECOND_NS)
        assert file_of(ether, manifest).phase is Phase.SEEDING
        ether.peers["c1"].takes_deliveries = True
        assert completes(ether, manifest)
        assert_everyone_has(ether, "f", data)

    @pytest.mark.parametrize("forge", [flip, break_off])
    def test_a_holder_that_never_sends_a_good_copy_holds_up_only_what_nobody_else_has(
        self, forge: Callable[[Frame, bytes], bytes | None]
    ) -> None:
        data = sample_bytes(40 * KIB)
        ether = network(FAST, 8, 4)
        manifest = ether.seed("f", data)
        assert exchanging(ether, manifest)
        ether.peers["c0"].forge = forge
        assert not completes(ether, manifest, 2 * SECOND_NS)
        for name in ("c1", "c2", "c3"):
            missing = ether.peers[name].store.missing(manifest.file_id)
            assert missing.chunk_count <= 10
            assert not missing.within(10, 40)
        ether.peers["c0"].forge = lambda frame, payload: payload
        ether.crash("c0")
        ether.join("c0")
        assert completes(ether, manifest)
        assert_everyone_has(ether, "f", data)

    @PROFILES
    def test_the_cache_may_be_resized_and_cleared_at_any_time(self, parameters: Parameters) -> None:
        data = sample_bytes(60 * KIB)
        ether = network(parameters, 8, 3)
        manifest = ether.seed("f", data)
        for capacity in (1, 20, 2, 3, 50, 1, 4):
            ether.run(lambda: False, 3 * MILLISECOND_NS)
            ether.server.clear_cache(ether.now)
            ether.server.resize_cache(capacity, ether.now)
        ether.settle()
        ether.used_chunks_max = 0
        ether.pass_time(SECOND_NS // 10)
        assert completes(ether, manifest)
        assert_everyone_has(ether, "f", data)
        assert ether.server.cache.high_water_chunks <= max(4, ether.used_chunks_max)


class TestLoss:
    @pytest.mark.parametrize("seed", [1, 2, 3])
    @pytest.mark.parametrize("loss", [0.0, 0.1, 0.3, 0.5])
    @PROFILES
    def test_whatever_share_of_datagrams_is_lost_or_doubled_everyone_completes(
        self, parameters: Parameters, loss: float, seed: int
    ) -> None:
        data = sample_bytes(40 * KIB + 3, seed)
        ether = network(parameters, None if parameters is CLASSIC else 32, 4, seed=seed, loss=loss, duplicate=0.2)
        manifest = ether.seed("f", data)
        assert completes(ether, manifest)
        assert_everyone_has(ether, "f", data)
        cache = ether.server.cache
        assert ether.used_chunks_max <= cache.high_water_chunks <= cache.capacity_chunks


def trace_of(parameters: Parameters, seed: int) -> str:
    """A digest of every effect of every machine in an eventful run."""
    trace = blake2b(digest_size=16)

    def note(name: str, effect: Effect) -> None:
        shown = repr(effect._replace(views=[])) if isinstance(effect, Deliver) else repr(effect)
        trace.update(f"{ether.now} {name} {shown}\n".encode())

    ether = Ether(parameters, 16, seed=seed, loss=0.1, duplicate=0.1)
    ether.on_effect = note
    for index in range(6):
        ether.join(f"client {index}")
    manifest = ether.seed("f", sample_bytes(60 * KIB), 13)
    ether.run(lambda: False, 5 * MILLISECOND_NS)
    ether.crash("client 3")
    ether.join("late")
    assert completes(ether, manifest)
    return trace.hexdigest()


class TestDeterminism:
    @PROFILES
    def test_the_same_seed_gives_the_same_effects_and_another_gives_others(self, parameters: Parameters) -> None:
        assert trace_of(parameters, 1) == trace_of(parameters, 1) != trace_of(parameters, 2)

    def test_whatever_the_hash_seed(self) -> None:
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
    def test_are_made_again_in_a_new_session(self) -> None:
        ether = network(FAST, 16, 2)
        manifest = ether.seed("f", sample_bytes(4 * KIB))
        assert completes(ether, manifest)
        reports: list[Effect] = []
        ether.on_effect = lambda name, effect: reports.append(effect) if isinstance(effect, ReportMilestone) else None
        ether.join("c0")
        assert len(reports) == 1
