"""Hit, join, fetch and deliver: what the server does about requests, and when nobody answers."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from pspd.core import fetching, relay
from pspd.core.cache import Cache
from pspd.core.effects import (
    CloseLink,
    Deliver,
    Milestone,
    SendDatagram,
)
from pspd.core.members import Member
from pspd.core.parameters import CLASSIC, FAST, SECOND_NS
from pspd.core.ranges import Range, RangeSet
from pspd.core.shared_file import SharedFile
from pspd.core.storage import Held
from pspd.core.wire import (
    EVERY_HOLDER,
    Broadcast,
    decode_datagram,
)
from pspd.store.digests import blake3_digest
from tests.core.bench import Bench


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
        number = bench.server._fetching._broadcast_number
        assert bench.contribute(bench.frame(c, file, 3, 4, number))
        assert bench.contribute(bench.frame(c, file, 2, 3, number))
        delivers = bench.effects(Deliver)
        assert [x.frame.start for x in delivers if x.session == a.session] == [3, 2]
        assert [x.frame.start for x in delivers if x.session == d.session] == [3]

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
        while count < fetching.FETCH_TRIES_MAX + 2:
            for member in (a, b):
                bench.server.lease_renewed(member.session, bench.now)
            bench.pass_time(SECOND_NS // 10)
            count += len(bench.asked("a"))
        assert bench.server.cache.miss_count == 2
        assert bench.server.cache.used_chunks == 1
        assert bench.contribute(bench.frame(b, file, 2, 3, bench.server._fetching._broadcast_number))

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
        bench.live(fetching.RECEIVE_TIMEOUT_NS)
        assert bench.effects(CloseLink) == [CloseLink(b.session)]
        bench.server.contribution_aborted(frame, bench.now)
        bench.server.link_closed(b.session, bench.now)
        bench.pass_time(0)
        assert [asked.responder for asked in bench.asked("a")] == [b.session]

    def test_one_that_still_does_not_end_costs_its_sender_the_next_link_too(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        assert bench.start(bench.frame(b, file, 2, 4))
        for _ in range(2):
            bench.live(fetching.RECEIVE_TIMEOUT_NS - SECOND_NS)
            assert bench.effects(CloseLink) == []
            bench.live(SECOND_NS)
            assert bench.effects(CloseLink) == [CloseLink(b.session)]

    def test_a_broadcast_that_a_later_answer_overtook_is_sent_again_before_its_time(self) -> None:
        bench = Bench(cache_chunks=256)
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 20)
        bench.ask(a, file, (10, 11))
        bench.ask(a, file, (10, 12))
        first, second = bench.asked("a")
        assert bench.contribute(bench.frame(b, file, second.start, second.stop, number=2))
        bench.pass_time(fetching.REORDERING_NS_MIN)
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

    def test_who_does_not_read_keeps_only_part_of_the_cache_from_the_others(self) -> None:
        bench = Bench(cache_chunks=4)
        slow, quick, holder = (bench.join(name) for name in ("slow", "quick", "holder"))
        file = bench.exchange("f", 24)

        def fetched_for(member: Member) -> list[Deliver]:
            for asked in bench.asked(member.name):
                assert bench.contribute(bench.frame(holder, file, asked.start, asked.stop))
            return bench.delivered(member)

        bench.ask(slow, file, (16, 18), (22, 24))
        stuck = fetched_for(slow)
        assert [deliver.frame.start for deliver in stuck] == [16, 17]
        bench.ask(quick, file, (18, 24))
        for start in (18, 20, 22):
            delivers = fetched_for(quick)
            assert [deliver.frame.start for deliver in delivers] == [start, start + 1]
            for deliver in delivers:
                bench.server.delivery_sent(quick.session, deliver.number, bench.now)
        bench.server.poll()
        # What was in its way is gone: it is served what is cached.
        bench.server.delivery_sent(slow.session, stuck[0].number, bench.now)
        assert len(bench.delivered(slow)) == 1

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


class TestGathering:
    """Where very many wait for the same; here two are many."""

    @pytest.fixture(autouse=True)
    def two_are_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(relay, "GATHERING_WAITING_MIN", 2)
        monkeypatch.setattr(relay, "GATHERING_NS_PER_WAITING", SECOND_NS // 100)

    def test_what_comes_is_gathered_for_a_while_and_leaves_in_one_piece(self) -> None:
        bench = Bench()
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 12)
        d = bench.join("d")
        for member in (a, d):
            bench.ask(member, file, (4, 12))
        bench.server.poll()
        assert bench.contribute(bench.frame(b, file, 4, 8))
        assert bench.contribute(bench.frame(c, file, 8, 12))
        assert bench.effects(Deliver) == []
        bench.pass_time(2 * SECOND_NS // 100)
        delivers = bench.effects(Deliver)
        spans = [(deliver.session, deliver.frame.start, deliver.frame.stop) for deliver in delivers]
        assert spans == [(a.session, 4, 12), (d.session, 4, 12)]

    def test_what_is_gathered_is_handed_out_before_it_is_evicted(self) -> None:
        bench = Bench(cache_chunks=8)
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 48)
        late = [bench.join(name) for name in "def"]
        bench.ask(a, file, (24, 48))
        bench.server.poll()
        for member, start in zip(late, (24, 28, 32), strict=True):
            assert bench.effects(Deliver) == []
            bench.ask(member, file, (start, 48))
            for asked in bench.asked("b") if start < 32 else ():
                assert bench.contribute(bench.frame(b, file, asked.start, asked.stop))
            if start == 24:
                for first in (24, 26):
                    assert bench.contribute(bench.frame(b, file, first, first + 2))
        assert {deliver.frame.start for deliver in bench.effects(Deliver)} == {24, 28}


class TestClaims:
    """A cache of 64 chunks has frames of 16: one member claims 32 chunks of it at most."""

    CLAIM = 32

    def asked_chunks(self, bench: Bench) -> int:
        return sum(asked.stop - asked.start for asked in bench.asked("a"))

    def stuck(self) -> tuple[Bench, SharedFile, Member, list[Deliver]]:
        """A client that asked for much, and to which everything that was fetched for it is on its way."""
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 200)
        bench.ask(a, file, (100, 200))
        asked = bench.asked("a")
        for entry in asked:
            assert bench.contribute(bench.frame(b, file, entry.start, entry.stop))
        return bench, file, a, bench.delivered(a)

    def test_a_member_claims_a_part_of_the_cache_whatever_its_window(self) -> None:
        bench, _, a, delivers = self.stuck()
        assert sum(deliver.frame.stop - deliver.frame.start for deliver in delivers) == self.CLAIM
        assert a.claimed_chunks == self.CLAIM
        assert self.asked_chunks(bench) == 0

    def test_what_has_left_the_cache_is_claimed_no_longer(self) -> None:
        bench, _, a, delivers = self.stuck()
        bench.server.delivery_sent(a.session, delivers[0].number, bench.now)
        assert self.asked_chunks(bench) == 16
        assert a.claimed_chunks == self.CLAIM - 16

    def test_nor_is_what_could_not_be_sent(self) -> None:
        bench, _, a, delivers = self.stuck()
        bench.server.delivery_failed(a.session, delivers[0].number, bench.now)
        assert self.asked_chunks(bench) == 16

    def test_an_acknowledgement_alone_frees_nothing(self) -> None:
        bench, file, a, delivers = self.stuck()
        bench.ask(a, file, (132, 200), acknowledged=delivers[-1].number)
        assert self.asked_chunks(bench) == 0
        assert a.claimed_chunks == self.CLAIM

    def test_all_files_of_a_member_share_its_claim(self) -> None:
        bench, _, a, delivers = self.stuck()
        other = bench.exchange("g", 200)
        bench.ask(a, other, (100, 200))
        assert self.asked_chunks(bench) == 0
        for deliver in delivers:
            bench.server.delivery_sent(a.session, deliver.number, bench.now)
        assert self.asked_chunks(bench) == self.CLAIM

    def test_others_have_their_own(self) -> None:
        bench, file, _, _ = self.stuck()
        bench.ask(bench.join("c"), file, (140, 200))
        assert self.asked_chunks(bench) == self.CLAIM

    def test_what_was_fetched_for_one_whose_link_broke_is_claimed_no_longer(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 200)
        bench.ask(a, file, (100, 200))
        asked = bench.asked("a")
        bench.server.link_closed(a.session, bench.now)
        for entry in asked:
            assert bench.contribute(bench.frame(b, file, entry.start, entry.stop))
        assert a.claimed_chunks == 0

    def test_what_is_being_fetched_claims_nothing_and_is_given_up_when_nobody_holds_it(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 200)
        bench.ask(a, file, (100, 101))
        bench.server.client_left(b.session, "gone", bench.now)
        assert bench.server.cache.used_chunks == 1
        bench.live(30 * SECOND_NS)
        assert a.claimed_chunks == 0
        assert bench.server.cache.used_chunks == 0


def test_what_nobody_holds_cannot_be_fetched_though_every_holder_is_asked() -> None:
    bench = Bench()
    a, _ = bench.join("a"), bench.join("b")
    file = bench.exchange("f", 4)
    bench.server.client_left(a.session, "gone", bench.now)
    everyone = replace(FAST, all_holders_answer=True)
    fetches = fetching.Fetching(
        everyone, Cache(64), blake3_digest, bench.server.members, lambda effect: None, Random(1)
    )
    assert fetches.fetchable(file, 1, 4) == (None, None)
    assert fetches.fetchable(file, 2, 4) == (Range(2, 4), None)
