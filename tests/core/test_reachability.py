"""Members become unreachable if they renew their leases but their link or datagrams fail."""

from __future__ import annotations

import pytest

from pspd.core.effects.client import DownlinkChanged
from pspd.core.effects.server import Assign, FileCompleted, FileResumed, FileStalled, MemberLeft, ReachabilityChanged
from pspd.core.effects.shared import Milestone
from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import Manifest
from pspd.core.model.parameters import CLASSIC, FAST, SECOND_NS, Parameters
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import HeldChunks
from pspd.core.model.tuning import CLIENT_TUNING, SERVER_TUNING
from pspd.core.server.sessions import Member
from pspd.core.server.shared_file import SharedFile
from pspd.core.wire.datagrams import Hello
from tests.core.bench import Bench
from tests.core.network import CoreNetwork, Effect
from tests.core.samples import sample_bytes

KIB = 1024
LIMIT_NS = 600 * SECOND_NS
NOTICED_NS = SERVER_TUNING.reachability_ns + 6 * SECOND_NS
"""After this time, the server has noticed that a member became unreachable or reachable: hellos are up to 5 s apart."""
PROFILES = pytest.mark.parametrize("parameters", [CLASSIC, FAST], ids=["classic", "fast"])


def network_of(parameters: Parameters, *names: str, deaf: str = "", cache_chunks: int = 8) -> CoreNetwork:
    network = CoreNetwork(parameters, cache_chunks)
    for name in names:
        network.add(name).downlink_blocked = name == deaf
        network.join(name)
    return network


def file_of(network: CoreNetwork, manifest: Manifest) -> SharedFile:
    return network.server.catalogue.files[manifest.file_id]


def exchanging(network: CoreNetwork, manifest: Manifest) -> SharedFile:
    file = file_of(network, manifest)
    assert network.run(lambda: file.phase is Phase.EXCHANGING, LIMIT_NS)
    return file


def events_of(network: CoreNetwork, *kinds: type[Effect]) -> list[Effect]:
    return [event for event in network.events if isinstance(event, kinds)]


def assert_have(network: CoreNetwork, data: bytes, *names: str) -> None:
    assert [network.clients[name].store.finished.get("f") == data for name in names] == [True] * len(names)


class TestReachable:
    def test_member_with_link_and_confirmations_stays_reachable(self) -> None:
        bench = Bench()
        member = bench.join("a")
        bench.live(5 * SERVER_TUNING.reachability_ns)
        assert member.reachable
        assert bench.effects(ReachabilityChanged) == []

    def test_requests_that_confirm_keep_a_member_reachable(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 6)
        for _ in range(4):
            bench.pass_time(SERVER_TUNING.reachability_ns // 2)
            for member in (a, b):
                bench.server.sessions.renew_lease(member.session, bench.now)
            bench.ask(a, file, (3, 6), downlink_ok=True)
            bench.ask(b, file, (0, 3))
        assert (a.reachable, b.reachable) == (True, False)

    def test_member_without_a_link_becomes_unreachable(self) -> None:
        bench = Bench()
        member = bench.join("a")
        bench.live(SECOND_NS)
        bench.server.link_closed(member.session, bench.now)
        bench.live(SERVER_TUNING.reachability_ns - 2 * SECOND_NS)
        assert member.reachable
        bench.live(SECOND_NS)
        assert bench.effects(ReachabilityChanged) == [ReachabilityChanged("a", False)]
        assert bench.server.members == {"a": member}
        assert bench.server.sessions.reachable_clients() == []

    def test_member_that_does_not_confirm_becomes_unreachable(self) -> None:
        bench = Bench()
        member = bench.join("a")
        bench.live(SERVER_TUNING.reachability_ns, deaf=[member])
        assert bench.effects(ReachabilityChanged) == [ReachabilityChanged("a", False)]

    def test_silent_member_becomes_unreachable(self) -> None:
        bench = Bench()
        member = bench.join("a", reachable=False)
        for _ in range(SERVER_TUNING.reachability_ns // SECOND_NS):
            bench.server.sessions.renew_lease(member.session, bench.now)
            bench.pass_time(SECOND_NS)
        assert bench.effects(ReachabilityChanged) == [ReachabilityChanged("a", False)]

    def test_classic_member_is_reachable_by_datagrams_alone(self) -> None:
        bench = Bench(CLASSIC)
        member = bench.join("a")
        bench.server.link_closed(member.session, bench.now)
        bench.live(2 * SERVER_TUNING.reachability_ns)
        assert bench.effects(ReachabilityChanged) == []
        bench.live(SERVER_TUNING.reachability_ns, deaf=[member])
        assert bench.effects(ReachabilityChanged) == [ReachabilityChanged("a", False)]

    def test_each_change_of_reachability_is_one_event(self) -> None:
        bench = Bench()
        member = bench.join("a")
        for _ in range(2):
            bench.live(3 * SERVER_TUNING.reachability_ns, deaf=[member])
            bench.live(3 * SERVER_TUNING.reachability_ns)
        assert [event.reachable for event in bench.effects(ReachabilityChanged)] == [False, True, False, True]

    def test_hello_not_link_makes_a_member_reachable_again(self) -> None:
        bench = Bench()
        member = bench.join("a")
        bench.server.link_closed(member.session, bench.now)
        bench.live(SERVER_TUNING.reachability_ns)
        bench.server.link_opened(member.session, bench.now)
        assert not member.reachable
        bench.send(member, Hello(member.session, 3, 1))
        assert member.reachable

    def test_lease_of_an_unreachable_member_expires(self) -> None:
        bench = Bench()
        member = bench.join("a")
        bench.live(SERVER_TUNING.reachability_ns, deaf=[member])
        bench.pass_time(SERVER_TUNING.lease_ns)
        assert [lost.name for lost in bench.effects(MemberLeft)] == ["a"]
        assert bench.server.next_timeout() is None

    def test_member_that_joins_again_is_reachable(self) -> None:
        bench = Bench()
        a = bench.join("a")
        bench.join("b")
        file = bench.exchange("f", 4)
        bench.live(SERVER_TUNING.reachability_ns, deaf=[a])
        assert file.is_stalled
        a = bench.join("a", held={file.file_id: HeldChunks(RangeSet([(0, 2)]), complete=False)})
        assert a.reachable
        assert not file.is_stalled


class TestUnreachableHolders:
    def away(self) -> tuple[Bench, SharedFile, Member, Member]:
        """Return a file of four chunks. "a" holds the first two. "b" holds the last two, and is unreachable."""
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.live(SERVER_TUNING.reachability_ns, deaf=[b])
        return bench, file, a, b

    def test_file_stalls_and_names_the_unreachable_holder(self) -> None:
        bench, file, _, _ = self.away()
        assert bench.effects(FileStalled) == [FileStalled(file.file_id, "f", ((Range(2, 4), "b"),))]
        assert file.availability.missing_ranges() == [(Range(2, 4), "b")]
        assert file.availability.min_holder_count() == 0

    def test_chunks_with_another_holder_are_not_missing(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.reach(a, file, Milestone.COMPLETE)
        bench.live(SERVER_TUNING.reachability_ns, deaf=[b])
        assert bench.effects(FileStalled) == []
        assert file.availability.min_holder_count() == 1

    def test_unreachable_holder_is_named_before_a_lost_one(self) -> None:
        bench = Bench()
        _, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 6)
        bench.reach(c, file, Milestone.COMPLETE)
        bench.server.member_left(c.session, "gone", bench.now)
        bench.live(SERVER_TUNING.reachability_ns, deaf=[b])
        assert file.availability.missing_ranges() == [(Range(2, 4), "b"), (Range(4, 6), "c")]

    def test_chunks_of_an_unreachable_holder_are_not_asked_for(self) -> None:
        bench, file, a, _ = self.away()
        bench.server.poll()
        bench.ask(a, file, (2, 4))
        assert bench.asked("a") == []

    def test_file_resumes_when_the_holder_is_reachable_again(self) -> None:
        bench, file, a, b = self.away()
        bench.ask(a, file, (2, 4))
        bench.server.poll()
        bench.send(b, Hello(b.session, 3, 1000))
        effects = bench.server.poll()
        assert FileResumed(file.file_id, "f") in effects
        assert len(bench.fetches(file)) == 1
        assert bench.contribute(bench.frame(b, file, 2, 4))
        assert [deliver.frame.start for deliver in bench.delivered(a)] == [2]

    def test_chunks_received_while_unreachable_count_later(self) -> None:
        bench, file, a, b = self.away()
        bench.reach(b, file, Milestone.COMPLETE)
        assert file.is_stalled
        bench.server.member_left(a.session, "gone", bench.now)
        bench.live(SECOND_NS)
        assert not file.is_stalled
        assert file.availability.missing_ranges() == []

    def test_chunks_removed_while_unreachable_stay_missing(self) -> None:
        bench, file, _, b = self.away()
        bench.ask(b, file, (3, 4))
        bench.live(SECOND_NS)
        assert file.availability.missing_ranges() == [(Range(3, 4), "")]

    def test_unreachable_member_that_leaves_is_the_last_holder(self) -> None:
        bench, file, _, b = self.away()
        bench.server.member_left(b.session, "gone", bench.now)
        assert file.availability.missing_ranges() == [(Range(2, 4), "b")]


class TestUnreachableInSeeding:
    def test_held_share_of_an_unreachable_client_is_reassigned(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.seed("f", 4)
        bench.reach(b, file, Milestone.SHARE_HELD)
        bench.server.poll()
        bench.live(SERVER_TUNING.reachability_ns, deaf=[b])
        shares = {effect.session: effect.shares for effect in bench.effects(Assign)}
        assert shares == {a.session: (Range(0, 2), Range(2, 4)), b.session: ()}
        bench.reach(b, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.SEEDING
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING
        assert not file.is_stalled

    def test_only_client_keeps_its_share_while_unreachable(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.seed("f", 4)
        bench.live(SERVER_TUNING.reachability_ns, deaf=[a])
        assert file.shares.ranges_of("a") == (Range(0, 4),)
        bench.live(SECOND_NS)
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING

    def test_shares_of_unreachable_clients_go_to_a_new_client(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.seed("f", 4)
        bench.live(SERVER_TUNING.reachability_ns, deaf=[a, b])
        c = bench.join("c")
        assert file.shares.ranges_of("c") == (Range(0, 2), Range(2, 4))
        bench.reach(c, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING

    def test_file_is_divided_among_reachable_clients_only(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        bench.live(SERVER_TUNING.reachability_ns, deaf=[b])
        bench.server.poll()
        file = bench.seed("f", 4)
        assert file.shares.ranges_of("a") == (Range(0, 4),)
        shares = {effect.session: effect.shares for effect in bench.effects(Assign)}
        assert shares == {a.session: (Range(0, 4),), b.session: ()}

    def test_holdings_of_an_unreachable_client_count_afterwards(self) -> None:
        bench = Bench()
        bench.join("a")
        manifest = bench.manifest("f", 4)
        b = bench.join("b", held={manifest.file_id: HeldChunks(RangeSet([(0, 4)]), complete=True)})
        bench.live(SERVER_TUNING.reachability_ns, deaf=[b])
        source = bench.join("s", is_source=True)
        file = bench.server.catalogue.announce(manifest, source.session)
        assert file.availability.min_holder_count() == 0
        bench.live(SECOND_NS)
        assert file.availability.min_holder_count() == 1

    def test_unreachable_source_stalls_its_file(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.seed("f", 4)
        source = bench.server.members["source of f"]
        bench.live(SERVER_TUNING.reachability_ns, deaf=[source])
        assert bench.effects(FileStalled) == [FileStalled(file.file_id, "f", ((Range(0, 4), "source of f"),))]
        bench.ask(a, file, (0, 4))
        assert bench.asked("a") == []
        bench.live(SECOND_NS)
        assert len(bench.effects(FileResumed)) == 1
        assert bench.contribute(bench.frame(source, file, 0, 4))

    def test_unreachable_source_keeps_its_announced_file(self) -> None:
        bench = Bench()
        bench.join("a")
        source = bench.join("s", is_source=True)
        file = bench.server.catalogue.announce(bench.manifest("f", 4), source.session)
        bench.live(SERVER_TUNING.reachability_ns, deaf=[source])
        assert bench.server.catalogue.files == {file.file_id: file}
        assert bench.effects(Assign) == []


class TestUnreachableAtCompletion:
    def test_completion_waits_for_reachable_clients_only(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.reach(a, file, Milestone.COMPLETE)
        bench.live(SERVER_TUNING.reachability_ns, deaf=[b])
        assert bench.effects(FileCompleted) == [FileCompleted(file.file_id, "f", 1)]
        assert file.is_complete
        bench.live(SECOND_NS)
        assert not file.is_complete
        bench.reach(b, file, Milestone.COMPLETE)
        assert bench.effects(FileCompleted) == [FileCompleted(file.file_id, "f", 2)]

    def test_file_without_reachable_clients_is_not_complete(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.exchange("f", 4)
        bench.live(SERVER_TUNING.reachability_ns, deaf=[a])
        assert bench.effects(FileCompleted) == []
        assert not file.is_complete


class TestNetworks:
    def test_holder_without_a_link_stalls_the_file(self) -> None:
        data = sample_bytes(60 * KIB)
        network = network_of(FAST, "a", "b", "c")
        manifest = network.seed("f", data)
        file = exchanging(network, manifest)
        network.block_link(network.clients["b"])
        assert network.run(lambda: file.is_stalled, NOTICED_NS)
        assert {name for _, name in file.availability.missing_ranges()} == {"b"}
        missing = RangeSet(span for span, _ in file.availability.missing_ranges())
        network.pass_time(60 * SECOND_NS)
        assert "b" in network.server.members
        for name in "ac":
            assert network.clients[name].store.missing(manifest.file_id) == missing
        network.unblock_link(network.clients["b"])
        assert network.run(lambda: file.is_complete, 30 * SECOND_NS)
        assert_have(network, data, "a", "b", "c")
        events = events_of(network, ReachabilityChanged, FileStalled, FileResumed)
        assert [type(event) for event in events] == [ReachabilityChanged, FileStalled, ReachabilityChanged, FileResumed]

    def test_client_without_a_link_delays_completion_briefly(self) -> None:
        data = sample_bytes(40 * KIB)
        network = network_of(FAST, "a", "b", "idle")
        manifest = network.seed("f", data, share_count=2)
        file = exchanging(network, manifest)
        network.block_link(network.clients["idle"])
        assert network.run(lambda: file.is_complete, NOTICED_NS)
        assert_have(network, data, "a", "b")
        network.unblock_link(network.clients["idle"])
        assert network.run(lambda: "f" in network.clients["idle"].store.finished, 30 * SECOND_NS)
        network.pass_time(SECOND_NS)
        assert events_of(network, FileCompleted)[-1] == FileCompleted(manifest.file_id, "f", 3)

    def test_share_of_a_client_without_a_link_is_reassigned(self) -> None:
        data = sample_bytes(60 * KIB)
        network = network_of(FAST, "a", "b", "c")
        network.block_link(network.clients["b"])
        manifest = network.seed("f", data)
        file = file_of(network, manifest)
        assert {share.owner for share in file.shares.all} == {"a", "b", "c"}
        assert network.run(lambda: file.is_complete, NOTICED_NS)
        assert "b" not in {share.owner for share in file.shares.all}
        assert events_of(network, FileStalled) == []
        network.unblock_link(network.clients["b"])
        assert network.run(lambda: "f" in network.clients["b"].store.finished, 30 * SECOND_NS)
        assert_have(network, data, "a", "b", "c")

    def test_source_continues_when_its_link_is_back(self) -> None:
        data = sample_bytes(60 * KIB)
        network = network_of(FAST, "a", "b")
        manifest = network.seed("f", data)
        source = network.clients["source-0 of f"]
        network.block_link(source)
        file = file_of(network, manifest)
        assert network.run(lambda: file.is_stalled, NOTICED_NS)
        assert {name for _, name in file.availability.missing_ranges()} == {source.name}
        network.pass_time(60 * SECOND_NS)
        assert file.phase is Phase.SEEDING
        network.unblock_link(source)
        assert network.run(lambda: file.is_complete, 30 * SECOND_NS)
        assert_have(network, data, "a", "b")

    def test_client_gets_a_file_seeded_while_it_was_unreachable(self) -> None:
        data = sample_bytes(40 * KIB)
        network = network_of(FAST, "a", "b")
        away = network.clients["b"]
        network.block_link(away)
        network.pass_time(NOTICED_NS)
        file = file_of(network, network.seed("f", data))
        assert network.run(lambda: file.is_complete, 10 * SECOND_NS)
        assert {share.owner for share in file.shares.all} == {"a"}
        network.unblock_link(away)
        assert network.run(lambda: "f" in away.store.finished, 30 * SECOND_NS)
        assert_have(network, data, "a", "b")

    @PROFILES
    def test_client_without_downlink_is_not_a_holder(self, parameters: Parameters) -> None:
        data = sample_bytes(30 * KIB)
        network = network_of(parameters, "a", "b", "deaf", deaf="deaf")
        manifest = network.seed("f", data)
        file = exchanging(network, manifest)  # until it becomes unreachable, it is a holder and receives deliveries
        assert file.shares.ranges_of("deaf")
        assert network.run(lambda: file.is_stalled, NOTICED_NS)
        assert {name for _, name in file.availability.missing_ranges()} == {"deaf"}
        network.pass_time(60 * SECOND_NS)
        assert_have(network, data, "deaf")  # its requests arrive, and deliveries are not datagrams
        assert events_of(network, DownlinkChanged) == [DownlinkChanged(False)]
        assert events_of(network, ReachabilityChanged) == [ReachabilityChanged("deaf", False)]
        network.clients["deaf"].downlink_blocked = False
        assert network.run(lambda: file.is_complete, 30 * SECOND_NS)
        assert_have(network, data, "a", "b", "deaf")
        assert events_of(network, DownlinkChanged) == [DownlinkChanged(False), DownlinkChanged(True)]
        assert events_of(network, ReachabilityChanged) == [
            ReachabilityChanged("deaf", False),
            ReachabilityChanged("deaf", True),
        ]

    def test_client_whose_downlink_fails_becomes_unreachable(self) -> None:
        network = network_of(FAST, "a")
        network.pass_time(60 * SECOND_NS)
        since = network.now
        network.clients["a"].downlink_blocked = True
        assert network.run(
            lambda: bool(events_of(network, DownlinkChanged)), CLIENT_TUNING.downlink_timeout_ns + 3 * SECOND_NS
        )
        assert network.now - since >= CLIENT_TUNING.downlink_timeout_ns - 6 * SECOND_NS
        assert network.server.members["a"].reachable
        assert network.run(lambda: not network.server.members["a"].reachable, SERVER_TUNING.reachability_ns)
        assert events_of(network, ReachabilityChanged) == [ReachabilityChanged("a", False)]

    @PROFILES
    def test_loss_of_a_third_makes_no_client_unreachable(self, parameters: Parameters) -> None:
        network, file, data = self.lossy(parameters, 1, 0.33)
        assert file.is_complete
        assert_have(network, data, "a", "b", "c")
        assert events_of(network, ReachabilityChanged, DownlinkChanged, FileStalled) == []

    @pytest.mark.parametrize("seed", range(4))
    @PROFILES
    def test_client_survives_the_loss_of_half_of_all_datagrams(self, parameters: Parameters, seed: int) -> None:
        network, file, data = self.lossy(parameters, seed, 0.5)
        members = network.server.members
        assert set(members) == {"a", "b", "c"}
        assert network.run(lambda: file.is_complete and all(m.reachable for m in members.values()), NOTICED_NS)
        assert_have(network, data, "a", "b", "c")

    def lossy(self, parameters: Parameters, seed: int, loss: float) -> tuple[CoreNetwork, SharedFile, bytes]:
        """Return a network after a minute in which this part of all datagrams was lost, in each direction."""
        data = sample_bytes(40 * KIB)
        network = CoreNetwork(parameters, 16, seed=seed, loss=loss)
        for name in "abc":
            network.join(name)
        file = file_of(network, network.seed("f", data))
        network.pass_time(60 * SECOND_NS)
        return network, file, data
