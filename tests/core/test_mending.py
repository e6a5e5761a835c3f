"""Networks in which bytes, links and datagrams go wrong: it is made good, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from pspd.core.effects.server import VerifyFile
from pspd.core.model.manifest import Manifest
from pspd.core.model.parameters import CLASSIC, FAST, MILLISECOND_NS, SECOND_NS, Parameters
from pspd.core.server import fetching
from pspd.core.server.file_record import Phase
from pspd.core.server.shared_file import SharedFile
from pspd.core.wire.frames import Frame
from tests.core.ether import Effect, Ether, Peer, sample_bytes

KIB = 1024
LIMIT_NS = 300 * SECOND_NS
PROFILES = pytest.mark.parametrize("parameters", [CLASSIC, FAST], ids=["classic", "fast"])


def verify_anew(ether: Ether, manifest: Manifest, peer: Peer) -> None:
    """What a client does whose stored bytes are suspected, between two sessions."""
    peer.machine.file_dropped(manifest.file_id)
    peer.store.verify(manifest.file_id)
    ether.join(peer.name)


class TestSuspicion:
    @PROFILES
    def test_a_holder_that_was_told_of_its_wrong_bytes_verifies_them_and_the_file_goes_on(
        self, parameters: Parameters
    ) -> None:
        data = sample_bytes(40 * KIB)
        ether = Ether(parameters, 8)
        for name in "abc":
            ether.join(name)
        manifest = ether.seed("f", data)
        file = ether.server.catalogue.files[manifest.file_id]
        assert ether.run(lambda: file.phase is Phase.EXCHANGING, LIMIT_NS)
        peer = ether.peers["b"]
        told: list[int] = []

        def listen(name: str, effect: Effect) -> None:
            if isinstance(effect, VerifyFile) and effect.session == peer.session and not told:
                told.append(effect.session)
                ether.at(ether.now + SECOND_NS, mend)

        def mend() -> None:
            peer.forge = lambda frame, payload: payload
            verify_anew(ether, manifest, peer)

        ether.on_effect = listen
        peer.forge = lambda frame, payload: bytes([payload[0] ^ 1]) + payload[1:]
        assert ether.run(lambda: file.is_complete, LIMIT_NS)
        assert len(told) == 1
        assert not file.stalled
        assert {name: ether.peers[name].store.finished["f"] for name in "abc"} == dict.fromkeys("abc", data)

    @pytest.mark.parametrize(("wrong_count", "remembered"), [(1, 4096), (5, 4096), (1, 1)])
    def test_a_wrong_chunk_of_a_unit_that_comes_in_parts_does_not_stay_in_the_cache(
        self, wrong_count: int, remembered: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fetching, "PARTS_MAX", remembered)
        data = sample_bytes(2101 * KIB)  # large enough for blocks of two chunks, and classic asks for one at a time
        ether = Ether(CLASSIC, 8)
        for name in "ab":
            ether.join(name)
        sent = []

        def wrong_at_first(frame: Frame, payload: bytes) -> bytes:
            sent.append(frame)
            return bytes(len(payload)) if len(sent) <= wrong_count else payload

        manifest = ether.seed("f", data)
        ether.peers["source of f"].forge = wrong_at_first
        catalogue, source = ether.server.catalogue, ether.peers["source of f"]
        file = catalogue.files[manifest.file_id]

        def mend(name: str, effect: Effect) -> None:
            if isinstance(effect, VerifyFile):
                assert effect.session == source.session
                ether.at(ether.now + SECOND_NS, lambda: catalogue.source_returned(file, source.session, ether.now))

        ether.on_effect = mend
        assert ether.run(lambda: file.phase is Phase.EXCHANGING, LIMIT_NS)
        assert file.traffic.corrupt_bytes > 0
        assert file.traffic.contributed_bytes <= len(data) + 2 * wrong_count * KIB

    def test_one_that_verifies_a_whole_file_anew_and_finds_it_right_has_it_at_once(self) -> None:
        data = sample_bytes(40 * KIB)
        ether = Ether(FAST, 8)
        for name in "ab":
            ether.join(name)
        manifest = ether.seed("f", data)
        file = ether.server.catalogue.files[manifest.file_id]
        assert ether.run(lambda: file.is_complete, LIMIT_NS)
        delivered = file.traffic.delivered_bytes
        verify_anew(ether, manifest, ether.peers["a"])
        assert ether.run(lambda: file.is_complete, SECOND_NS)
        assert file.min_holder_count() == 2
        assert file.traffic.delivered_bytes == delivered


class Trouble:
    """A network in which something goes wrong again and again, as a seed has it."""

    def __init__(self, parameters: Parameters, seed: int) -> None:
        self.random = Random(seed)
        self.ether = Ether(parameters, 8, seed=seed, loss=0.2, duplicate=0.1)
        self.names = ["a", "b", "c", "d"]
        for name in self.names:
            self.ether.join(name)
        self.data = sample_bytes(60 * KIB + 5)
        self.manifest = self.ether.seed("f", self.data)

    @property
    def file(self) -> SharedFile:
        return self.ether.server.catalogue.files[self.manifest.file_id]

    def make(self) -> None:
        peer = self.ether.peers[self.random.choice(self.names)]
        if peer.name not in self.ether.server.members:
            self.ether.join(peer.name)
            return
        troubles: list[Callable[[Peer], None]] = [self.deafen, self.unlink, self.crash, self.suspect, self.resize]
        self.random.choice(troubles)(peer)

    def deafen(self, peer: Peer) -> None:
        peer.hears = not peer.hears

    def unlink(self, peer: Peer) -> None:
        if peer.linked:
            self.ether.cut_link(peer)
        else:
            self.ether.open_link(peer)

    def crash(self, peer: Peer) -> None:
        self.ether.crash(peer.name)

    def suspect(self, peer: Peer) -> None:
        verify_anew(self.ether, self.manifest, peer)

    def resize(self, peer: Peer) -> None:
        self.ether.server.resize_cache(self.random.randint(1, 16), self.ether.now)

    def end(self) -> None:
        """Everyone hears, and joins again with what it holds."""
        for name in self.names:
            self.ether.peers[name].hears = True
            self.ether.join(name)

    def assert_books_agree(self) -> None:
        members, file = self.ether.server.members, self.file
        assert file.held.keys() == members.keys()
        assert file.away == {name for name, member in members.items() if not member.in_reach}
        reachable = [file.held[name] for name in file.held if name not in file.away]
        assert all(file.available.covers(*span) for held in reachable for span in held)
        assert sum(gap.chunk_count for gap, _ in file.missing()) == 61 - file.available.chunk_count
        assert all(member.claimed_chunks >= 0 for member in members.values())


class TestTrouble:
    @pytest.mark.parametrize("seed", range(3))
    @PROFILES
    def test_when_it_ends_everyone_has_the_file_and_nobody_claims_anything(
        self, parameters: Parameters, seed: int
    ) -> None:
        trouble = Trouble(parameters, seed)
        ether = trouble.ether
        for _ in range(12):
            trouble.make()
            ether.pass_time(trouble.random.choice([2, 20, 200, 10_000, 30_000]) * MILLISECOND_NS)
            trouble.assert_books_agree()
        trouble.end()
        assert ether.run(lambda: trouble.file.is_complete, LIMIT_NS)
        ether.pass_time(10 * SECOND_NS)
        trouble.assert_books_agree()
        assert [ether.peers[name].store.finished["f"] == trouble.data for name in trouble.names] == [True] * 4
        assert [member.claimed_chunks for member in ether.server.members.values()] == [0] * 4
        assert ether.server.cache.used_chunks <= ether.server.cache.capacity_chunks
