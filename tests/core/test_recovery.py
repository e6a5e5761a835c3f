"""Networks recover from wrong bytes, broken links and lost datagrams, and leak no state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from pspd.core.effects.server import VerifyFile
from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import Manifest
from pspd.core.model.parameters import CLASSIC, FAST, MILLISECOND_NS, SECOND_NS, Parameters
from pspd.core.model.tuning import SERVER_TUNING
from pspd.core.server.shared_file import SharedFile
from pspd.core.wire.frames import Frame
from pspd.sim.hosts import Client
from tests.core.network import CoreNetwork, Effect
from tests.core.samples import sample_bytes

KIB = 1024
LIMIT_NS = 300 * SECOND_NS
PROFILES = pytest.mark.parametrize("parameters", [CLASSIC, FAST], ids=["classic", "fast"])


def reverify(network: CoreNetwork, manifest: Manifest, peer: Client) -> None:
    """Let a client verify its files between two sessions."""
    network.network.control.reverify(peer, manifest.file_id)
    assert network.run(lambda: network.is_member(peer), 60 * SECOND_NS)


class TestReverification:
    @PROFILES
    def test_corrupt_holder_verifies_once_and_the_file_completes(self, parameters: Parameters) -> None:
        data = sample_bytes(40 * KIB)
        network = CoreNetwork(parameters, 8)
        for name in "abc":
            network.join(name)
        manifest = network.seed("f", data)
        file = network.server.catalogue.files[manifest.file_id]
        assert network.run(lambda: file.phase is Phase.EXCHANGING, LIMIT_NS)
        peer = network.clients["b"]
        told: list[int] = []

        def listen(name: str, effect: Effect) -> None:
            if isinstance(effect, VerifyFile) and effect.session == peer.session and not told:
                told.append(effect.session)
                peer.tamper = None

        network.on_effect = listen
        peer.tamper = lambda frame, payload: bytes([payload[0] ^ 1]) + payload[1:]
        assert network.run(lambda: file.is_complete, LIMIT_NS)
        assert len(told) == 1
        assert not file.is_stalled
        assert {name: network.clients[name].store.finished["f"] for name in "abc"} == dict.fromkeys("abc", data)

    @pytest.mark.parametrize(("wrong_count", "remembered"), [(1, 4096), (5, 4096), (1, 1)])
    def test_wrong_part_of_a_unit_does_not_stay_in_the_cache(self, wrong_count: int, remembered: int) -> None:
        data = sample_bytes(2101 * KIB)  # large enough for blocks of two chunks, and classic asks for one at a time
        network = CoreNetwork(CLASSIC, 8, tuning=replace(SERVER_TUNING, partial_unit_chunks_max=remembered))
        for name in "ab":
            network.join(name)
        sent = []

        def wrong_at_first(frame: Frame, payload: bytes) -> bytes:
            sent.append(frame)
            return bytes(len(payload)) if len(sent) <= wrong_count else payload

        manifest = network.seed("f", data)
        network.clients["source-0 of f"].tamper = wrong_at_first
        file = network.server.catalogue.files[manifest.file_id]
        blamed: list[int] = []
        source = network.clients["source-0 of f"]
        session = source.session

        def listen(name: str, effect: Effect) -> None:
            if isinstance(effect, VerifyFile):
                blamed.append(effect.session)

        network.on_effect = listen
        assert network.run(lambda: file.phase is Phase.EXCHANGING, LIMIT_NS)
        assert set(blamed) <= {session}
        assert file.traffic.corrupt_bytes > 0
        assert file.traffic.contributed_bytes <= len(data) + 2 * wrong_count * KIB

    def test_verified_file_needs_no_deliveries(self) -> None:
        data = sample_bytes(40 * KIB)
        network = CoreNetwork(FAST, 8)
        for name in "ab":
            network.join(name)
        manifest = network.seed("f", data)
        file = network.server.catalogue.files[manifest.file_id]
        assert network.run(lambda: file.is_complete, LIMIT_NS)
        delivered = file.traffic.delivered_bytes
        reverify(network, manifest, network.clients["a"])
        assert network.run(lambda: file.is_complete, SECOND_NS)
        assert file.availability.min_holder_count() == 2
        assert file.traffic.delivered_bytes == delivered


class RandomFaults:
    """A network with random faults, drawn from a seed."""

    def __init__(self, parameters: Parameters, seed: int) -> None:
        self.random = Random(seed)
        self.network = CoreNetwork(parameters, 8, seed=seed, loss=0.2, duplicate=0.1)
        self.names = ["a", "b", "c", "d"]
        for name in self.names:
            self.network.join(name)
        self.data = sample_bytes(60 * KIB + 5)
        self.manifest = self.network.seed("f", self.data)

    @property
    def file(self) -> SharedFile:
        return self.network.server.catalogue.files[self.manifest.file_id]

    def cause(self) -> None:
        peer = self.network.clients[self.random.choice(self.names)]
        if peer.name not in self.network.server.members:
            self.network.join(peer.name)
            return
        kinds: list[Callable[[Client], None]] = [
            self.block_downlink,
            self.toggle_link,
            self.crash,
            self.reverify,
            self.resize,
        ]
        self.random.choice(kinds)(peer)

    def block_downlink(self, peer: Client) -> None:
        peer.downlink_blocked = not peer.downlink_blocked

    def toggle_link(self, peer: Client) -> None:
        if peer.link_blocked:
            self.network.unblock_link(peer)
        else:
            self.network.block_link(peer)

    def crash(self, peer: Client) -> None:
        self.network.crash(peer.name)

    def reverify(self, peer: Client) -> None:
        reverify(self.network, self.manifest, peer)

    def resize(self, peer: Client) -> None:
        self.network.server.resize_cache(self.random.randint(1, 16), self.network.now)

    def end(self) -> None:
        """End all faults; every client joins again with what it holds."""
        for name in self.names:
            self.network.clients[name].downlink_blocked = False
            self.network.unblock_link(self.network.clients[name])
            self.network.join(name)

    def assert_state_is_consistent(self) -> None:
        server, availability = self.network.server, self.file.availability
        server.check()
        assert availability.held.keys() == server.members.keys()
        assert availability.unreachable == {name for name, member in server.members.items() if not member.reachable}
        reachable = [held for name, held in availability.held.items() if name not in availability.unreachable]
        assert all(availability.available.covers(*span) for held in reachable for span in held)
        missing = sum(gap.chunk_count for gap, _ in availability.missing_ranges())
        assert missing == 61 - availability.available.chunk_count
        assert all(chunk_count >= 0 for chunk_count in self.quota_used_chunks())

    def quota_used_chunks(self) -> list[int]:
        server = self.network.server
        return [server.demand.requester(member).quota_used_chunks for member in server.members.values()]


class TestRandomFaults:
    @pytest.mark.parametrize("seed", range(3))
    @PROFILES
    def test_all_recover_and_no_quota_is_leaked(self, parameters: Parameters, seed: int) -> None:
        faults = RandomFaults(parameters, seed)
        network = faults.network
        for _ in range(12):
            faults.cause()
            network.pass_time(faults.random.choice([2, 20, 200, 10_000, 30_000]) * MILLISECOND_NS)
            faults.assert_state_is_consistent()
        faults.end()
        assert network.run(lambda: faults.file.is_complete, LIMIT_NS)
        network.pass_time(10 * SECOND_NS)
        faults.assert_state_is_consistent()
        assert [network.clients[name].store.finished["f"] == faults.data for name in faults.names] == [True] * 4
        assert faults.quota_used_chunks() == [0] * 4
        assert network.server.cache.used_chunks <= network.server.cache.capacity_chunks
