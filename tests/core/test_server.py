"""The server machine by itself: commands, what it refuses, what it drops and counts, and its hard moments."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from pspd.core import relay, server, shared_file
from pspd.core.effects import (
    Assign,
    ClientJoined,
    ClientLost,
    CloseLink,
    Deliver,
    EndSession,
    FileCompleted,
    FileDeclined,
    FileResumed,
    FileSeeded,
    FileStalled,
    InputDropped,
    Milestone,
    SendDatagram,
    ServerEffect,
    StartExchange,
    address_text,
)
from pspd.core.parameters import CLASSIC, FAST, SECOND_NS, default_cache_chunks
from pspd.core.ranges import Range, RangeSet
from pspd.core.server import LEASE_NS
from pspd.core.shared_file import Phase
from pspd.core.storage import Held
from pspd.core.wire import (
    EVERY_HOLDER,
    Broadcast,
    DropReason,
    Frame,
    Hello,
    HelloAck,
    Kind,
    Request,
    decode_datagram,
    encode_datagram,
)
from pspd.errors import BadArgument, LimitReached, NameTaken, NotFound, SessionUnknown, WrongState
from tests.core.bench import Bench, address_of

NOBODY = 0xDEAD


def kinds(effects: list[ServerEffect]) -> list[type[ServerEffect]]:
    return [type(effect) for effect in effects]


class TestMembership:
    def test_a_client_joins_and_leaves(self) -> None:
        bench = Bench()
        member = bench.join("a")
        assert bench.server.client_names() == ["a"]
        assert bench.server.member_of(member.session) is member
        bench.server.poll()
        bench.server.client_left(member.session, "it left", bench.now)
        assert bench.server.poll() == [
            EndSession(member.session, "it left"),
            CloseLink(member.session),
            ClientLost("a", "it left"),
        ]
        assert bench.server.members == {}
        assert bench.server.lost_clients == {"a": address_of("a")}
        bench.server.client_left(member.session, "again", bench.now)
        assert bench.server.poll() == []

    @pytest.mark.parametrize("name", ["", "x" * 101, "a/b", "a\nb", "\x7f"])
    def test_a_name_that_cannot_be_shown_is_refused(self, name: str) -> None:
        with pytest.raises(BadArgument):
            Bench().join(name)

    def test_a_name_belongs_to_who_has_it(self) -> None:
        bench = Bench()
        bench.join("a")
        with pytest.raises(NameTaken):
            bench.server.client_joined("a", b"another machine", bench.now)

    def test_one_that_comes_back_replaces_its_old_session(self) -> None:
        bench = Bench()
        old = bench.join("a")
        bench.server.poll()
        new = bench.join("a")
        assert new.session != old.session
        assert kinds(bench.server.poll())[:4] == [EndSession, CloseLink, ClientLost, ClientJoined]
        assert list(bench.server.members.values()) == [new]
        assert bench.server.lost_clients == {}
        with pytest.raises(SessionUnknown):
            bench.server.member_of(old.session)

    def test_a_lease_that_is_not_renewed_ends_the_session(self) -> None:
        bench = Bench()
        kept, lost = bench.join("kept"), bench.join("lost")
        bench.pass_time(LEASE_NS - 1)
        bench.server.lease_renewed(kept.session, bench.now)
        bench.server.poll()
        bench.pass_time(1)
        assert bench.effects(ClientLost) == [ClientLost("lost", "its lease ran out")]
        with pytest.raises(SessionUnknown):
            bench.server.lease_renewed(lost.session, bench.now)
        bench.pass_time(LEASE_NS)
        assert bench.server.members == {}
        assert bench.server.next_timeout() is None

    def test_a_session_is_never_zero_and_never_one_in_use(self) -> None:
        bench = Bench()
        drawn = iter([5, 0, 5, 6])
        bench.server._random = type("Drawn", (Random,), {"getrandbits": lambda self, k: next(drawn)})()
        assert [bench.join(name).session for name in "ab"] == [5, 6]

    def test_members_have_a_most(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "MEMBERS_MAX", 2)
        bench = Bench()
        bench.join("a")
        bench.join("b")
        with pytest.raises(LimitReached):
            bench.join("c")
        bench.join("b")  # back again: no one more

    def test_so_have_the_lost_clients_that_are_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "LOST_CLIENTS_MAX", 2)
        bench = Bench()
        for name in "abc":
            bench.server.client_left(bench.join(name).session, "gone", bench.now)
        assert list(bench.server.lost_clients) == ["b", "c"]

    def test_the_classic_cache_follows_the_clients_upwards_until_it_is_given_a_size(self) -> None:
        bench = Bench(CLASSIC, default_cache_chunks(CLASSIC))
        sizes = []
        for name in "abc":
            bench.join(name)
            sizes.append(bench.server.cache.capacity_chunks)
        bench.join("source", source=True)
        bench.server.client_left(bench.server.members["a"].session, "gone", bench.now)
        assert [*sizes, bench.server.cache.capacity_chunks] == [1, 2, 3, 3]
        bench.server.resize_cache(2, bench.now)
        for name in "defg":
            bench.join(name)
        assert bench.server.cache.capacity_chunks == 2

    def test_the_fast_cache_has_a_fixed_size(self) -> None:
        assert default_cache_chunks(FAST) == 64 * 1024

    def test_deliveries_go_to_the_address_its_datagrams_come_from_and_the_port_it_named(self) -> None:
        bench = Bench(CLASSIC)
        member = bench.join("a", reachable=False)
        assert bench.server.delivery_address(member.session) is None
        bench.send(member, Hello(member.session, 1, 0))
        assert bench.server.delivery_address(member.session) == ("a", 9)
        portless = bench.server.client_joined("b", b"b", bench.now)
        bench.send(portless, Hello(portless.session, 1, 0))
        assert bench.server.delivery_address(portless.session) is None
        assert bench.server.delivery_address(NOBODY) is None


class TestFiles:
    def test_a_name_belongs_to_one_content(self) -> None:
        bench = Bench()
        source = bench.join("s", source=True)
        file = bench.server.announce(bench.manifest("f", 3), source.session)
        assert bench.server.announce(bench.manifest("f", 3), source.session) is file
        with pytest.raises(NameTaken):
            bench.server.announce(bench.manifest("f", 4), source.session)

    def test_one_source_at_a_time_seeds_a_file_and_another_may_take_over_when_it_is_gone(self) -> None:
        bench = Bench()
        first, second = bench.join("s", source=True), bench.join("t", source=True)
        file = bench.server.announce(bench.manifest("f", 3), first.session)
        with pytest.raises(WrongState):
            bench.server.announce(file.manifest, second.session)
        bench.server.client_left(first.session, "gone", bench.now)
        assert bench.server.announce(file.manifest, second.session) is file

    def test_files_have_a_most(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "FILES_MAX", 1)
        bench = Bench()
        source = bench.join("s", source=True)
        bench.server.announce(bench.manifest("f", 3), source.session)
        with pytest.raises(LimitReached):
            bench.server.announce(bench.manifest("g", 3), source.session)

    def test_what_was_not_announced_cannot_be_divided(self) -> None:
        bench = Bench()
        source = bench.join("s", source=True)
        with pytest.raises(NotFound):
            bench.server.divide(bench.manifest("f", 3, 1), source.session, bench.now)
        with pytest.raises(SessionUnknown):
            bench.server.announce(bench.manifest("f", 3), NOBODY)

    def test_a_file_is_divided_once_into_something_and_among_someone(self) -> None:
        bench = Bench()
        source = bench.join("s", source=True)
        manifest = bench.manifest("f", 3, 1)
        bench.server.announce(manifest, source.session)
        with pytest.raises(WrongState):
            bench.server.divide(manifest, source.session, bench.now)
        bench.join("a")
        with pytest.raises(WrongState):
            bench.server.divide(bench.manifest("f", 3, 0), source.session, bench.now)
        bench.server.divide(manifest, source.session, bench.now)
        with pytest.raises(WrongState):
            bench.server.divide(manifest, source.session, bench.now)

    def test_what_was_announced_may_be_withdrawn_but_not_what_was_divided(self) -> None:
        bench = Bench()
        bench.join("a")
        source = bench.join("s", source=True)
        file = bench.server.announce(bench.manifest("f", 3), source.session)
        bench.server.withdraw(file)
        assert bench.server.files == {}
        file = bench.seed("f", 3)
        bench.server.withdraw(file)
        assert list(bench.server.files.values()) == [file]

    def test_before_the_division_nobody_is_told_and_nothing_is_served(self) -> None:
        bench = Bench()
        member, source = bench.join("a"), bench.join("s", source=True)
        file = bench.server.announce(bench.manifest("f", 3), source.session)
        bench.ask(member, file, (0, 3))
        bench.join("b")
        bench.reach(member, file, Milestone.SHARE_HELD)
        assert {Assign, Deliver, FileSeeded}.isdisjoint(kinds(bench.server.poll()))
        assert file.phase is Phase.ANNOUNCED

    def test_a_milestone_of_an_unknown_file_or_session_is_refused(self) -> None:
        bench = Bench()
        member = bench.join("a")
        with pytest.raises(NotFound):
            bench.server.milestone_reached(member.session, bytes(32), Milestone.COMPLETE, bench.now)
        with pytest.raises(SessionUnknown):
            bench.server.milestone_reached(NOBODY, bytes(32), Milestone.COMPLETE, bench.now)

    def test_an_empty_file_is_seeded_and_completed_by_saying_so(self) -> None:
        bench = Bench()
        member = bench.join("a")
        file = bench.seed("f", 0)
        bench.reach(member, file, Milestone.SHARE_HELD)
        bench.reach(member, file, Milestone.COMPLETE)
        events = kinds(bench.server.poll())
        assert events.index(FileSeeded) < events.index(StartExchange) < events.index(FileCompleted)
        assert file.min_holder_count() == 1

    def test_more_clients_than_shares_leave_some_without_and_more_shares_go_round(self) -> None:
        bench = Bench()
        members = [bench.join(name) for name in "abc"]
        source = bench.join("s", source=True)
        for count, expected in ((2, [1, 1, 0]), (7, [3, 2, 2])):
            manifest = bench.manifest(f"f{count}", 70, count)
            bench.server.announce(manifest, source.session)
            file = bench.server.divide(manifest, source.session, bench.now)
            assert [len(file.shares_of(member.name)) for member in members] == expected

    def test_min_holder_count_is_that_of_the_rarest_chunk(self) -> None:
        bench = Bench()
        a, _ = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 10)
        assert file.min_holder_count() == 1
        bench.reach(a, file, Milestone.COMPLETE)
        assert file.min_holder_count() == 1
        bench.server.client_left(a.session, "gone", bench.now)
        assert file.min_holder_count() == 0


class TestDrops:
    def drops(self, bench: Bench) -> list[tuple[DropReason, str]]:
        found = [(drop.reason, drop.origin) for drop in bench.effects(InputDropped)]
        assert sum(bench.server.drop_counts.values()) == len(found)
        assert all(bench.server.drop_counts[reason] for reason, _ in found)
        return found

    def test_what_is_no_datagram(self) -> None:
        bench = Bench()
        member = bench.join("a")
        good = encode_datagram(Hello(member.session, 2, 0))
        bench.server.receive_datagram(b"", ("x", 5), bench.now)
        bench.server.receive_datagram(bytes(1201), ("x", 5), bench.now)
        bench.server.receive_datagram(b"no" + good[2:], ("x", 5), bench.now)
        bench.server.receive_datagram(b"PS\x63" + good[3:], ("x", 5), bench.now)
        bench.server.receive_datagram(good + b"?", ("x", 5), bench.now)
        assert self.drops(bench) == [
            (reason, "x:5")
            for reason in (
                DropReason.TOO_SHORT,
                DropReason.TOO_LONG,
                DropReason.BAD_MAGIC,
                DropReason.BAD_VERSION,
                DropReason.BAD_LENGTH,
            )
        ]

    def test_datagrams_that_are_not_for_a_server_or_of_nobody(self) -> None:
        bench = Bench()
        member = bench.join("a")
        bench.send(member, HelloAck(member.session, 1))
        bench.send(member, Hello(NOBODY, 1, 0))
        assert self.drops(bench) == [(DropReason.UNKNOWN_KIND, "a"), (DropReason.UNKNOWN_SESSION, "a:1")]

    def test_requests_for_what_there_is_not(self) -> None:
        bench = Bench()
        member = bench.join("a")
        file = bench.exchange("f", 4)
        source = bench.join("s", source=True)
        bench.send(member, Request(member.session, bytes(32), 1, 0, 1, ()))
        bench.ask(source, file, (0, 1))
        bench.ask(member, file, (0, 5))
        assert self.drops(bench) == [
            (DropReason.UNKNOWN_FILE, "a"),
            (DropReason.UNKNOWN_FILE, "s"),
            (DropReason.BAD_RANGE, "a"),
        ]

    def test_a_request_that_a_newer_one_overtook(self) -> None:
        bench = Bench()
        a, _ = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        bench._numbers -= 1
        bench.ask(a, file, (2, 3))
        assert self.drops(bench) == [(DropReason.STALE, "a")]

    def test_a_link_of_nobody(self) -> None:
        bench = Bench()
        assert not bench.server.link_opened(NOBODY, bench.now)
        bench.server.link_closed(NOBODY, bench.now)
        assert self.drops(bench) == [(DropReason.UNKNOWN_SESSION, "link of session 000000000000dead")]

    def test_what_is_no_frame(self) -> None:
        bench = Bench()
        bench.server.frame_refused(DropReason.BAD_MAGIC, "x:5")
        assert self.drops(bench) == [(DropReason.BAD_MAGIC, "x:5")]

    def test_contributions_that_make_no_sense_are_not_received_and_nothing_is_cached(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        good = bench.frame(b, file, 2, 4)
        frames = [
            Frame(Kind.DELIVERY, b.session, file.file_id, 2, 4, good.length),
            Frame(Kind.CONTRIBUTION, NOBODY, file.file_id, 2, 4, good.length),
            Frame(Kind.CONTRIBUTION, b.session, bytes(32), 2, 4, good.length),
            Frame(Kind.CONTRIBUTION, b.session, file.file_id, 2, 5, good.length),
            Frame(Kind.CONTRIBUTION, b.session, file.file_id, 2, 4, good.length + 1),
            bench.frame(b, file, 2, 4, number=0),
            bench.frame(b, file, 2, 4, number=1),
        ]
        assert [bench.start(frame) for frame in frames] == [None] * len(frames)
        assert self.drops(bench) == [
            (DropReason.UNKNOWN_KIND, "somewhere"),
            (DropReason.UNKNOWN_SESSION, "somewhere"),
            (DropReason.UNKNOWN_FILE, "b"),
            (DropReason.BAD_RANGE, "b"),
            (DropReason.BAD_RANGE, "b"),
            (DropReason.NOT_ASKED, "b"),
            (DropReason.NOT_ASKED, "b"),
        ]
        assert bench.server.cache.used_chunks == 0
        assert file.traffic.duplicate_bytes == 2 * good.length
        bench.ask(a, file, (2, 4))  # and they do no harm to what comes later
        assert bench.contribute(good)

    def test_only_the_first_copy_is_received_and_the_others_are_counted(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        first, second = bench.frame(b, file, 2, 4), bench.frame(a, file, 2, 4)
        assert bench.start(first) is not None
        assert bench.start(second) is None  # while the first is coming
        assert bench.start(bench.frame(b, file, 2, 3)) is None  # a part of it
        bench.server.poll()
        bench.server.contribution_aborted(first, bench.now)
        assert bench.effects(InputDropped) == [InputDropped(DropReason.ABORTED, "b")]
        assert bench.contribute(second)
        assert not bench.contribute(first)  # and when it is cached
        assert bench.server.drop_counts == {DropReason.DUPLICATE: 3, DropReason.ABORTED: 1}
        assert bench.server.cache.used_chunks == 2

    def test_a_corrupt_contribution_is_not_cached_and_its_holder_not_believed(self) -> None:
        bench = Bench()
        a, b, c = bench.join("a"), bench.join("b"), bench.join("c")
        file = bench.exchange("f", 6)
        bench.reach(c, file, Milestone.COMPLETE)
        bench.ask(a, file, (2, 4))
        assert [asked.responder for asked in bench.asked("a")] == [b.session]
        assert bench.contribute(bench.frame(b, file, 2, 4), good=False)
        assert self.drops(bench) == [(DropReason.CORRUPT, "b")]
        assert file.traffic.corrupt_bytes == 2048
        assert bench.server.cache.cached(file.file_id, 0, 6) == []
        assert not file.held["b"].within(2, 4)
        assert file.available.chunk_count == 6
        bench.pass_time(SECOND_NS)
        assert bench.asked("a")[0].responder == c.session
        assert bench.contribute(bench.frame(c, file, 2, 4, number=2))
        assert [deliver.frame.start for deliver in bench.delivered(a)] == [2]

    def test_the_last_holder_of_a_chunk_proved_wrong_stalls_the_file(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        bench.contribute(bench.frame(b, file, 2, 4), good=False)
        assert bench.effects(FileStalled) == [FileStalled(file.file_id, "f", ((Range(2, 4), ""),))]
        bench.reach(b, file, Milestone.COMPLETE)
        assert bench.effects(FileResumed) == [FileResumed(file.file_id, "f")]

    def test_a_client_that_lost_what_it_held_says_so_by_asking_for_it(self) -> None:
        bench = Bench()
        a, _ = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (1, 4))
        assert bench.effects(FileStalled)[0].missing == ((Range(1, 2), ""),)
        assert list(file.held["a"]) == [Range(0, 1)]

    def test_a_contribution_of_someone_who_is_gone_before_it_ends_is_good(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        frame = bench.frame(b, file, 2, 4)
        views = bench.start(frame)
        assert views is not None
        bench.server.client_left(b.session, "gone", bench.now)
        data = bench.data[file.file_id][2048:]
        for view in views:
            view[:], data = data[: len(view)], data[len(view) :]
        bench.server.contribution_received(frame, bench.now)
        assert len(bench.delivered(a)) == 1

    def test_nor_is_a_corrupt_one_a_fault_of_ours(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        frame = bench.frame(b, file, 2, 4)
        assert bench.start(frame)
        bench.server.client_left(b.session, "gone", bench.now)
        bench.server.contribution_received(frame, bench.now)
        assert self.drops(bench)[-1] == (DropReason.CORRUPT, f"session {b.session:016x}")


class TestFetching:
    def test_a_miss_is_broadcast_to_all_and_names_the_owner_of_the_share(self) -> None:
        bench = Bench()
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 6)
        bench.ask(a, file, (2, 6))
        sent = bench.effects(SendDatagram)
        assert {effect.address[0] for effect in sent} == {"a", "b", "c"}
        broadcast = decode_datagram(sent[0].data)
        assert isinstance(broadcast, Broadcast)
        assert [(e.start, e.stop, e.responder) for e in broadcast.asked] == [
            (2, 4, b.session),
            (4, 6, c.session),
        ]

    def test_a_request_for_what_is_being_fetched_joins_and_a_cached_one_is_a_hit(self) -> None:
        bench = Bench()
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 6)
        bench.ask(a, file, (2, 4))
        assert len(bench.asked("a")) == 1
        bench.ask(c, file, (2, 4))
        assert bench.asked("a") == []
        bench.contribute(bench.frame(b, file, 2, 4))
        delivers = bench.effects(Deliver)
        assert [deliver.session for deliver in delivers] == [a.session, c.session]
        for deliver in delivers:
            assert b"".join(deliver.views) == bench.data[file.file_id][2048:4096]
            bench.server.delivery_sent(deliver.session, deliver.number, bench.now)
        bench.ask(c, file, (2, 3))  # what was promised is acknowledged or on its way: nothing new
        assert bench.effects(Deliver) == []
        bench.ask(c, file, (2, 3), acknowledged=delivers[1].number)
        assert len(bench.effects(Deliver)) == 1
        cache = bench.server.cache
        assert (cache.hit_count, cache.miss_count, cache.join_count) == (1, 2, 2)

    def test_the_window_of_a_client_bounds_what_is_promised(self) -> None:
        bench = Bench()
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 30)
        bench.ask(a, file, (10, 30), window_chunks=4)
        (asked,) = bench.asked("a")
        assert bench.contribute(bench.frame(b, file, asked.start, asked.stop))
        (deliver,) = bench.delivered(a)
        assert (deliver.frame.start, deliver.frame.stop) == (10, 14)
        bench.ask(c, file, (10, 20), window_chunks=3)  # hits, in part
        (deliver,) = bench.delivered(c)
        assert (deliver.frame.start, deliver.frame.stop) == (10, 13)
        bench.ask(a, file, (10, 30), window_chunks=0)
        assert bench.effects(Deliver) == []

    def test_of_several_fetches_only_as_many_are_joined_as_the_window_allows(self) -> None:
        bench = Bench()
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 30)
        bench.ask(a, file, (10, 30))
        fetches = bench.asked("a")
        assert len(fetches) > 1
        bench.ask(b, file, (20, 30), window_chunks=2)
        bench.ask(c, file, (10, 20), window_chunks=1)
        for asked in fetches:
            holder = next(m for m in (b, c) if m.session == asked.responder)
            assert bench.contribute(bench.frame(holder, file, asked.start, asked.stop))
        delivers = bench.effects(Deliver)
        assert sum(d.frame.stop - d.frame.start for d in delivers if d.session == b.session) == 2
        assert sum(d.frame.stop - d.frame.start for d in delivers if d.session == c.session) == 1

    def test_of_several_cached_ranges_only_as_many_are_delivered_as_the_window_allows(self) -> None:
        bench = Bench()
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 30)
        bench.ask(a, file, (10, 15))
        assert bench.contribute(bench.frame(b, file, 10, 15))
        bench.server.poll()
        bench.ask(c, file, (10, 11), (13, 14), window_chunks=1)
        assert [deliver.frame.start for deliver in bench.delivered(c)] == [10]

    def test_of_several_parts_of_a_fetch_only_as_many_are_joined_as_the_window_allows(self) -> None:
        bench = Bench(cache_chunks=64)
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 30)
        bench.ask(a, file, (10, 20))
        bench.ask(c, file, (10, 12), (14, 16), window_chunks=2)
        for asked in bench.asked("a"):
            assert bench.contribute(bench.frame(b, file, asked.start, asked.stop))
        delivered = [(d.frame.start, d.frame.stop) for d in bench.delivered(c)]
        assert delivered == [(10, 12)]

    def test_nothing_is_delivered_to_whom_nothing_can_reach(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        bench.server.link_closed(a.session, bench.now)
        assert bench.contribute(bench.frame(b, file, 2, 4))
        assert bench.effects(Deliver) == []
        bench.ask(a, file, (2, 4))
        assert bench.effects(Deliver) == []
        assert bench.server.link_opened(a.session, bench.now)
        bench.ask(a, file, (2, 4))
        assert len(bench.delivered(a)) == 1

    def test_a_client_that_waits_in_line_and_loses_its_link_leaves_the_line(self) -> None:
        """Nobody fetches for it what is cached meanwhile, and came too late for it."""
        bench = Bench(cache_chunks=8)
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 30)
        d = bench.join("d")
        bench.ask(a, file, (10, 18))  # fills the cache
        bench.ask(d, file, (18, 20))  # is first in line,
        bench.ask(c, file, (10, 20), window_chunks=9)  # is second, with room in its window for one chunk
        bench.server.resize_cache(10, bench.now)
        asked = bench.asked("a")
        assert (asked[-1].start, asked[-1].stop) == (18, 20)
        bench.server.link_closed(c.session, bench.now)
        assert bench.contribute(bench.frame(b, file, 18, 20))
        (deliver,) = bench.effects(Deliver)
        assert deliver.session == d.session
        bench.server.delivery_sent(d.session, deliver.number, bench.now)
        assert bench.asked("a") == []

    def test_a_link_in_place_of_another_loses_what_the_other_carried(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        bench.contribute(bench.frame(b, file, 2, 4))
        (lost,) = bench.delivered(a)
        bench.server.delivery_sent(a.session, lost.number, bench.now)
        assert bench.server.link_opened(a.session, bench.now)
        bench.ask(a, file, (2, 4))
        assert len(bench.delivered(a)) == 1

    def test_a_delivery_that_failed_is_asked_for_again(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        bench.contribute(bench.frame(b, file, 2, 4))
        (deliver,) = bench.delivered(a)
        bench.server.delivery_failed(a.session, deliver.number, bench.now)
        assert file.traffic.delivered_bytes == 0
        assert not file.held["a"].within(2, 4)
        bench.ask(a, file, (2, 4))
        (deliver,) = bench.delivered(a)
        bench.server.delivery_sent(a.session, deliver.number, bench.now)
        bench.server.delivery_sent(a.session, deliver.number, bench.now)  # twice is once
        assert file.traffic.delivered_bytes == 1024 + 924
        bench.server.client_left(a.session, "gone", bench.now)
        bench.server.delivery_failed(a.session, deliver.number, bench.now)  # of one who is gone

    def test_a_silent_holder_is_asked_again_then_everyone_is(self) -> None:
        bench = Bench()
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 6)
        bench.reach(c, file, Milestone.COMPLETE)
        d = bench.join("d")
        bench.ask(a, file, (2, 4))
        bench.ask(d, file, (2, 4), window_chunks=1)  # waits for a part of it
        responders = []
        for _ in range(4):
            found = bench.asked("a")
            responders += [asked.responder for asked in found]
            deadline = bench.server.next_timeout()
            assert deadline is not None
            bench.pass_time(deadline - bench.now)
        assert responders[:3] == [b.session, c.session, b.session]
        # Everyone is asked unit by unit: not every holder has the same of it.
        assert responders[3:] == [EVERY_HOLDER, EVERY_HOLDER]
        number = bench.server._relay._broadcast_number
        assert bench.contribute(bench.frame(c, file, 3, 4, number))
        assert bench.contribute(bench.frame(c, file, 2, 3, number))
        delivers = bench.effects(Deliver)
        assert [x.frame.start for x in delivers if x.session == a.session] == [3, 2]
        assert [x.frame.start for x in delivers if x.session == d.session] == [2]

    def test_where_every_holder_is_asked_a_range_that_none_has_whole_is_asked_unit_by_unit(self) -> None:
        bench = Bench(replace(FAST, all_holders_answer=True))
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 20)
        for name, span in (("c", (10, 12)), ("d", (12, 14))):
            bench.join(name, held={file.file_id: Held(RangeSet([span]), complete=False)})
        bench.server.client_left(b.session, "gone", bench.now)
        bench.server.poll()
        bench.ask(a, file, (10, 14))
        bench.pass_time(3 * SECOND_NS)
        asked = [(entry.start, entry.stop) for entry in bench.asked("a")]
        assert asked[0] == (10, 14)
        assert {(10, 11), (11, 12), (12, 13), (13, 14)} <= set(asked)

    def test_a_fetch_that_nobody_answers_is_given_up_and_begun_anew(self) -> None:
        bench = Bench(CLASSIC, 4)
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 3), window_chunks=1)
        count = 0
        while count < relay.FETCH_TRIES_MAX + 2:
            for member in (a, b):
                bench.server.lease_renewed(member.session, bench.now)
            bench.pass_time(SECOND_NS // 10)
            count += len(bench.asked("a"))
        assert bench.server.cache.miss_count == 2
        assert bench.server.cache.used_chunks == 1
        assert bench.contribute(bench.frame(b, file, 2, 3, bench.server._relay._broadcast_number))

    def test_a_fetch_for_someone_who_is_gone_ends(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        bench.server.client_left(a.session, "gone", bench.now)
        bench.pass_time(3 * SECOND_NS)
        assert bench.server.cache.used_chunks == 0
        assert len(file.fetches) == 0
        assert b.asked_chunks == 0

    def test_a_contribution_that_does_not_end_costs_its_sender_the_link(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        frame = bench.frame(b, file, 2, 4)
        assert bench.start(frame)
        while not (closed := bench.effects(CloseLink)):
            for member in (a, b):
                bench.server.lease_renewed(member.session, bench.now)
            bench.pass_time(SECOND_NS)
        assert closed == [CloseLink(b.session)]
        bench.server.contribution_aborted(frame, bench.now)
        bench.server.link_closed(b.session, bench.now)
        bench.pass_time(0)
        assert [asked.responder for asked in bench.asked("a")] == [b.session]

    def test_a_broadcast_that_a_later_answer_overtook_is_sent_again_before_its_time(self) -> None:
        bench = Bench(cache_chunks=256)
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 20)
        bench.ask(a, file, (10, 11))
        bench.ask(a, file, (11, 12))
        first, second = bench.asked("a")
        assert bench.contribute(bench.frame(b, file, second.start, second.stop, number=2))
        bench.pass_time(relay.REORDERING_NS_MIN)
        assert [asked.start for asked in bench.asked("a")] == [first.start]

    def test_a_holder_that_is_busy_sending_is_not_asked_again(self) -> None:
        bench = Bench(cache_chunks=256)
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 20)
        bench.ask(a, file, (10, 11))
        bench.ask(a, file, (11, 12))
        bench.server.poll()
        assert bench.start(bench.frame(b, file, 10, 11))
        bench.pass_time(5 * SECOND_NS)
        assert bench.asked("a") == []

    def test_a_stalled_chunk_does_not_keep_back_the_others(self) -> None:
        bench = Bench(CLASSIC, 8)
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 9)
        bench.server.client_left(b.session, "gone", bench.now)
        bench.server.poll()
        bench.ask(a, file, (3, 9), window_chunks=1)
        assert [(asked.start, asked.stop) for asked in bench.asked("a")] == [(6, 7)]
        assert c.reachable

    def test_after_several_shares_without_a_holder_a_client_waits_in_line(self) -> None:
        bench = Bench()
        names = [f"c{index:02}" for index in range(relay.SHARES_TRIED_MAX + 3)]
        members = [bench.join(name) for name in names]
        file = bench.exchange("f", len(members))
        for member in members[1:-1]:
            bench.server.link_closed(member.session, bench.now)
        bench.server.poll()
        bench.ask(members[0], file, (1, len(members)))
        assert bench.asked(names[0]) == []
        bench.ask(members[0], file, (len(members) - 1, len(members)))
        assert len(bench.asked(names[0])) == 1

    def test_a_full_cache_lets_clients_wait_in_line_and_serves_them_when_there_is_room(self) -> None:
        bench = Bench(cache_chunks=4)
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 16)
        bench.ask(a, file, (8, 16))
        first = bench.asked("a")
        assert sum(asked.stop - asked.start for asked in first) == 4
        for asked in first:
            assert bench.contribute(bench.frame(b, file, asked.start, asked.stop))
        delivers = bench.delivered(a)
        assert len(delivers) == 4
        for deliver in delivers:
            bench.server.delivery_sent(a.session, deliver.number, bench.now)
        assert sum(asked.stop - asked.start for asked in bench.asked("a")) == 4

    def test_a_client_that_completes_otherwise_wants_nothing_more(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        bench.contribute(bench.frame(b, file, 2, 4))
        (deliver,) = bench.delivered(a)
        bench.reach(a, file, Milestone.COMPLETE)
        bench.server.delivery_sent(a.session, deliver.number, bench.now)
        assert bench.effects(Deliver) == []


class TestSeeding:
    def test_a_report_that_does_not_know_of_a_share_given_meanwhile_is_not_about_it(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.seed("f", 4)
        old_count = sum(share.chunk_count for share in file.shares_of("a"))
        bench.server.client_left(b.session, "gone", bench.now)
        assert file.shares_of("a") == (Range(0, 2), Range(2, 4))
        bench.server.milestone_reached(a.session, file.file_id, Milestone.SHARE_HELD, bench.now, old_count)
        assert file.phase is Phase.SEEDING
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING

    def test_a_report_that_does_not_say_is_believed(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.seed("f", 4)
        bench.server.milestone_reached(a.session, file.file_id, Milestone.SHARE_HELD, bench.now)
        assert file.phase is Phase.EXCHANGING

    def test_a_share_that_was_held_is_given_to_another_if_its_holder_is_lost_before_the_seeded_moment(
        self,
    ) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.seed("f", 4)
        bench.reach(b, file, Milestone.SHARE_HELD)
        bench.server.client_left(b.session, "gone", bench.now)
        assert file.shares_of("a") == (Range(0, 2), Range(2, 4))
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING
        assert not file.stalled

    def test_the_only_client_lost_with_its_share_must_show_it_again(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.seed("f", 4)
        bench.reach(b, file, Milestone.SHARE_HELD)
        bench.server.client_left(a.session, "gone", bench.now)
        bench.server.client_left(b.session, "gone", bench.now)
        b = bench.join("b")  # with an empty disk
        assert file.phase is Phase.SEEDING
        assert bench.effects(Assign)[-1].shares == (Range(0, 2), Range(2, 4))
        bench.reach(b, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING

    def test_a_client_that_has_the_file_already_holds_its_share(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.seed("f", 4)
        bench.reach(a, file, Milestone.COMPLETE)
        assert file.phase is Phase.EXCHANGING
        assert file.completed_at is not None

    def test_shares_of_the_lost_are_given_out_in_order(self) -> None:
        bench = Bench()
        members = {name: bench.join(name) for name in ("m1", "m2", "m3", "m4", "m5")}
        source = bench.join("s", source=True)
        manifest = bench.manifest("f", 50, 20)
        bench.server.announce(manifest, source.session)
        file = bench.server.divide(manifest, source.session, bench.now)
        bench.server.poll()
        bench.server.client_left(members["m1"].session, "gone", bench.now)
        sessions = [effect.session for effect in bench.effects(Assign)]
        assert sessions == [members[name].session for name in ("m2", "m3", "m4", "m5")]
        assert all(share.owner in members for share in file.shares)

    def test_the_seeded_moment_waits_until_the_last_byte_has_left_the_server(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.seed("f", 2)
        source = bench.server.members["source of f"]
        bench.ask(a, file, (0, 2))
        bench.contribute(bench.frame(source, file, 0, 2))
        (deliver,) = bench.delivered(a)
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.SEEDING  # the kernel has not yet taken it all
        bench.server.delivery_sent(a.session, deliver.number, bench.now)
        assert file.phase is Phase.EXCHANGING
        (seeded,) = bench.effects(FileSeeded)
        assert (seeded.share_count, seeded.chunk_count, seeded.cached_bytes) == (1, 2, 0)
        assert not any(any(view) for view in deliver.views)

    def test_or_until_the_last_delivery_has_failed(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.seed("f", 2)
        bench.ask(a, file, (0, 2))
        bench.contribute(bench.frame(bench.server.members["source of f"], file, 0, 2))
        (deliver,) = bench.delivered(a)
        bench.reach(a, file, Milestone.SHARE_HELD)
        bench.server.delivery_failed(a.session, deliver.number, bench.now)
        assert file.phase is Phase.EXCHANGING

    def test_a_fetch_that_nobody_waits_for_is_forgotten_with_the_file(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.seed("f", 4)
        bench.ask(b, file, (2, 4))
        bench.server.client_left(b.session, "gone", bench.now)
        assert len(file.fetches) == 1
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING
        assert len(file.fetches) == 0
        assert bench.server.cache.used_chunks == 0

    def test_a_fetch_that_is_coming_in_is_waited_for(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.seed("f", 2)
        source = bench.server.members["source of f"]
        bench.ask(a, file, (0, 2))
        frame = bench.frame(source, file, 0, 2)
        assert bench.start(frame)
        bench.server.client_left(a.session, "gone", bench.now)
        a = bench.join("a")
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.SEEDING
        bench.server.contribution_aborted(frame, bench.now)
        assert file.phase is Phase.EXCHANGING

    def test_a_source_that_is_gone_may_come_back_under_another_name(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.seed("f", 2)
        bench.server.client_left(bench.server.members["source of f"].session, "gone", bench.now)
        assert bench.effects(FileStalled)[0].missing == ((Range(0, 2), ""),)
        other = bench.join("other", source=True)
        assert bench.server.announce(file.manifest, other.session) is file
        bench.server.source_returned(file, other.session, bench.now)
        assert len(bench.effects(FileResumed)) == 1
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING
        assert "other" not in bench.server.members  # it may go, and is told so

    def test_shares_held_suffice_though_the_source_is_gone(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.seed("f", 2)
        bench.server.client_left(bench.server.members["source of f"].session, "gone", bench.now)
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING
        assert not file.stalled

    def test_a_source_repairs_a_file_that_has_lost_chunks_and_stays(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.server.client_left(b.session, "gone", bench.now)
        assert bench.effects(FileStalled)[0].missing == ((Range(2, 4), "b"),)
        source = bench.join("s", source=True)
        assert bench.server.announce(file.manifest, source.session) is file
        bench.server.source_returned(file, source.session, bench.now)
        assert len(bench.effects(FileResumed)) == 1
        bench.ask(a, file, (2, 4))
        assert [asked.responder for asked in bench.asked("a")] == [source.session]

    def test_held_back_the_exchange_waits_for_its_release(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.seed("f", 2, hold_back=True)
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.SEEDED
        bench.ask(a, file, (0, 2))
        bench.join("late")
        assert {StartExchange, Deliver}.isdisjoint(kinds(bench.server.poll()))
        bench.server.release(file, bench.now)
        assert file.phase is Phase.EXCHANGING
        assert len(bench.effects(StartExchange)) == 2

    def test_what_is_not_held_back_cannot_be_released(self) -> None:
        bench = Bench()
        bench.join("a")
        with pytest.raises(WrongState):
            bench.server.release(bench.exchange("f", 2), bench.now)

    def test_a_client_that_holds_more_than_the_file_has_is_not_believed_in_that(self) -> None:
        bench = Bench()
        bench.join("a")
        file = bench.exchange("f", 4)
        bench.join("b", held={file.file_id: Held(RangeSet([(2, 9)]), complete=False)})
        assert list(file.held["b"]) == [Range(2, 4)]

    def test_what_a_client_holds_when_it_joins_counts(self) -> None:
        bench = Bench()
        bench.join("a")
        file = bench.exchange("f", 4)
        part, whole = RangeSet([(1, 3)]), RangeSet([(0, 4)])
        bench.join("b", held={file.file_id: Held(part, complete=False)})
        bench.join("c", held={file.file_id: Held(whole, complete=True)})
        assert list(file.held["b"]) == [Range(1, 3)]
        assert file.complete == {"c"}
        assert file.min_holder_count() == 2

    def test_the_departed_that_are_remembered_have_a_most(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shared_file, "DEPARTED_MAX", 1)
        bench = Bench()
        members = [bench.join(name) for name in "abc"]
        file = bench.exchange("f", 6)
        for member in members[:2]:
            bench.server.client_left(member.session, "gone", bench.now)
        assert file.missing() == [(Range(0, 2), ""), (Range(2, 4), "b")]


class TestDeclining:
    def test_the_share_of_a_client_that_cannot_take_the_file_goes_to_another(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.seed("f", 4)
        bench.server.poll()
        bench.server.file_declined(b.session, file.file_id, "the disk is full", bench.now)
        effects = bench.server.poll()
        assert effects[0] == FileDeclined(file.file_id, "f", "b", "the disk is full")
        assert [effect.session for effect in effects if isinstance(effect, Assign)] == [a.session]
        assert file.shares_of("a") == (Range(0, 2), Range(2, 4))
        bench.reach(a, file, Milestone.SHARE_HELD)
        bench.reach(a, file, Milestone.COMPLETE)
        assert bench.effects(FileCompleted) == [FileCompleted(file.file_id, "f", 1)]
        assert bench.server.takers_of(file) == ["a"]

    def test_one_that_comes_back_is_asked_anew(self) -> None:
        bench = Bench()
        bench.join("a")
        b = bench.join("b")
        file = bench.exchange("f", 4)
        bench.server.file_declined(b.session, file.file_id, "x" * 1000, bench.now)
        assert file.declined == {"b": "x" * server.REFUSAL_CHARACTERS_MAX}
        bench.join("b")
        assert file.declined == {}

    def test_of_a_file_that_is_not_there_or_a_session_that_is_over_is_refused(self) -> None:
        bench = Bench()
        a = bench.join("a")
        with pytest.raises(NotFound):
            bench.server.file_declined(a.session, bytes(32), "no", bench.now)
        with pytest.raises(SessionUnknown):
            bench.server.file_declined(NOBODY, bytes(32), "no", bench.now)


class TestAddresses:
    def test_are_written_as_people_do(self) -> None:
        assert address_text(("10.0.0.1", 5)) == "10.0.0.1:5"
        assert address_text(("::1", 5)) == "[::1]:5"
        assert address_text(None) == ""


class TestCacheCommands:
    def test_a_cache_holds_at_least_one_chunk(self) -> None:
        with pytest.raises(BadArgument):
            Bench().server.resize_cache(0, 0)

    def test_to_clear_tells_how_much_it_was(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        bench.contribute(bench.frame(b, file, 2, 4))
        (deliver,) = bench.delivered(a)
        assert bench.server.clear_cache(bench.now) == 0  # it is being sent
        bench.server.delivery_sent(a.session, deliver.number, bench.now)
        assert bench.server.clear_cache(bench.now) == 2
        assert bench.server.cache.used_chunks == 0
