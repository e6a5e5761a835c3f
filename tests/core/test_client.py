"""The client machine by itself: what it says, what it asks, what it sends, what it drops."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from pspd.core.client import download
from pspd.core.effects.client import Contribute, FinishFile, ReportMilestone
from pspd.core.effects.shared import InputDropped, Milestone
from pspd.core.model.manifest import DIGEST_BYTES, Manifest, block_bytes_of
from pspd.core.model.parameters import FAST, MILLISECOND_NS, SECOND_NS
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import Written
from pspd.core.model.tuning import CLIENT_TUNING
from pspd.core.timing.rtt import RTO_INITIAL_NS
from pspd.core.wire.datagrams import EVERY_HOLDER, OWNERS, Asked, Broadcast, Hello, HelloAck
from pspd.core.wire.frames import encode_frame
from pspd.core.wire.header import DropReason, Kind
from pspd.store.digests import blake3_digest
from tests.core.alone import SERVER, SESSION, Client, manifest_of


class TestHellos:
    def test_the_first_comes_at_once_and_again_until_it_is_answered(self) -> None:
        client = Client()
        assert client.heard() == [Hello(SESSION, 1, 0)]
        client.pass_time(RTO_INITIAL_NS * 5 // 4)
        assert client.heard() == [Hello(SESSION, 2, 0)]
        client.now += 20 * MILLISECOND_NS - (client.now - 1_000_000) % MILLISECOND_NS
        client.hear(HelloAck(SESSION, 2, 5000))
        client.pass_time(0)
        assert client.heard() == [Hello(SESSION, 3, client.machine.hellos.rtt.srtt_ns // 1000)]
        client.hear(HelloAck(SESSION, 3, 5000))
        client.pass_time(5 * SECOND_NS - 1)
        assert client.heard() == []
        client.pass_time(1)
        (hello,) = client.heard()
        assert isinstance(hello, Hello)
        assert (hello.number, hello.srtt_us) == (4, client.machine.hellos.rtt.srtt_ns // 1000)

    def test_an_answer_to_an_earlier_one_or_a_second_answer_is_stale(self) -> None:
        client = Client()
        client.hear(HelloAck(SESSION, 1, 5000))
        client.hear(HelloAck(SESSION, 1, 5000))
        client.hear(HelloAck(SESSION, 0, 5000))
        assert client.machine.drop_counts == {DropReason.STALE: 2}

    def test_one_that_left_is_silent(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 5))
        client.heard()
        client.machine.left()
        assert client.machine.next_timeout() is None
        client.machine.link_opened(client.now)
        client.hear(Broadcast(SESSION, manifest.file_id, 1, (Asked(0, 1, EVERY_HOLDER),)))
        assert client.others() == [InputDropped(DropReason.UNKNOWN_SESSION, "server:1")]


class TestAsking:
    def test_the_share_first_then_everything_then_it_finishes(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (2, 5))
        assert client.requests()[0].ranges == (Range(2, 5),)
        client.deliver(manifest, 2, 5, number=4)
        (request,) = client.requests()
        assert (request.ranges, request.acknowledged) == ((), 4)
        assert ReportMilestone(manifest.file_id, Milestone.SHARE_HELD, 3) in client.effects
        client.machine.exchange_started(manifest.file_id, client.now)
        assert set(client.requests()[0].ranges) == {Range(0, 2), Range(5, 10)}
        client.deliver(manifest, 0, 2, number=5)
        client.deliver(manifest, 5, 10, number=6)
        assert FinishFile(manifest.file_id) in client.others()
        client.machine.file_finished(manifest.file_id)
        assert client.others() == [ReportMilestone(manifest.file_id, Milestone.COMPLETE, 3)]
        client.machine.exchange_started(manifest.file_id, client.now)
        client.assign(manifest, (2, 5), complete=True)
        assert client.others() == [ReportMilestone(manifest.file_id, Milestone.COMPLETE, 3)]

    def test_a_share_that_is_added_is_asked_for_and_reported_with_the_first(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 5), held=((0, 5),))
        assert ReportMilestone(manifest.file_id, Milestone.SHARE_HELD, 5) in client.others()
        client.assign(manifest, (0, 5), (5, 10))
        assert client.requests()[0].ranges == (Range(5, 10),)
        client.deliver(manifest, 5, 10)
        assert ReportMilestone(manifest.file_id, Milestone.SHARE_HELD, 10) in client.others()

    def test_a_share_in_place_of_another_is_all_that_is_asked_for_and_reported(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 5))
        client.deliver(manifest, 0, 2)
        client.heard()
        client.assign(manifest, (5, 8))
        assert client.requests()[0].ranges == (Range(5, 8),)
        client.deliver(manifest, 5, 8, number=2)
        assert ReportMilestone(manifest.file_id, Milestone.SHARE_HELD, 3) in client.others()

    def test_one_whose_share_went_to_another_holds_what_it_has_and_wants_nothing(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 5))
        client.deliver(manifest, 0, 2)
        client.heard()
        client.assign(manifest)
        assert [request.ranges for request in client.requests()] == [()]
        assert ReportMilestone(manifest.file_id, Milestone.SHARE_HELD, 0) in client.effects
        client.pass_time(SECOND_NS)
        assert client.requests() == []
        assert list(client.machine.downloads[manifest.file_id].verified) == [Range(0, 2)]

    def test_a_file_that_is_divided_anew_is_begun_anew_with_what_is_held_by_its_new_units(self) -> None:
        client = Client()
        manifest, anew = manifest_of(10, share_count=2), manifest_of(10, share_count=3)
        assert manifest.file_id == anew.file_id
        client.assign(manifest, (0, 5))
        client.deliver(manifest, 0, 4, number=6)
        client.heard()
        client.machine.joined(SESSION, SERVER, FAST, client.now)
        client.assign(anew, (0, 3), held=((0, 1),))
        (request,) = client.requests()
        assert (request.number, request.acknowledged, request.ranges) == (1, 0, (Range(1, 3),))
        client.hear(Broadcast(SESSION, anew.file_id, 1, (Asked(0, 1, EVERY_HOLDER), Asked(1, 2, EVERY_HOLDER))))
        sent = [effect.frame.start for effect in client.others() if isinstance(effect, Contribute)]
        assert sent == [0]

    def test_a_file_that_is_told_of_again_as_it_was_goes_on_as_it_was(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 5))
        client.deliver(manifest, 0, 4, number=6)
        client.heard()
        client.assign(manifest_of(10), (0, 5))
        (request,) = client.requests()
        assert (request.number, request.acknowledged, request.ranges) == (2, 6, (Range(4, 5),))

    def test_an_empty_share_is_held_at_once(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest)
        assert client.others() == [ReportMilestone(manifest.file_id, Milestone.SHARE_HELD, 0)]

    def test_an_empty_file_is_whole_at_once(self) -> None:
        client = Client()
        manifest = manifest_of(0)
        client.assign(manifest, exchange=True)
        assert client.others() == [FinishFile(manifest.file_id)]

    def test_a_late_joiner_asks_for_everything_that_it_lacks(self) -> None:
        client = Client()
        client.assign(manifest_of(10), exchange=True, held=((3, 4),))
        assert client.requests()[0].ranges == (Range(0, 3), Range(4, 10))

    def test_what_was_assigned_while_it_finishes_changes_nothing(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, exchange=True, held=((0, 4),))
        client.others()
        client.assign(manifest, exchange=True)
        assert client.others() == []

    def test_a_part_of_a_window_that_arrived_is_time_for_the_next_request(self) -> None:
        client = Client()
        step = FAST.window_min_chunks // 2
        manifest = manifest_of(4 * step)
        client.assign(manifest, exchange=True)
        client.heard()
        client.deliver(manifest, 0, step - 1)
        assert client.requests() == []
        client.deliver(manifest, step - 1, step, number=2)
        assert client.requests()[0].ranges == (Range(step, manifest.chunk_count),)

    def test_a_window_that_grew_since_it_was_told_does_not_keep_it_from_asking(self) -> None:
        client = Client()
        told = FAST.window_min_chunks
        manifest = manifest_of(8 * told)
        client.assign(manifest, exchange=True)
        client.heard()
        window = client.machine.downloads[manifest.file_id].window
        window.chunks = 8 * told
        client.deliver(manifest, 0, told // 2)
        (request,) = client.requests()
        assert request.window_chunks == window.chunks

    def test_a_delivery_in_pieces_is_time_for_the_next_request_when_it_is_whole(self) -> None:
        client = Client()
        step = FAST.window_min_chunks // 2
        manifest = manifest_of(2 * step)
        client.assign(manifest, (0, 2 * step))
        client.heard()
        client.deliver(manifest, 0, step - 1, number=0)
        client.deliver(manifest, step - 1, step, number=0)
        assert client.requests() == []
        client.deliver(manifest, step, step + 1, number=3)
        (request,) = client.requests()
        assert (request.ranges, request.acknowledged) == ((Range(step + 1, 2 * step),), 3)

    def test_a_piece_that_brings_the_last_that_lacked_is_enough(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 5))
        client.deliver(manifest, 4, 5, number=1)
        client.deliver(manifest, 0, 4, number=0)
        assert ReportMilestone(manifest.file_id, Milestone.SHARE_HELD, 5) in client.others()

    def test_a_unit_that_is_corrupt_is_counted_and_asked_for_again(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, exchange=True)
        client.heard()
        client.deliver(manifest, 0, 2, good=False)
        client.deliver(manifest, 2, 4, number=2)
        assert client.machine.drop_counts == {DropReason.CORRUPT: 1}
        client.pass_time(SECOND_NS)
        assert client.requests()[-1].ranges == (Range(0, 2),)

    def test_a_delivery_that_comes_when_nothing_is_wanted_is_taken_and_that_is_all(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, (0, 2), held=((0, 2),))
        client.heard()
        client.deliver(manifest, 0, 2)
        client.deliver(manifest, 2, 4)
        assert client.others() == []
        assert client.machine.downloads[manifest.file_id].is_whole

    def test_a_new_link_asks_anew_for_what_is_wanted(self) -> None:
        client = Client()
        wanted, had = manifest_of(4), manifest_of(5, "g")
        client.assign(wanted, exchange=True)
        client.assign(had, exchange=True, held=((0, 5),))
        client.heard()
        client.machine.link_opened(client.now)
        assert [request.file_id for request in client.requests()] == [wanted.file_id]

    def test_a_new_session_begins_the_conversation_anew(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, (0, 2))
        client.deliver(manifest, 0, 1, number=9)
        client.heard()
        client.machine.joined(SESSION + 1, SERVER, FAST, client.now)
        client.assign(manifest, (0, 1))
        hello, *requests = client.heard()
        assert hello == Hello(SESSION + 1, 2, 0)
        assert [(r.session, r.number, r.acknowledged, r.ranges) for r in requests] == [(SESSION + 1, 1, 0, ())]
        assert ReportMilestone(manifest.file_id, Milestone.SHARE_HELD, 1) in client.effects

    def test_new_session_requests_unverified_chunks_again(self) -> None:
        """The next server does not know that they were delivered."""
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, exchange=True)
        client.machine.delivery_stored(client.frame(manifest, 0, 2), Written(), client.now)
        assert client.requests()[-1].ranges == (Range(0, 4),)
        client.machine.link_opened(client.now)
        assert client.requests()[-1].ranges == (Range(2, 4),)
        client.machine.joined(SESSION, SERVER, FAST, client.now)
        client.assign(manifest, exchange=True)
        assert client.requests()[-1].ranges == (Range(0, 4),)

    def test_an_exchange_of_a_file_that_it_was_not_told_of_is_no_matter(self) -> None:
        client = Client()
        client.machine.exchange_started(bytes(32), client.now)
        assert client.requests() == []

    def test_round_trips_are_measured_for_so_many_requests_at_most(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, exchange=True)
        for _ in range(CLIENT_TUNING.measured_requests_max + 5):
            client.machine.link_opened(client.now)
        found = client.machine.downloads[manifest.file_id]
        client.now += 30 * MILLISECOND_NS
        client.deliver(manifest, 0, 1, echo=1)  # forgotten
        assert found.rtt.srtt_ns == 0
        client.deliver(manifest, 1, 2, number=2, echo=CLIENT_TUNING.measured_requests_max)
        assert found.rtt.srtt_ns == 30 * MILLISECOND_NS


class TestHolding:
    def asked(self, client: Client, manifest: Manifest, *asked: Asked, number: int = 6) -> list[tuple[int, int]]:
        client.others()
        client.hear(Broadcast(SESSION, manifest.file_id, number, asked))
        frames = [effect.frame for effect in client.others() if isinstance(effect, Contribute)]
        assert all(frame.number == number and frame.session == SESSION for frame in frames)
        assert all(frame.length == manifest.byte_span(frame.start, frame.stop)[1] for frame in frames)
        return [(frame.start, frame.stop) for frame in frames]

    def test_sends_what_it_is_asked_for_and_has_and_ignores_the_rest(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (2, 6), held=((2, 6), (9, 10)))
        assert self.asked(
            client,
            manifest,
            Asked(2, 6, SESSION),
            Asked(3, 5, EVERY_HOLDER),
            Asked(9, 10, EVERY_HOLDER),
            Asked(4, 5, SESSION + 1),
            Asked(5, 7, SESSION),
            Asked(9, 11, EVERY_HOLDER),
        ) == [(2, 6), (3, 5), (9, 10)]

    def test_sends_its_part_where_the_owners_are_asked(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (2, 5), (7, 9), held=((2, 9),))
        assert self.asked(client, manifest, Asked(0, 10, OWNERS)) == [(2, 5), (7, 9)]
        assert self.asked(client, manifest, Asked(3, 8, OWNERS), number=7) == [(3, 5), (7, 8)]
        assert self.asked(client, manifest, Asked(5, 7, OWNERS), number=8) == []

    def test_also_when_it_has_the_file_already(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (2, 5), held=((0, 10),), complete=True)
        assert self.asked(client, manifest, Asked(0, 10, OWNERS)) == [(2, 5)]

    def test_but_not_what_it_does_not_hold(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (2, 5), held=((2, 4),))
        assert self.asked(client, manifest, Asked(0, 10, OWNERS)) == []
        assert self.asked(client, manifest, Asked(0, 4, OWNERS), number=7) == [(2, 4)]

    def test_a_declined_file_is_sent_but_not_requested_or_stored(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, exchange=True, held=((0, 4),))
        client.deliver(manifest, 4, 5, number=3)
        client.heard()
        client.machine.file_declined(manifest.file_id, client.now)
        (request,) = client.requests()
        assert (request.ranges, request.acknowledged) == ((), 3)
        assert not client.machine.delivery_started(client.frame(manifest, 5, 6), "server")
        client.machine.exchange_started(manifest.file_id, client.now)
        client.pass_time(60 * SECOND_NS)
        assert not client.requests()
        assert self.asked(client, manifest, Asked(0, 5, EVERY_HOLDER)) == [(0, 5)]

    def test_a_declined_file_that_is_taken_again_starts_from_the_store(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, exchange=True)
        client.machine.file_declined(manifest.file_id, client.now)
        client.heard()
        client.assign(manifest, exchange=True, held=((0, 7),))
        (request,) = client.requests()
        assert RangeSet(request.ranges) == RangeSet([(7, 10)])

    def test_a_broadcast_that_comes_twice_is_answered_once(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, exchange=True, held=((0, 1),))
        client.heard()
        for _ in range(2):
            client.hear(Broadcast(SESSION, manifest.file_id, 6, (Asked(0, 1, EVERY_HOLDER),)))
        assert [type(effect) for effect in client.others()] == [Contribute, InputDropped]
        assert client.machine.drop_counts == {DropReason.DUPLICATE: 1}

    @pytest.mark.parametrize(("stop", "answers"), [(16 * 1024, 1), (16 * 1024 + 1, 0), (5 * 2**20, 0)])
    def test_no_more_is_sent_than_a_frame_carries(self, stop: int, answers: int) -> None:
        size_bytes = 5 * 2**30
        digests = bytes(size_bytes // block_bytes_of(size_bytes) * DIGEST_BYTES)
        client = Client()
        manifest = Manifest.parse("large", size_bytes, digests, blake3_digest)
        client.machine.hold_whole(manifest)
        client.hear(Broadcast(SESSION, manifest.file_id, 1, (Asked(0, stop, EVERY_HOLDER),)))
        frames = [effect.frame for effect in client.others() if isinstance(effect, Contribute)]
        assert [encode_frame(frame)[:2] for frame in frames] == [b"PS"] * answers

    def test_number_of_remembered_broadcasts_is_bounded(self) -> None:
        client = Client(tuning=replace(CLIENT_TUNING, answered_broadcasts_max=2))
        manifest = manifest_of(4)
        client.assign(manifest, exchange=True, held=((0, 1),))
        client.heard()
        for number in (1, 2, 3, 3, 2, 1):
            client.hear(Broadcast(SESSION, manifest.file_id, number, (Asked(0, 1, EVERY_HOLDER),)))
        sent = [effect.frame.number for effect in client.others() if isinstance(effect, Contribute)]
        assert sent == [1, 2, 3, 1]

    def test_of_a_file_that_it_does_not_know_it_has_nothing(self) -> None:
        client = Client()
        assert self.asked(client, manifest_of(3), Asked(0, 1, EVERY_HOLDER)) == []

    def test_a_source_has_everything_and_wants_nothing(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.machine.hold_whole(manifest)
        assert self.asked(client, manifest, Asked(0, 10, SESSION)) == [(0, 10)]
        client.machine.link_opened(client.now)
        assert client.requests() == []

    def test_what_arrived_is_held_from_then_on(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, exchange=True)
        assert self.asked(client, manifest, Asked(0, 1, EVERY_HOLDER)) == []
        client.deliver(manifest, 0, 1)
        assert self.asked(client, manifest, Asked(0, 1, EVERY_HOLDER)) == [(0, 1)]


class TestSuspicion:
    def test_of_a_file_that_is_suspected_nothing_is_held_wanted_or_taken(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, exchange=True, held=((0, 2),))
        client.others()
        client.machine.file_dropped(manifest.file_id)
        client.hear(Broadcast(SESSION, manifest.file_id, 1, (Asked(0, 1, EVERY_HOLDER),)))
        client.machine.link_opened(client.now)
        client.machine.exchange_started(manifest.file_id, client.now)
        client.pass_time(5 * SECOND_NS)
        assert client.requests() == []
        assert not client.machine.delivery_started(client.frame(manifest, 2, 3), "x")
        assert client.others() == [InputDropped(DropReason.UNKNOWN_FILE, "x")]

    def test_when_it_is_assigned_again_what_was_wrong_is_asked_for(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, exchange=True, held=((0, 4),))
        assert FinishFile(manifest.file_id) in client.others()
        client.machine.file_dropped(manifest.file_id)
        client.assign(manifest, exchange=True, held=((0, 1), (2, 4)))
        assert [request.ranges for request in client.requests()] == [(Range(1, 2),)]
        client.deliver(manifest, 1, 2)
        assert FinishFile(manifest.file_id) in client.others()

    def test_other_files_go_on(self) -> None:
        client = Client()
        wrong, right = manifest_of(4), manifest_of(4, "g")
        client.assign(wrong, exchange=True)
        client.assign(right, exchange=True)
        client.heard()
        client.machine.file_dropped(wrong.file_id)
        client.machine.link_opened(client.now)
        assert [request.file_id for request in client.requests()] == [right.file_id]

    def test_of_a_file_that_it_does_not_know_is_no_matter(self) -> None:
        client = Client()
        client.machine.file_dropped(bytes(32))
        assert client.others() == []

    def test_a_source_sends_nothing_of_it_any_more(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.machine.hold_whole(manifest)
        client.machine.file_dropped(manifest.file_id)
        client.hear(Broadcast(SESSION, manifest.file_id, 1, (Asked(0, 4, SESSION),)))
        assert client.others() == []


class TestDrops:
    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"kind": Kind.CONTRIBUTION}, DropReason.UNKNOWN_KIND),
            ({"session": SESSION + 1}, DropReason.UNKNOWN_SESSION),
            ({"file_id": bytes(32)}, DropReason.UNKNOWN_FILE),
            ({"stop": 11}, DropReason.BAD_RANGE),
            ({"length": 7}, DropReason.BAD_RANGE),
        ],
    )
    def test_deliveries_that_make_no_sense(self, change: dict[str, object], reason: DropReason) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, exchange=True)
        frame = client.frame(manifest, 8, 10)._replace(**change)
        assert not client.machine.delivery_started(frame, "x")
        assert client.others() == [InputDropped(reason, "x")]
        assert client.machine.drop_counts == {reason: 1}

    def test_datagrams_that_make_no_sense_or_are_of_another(self) -> None:
        client = Client()
        client.machine.receive_datagram(b"x", ("y", 3), client.now)
        client.hear(HelloAck(SESSION + 1, 1, 5000))
        client.hear(HelloAck(SESSION, 1, 5000), source=("y", 3))
        client.hear(Hello(SESSION, 1, 0))
        client.machine.frame_refused(DropReason.BAD_MAGIC, "z")
        assert client.others() == [
            InputDropped(DropReason.TOO_SHORT, "y:3"),
            InputDropped(DropReason.UNKNOWN_SESSION, "server:1"),
            InputDropped(DropReason.UNKNOWN_SESSION, "y:3"),
            InputDropped(DropReason.UNKNOWN_KIND, "server:1"),
            InputDropped(DropReason.BAD_MAGIC, "z"),
        ]
        assert client.machine.drop_counts.total() == 5


def test_a_download_that_is_done_wants_nothing() -> None:
    found = download.Download(manifest_of(4), RangeSet(), FAST, CLIENT_TUNING, Random(1), 0)
    found.finish()
    assert not found.wanted()


def test_first_hellos_are_repeated_without_backoff() -> None:
    client = Client()
    client.heard()
    pauses = []
    for _ in range(CLIENT_TUNING.hellos_without_backoff + 4):
        due = client.machine.next_timeout()
        assert due is not None
        pauses.append((due - client.now) / RTO_INITIAL_NS)
        client.now = due
        client.machine.handle_timeout(due)
        assert [type(datagram) for datagram in client.heard()] == [Hello]
    assert all(1 <= pause <= 1.25 for pause in pauses[: CLIENT_TUNING.hellos_without_backoff])
    assert pauses[-1] >= 4
