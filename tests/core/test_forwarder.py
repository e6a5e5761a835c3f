"""Requests: hit, join or fetch, wait queues, batches and quota."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from pspd.core.effects.server import Deliver
from pspd.core.effects.shared import Milestone, SendDatagram
from pspd.core.model.parameters import CLASSIC, FAST, MILLISECOND_NS, SECOND_NS
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.tuning import SERVER_TUNING, ServerTuning
from pspd.core.server.holders import HolderSelector
from pspd.core.server.request_state import RequestState
from pspd.core.server.sessions import Member
from pspd.core.server.shared_file import SharedFile
from pspd.core.wire.datagrams import Broadcast, Hello, RequestAck, decode_datagram
from tests.core.bench import QUARTER_FRAMES, Bench


class TestServing:
    def test_inputs_between_two_polls_are_served_together(self) -> None:
        bench = Bench(at_once=False)
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 6)
        bench.ask(a, file, (2, 3))
        bench.ask(b, file, (5, 6))
        numbers = [
            datagram.number
            for effect in bench.effects(SendDatagram)
            if effect.address == c.address and isinstance(datagram := decode_datagram(effect.data), Broadcast)
        ]
        assert len(numbers) == 1


class TestRequestAck:
    def answers(self, bench: Bench) -> list[RequestAck]:
        sent = [decode_datagram(effect.data) for effect in bench.effects(SendDatagram)]
        return [datagram for datagram in sent if isinstance(datagram, RequestAck)]

    def test_plain_request_gets_no_request_ack(self) -> None:
        bench = Bench()
        a, _ = bench.join("a"), bench.join("b")
        bench.ask(a, bench.exchange("f", 6), (3, 6))
        assert self.answers(bench) == []

    @pytest.mark.parametrize("flag", ["repeated", "wants_ack"])
    def test_repeated_or_wants_ack_request_is_acknowledged(self, flag: str) -> None:
        bench = Bench()
        a, _ = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 6)
        bench.ask(a, file, (3, 6))
        bench.ask(a, file, (3, 6), **{flag: True})
        assert self.answers(bench) == [
            RequestAck(a.session, file.file_id, 2, SERVER_TUNING.hello_interval_ns // MILLISECOND_NS)
        ]

    def test_request_ack_waits_longer_with_data_in_flight(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 6)
        bench.ask(a, file, (3, 6))
        assert bench.contribute(bench.frame(b, file, 3, 6))
        bench.server.poll()
        bench.ask(a, file, (3, 6), repeated=True)
        assert self.answers(bench) == [
            RequestAck(a.session, file.file_id, 2, SERVER_TUNING.retry_after_ns // MILLISECOND_NS)
        ]

    def test_classic_profile_sends_no_request_ack(self) -> None:
        bench = Bench(CLASSIC)
        a, _ = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 6)
        bench.ask(a, file, (3, 4))
        bench.ask(a, file, (3, 4), repeated=True)
        assert self.answers(bench) == []


def note_ack(state: RequestState) -> None:
    """Count a request that acknowledges a delivery."""
    state.add_in_flight(10**6, Range(0, 0))
    state.acknowledge(10**6, is_rest_lost=False)
    assert state.last_ack_count == state.demand.ack_count


class TestStragglers:
    def test_client_without_acks_becomes_a_straggler(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 6)
        bench.ask(a, file, (3, 6))
        for _ in range(SERVER_TUNING.straggler_acks * len(bench.demand(file).wanting)):
            note_ack(bench.state(b, file))
        assert bench.demand(file).is_wanted(3, 6)
        note_ack(bench.state(b, file))
        assert not bench.demand(file).is_wanted(3, 6)
        note_ack(bench.state(a, file))
        assert bench.demand(file).is_wanted(3, 6)

    def test_client_that_wanted_nothing_is_no_straggler(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 6)
        bench.state(a, file)
        for _ in range(10 * SERVER_TUNING.straggler_acks):
            note_ack(bench.state(b, file))
        bench.ask(a, file, (3, 6))
        assert bench.demand(file).is_wanted(3, 6)

    def test_ack_count_counts_requests(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 8)
        for start, stop in ((4, 5), (6, 8)):
            bench.ask(a, file, (start, stop))
            bench.contribute(bench.frame(b, file, start, stop))
        deliveries = bench.delivered(a)
        assert len(deliveries) == 2
        bench.ask(a, file, (5, 6), acknowledged=deliveries[-1].number)
        bench.ask(a, file, (5, 6), acknowledged=deliveries[-1].number)
        assert bench.demand(file).ack_count == 1


class TestSingleDeliveryConnections:
    """Without a kept link (classic), only the client's next request shows whether a delivery arrived."""

    def on_its_way(self) -> tuple[Bench, Member, SharedFile, int]:
        """Return a client that holds chunks [0, 3), and the number of a delivery of chunk 3 to it."""
        bench = Bench(CLASSIC, 8)
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 6)
        bench.ask(a, file, (3, 4), window_chunks=1)
        assert bench.contribute(bench.frame(b, file, 3, 4))
        (delivery,) = bench.delivered(a)
        bench.sent(a, delivery.number)
        return bench, a, file, delivery.number

    def test_acknowledged_delivery_is_held(self) -> None:
        bench, a, file, number = self.on_its_way()
        bench.ask(a, file, (4, 5), window_chunks=1, acknowledged=number)
        assert file.availability.held["a"].covers(0, 4)
        assert bench.delivered(a) == []

    def test_unacknowledged_delivery_is_repeated(self) -> None:
        bench, a, file, number = self.on_its_way()
        bench.ask(a, file, (3, 4), window_chunks=1, repeated=True)
        assert not file.availability.held["a"].covers(3, 4)
        (again,) = bench.delivered(a)
        assert (again.frame.start, again.frame.stop) == (3, 4)
        assert again.number > number

    def test_delivery_presumed_lost_counts_when_acknowledged(self) -> None:
        bench, a, file, number = self.on_its_way()
        bench.ask(a, file, (3, 4), window_chunks=1, repeated=True)  # crosses the delivery
        (again,) = bench.delivered(a)
        bench.sent(a, again.number)
        bench.ask(a, file, (4, 5), window_chunks=1, acknowledged=number)
        assert file.availability.held["a"].covers(0, 4)
        bench.server.member_left(bench.server.members["b"].session, "gone", bench.now)
        assert file.availability.available.covers(0, 4)

    def test_deliveries_presumed_lost_are_bounded(self) -> None:
        bench, a, file, number = self.on_its_way()
        for _ in range(SERVER_TUNING.presumed_lost_max + 1):
            bench.ask(a, file, (3, 4), window_chunks=1, repeated=True)
            (again,) = bench.delivered(a)
            bench.sent(a, again.number)
        bench.ask(a, file, (4, 5), window_chunks=1, acknowledged=number)
        assert not file.availability.held["a"].covers(3, 4)
        assert len(bench.state(a, file).presumed_lost) == SERVER_TUNING.presumed_lost_max


def delivered_to_b(bench: Bench) -> tuple[Member, Member, Member, SharedFile, int]:
    """Return members a, b and c, a file of which c holds [6, 9), and the number of a delivery of those to b."""
    a, b, c = (bench.join(name) for name in "abc")
    file = bench.exchange("f", 9)
    bench.ask(b, file, (6, 9))
    assert bench.contribute(bench.frame(c, file, 6, 9))
    (delivery,) = bench.delivered(b)
    bench.sent(b, delivery.number)
    bench.server.clear_cache(bench.now)
    return a, b, c, file, delivery.number


class TestNewHolders:
    """A request for chunks without a holder is served as soon as there is one."""

    def test_acknowledgement_serves_waiting_requests(self) -> None:
        bench = Bench()
        a, b, c, file, number = delivered_to_b(bench)
        bench.server.member_left(c.session, "gone", bench.now)
        bench.ask(a, file, (6, 9))
        assert bench.asked("a") == []
        bench.ask(b, file, (0, 3), acknowledged=number)
        assert (6, 9, b.session) in [(asked.start, asked.stop, asked.responder) for asked in bench.asked("a")]

    def test_completion_serves_waiting_requests(self) -> None:
        bench = Bench()
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 9)
        bench.server.member_left(c.session, "gone", bench.now)
        bench.ask(a, file, (6, 9))
        assert bench.asked("a") == []
        bench.reach(b, file, Milestone.COMPLETE)
        assert [(asked.start, asked.stop, asked.responder) for asked in bench.asked("a")] == [(6, 9, b.session)]


class TestLostDeliveries:
    def test_lost_deliveries_are_repeated_over_a_new_link(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 6)
        bench.ask(a, file, (3, 6))
        bench.contribute(bench.frame(b, file, 3, 6))
        (lost,) = bench.delivered(a)
        bench.sent(a, lost.number)
        bench.server.link_opened(a.session, bench.now)  # dialled anew: what was on its way over the old one is lost
        (again,) = bench.delivered(a)
        assert (again.frame.start, again.frame.stop) == (3, 6)


class TestWaitQueues:
    def test_busy_holder_does_not_block_the_queue(self) -> None:
        bench = Bench(replace(FAST, window_min_chunks=1, window_max_chunks=1))
        a, b, c, d = (bench.join(name) for name in "abcd")
        file = bench.exchange("f", 16)
        bench.ask(c, file, (12, 13))  # now d has no room
        bench.ask(d, file, (8, 9))  # nor has c
        bench.ask(a, file, (13, 14))  # of d: first in line
        bench.ask(b, file, (9, 10))  # of c
        assert [(entry.start, entry.stop) for entry in bench.asked("a")] == [(12, 13), (8, 9)]
        bench.contribute(bench.frame(c, file, 8, 9))
        assert (9, 10, c.session) in [(entry.start, entry.stop, entry.responder) for entry in bench.asked("a")]

    def test_queues_of_many_files_are_tried_in_turn(self) -> None:
        bench = Bench(replace(FAST, window_min_chunks=1, window_max_chunks=1))
        busy, idle, *waiting = (bench.join(name) for name in "abcdef")
        files = [bench.exchange(f"f{index}", 60) for index in range(12)]
        bench.ask(waiting[0], files[0], (0, 1))  # while that is on its way the lines are not tried at every input
        bench.holder(busy).window.chunks = 0
        for file in files[:-1]:
            (share,) = file.shares.ranges_of(busy.name)
            for member in waiting:
                bench.ask(member, file, tuple(share))
        last, cache = files[-1], bench.machine.cache
        others = cache.reservable_chunks
        assert cache.reserve(b"other", 0, others)
        bench.ask(waiting[0], last, tuple(last.shares.ranges_of(idle.name)[0]))
        assert not bench.fetches(last), "there is no room"
        cache.release(b"other", 0, others)
        for _ in range(3):
            bench.machine._forwarder.serve()
        assert bench.fetches(last), "each input goes on where the one before has ended"

    def test_files_take_turns_for_scarce_cache_room(self) -> None:
        bench = Bench(cache_chunks=16)
        waiting = [bench.join(name) for name in "abcdefg"]
        files = [bench.exchange(f"f{index}", 140) for index in range(3)]
        cache, pending = bench.machine.cache, bench.machine._pending
        assert cache.reserve(b"other", 0, 16)
        for file in files:
            for part in ((0, 8), (8, 16)):
                bench.ask(waiting.pop(), file, part)
        fetched = []
        for _ in range(6):
            cache.release(b"other", 0, 8)
            bench.machine._forwarder.serve()
            ((name, fetch),) = [(file.manifest.name, fetch) for file in files for fetch in bench.fetches(file)]
            fetched.append(name)
            pending.abandon(fetch)
            assert cache.reserve(b"other", 0, 8)
        assert fetched == ["f0", "f1", "f2"] * 2

    def test_queue_is_served_when_a_holder_connects(self) -> None:
        bench = Bench()
        a, source = bench.join("a"), bench.join("source", is_source=True, reachable=False)
        bench.server.link_opened(source.session, bench.now)
        manifest = bench.manifest("f", 6, 1)
        bench.server.catalogue.announce(manifest, source.session)
        file = bench.server.catalogue.divide(manifest, source.session, bench.now)
        bench.ask(a, file, (0, 6))
        assert not bench.fetches(file)
        bench.send(source, Hello(source.session, 1, 0))
        assert [(fetch.start, fetch.stop) for fetch in bench.fetches(file)] == [(0, 6)]

    @pytest.mark.parametrize("tells", ["an acknowledgement", "a report"])
    def test_queue_is_served_when_another_member_holds_the_chunks(self, tells: str) -> None:
        bench = Bench()
        a, b, c, file, number = delivered_to_b(bench)
        bench.server.link_closed(c.session, bench.now)
        bench.ask(a, file, (6, 9))
        assert not bench.fetches(file)
        if tells == "a report":
            bench.reach(b, file, Milestone.COMPLETE)
        else:
            bench.ask(b, file, acknowledged=number)
        assert [fetch.holder.member for fetch in bench.fetches(file)] == [b]

    def test_queue_moves_up_when_a_holder_leaves(self) -> None:
        bench = Bench()
        ahead, behind, other = [bench.join(name) for name in "pqr"], bench.join("w"), bench.join("x")
        gone, slow = bench.join("y"), bench.join("z")
        file = bench.exchange("f", 21)  # three each, in the order of their names
        bench.server.link_closed(gone.session, bench.now)
        for member in ahead:
            bench.ask(member, file, (15, 18))
        bench.ask(other, file, (18, 19))
        bench.holder(slow).window.chunks = 1
        bench.ask(behind, file, (20, 21))
        assert bench.contribute(bench.frame(slow, file, 18, 19))
        for delivery in bench.effects(Deliver):
            bench.sent(other, delivery.number)
        assert not bench.fetches(file)
        bench.server.member_left(gone.session, "it left", bench.now)
        assert [(fetch.start, fetch.stop) for fetch in bench.fetches(file)] == [(20, 21)]


class TestBatches:
    """Chunks that arrive soon after the last fan-out are batched; here one second is soon."""

    SLOW = replace(QUARTER_FRAMES, delivery_pacing_ns=SECOND_NS)

    def waiting(
        self, cache_chunks: int = 64, tuning: ServerTuning = SLOW
    ) -> tuple[Bench, SharedFile, Member, list[Member]]:
        """Return a holder of a file's second half, and two clients that want it."""
        bench = Bench(cache_chunks=cache_chunks, tuning=tuning)
        first, holder = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 48)
        waiting = [first, bench.join("d")]
        bench.pass_time(3 * SECOND_NS)
        for member in waiting:
            bench.ask(member, file, (24, 48))
        return bench, file, holder, waiting

    def contribute(self, bench: Bench, file: SharedFile, holder: Member, *starts: int, chunks: int = 2) -> None:
        for start in starts:
            assert bench.contribute(bench.frame(holder, file, start, start + chunks))

    def spans(self, delivers: list[Deliver]) -> list[tuple[int, int, int]]:
        return [(deliver.session, deliver.frame.start, deliver.frame.stop) for deliver in delivers]

    def test_first_frame_is_delivered_at_once(self) -> None:
        bench, file, holder, (a, d) = self.waiting()
        self.contribute(bench, file, holder, 24, chunks=16)
        assert self.spans(bench.effects(Deliver)) == [(a.session, 24, 40), (d.session, 24, 40)]

    def first_two(self, frame_chunks: int) -> tuple[Bench, SharedFile, Member, list[Member]]:
        """Deliver the first frame, and let the second arrive soon after, so that it is batched."""
        bench, file, holder, waiting = self.waiting(cache_chunks=4 * frame_chunks)
        self.contribute(bench, file, holder, 24, chunks=frame_chunks)
        for deliver in bench.effects(Deliver):
            bench.server.delivery_sent(deliver.session, deliver.number, bench.now)
        bench.pass_time(MILLISECOND_NS)
        self.contribute(bench, file, holder, 24 + frame_chunks, chunks=frame_chunks)
        assert bench.effects(Deliver) == []
        return bench, file, holder, waiting

    def two_files(self, tuning: ServerTuning = SLOW) -> tuple[Bench, SharedFile, SharedFile, Member]:
        """Deliver half of what two clients want of one file, and batch what they want of another."""
        bench, file, holder, waiting = self.waiting(tuning=tuning)
        other = bench.exchange("g", 48)
        for member in waiting:
            bench.ask(member, other, (24, 28))
        self.contribute(bench, file, holder, 24, chunks=16)
        assert len(bench.effects(Deliver)) == 2
        self.contribute(bench, other, holder, 24, chunks=4)
        return bench, file, other, holder

    def test_batches_of_files_take_turns(self) -> None:
        bench, file, other, holder = self.two_files()
        self.contribute(bench, file, holder, 40, chunks=8)
        for expected in (other, file):
            bench.pass_time(2 * SECOND_NS - 10 * MILLISECOND_NS)
            assert bench.effects(Deliver) == []
            bench.pass_time(10 * MILLISECOND_NS)
            assert [deliver.frame.file_id for deliver in bench.effects(Deliver)] == [expected.file_id] * 2

    def test_full_batch_does_not_delay_other_files(self) -> None:
        bench, file, other, holder = self.two_files(replace(self.SLOW, batch_cache_divisor=8))  # of 64 chunks
        bench.pass_time(SECOND_NS)
        self.contribute(bench, file, holder, 40, chunks=8)
        assert [deliver.frame.file_id for deliver in bench.effects(Deliver)] == [file.file_id] * 2
        bench.pass_time(SECOND_NS)
        assert [deliver.frame.file_id for deliver in bench.effects(Deliver)] == [other.file_id] * 2

    def test_chunks_that_arrive_soon_leave_in_one_batch(self) -> None:
        bench, _file, _holder, (a, d) = self.first_two(frame_chunks=4)
        bench.pass_time(3 * SECOND_NS)
        spans = self.spans(bench.effects(Deliver))
        assert sorted(spans) == sorted([(a.session, 28, 32), (d.session, 28, 32)])

    def test_batch_takes_half_of_the_cache_at_most(self) -> None:
        bench, file, holder, (a, d) = self.first_two(frame_chunks=4)
        self.contribute(bench, file, holder, 32, chunks=4)
        spans = self.spans(bench.effects(Deliver))
        assert sorted(spans) == sorted([(a.session, 28, 36), (d.session, 28, 36)])

    def test_request_for_a_batched_chunk_is_a_hit(self) -> None:
        bench, file, holder, _ = self.waiting(cache_chunks=8)
        self.contribute(bench, file, holder, 24)
        self.contribute(bench, file, holder, 26)
        e = bench.join("e")
        bench.server.poll()
        bench.ask(e, file, (24, 30))
        effects = bench.server.poll()
        assert self.spans([effect for effect in effects if isinstance(effect, Deliver)]) == [(e.session, 24, 28)]

    def test_waiting_requests_get_batched_chunks(self) -> None:
        bench, file, holder, (a, d) = self.waiting(cache_chunks=8)
        self.contribute(bench, file, holder, 24)
        bench.server.poll()
        self.contribute(bench, file, holder, 26)
        # Room is made while it is gathered: whoever is first in line is looked after.
        bench.server.resize_cache(32, bench.now)
        bench.pass_time(0)
        assert sorted(self.spans(bench.effects(Deliver))) == sorted([(a.session, 26, 28), (d.session, 26, 28)])

    def test_batch_is_flushed_before_eviction(self) -> None:
        bench, file, holder, waiting = self.waiting(cache_chunks=4)
        lacking = {member.session: RangeSet([(24, 48)]) for member in waiting}
        while any(lacking.values()):
            effects = bench.server.poll()
            assert effects or bench.server.next_timeout() is not None
            for effect in effects:
                if isinstance(effect, Deliver):
                    lacking[effect.session].discard(effect.frame.start, effect.frame.stop)
                    bench.server.delivery_sent(effect.session, effect.number, bench.now)
            for fetch in list(bench.fetches(file)):
                assert bench.contribute(bench.frame(holder, file, fetch.start, fetch.stop)) or fetch.tries == 0
            bench.pass_time(MILLISECOND_NS)
        assert file.traffic.contributed_bytes == file.manifest.byte_span(24, 48)[1]


class TestQuota:
    """A cache of 64 chunks has frames of 16: deliveries to one member pin at most 32 chunks."""

    QUOTA = 32

    def asked_chunks(self, bench: Bench) -> int:
        return sum(asked.stop - asked.start for asked in bench.asked("a"))

    def stuck(self) -> tuple[Bench, SharedFile, Member, list[Deliver]]:
        """Return a client with a large request, and everything fetched for it in flight."""
        bench = Bench(tuning=QUARTER_FRAMES)
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 200)
        bench.ask(a, file, (100, 200))
        asked = bench.asked("a")
        for entry in asked:
            assert bench.contribute(bench.frame(b, file, entry.start, entry.stop))
        return bench, file, a, bench.delivered(a)

    def test_quota_bounds_a_member_with_a_large_window(self) -> None:
        bench, _, a, delivers = self.stuck()
        assert sum(deliver.frame.stop - deliver.frame.start for deliver in delivers) == self.QUOTA
        assert bench.quota_used_chunks(a) == self.QUOTA
        assert self.asked_chunks(bench) == 0

    def test_sent_delivery_frees_quota(self) -> None:
        bench, _, a, delivers = self.stuck()
        bench.sent(a, delivers[0].number)
        assert self.asked_chunks(bench) == 16
        assert bench.quota_used_chunks(a) == self.QUOTA - 16

    def test_failed_delivery_frees_quota(self) -> None:
        bench, _, a, delivers = self.stuck()
        bench.server.delivery_failed(a.session, delivers[0].number, bench.now)
        assert self.asked_chunks(bench) == 16

    def test_acknowledgement_alone_frees_no_quota(self) -> None:
        bench, file, a, delivers = self.stuck()
        bench.ask(a, file, (132, 200), acknowledged=delivers[-1].number)
        assert self.asked_chunks(bench) == 0
        assert bench.quota_used_chunks(a) == self.QUOTA

    def test_files_of_a_member_share_its_quota(self) -> None:
        bench, _, a, delivers = self.stuck()
        other = bench.exchange("g", 200)
        bench.ask(a, other, (100, 200))
        assert self.asked_chunks(bench) == 0
        for deliver in delivers:
            bench.sent(a, deliver.number)
        assert self.asked_chunks(bench) == self.QUOTA

    def test_each_member_has_its_own_quota(self) -> None:
        bench, file, _, _ = self.stuck()
        bench.ask(bench.join("c"), file, (140, 200))
        assert self.asked_chunks(bench) == self.QUOTA

    def test_broken_link_uses_no_quota(self) -> None:
        bench = Bench(tuning=QUARTER_FRAMES)
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 200)
        bench.ask(a, file, (100, 200))
        asked = bench.asked("a")
        bench.server.link_closed(a.session, bench.now)
        for entry in asked:
            assert bench.contribute(bench.frame(b, file, entry.start, entry.stop))
        assert bench.quota_used_chunks(a) == 0

    def test_fetch_uses_no_quota_and_ends_without_a_holder(self) -> None:
        bench = Bench(tuning=QUARTER_FRAMES)
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 200)
        bench.ask(a, file, (100, 101))
        bench.server.member_left(b.session, "gone", bench.now)
        assert bench.server.cache.used_chunks == 1
        bench.live(30 * SECOND_NS)
        assert bench.quota_used_chunks(a) == 0
        assert bench.server.cache.used_chunks == 0


def test_chunks_without_a_holder_are_not_fetched() -> None:
    bench = Bench()
    a, _ = bench.join("a"), bench.join("b")
    file = bench.exchange("f", 4)
    bench.server.member_left(a.session, "gone", bench.now)
    machine, everyone = bench.machine, replace(FAST, all_holders_answer=True)
    holders = HolderSelector(everyone, machine.sessions, machine._pending, Random(1), SERVER_TUNING)
    assert holders.next_fetch(file, 1, 4, 64) == (None, None)
    assert holders.next_fetch(file, 2, 4, 64) == (Range(2, 4), None)
