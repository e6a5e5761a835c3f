"""The server machine: joins, leases, commands about files and the cache, and refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pspd.core.effects.client import ReportMilestone
from pspd.core.effects.server import (
    Assign,
    CloseLink,
    Deliver,
    DuplicateRefused,
    EndCause,
    EndSession,
    FileCompleted,
    FileDeclined,
    FileSeeded,
    MemberJoined,
    MemberLeft,
    ServerEffect,
    StartExchange,
)
from pspd.core.effects.shared import Milestone, SendDatagram
from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import Manifest
from pspd.core.model.parameters import CLASSIC, FAST, SECOND_NS
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import HeldChunks
from pspd.core.model.tuning import SERVER_TUNING
from pspd.core.server import catalogue
from pspd.core.server.machine import ServerMachine
from pspd.core.server.sessions import SRTT_US_MAX
from pspd.core.wire.datagrams import EVERY_HOLDER, OWNERS, Hello, HelloAck, decode_datagram
from pspd.errors import BadArgument, DuplicateInstance, LimitReached, NameTaken, NotFound, SessionUnknown, WrongState
from pspd.store.digests import blake3_digest
from pspd.text.addresses import PORT_MAX, address_text
from tests.core.bench import Bench, address_of
from tests.core.samples import sessions

NOBODY = 0xDEAD


def kinds(effects: list[ServerEffect]) -> list[type[ServerEffect]]:
    return [type(effect) for effect in effects]


class TestMembership:
    def test_client_joins_and_leaves(self) -> None:
        bench = Bench()
        member = bench.join("a")
        assert bench.server.sessions.reachable_clients() == ["a"]
        assert bench.server.sessions.get(member.session) is member
        bench.server.poll()
        bench.server.member_left(member.session, "it left", bench.now)
        assert bench.server.poll() == [
            EndSession(member.session, "it left", EndCause.LEFT),
            CloseLink(member.session),
            MemberLeft("a", "it left"),
        ]
        assert bench.server.members == {}
        assert bench.server.sessions.lost_clients == {"a": address_of("a")}
        bench.server.member_left(member.session, "again", bench.now)
        assert bench.server.poll() == []

    @pytest.mark.parametrize("name", ["", "x" * 101, "a/b", "a\nb", "\x7f"])
    def test_unprintable_name_is_refused(self, name: str) -> None:
        with pytest.raises(BadArgument):
            Bench().join(name)

    def test_name_of_a_connected_client_is_taken(self) -> None:
        bench = Bench()
        bench.join("a")
        with pytest.raises(NameTaken):
            bench.server.member_joined("a", b"another machine", bench.now)

    @pytest.mark.parametrize("port", [-1, PORT_MAX + 1])
    def test_invalid_port_is_refused(self, port: int) -> None:
        bench = Bench()
        with pytest.raises(BadArgument):
            bench.server.member_joined("a", b"a", bench.now, delivery_port=port)
        assert bench.server.members == {}

    def test_returning_client_replaces_its_session(self) -> None:
        bench = Bench()
        old = bench.join("a")
        bench.server.poll()
        new = bench.join("a")
        assert new.session != old.session
        assert kinds(bench.server.poll())[:4] == [EndSession, CloseLink, MemberLeft, MemberJoined]
        assert list(bench.server.members.values()) == [new]
        assert bench.server.sessions.lost_clients == {}
        with pytest.raises(SessionUnknown):
            bench.server.sessions.get(old.session)

    def test_second_machine_is_refused_while_the_first_is_active(self) -> None:
        bench = Bench()
        bench.server.member_joined("a", b"a", bench.now, peer="10.0.0.1:1")
        bench.pass_time(SECOND_NS)
        second = bench.server.member_joined("a", b"a", bench.now, peer="10.0.0.2:2")
        bench.pass_time(SECOND_NS)
        with pytest.raises(DuplicateInstance, match=r"10\.0\.0\.2:2.*10\.0\.0\.1:3"):
            bench.server.member_joined("a", b"a", bench.now, peer="10.0.0.1:3")
        assert bench.server.members["a"] is second
        assert bench.effects(DuplicateRefused) == [DuplicateRefused("a", "10.0.0.1:3", "10.0.0.2:2")]

    def test_repeated_joins_stay_refused_and_are_logged_once_a_minute(self) -> None:
        bench = Bench()
        for peer in ("x", "y"):
            bench.server.member_joined("a", b"a", bench.now, peer=peer)
        for _ in range(300):
            bench.live(SECOND_NS)
            with pytest.raises(DuplicateInstance):
                bench.server.member_joined("a", b"a", bench.now, peer="x")
        assert 5 <= len(bench.effects(DuplicateRefused)) <= 6

    def test_client_that_crashes_repeatedly_may_join(self) -> None:
        bench = Bench()
        for _ in range(20):
            bench.server.member_joined("a", b"a", bench.now)
            bench.live(SECOND_NS)
            bench.pass_time(bench.server.sessions.lease_ns * 3 // 10)  # silent, but its lease has not expired
            assert "a" in bench.server.members

    def test_silent_session_is_replaced_after_a_refusal(self) -> None:
        bench = Bench()
        for _ in range(2):
            bench.server.member_joined("a", b"a", bench.now)
        second = bench.server.members["a"]
        refused = 0
        while bench.server.members["a"] is second:  # it is silent
            try:
                bench.server.member_joined("a", b"a", bench.now)
            except DuplicateInstance:
                refused += 1
                bench.pass_time(SECOND_NS)
        assert refused == 9

    def test_replacement_is_forgotten_after_a_minute(self) -> None:
        bench = Bench()
        for _ in range(5):
            first = bench.server.members.get("a")
            bench.server.member_joined("a", b"a", bench.now)
            assert bench.server.members["a"] is not first
            bench.live(SERVER_TUNING.replacement_ns)

    def test_bad_port_does_not_end_the_old_session(self) -> None:
        bench = Bench()
        first = bench.join("a")
        with pytest.raises(BadArgument):
            bench.server.member_joined("a", b"a", bench.now, delivery_port=65536)
        assert bench.server.members["a"] is first

    def test_session_ends_with_its_cause(self) -> None:
        bench = Bench()
        bench.join("a")
        bench.join("a")
        bench.server.member_left(bench.server.members["a"].session, "it left", bench.now)
        bench.server.member_left(bench.join("b").session, "gone", bench.now, EndCause.CONNECTION_ENDED)
        bench.join("c")
        bench.pass_time(2 * bench.server.sessions.lease_ns)
        causes = [ended.cause for ended in bench.effects(EndSession)]
        assert causes == [EndCause.REPLACED, EndCause.LEFT, EndCause.CONNECTION_ENDED, EndCause.LEASE_EXPIRED]

    def test_expired_lease_ends_the_session(self) -> None:
        bench = Bench()
        kept, lost = bench.join("kept"), bench.join("lost")
        bench.pass_time(SERVER_TUNING.lease_ns - 1)
        bench.server.sessions.renew_lease(kept.session, bench.now)
        bench.server.poll()
        bench.pass_time(1)
        assert bench.effects(MemberLeft) == [MemberLeft("lost", "its lease ran out")]
        with pytest.raises(SessionUnknown):
            bench.server.sessions.renew_lease(lost.session, bench.now)
        bench.pass_time(SERVER_TUNING.lease_ns)
        assert bench.server.members == {}
        assert bench.server.next_timeout() is None

    def test_datagram_renews_the_lease(self) -> None:
        bench = Bench()
        heard, _ = bench.join("heard"), bench.join("lost")
        bench.pass_time(SERVER_TUNING.lease_ns - 1)
        bench.send(heard, Hello(heard.session, 2, 1))
        bench.server.poll()
        bench.pass_time(1)
        assert bench.effects(MemberLeft) == [MemberLeft("lost", "its lease ran out")]

    def test_late_server_extends_the_leases(self) -> None:
        bench = Bench()
        member = bench.join("a")
        late_ns = 5 * SECOND_NS
        bench.now += SERVER_TUNING.lease_ns + late_ns
        bench.server.handle_timeout(bench.now)
        assert list(bench.server.members) == ["a"], "what has come from it may not be read yet"
        bench.now += late_ns
        bench.server.handle_timeout(bench.now)
        assert bench.effects(MemberLeft) == [MemberLeft("a", "its lease ran out")]
        assert member.session not in bench.machine.sessions._by_session

    def test_late_server_extends_leases_by_one_lease_at_most(self) -> None:
        bench = Bench()
        bench.join("a")
        bench.now += 100 * SERVER_TUNING.lease_ns
        bench.server.handle_timeout(bench.now)
        bench.now += SERVER_TUNING.lease_ns
        bench.server.handle_timeout(bench.now)
        assert not bench.server.members

    def test_few_sessions_expire_in_one_tick(self) -> None:
        bench = Bench()
        for index in range(SERVER_TUNING.expiries_per_tick_max + 1):
            bench.join(f"m{index}")
        bench.now += SERVER_TUNING.lease_ns
        bench.server.handle_timeout(bench.now)
        assert list(bench.server.members) == [f"m{SERVER_TUNING.expiries_per_tick_max}"]
        assert bench.server.next_timeout() <= bench.now
        bench.server.handle_timeout(bench.now)
        assert not bench.server.members

    def test_leases_and_hello_intervals_grow_with_members(
        self,
    ) -> None:
        tuning = replace(SERVER_TUNING, lease_ns_per_member=20 * SECOND_NS, hello_interval_ns_per_member=6 * SECOND_NS)
        bench = Bench(tuning=tuning)
        bench.join("a")
        assert (bench.server.sessions.lease_ns, bench.server.sessions.hello_interval_ns) == (
            SERVER_TUNING.lease_ns,
            6 * SECOND_NS,
        )
        bench.join("b")
        assert (bench.server.sessions.lease_ns, bench.server.sessions.hello_interval_ns) == (
            40 * SECOND_NS,
            12 * SECOND_NS,
        )
        bench.join("c")
        assert (bench.server.sessions.hello_interval_ns, bench.server.sessions.reachability_ns) == (
            18 * SECOND_NS,
            36 * SECOND_NS,
        )
        last = bench.effects(SendDatagram)[-1]
        assert decode_datagram(last.data) == HelloAck(bench.server.members["c"].session, 1, 18_000)
        seldom = Bench(tuning=replace(SERVER_TUNING, hello_interval_ns_per_member=101 * SECOND_NS))
        seldom.join("a")
        assert seldom.server.sessions.hello_interval_ns == SERVER_TUNING.hello_interval_ns_max

    def test_short_reachability_shortens_the_hello_interval(self) -> None:
        machine = ServerMachine(
            FAST, 64, blake3_digest, 3, sessions(3), replace(SERVER_TUNING, reachability_ns=4 * SECOND_NS)
        )
        assert (machine.sessions.hello_interval_ns, machine.sessions.reachability_ns) == (2 * SECOND_NS, 4 * SECOND_NS)
        assert (
            ServerMachine(FAST, 64, blake3_digest, 3, sessions(3)).sessions.reachability_ns
            == SERVER_TUNING.reachability_ns
        )

    def test_session_is_drawn_again_if_reserved_or_in_use(self) -> None:
        drawn = iter([5, EVERY_HOLDER, OWNERS, 5, 6])
        machine = ServerMachine(FAST, 64, blake3_digest, 3, lambda: next(drawn))
        assert [machine.member_joined(name, bytes(16), 0).session for name in "ab"] == [5, 6]

    def test_members_are_bounded(self) -> None:
        bench = Bench(tuning=replace(SERVER_TUNING, members_max=2))
        bench.join("a")
        bench.join("b")
        with pytest.raises(LimitReached):
            bench.join("c")
        bench.join("b")  # it joins again, so the number of members stays the same

    def test_holdings_at_joining_are_bounded(self) -> None:
        bench = Bench(tuning=replace(SERVER_TUNING, join_ranges_max=5))
        pieces = {
            bytes(32): HeldChunks(RangeSet([(0, 1), (2, 3), (4, 5)]), complete=False),
            bytes(31) + b"x": HeldChunks(RangeSet(), complete=False),
        }
        bench.join("a", held=pieces)
        with pytest.raises(LimitReached, match="more than 5 ranges"):
            bench.join("b", held=pieces)
        bench.join("a", held=pieces)  # it joins again, so the number of ranges stays the same
        bench.server.member_left(bench.server.members["a"].session, "gone", bench.now)
        bench.join("b", held=pieces)

    def test_remembered_lost_clients_are_bounded(self) -> None:
        bench = Bench(tuning=replace(SERVER_TUNING, lost_clients_max=2))
        for name in "abc":
            bench.server.member_left(bench.join(name).session, "gone", bench.now)
        assert list(bench.server.sessions.lost_clients) == ["b", "c"]

    def test_deliveries_go_to_datagram_address_and_delivery_port(self) -> None:
        bench = Bench(CLASSIC)
        member = bench.join("a", reachable=False)
        assert bench.server.delivery_address(member.session) is None
        bench.send(member, Hello(member.session, 1, 0))
        assert bench.server.delivery_address(member.session) == ("a", 9)
        portless = bench.server.member_joined("b", b"b", bench.now)
        bench.send(portless, Hello(portless.session, 1, 0))
        assert bench.server.delivery_address(portless.session) is None
        assert bench.server.delivery_address(NOBODY) is None


class TestFiles:
    def test_name_belongs_to_one_content(self) -> None:
        bench = Bench()
        source = bench.join("s", is_source=True)
        file = bench.server.catalogue.announce(bench.manifest("f", 3), source.session)
        assert bench.server.catalogue.announce(bench.manifest("f", 3), source.session) is file
        with pytest.raises(NameTaken):
            bench.server.catalogue.announce(bench.manifest("f", 4), source.session)

    def test_refusal_names_a_different_mode(self) -> None:
        bench = Bench()
        source = bench.join("s", is_source=True)
        divided = bench.manifest("f", 3).divided(3, lambda _, length: bytes(length), blake3_digest)
        bench.server.catalogue.announce(divided, source.session)
        other = Manifest.parse("f", divided.size_bytes, divided.block_digests, blake3_digest, mode=0o700)
        with pytest.raises(NameTaken, match="with mode 644, not 700: change it with chmod, or take"):
            bench.server.catalogue.announce(other, source.session)
        longer = Manifest.build("f", 5000, lambda _, length: bytes(length), blake3_digest, mode=0o700)
        with pytest.raises(NameTaken, match="with other bytes: give another name"):
            bench.server.catalogue.announce(longer, source.session)

    def test_another_source_may_seed_when_the_first_is_gone(self) -> None:
        bench = Bench()
        first, second = bench.join("s", is_source=True), bench.join("t", is_source=True)
        file = bench.server.catalogue.announce(bench.manifest("f", 3), first.session)
        with pytest.raises(WrongState):
            bench.server.catalogue.announce(file.manifest, second.session)
        bench.server.member_left(first.session, "gone", bench.now)
        assert file.file_id not in bench.server.catalogue.files
        assert bench.server.catalogue.announce(file.manifest, second.session).source == "t"

    def test_manifests_are_bounded(self) -> None:
        bench = Bench(tuning=replace(SERVER_TUNING, manifests_bytes_max=5 * 32))
        session = bench.join("source", is_source=True).session
        bench.server.catalogue.announce(bench.manifest("three", 3), session)
        with pytest.raises(LimitReached, match="the manifest of 'four' and those of the network's files"):
            bench.server.catalogue.announce(bench.manifest("four", 4), session)
        bench.server.catalogue.announce(bench.manifest("two", 2), session)

    def test_files_are_bounded(self) -> None:
        bench = Bench(tuning=replace(SERVER_TUNING, files_max=1))
        source = bench.join("s", is_source=True)
        bench.server.catalogue.announce(bench.manifest("f", 3), source.session)
        with pytest.raises(LimitReached):
            bench.server.catalogue.announce(bench.manifest("g", 3), source.session)

    def test_unannounced_file_cannot_be_divided(self) -> None:
        bench = Bench()
        source = bench.join("s", is_source=True)
        with pytest.raises(NotFound):
            bench.server.catalogue.divide(bench.manifest("f", 3, 1), source.session, bench.now)
        with pytest.raises(SessionUnknown):
            bench.server.catalogue.announce(bench.manifest("f", 3), NOBODY)

    def test_file_is_divided_once_among_clients(self) -> None:
        bench = Bench()
        source = bench.join("s", is_source=True)
        manifest = bench.manifest("f", 3, 1)
        bench.server.catalogue.announce(manifest, source.session)
        with pytest.raises(WrongState):
            bench.server.catalogue.divide(manifest, source.session, bench.now)
        bench.join("a")
        with pytest.raises(WrongState):
            bench.server.catalogue.divide(bench.manifest("f", 3, 0), source.session, bench.now)
        bench.server.catalogue.divide(manifest, source.session, bench.now)
        with pytest.raises(WrongState):
            bench.server.catalogue.divide(manifest, source.session, bench.now)

    def test_only_an_undivided_file_can_be_withdrawn(self) -> None:
        bench = Bench()
        bench.join("a")
        source = bench.join("s", is_source=True)
        file = bench.server.catalogue.announce(bench.manifest("f", 3), source.session)
        bench.server.lifecycle.withdraw(file, "another source")
        assert list(bench.server.catalogue.files.values()) == [file]
        bench.server.lifecycle.withdraw(file, "s")
        assert bench.server.catalogue.files == {}
        file = bench.seed("f", 3)
        bench.server.lifecycle.withdraw(file, "source of f")
        assert list(bench.server.catalogue.files.values()) == [file]

    def test_undivided_file_is_neither_assigned_nor_served(self) -> None:
        bench = Bench()
        member, source = bench.join("a"), bench.join("s", is_source=True)
        file = bench.server.catalogue.announce(bench.manifest("f", 3), source.session)
        bench.ask(member, file, (0, 3))
        bench.join("b")
        with pytest.raises(NotFound):
            bench.reach(member, file, Milestone.SHARE_HELD)
        with pytest.raises(NotFound):
            bench.server.catalogue.file_declined(member.session, file.file_id, "no room", bench.now)
        assert {Assign, Deliver, FileSeeded}.isdisjoint(kinds(bench.server.poll()))
        assert file.phase is Phase.ANNOUNCED

    def test_milestone_of_unknown_file_or_session_is_refused(self) -> None:
        bench = Bench()
        member = bench.join("a")
        report = ReportMilestone(bytes(32), Milestone.COMPLETE, 0)
        with pytest.raises(NotFound):
            bench.server.catalogue.milestone_reached(member.session, report, bench.now)
        with pytest.raises(SessionUnknown):
            bench.server.catalogue.milestone_reached(NOBODY, report, bench.now)

    def test_empty_file_is_seeded_when_it_is_divided(self) -> None:
        bench = Bench()
        member = bench.join("a")
        file = bench.seed("f", 0)
        assert file.phase is Phase.EXCHANGING
        assert "source of f" not in bench.server.members
        bench.reach(member, file, Milestone.COMPLETE)
        events = kinds(bench.server.poll())
        assert events.index(FileSeeded) < events.index(StartExchange) < events.index(FileCompleted)
        assert file.availability.min_holder_count() == 1

    def test_shares_are_given_in_rotation(self) -> None:
        bench = Bench()
        members = [bench.join(name) for name in "abc"]
        source = bench.join("s", is_source=True)
        for count, expected in ((2, [1, 1, 0]), (7, [3, 2, 2])):
            manifest = bench.manifest(f"f{count}", 70, count)
            bench.server.catalogue.announce(manifest, source.session)
            file = bench.server.catalogue.divide(manifest, source.session, bench.now)
            assert [len(file.shares.ranges_of(member.name)) for member in members] == expected

    def test_empty_share_is_held_without_a_report(self) -> None:
        bench = Bench()
        owner, silent = bench.join("a"), bench.join("b")
        source = bench.join("s", is_source=True)
        manifest = bench.manifest("f", 1, 2)
        bench.server.catalogue.announce(manifest, source.session)
        file = bench.server.catalogue.divide(manifest, source.session, bench.now)
        assert (file.shares.ranges_of("a"), file.shares.ranges_of("b")) == ((), (Range(0, 1),))
        owner, silent = silent, owner
        assert file.shares.unheld_owners() == [owner.name]
        bench.reach(owner, file, Milestone.SHARE_HELD)
        assert file.seeded_at is not None, f"nobody waits for {silent.name}, which has nothing to get"

    def test_empty_share_stays_held_when_its_owner_leaves(self) -> None:
        bench = Bench()
        bench.join("a"), bench.join("b")
        source = bench.join("s", is_source=True)
        manifest = bench.manifest("f", 1, 2)
        bench.server.catalogue.announce(manifest, source.session)
        file = bench.server.catalogue.divide(manifest, source.session, bench.now)
        bench.server.member_left(bench.server.members["a"].session, "gone", bench.now)
        bench.reach(bench.server.members["b"], file, Milestone.SHARE_HELD)
        assert file.seeded_at is not None

    def test_client_cannot_announce_a_file(self) -> None:
        bench = Bench()
        client, source = bench.join("a"), bench.join("s", is_source=True)
        with pytest.raises(WrongState, match="only a source can seed a file"):
            bench.server.catalogue.announce(bench.manifest("f", 3), client.session)
        bench.server.catalogue.announce(bench.manifest("f", 3), source.session)
        with pytest.raises(WrongState, match="only a source can seed a file"):
            bench.server.catalogue.divide(bench.manifest("f", 3, 1), client.session, bench.now)

    def test_measured_round_trip_is_bounded(self) -> None:
        bench = Bench()
        member = bench.join("a", reachable=False)
        bench.send(member, Hello(member.session, 1, 2**32 - 1))
        assert member.srtt_us == SRTT_US_MAX
        assert bench.holder(member).rtt.srtt_ns == SRTT_US_MAX * 1000

    def test_min_holder_count_is_of_the_rarest_chunk(self) -> None:
        bench = Bench()
        a, _ = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 10)
        assert file.availability.min_holder_count() == 1
        bench.reach(a, file, Milestone.COMPLETE)
        assert file.availability.min_holder_count() == 1
        bench.server.member_left(a.session, "gone", bench.now)
        assert file.availability.min_holder_count() == 0


class TestDeclining:
    def test_share_of_a_declining_client_is_reassigned(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.seed("f", 4)
        bench.server.poll()
        bench.server.catalogue.file_declined(b.session, file.file_id, "the disk is full", bench.now)
        effects = bench.server.poll()
        assert effects[0] == FileDeclined(file.file_id, "f", "b", "the disk is full")
        assert [effect.session for effect in effects if isinstance(effect, Assign)] == [a.session]
        assert file.shares.ranges_of("a") == (Range(0, 2), Range(2, 4))
        bench.reach(a, file, Milestone.SHARE_HELD)
        bench.reach(a, file, Milestone.COMPLETE)
        assert bench.effects(FileCompleted) == [FileCompleted(file.file_id, "f", 1)]
        assert bench.server.lifecycle.accepting_clients(file) == ["a"]

    def test_client_that_left_before_the_poll_gets_no_share(self) -> None:
        bench = Bench(at_once=False)
        a = bench.join("a")
        file = bench.seed("f", 4)
        bench.server.catalogue.file_declined(a.session, file.file_id, "no room", bench.now)
        bench.server.poll()
        report = ReportMilestone(file.file_id, Milestone.SHARE_HELD, 0)
        bench.server.catalogue.milestone_reached(a.session, report, bench.now)
        bench.server.member_left(a.session, "gone", bench.now)
        assert a.session not in [effect.session for effect in bench.effects(Assign)]

    def test_client_that_accepts_later_gets_its_share(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.seed("f", 4)
        bench.server.catalogue.file_declined(a.session, file.file_id, "the disk is full", bench.now)
        bench.server.poll()
        report = ReportMilestone(file.file_id, Milestone.SHARE_HELD, 0)
        bench.server.catalogue.milestone_reached(a.session, report, bench.now)
        (told,) = bench.effects(Assign)
        assert (told.session, told.shares) == (a.session, (Range(0, 4),))
        assert (file.recipients.decline_reasons, file.phase) == ({}, Phase.SEEDING)

    def test_declining_client_that_still_holds_can_be_asked(self) -> None:
        bench = Bench()
        bench.join("a")
        b = bench.join("b")
        file = bench.exchange("f", 4)
        share = file.shares.ranges_of("b")[0]
        catalogue_of = bench.server.catalogue
        catalogue_of.file_declined(b.session, file.file_id, "no room", bench.now, still_holds=True)
        assert (list(file.availability.missing_ranges()), bench.server.lifecycle.accepting_clients(file)) == ([], ["a"])
        catalogue_of.file_declined(b.session, file.file_id, "no room", bench.now)
        assert [span for span, _ in file.availability.missing_ranges()] == [share]

    def test_deliveries_of_a_declined_file_are_not_in_flight(self) -> None:
        bench = Bench()
        bench.join("a")
        b = bench.join("b")
        file = bench.exchange("f", 4)
        state = bench.state(b, file)
        state.window_chunks = 1
        state.want(RangeSet([(0, 2)]))
        state.add_in_flight(1, Range(0, 1))
        bench.server.catalogue.file_declined(b.session, file.file_id, "no room", bench.now, still_holds=True)
        assert (state.window_left_chunks, list(state.wanted)) == (1, [])

    def test_returning_client_may_take_the_file(self) -> None:
        bench = Bench()
        bench.join("a")
        b = bench.join("b")
        file = bench.exchange("f", 4)
        bench.server.catalogue.file_declined(b.session, file.file_id, "x" * 1000, bench.now)
        assert file.recipients.decline_reasons == {"b": "x" * catalogue.REASON_CHARACTERS_MAX}
        bench.join("b")
        assert file.recipients.decline_reasons == {}

    def test_decline_of_unknown_file_or_session_is_refused(self) -> None:
        bench = Bench()
        a = bench.join("a")
        with pytest.raises(NotFound):
            bench.server.catalogue.file_declined(a.session, bytes(32), "no", bench.now)
        with pytest.raises(SessionUnknown):
            bench.server.catalogue.file_declined(NOBODY, bytes(32), "no", bench.now)


class TestAddresses:
    def test_reasons_are_one_printable_line(self) -> None:
        assert address_text(("10.0.0.1", 5)) == "10.0.0.1:5"
        assert address_text(("::1", 5)) == "[::1]:5"
        assert address_text(None) == ""


class TestCacheCommands:
    def test_cache_holds_at_least_one_chunk(self) -> None:
        with pytest.raises(BadArgument):
            Bench().server.resize_cache(0, 0)

    def test_clearing_returns_the_chunk_count(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        bench.contribute(bench.frame(b, file, 2, 4))
        (deliver,) = bench.delivered(a)
        assert bench.server.clear_cache(bench.now) == 0  # it is being sent
        bench.sent(a, deliver.number)
        assert bench.server.clear_cache(bench.now) == 2
        assert bench.server.cache.used_chunks == 0
