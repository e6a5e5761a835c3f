"""Fetches: their ranges and holders, and retransmission if no contribution arrives."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pspd.core.effects.server import CloseLink, Deliver
from pspd.core.effects.shared import Milestone, SendDatagram
from pspd.core.model.parameters import CLASSIC, FAST, MILLISECOND_NS, SECOND_NS, Parameters
from pspd.core.model.ranges import RangeSet
from pspd.core.model.storage import HeldChunks
from pspd.core.model.terms import Terms
from pspd.core.model.tuning import SERVER_TUNING
from pspd.core.server.sessions import Member
from pspd.core.wire.datagrams import EVERY_HOLDER, OWNERS, AskedRange, Broadcast, decode_datagram
from tests.core.bench import QUARTER_FRAMES, Bench


def hearers(bench: Bench) -> list[str]:
    """Return the receivers of the broadcasts since the last call, in order."""
    sent = bench.effects(SendDatagram)
    return [effect.address[0] for effect in sent if isinstance(decode_datagram(effect.data), Broadcast)]


TWO_CHUNKS_NS = SERVER_TUNING.receive_timeout_ns + 2 * SERVER_TUNING.receive_timeout_ns_per_chunk
"""How long a contribution of two chunks may take."""


class TestFetching:
    def test_only_holder_with_room_is_found(self) -> None:
        bench = Bench(cache_chunks=4096)
        count = 8 * SERVER_TUNING.holders_tried_max
        owner, asks, *holders = (bench.join(f"c{index:02}") for index in range(count + 2))
        file = bench.exchange("f", 3 * (count + 2))
        for holder in holders:
            bench.reach(holder, file, Milestone.COMPLETE)
        bench.server.link_closed(owner.session, bench.now)
        for holder in holders[1:]:
            bench.holder(holder).window.chunks = 0
        start = file.shares.ranges_of(owner.name)[0].start
        bench.ask(asks, file, (start, start + 1))
        assert [fetch.holder.member for fetch in bench.fetches(file)] == holders[:1]

    def test_miss_is_broadcast_and_names_the_owner(self) -> None:
        bench = Bench()
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 9)
        bench.ask(a, file, (3, 5), (6, 9))
        sent = bench.effects(SendDatagram)
        assert {effect.address[0] for effect in sent} == {"a", "b", "c"}
        broadcast = decode_datagram(sent[0].data)
        assert isinstance(broadcast, Broadcast)
        assert [(e.start, e.stop, e.responder) for e in broadcast.asked] == [
            (3, 5, b.session),
            (6, 9, c.session),
        ]

    def test_run_of_shares_asks_all_owners_in_one_entry(self) -> None:
        bench = Bench()
        a, b, c, d, e = (bench.join(name) for name in "abcde")
        file = bench.exchange("f", 10)
        bench.ask(a, file, (3, 7), (8, 10))
        entries = [(entry.start, entry.stop, entry.responder) for entry in bench.asked("a")]
        assert entries == [(3, 7, OWNERS), (8, 10, e.session)]
        for owner, span in ((b, (3, 4)), (c, (4, 6)), (d, (6, 7)), (e, (8, 10))):
            assert bench.contribute(bench.frame(owner, file, *span))

    def test_share_of_another_holder_has_its_own_entry(self) -> None:
        bench = Bench()
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 6)
        bench.ask(a, file, (4, 6))
        assert bench.contribute(bench.frame(c, file, 4, 6))
        (deliver,) = bench.delivered(a)
        bench.sent(a, deliver.number)
        bench.ask(a, file, acknowledged=deliver.number)
        bench.server.member_left(c.session, "it left", bench.now)
        bench.server.clear_cache(bench.now)
        d = bench.join("d")
        bench.ask(d, file, (2, 6))
        entries = [(entry.start, entry.stop, entry.responder) for entry in bench.asked("a")]
        assert entries == [(2, 4, b.session), (4, 6, a.session)]

    def test_fetches_of_one_holder_are_merged(self) -> None:
        bench = Bench(tuning=replace(SERVER_TUNING, broadcast_pacing_ns=100 * MILLISECOND_NS))
        clients = [bench.join(name) for name in "abcd"]
        file = bench.seed("f", 8)
        bench.pass_time(SECOND_NS)
        bench.ask(clients[0], file, (0, 2))
        source = bench.server.members["source of f"]
        assert bench.asked(source.name) == [AskedRange(0, 2, source.session)]
        for index in (3, 1, 2):
            bench.ask(clients[index], file, (2 * index, 2 * index + 2))
        assert bench.contribute(bench.frame(source, file, 0, 2))
        assert bench.asked(source.name) == []  # broadcasts are paced
        while not (asked := bench.asked(source.name)):
            bench.pass_time(MILLISECOND_NS)
        entries = [(entry.start, entry.stop, entry.responder) for entry in asked]
        assert entries == [(6, 8, source.session), (2, 6, source.session)]
        assert bench.contribute(bench.frame(source, file, 2, 6, number=2))
        assert [deliver.frame.start for deliver in bench.effects(Deliver)] == [2, 4]

    @pytest.mark.parametrize("parameters", [CLASSIC, FAST], ids=["classic", "fast"])
    def test_seeding_broadcasts_go_to_the_source_first(self, parameters: Parameters) -> None:
        bench = Bench(parameters)
        a, _ = bench.join("a"), bench.join("b")
        file = bench.seed("f", 2)
        bench.ask(a, file, (0, 1), window_chunks=1)
        told = hearers(bench)
        for _ in range(600):
            bench.live(SECOND_NS // 10)
            told += hearers(bench)
        assert told[: SERVER_TUNING.named_tries_max] == ["source of f"] * SERVER_TUNING.named_tries_max
        assert told[SERVER_TUNING.named_tries_max : SERVER_TUNING.named_tries_max + 3] == ["a", "b", "source of f"]

    def test_seeding_broadcasts_go_to_all_without_a_source(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.seed("f", 4, terms=Terms(replica_count=2))
        source = bench.server.members["source of f"]
        bench.ask(a, file, (0, 1))
        assert bench.contribute(bench.frame(source, file, 0, 1))
        (delivery,) = bench.delivered(a)
        bench.sent(a, delivery.number)
        bench.ask(a, file, acknowledged=delivery.number)
        bench.server.member_left(source.session, "gone", bench.now)
        bench.server.clear_cache(bench.now)
        bench.server.poll()
        bench.ask(b, file, (0, 1))
        assert hearers(bench) == ["a", "b"]

    def test_expected_chunks_follow_the_fetches(self) -> None:
        bench = Bench()
        a, _ = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 12)
        bench.ask(a, file, (6, 8), (10, 12))
        state, pending = bench.state(a, file), bench.machine._pending
        assert state.expected_chunks == 4
        pending.abandon(next(iter(bench.fetches(file))))
        assert state.expected_chunks == 2
        pending.abandon(next(iter(bench.fetches(file))))
        assert state.expected_chunks == 0

    def test_requests_are_aggregated_or_hit_the_cache(self) -> None:
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
            bench.sent(deliver, deliver.number)
        bench.ask(c, file, (2, 3))  # both chunks are acknowledged or in flight
        assert bench.effects(Deliver) == []
        bench.ask(c, file, (2, 3), acknowledged=delivers[1].number)
        assert len(bench.effects(Deliver)) == 1
        cache = bench.server.cache
        assert (cache.hit_count, cache.miss_count, cache.join_count) == (1, 2, 2)

    def test_window_bounds_deliveries(self) -> None:
        bench = Bench()
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 30)
        bench.ask(a, file, (10, 30), window_chunks=4)
        (asked,) = bench.asked("a")
        assert bench.contribute(bench.frame(b, file, asked.start, asked.stop))
        assert [(each.frame.start, each.frame.stop) for each in bench.delivered(a)] == [(10, 12), (12, 14)]
        bench.ask(c, file, (10, 20), window_chunks=3)  # only a part of the hits
        assert [(each.frame.start, each.frame.stop) for each in bench.delivered(c)] == [(10, 11), (11, 12), (12, 13)]
        bench.ask(a, file, (10, 30), window_chunks=0)
        assert bench.effects(Deliver) == []

    def test_window_bounds_aggregated_fetches(self) -> None:
        bench = Bench()
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 30)
        bench.ask(a, file, (10, 30))
        assert bench.asked("a") == [AskedRange(10, 30, OWNERS)]
        bench.ask(b, file, (20, 30), window_chunks=2)
        bench.ask(c, file, (10, 20), window_chunks=1)
        for holder, span in ((b, (10, 20)), (c, (20, 30))):
            assert bench.contribute(bench.frame(holder, file, *span))
        delivers = bench.effects(Deliver)
        assert sum(d.frame.stop - d.frame.start for d in delivers if d.session == b.session) == 2
        assert sum(d.frame.stop - d.frame.start for d in delivers if d.session == c.session) == 1

    def test_window_bounds_hits(self) -> None:
        bench = Bench()
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 30)
        bench.ask(a, file, (10, 15))
        assert bench.contribute(bench.frame(b, file, 10, 15))
        bench.server.poll()
        bench.ask(c, file, (10, 11), (13, 14), window_chunks=1)
        assert [deliver.frame.start for deliver in bench.delivered(c)] == [10]

    def test_window_bounds_parts_of_a_fetch(self) -> None:
        bench = Bench(cache_chunks=64)
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 30)
        bench.ask(a, file, (10, 20))
        bench.ask(c, file, (10, 12), (14, 16), window_chunks=2)
        for asked in bench.asked("a"):
            assert bench.contribute(bench.frame(b, file, asked.start, asked.stop))
        delivered = [(d.frame.start, d.frame.stop) for d in bench.delivered(c)]
        assert delivered == [(10, 11), (11, 12)]

    @pytest.mark.parametrize("window_chunks", [4096, 6000, 16 * 1024])
    def test_frame_takes_half_of_the_window(self, window_chunks: int) -> None:
        bench = Bench(cache_chunks=32 * 1024)
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 32 * 1024)
        bench.ask(b, file, (0, 16 * 1024), window_chunks=window_chunks)
        (first, *_) = asked = bench.asked("a")
        unit_chunks = file.manifest.unit_at(0)[0].stop
        assert window_chunks // 2 - unit_chunks < first.stop - first.start
        assert max(each.stop - each.start for each in asked) <= window_chunks // 2
        for each in asked:
            assert bench.contribute(bench.frame(a, file, each.start, each.stop))
        frames = [delivery.frame for delivery in bench.delivered(b)]
        assert [(frame.start, frame.stop) for frame in frames] == [(each.start, each.stop) for each in asked]

    @pytest.mark.parametrize(
        ("cache_chunks", "frame_chunks"), [(1, 1), (2, 1), (100, 50), (200, 64), (256, 64), (1000, 250), (10**6, 8192)]
    )
    def test_cache_has_room_for_several_frames(self, cache_chunks: int, frame_chunks: int) -> None:
        bench = Bench(cache_chunks=1)
        bench.server.resize_cache(cache_chunks, bench.now)
        assert bench.machine._pending.fetch_chunks_max == frame_chunks

    def test_disconnected_client_gets_no_delivery(self) -> None:
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

    def test_client_without_a_link_leaves_the_queue(self) -> None:
        """Chunks that are cached after its link is lost are not fetched for it again."""
        bench = Bench(cache_chunks=8, tuning=QUARTER_FRAMES)
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 30)
        d = bench.join("d")
        bench.ask(a, file, (10, 18))  # fills the cache
        bench.ask(d, file, (18, 20))  # is first in the queue
        bench.ask(c, file, (10, 20), window_chunks=9)  # is second; its window has room for one chunk
        bench.server.resize_cache(10, bench.now)
        asked = bench.asked("a")
        assert (asked[-1].start, asked[-1].stop) == (18, 20)
        bench.server.link_closed(c.session, bench.now)
        assert bench.contribute(bench.frame(b, file, 18, 20))
        (deliver,) = bench.effects(Deliver)
        assert deliver.session == d.session
        bench.sent(d, deliver.number)
        assert bench.asked("a") == []

    def test_deliveries_over_a_replaced_link_are_lost(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        bench.contribute(bench.frame(b, file, 2, 4))
        (lost,) = bench.delivered(a)
        bench.sent(a, lost.number)
        assert bench.server.link_opened(a.session, bench.now)
        bench.ask(a, file, (2, 4))
        assert len(bench.delivered(a)) == 1

    def test_failed_delivery_is_repeated(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        bench.contribute(bench.frame(b, file, 2, 4))
        (deliver,) = bench.delivered(a)
        bench.server.delivery_failed(a.session, deliver.number, bench.now)
        assert file.traffic.delivered_bytes == 0
        assert not file.availability.held["a"].within(2, 4)
        bench.ask(a, file, (2, 4))
        (deliver,) = bench.delivered(a)
        bench.sent(a, deliver.number)
        bench.sent(a, deliver.number)  # a second report changes nothing
        assert file.traffic.delivered_bytes == 1024 + 924
        bench.server.member_left(a.session, "gone", bench.now)
        bench.server.delivery_failed(a.session, deliver.number, bench.now)  # the client has left

    def test_failed_delivery_affects_no_other_file(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        first, second = bench.exchange("f", 4), bench.exchange("g", 6)
        numbers = []
        for file in (first, second):
            bench.ask(a, file, (3, 4))
            bench.contribute(bench.frame(b, file, 3, 4, bench.machine._pending._last_broadcast_number))
            numbers += [deliver.number for deliver in bench.delivered(a)]
        bench.server.delivery_failed(a.session, numbers[1], bench.now)
        assert list(bench.state(a, first).in_flight) == numbers[:1]
        assert not bench.state(a, second).in_flight

    def test_silent_holder_is_asked_again_then_all_holders(self) -> None:
        bench = Bench()
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 6)
        bench.reach(c, file, Milestone.COMPLETE)
        d = bench.join("d")
        bench.ask(a, file, (2, 4))
        bench.ask(d, file, (2, 4), window_chunks=1)  # waits for a part of the fetch
        responders = []
        for _ in range(4):
            found = bench.asked("a")
            responders += [asked.responder for asked in found]
            deadline = bench.server.next_timeout()
            assert deadline is not None
            bench.pass_time(deadline - bench.now)
        assert responders[:3] == [b.session, c.session, b.session]
        # All holders are asked unit by unit, because they hold different units.
        assert responders[3:] == [EVERY_HOLDER, EVERY_HOLDER]
        number = bench.machine._pending._last_broadcast_number
        assert bench.contribute(bench.frame(c, file, 3, 4, number))
        assert bench.contribute(bench.frame(c, file, 2, 3, number))
        delivers = bench.effects(Deliver)
        assert [x.frame.start for x in delivers if x.session == a.session] == [3, 2]
        assert [x.frame.start for x in delivers if x.session == d.session] == [3]

    def test_range_without_a_whole_holder_is_asked_by_unit(self) -> None:
        bench = Bench(replace(FAST, all_holders_answer=True))
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 20)
        for name, span in (("c", (10, 12)), ("d", (12, 14))):
            bench.join(name, held={file.file_id: HeldChunks(RangeSet([span]), complete=False)})
        bench.server.member_left(b.session, "gone", bench.now)
        bench.server.poll()
        bench.ask(a, file, (10, 14))
        bench.pass_time(3 * SECOND_NS)
        asked = [(entry.start, entry.stop) for entry in bench.asked("a")]
        assert asked[0] == (10, 14)
        assert {(10, 11), (11, 12), (12, 13), (13, 14)} <= set(asked)

    def test_unanswered_fetch_is_abandoned_and_restarted(self) -> None:
        bench = Bench(CLASSIC, 4)
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 3), window_chunks=1)
        count = 0
        while count < SERVER_TUNING.fetch_tries_max + 2:
            for member in (a, b):
                bench.server.sessions.renew_lease(member.session, bench.now)
            bench.pass_time(SECOND_NS // 10)
            count += len(bench.asked("a"))
        assert bench.server.cache.miss_count == 2
        assert bench.server.cache.used_chunks == 1
        assert bench.contribute(bench.frame(b, file, 2, 3, bench.machine._pending._last_broadcast_number))

    def test_fetch_for_a_lost_client_ends(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        bench.server.member_left(a.session, "gone", bench.now)
        bench.pass_time(3 * SECOND_NS)
        assert bench.server.cache.used_chunks == 0
        assert len(bench.fetches(file)) == 0
        assert bench.holder(b).asked_chunks == 0

    def test_stalled_contribution_closes_the_link(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        frame = bench.frame(b, file, 2, 4)
        reception = bench.start(frame)
        assert reception is not None
        bench.live(TWO_CHUNKS_NS - SECOND_NS)
        assert bench.effects(CloseLink) == []
        bench.live(SECOND_NS)
        assert bench.effects(CloseLink) == [CloseLink(b.session)]
        bench.server.contribution_aborted(reception, bench.now)
        bench.server.link_closed(b.session, bench.now)
        bench.pass_time(0)
        assert [asked.responder for asked in bench.asked("a")] == [b.session]

    def test_stalled_contribution_closes_the_next_link_too(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        assert bench.start(bench.frame(b, file, 2, 4))
        for _ in range(2):
            bench.live(TWO_CHUNKS_NS - SECOND_NS)
            assert bench.effects(CloseLink) == []
            bench.live(SECOND_NS)
            assert bench.effects(CloseLink) == [CloseLink(b.session)]

    def test_reordering_reveals_a_lost_broadcast(self) -> None:
        bench = Bench(cache_chunks=256)
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 20)
        bench.ask(a, file, (10, 11))
        bench.ask(a, file, (10, 12))
        first, second = bench.asked("a")
        assert bench.contribute(bench.frame(b, file, second.start, second.stop, number=2))
        bench.pass_time(SERVER_TUNING.reordering_ns_min)
        assert [asked.start for asked in bench.asked("a")] == [first.start]

    def test_contributions_of_one_holder_may_overlap(self) -> None:
        """A fetch whose contribution is being received is not presumed lost when a later broadcast is answered."""
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 8)
        for start in (4, 6):
            bench.ask(a, file, (4, 5), (start, start + 1))
        first, second = bench.fetches(file)
        assert bench.start(bench.frame(b, file, 4, 5, first.broadcast_number))
        assert bench.start(bench.frame(b, file, 6, 7, second.broadcast_number))
        assert first.broadcast_number < second.broadcast_number
        assert not first.is_presumed_lost

    def test_queued_fetch_of_a_lost_link_is_no_retransmission(self) -> None:
        bench = Bench(tuning=replace(SERVER_TUNING, broadcast_pacing_ns=SECOND_NS))
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 9)
        bench.ask(a, file, (3, 4))
        bench.reach(c, file, Milestone.COMPLETE)
        bench.ask(a, file, (3, 4), (5, 6))
        _, broadcast_queue = bench.fetches(file)
        assert (broadcast_queue.tries, broadcast_queue.holder and broadcast_queue.holder.member) == (0, b)
        bench.server.link_closed(b.session, bench.now)
        count = file.traffic.retransmit_count
        bench.server.handle_timeout(bench.now)
        assert (broadcast_queue.tries, broadcast_queue.holder and broadcast_queue.holder.member) == (0, c)
        assert file.traffic.retransmit_count == count + 1, "the fetch that was broadcast"

    def test_another_holder_is_found_by_sampling(self) -> None:
        bench = Bench(tuning=replace(SERVER_TUNING, holders_tried_max=1))
        a, b, c, d = (bench.join(name) for name in "abcd")
        file = bench.exchange("f", 8)
        for member in (c, d):
            bench.reach(member, file, Milestone.COMPLETE)
        bench.ask(a, file, (2, 3))
        (fetch,) = bench.fetches(file)
        assert fetch.holder is bench.holder(b)
        bench.pass_time(2 * SECOND_NS)
        assert fetch.tries == 2
        assert fetch.holder in (bench.holder(c), bench.holder(d))

    def test_busy_holder_is_not_asked_again(self) -> None:
        bench = Bench(cache_chunks=256)
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 20)
        bench.ask(a, file, (10, 11))
        bench.ask(a, file, (11, 12))
        bench.server.poll()
        assert bench.start(bench.frame(b, file, 10, 11))
        bench.pass_time(5 * SECOND_NS)
        assert bench.asked("a") == []

    def test_stalled_chunk_does_not_block_others(self) -> None:
        bench = Bench(CLASSIC, 8)
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 9)
        bench.server.member_left(b.session, "gone", bench.now)
        bench.server.poll()
        bench.ask(a, file, (3, 9), window_chunks=1)
        assert [(asked.start, asked.stop) for asked in bench.asked("a")] == [(6, 7)]
        assert c.has_data_path

    def test_request_waits_after_several_shares_without_a_holder(self) -> None:
        bench = Bench()
        names = [f"c{index:02}" for index in range(SERVER_TUNING.shares_skipped_max + 3)]
        members = [bench.join(name) for name in names]
        file = bench.exchange("f", len(members))
        for member in members[1:-1]:
            bench.server.link_closed(member.session, bench.now)
        bench.server.poll()
        bench.ask(members[0], file, (1, len(members)))
        assert bench.asked(names[0]) == []
        bench.ask(members[0], file, (len(members) - 1, len(members)))
        assert len(bench.asked(names[0])) == 1

    def test_slow_reader_pins_only_a_part_of_the_cache(self) -> None:
        bench = Bench(cache_chunks=4, tuning=QUARTER_FRAMES)
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
                bench.sent(quick, deliver.number)
        bench.server.poll()
        # The quota is free again: the cached chunks are delivered.
        bench.sent(slow, stuck[0].number)
        assert len(bench.delivered(slow)) == 1

    def test_complete_client_wants_nothing(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        bench.contribute(bench.frame(b, file, 2, 4))
        (deliver,) = bench.delivered(a)
        bench.reach(a, file, Milestone.COMPLETE)
        bench.sent(a, deliver.number)
        assert bench.effects(Deliver) == []
