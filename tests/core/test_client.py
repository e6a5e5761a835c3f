"""The client machine alone: hellos, downloads, contributions and drops."""

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
from pspd.core.model.storage import WriteResult
from pspd.core.model.tuning import CLIENT_TUNING
from pspd.core.timing.rtt import RTO_INITIAL_NS
from pspd.core.wire.datagrams import EVERY_HOLDER, OWNERS, AskedRange, Broadcast, Hello, HelloAck
from pspd.core.wire.frames import encode_frame
from pspd.core.wire.header import DropReason, Kind
from pspd.store.digests import blake3_digest
from tests.core.alone import SERVER, SESSION, Client, manifest_of


class TestHellos:
    def test_hello_is_repeated_until_it_is_answered(self) -> None:
        client = Client()
        assert client.datagrams() == [Hello(SESSION, 1, 0)]
        client.pass_time(RTO_INITIAL_NS * 5 // 4)
        assert client.datagrams() == [Hello(SESSION, 2, 0)]
        client.now += 20 * MILLISECOND_NS - (client.now - 1_000_000) % MILLISECOND_NS
        client.receive(HelloAck(SESSION, 2, 5000))
        client.pass_time(0)
        assert client.datagrams() == [Hello(SESSION, 3, client.machine.hellos.rtt.srtt_ns // 1000)]
        client.receive(HelloAck(SESSION, 3, 5000))
        client.pass_time(5 * SECOND_NS - 1)
        assert client.datagrams() == []
        client.pass_time(1)
        (hello,) = client.datagrams()
        assert isinstance(hello, Hello)
        assert (hello.number, hello.srtt_us) == (4, client.machine.hellos.rtt.srtt_ns // 1000)

    def test_answer_to_an_earlier_hello_is_stale(self) -> None:
        client = Client()
        client.receive(HelloAck(SESSION, 1, 5000))
        client.receive(HelloAck(SESSION, 1, 5000))
        client.receive(HelloAck(SESSION, 0, 5000))
        assert client.machine.drop_counts == {DropReason.STALE: 2}

    def test_client_that_left_sends_nothing(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 5))
        client.datagrams()
        client.machine.left()
        assert client.machine.next_timeout() is None
        client.machine.link_opened(client.now)
        client.receive(Broadcast(SESSION, manifest.file_id, 1, (AskedRange(0, 1, EVERY_HOLDER),)))
        assert client.other_effects() == [InputDropped(DropReason.UNKNOWN_SESSION, "server:1")]

    @pytest.mark.parametrize("good", [True, False])
    @pytest.mark.parametrize("stop", [4, 10])
    def test_delivery_stored_after_leaving_sends_nothing(self, stop: int, good: bool) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, exchange=True)
        client.deliver(manifest, 9, 10, number=1, good=False)
        client.datagrams()
        client.machine.left()
        span = [Range(0, stop)]
        written = WriteResult(RangeSet(span)) if good else WriteResult(corrupt=span)
        client.verified[manifest.file_id].update(written.verified)
        client.machine.delivery_stored(client.frame(manifest, 0, stop, number=2), written, client.now)
        assert client.datagrams() == []
        assert client.machine.next_timeout() is None
        assert (FinishFile(manifest.file_id) in client.effects) is (good and stop == 10)


class TestDownloads:
    def test_share_is_requested_first_then_the_file(self) -> None:
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
        assert FinishFile(manifest.file_id) in client.other_effects()
        client.machine.file_finished(manifest.file_id)
        assert client.other_effects() == [ReportMilestone(manifest.file_id, Milestone.COMPLETE, 3)]
        client.machine.exchange_started(manifest.file_id, client.now)
        client.assign(manifest, (2, 5), complete=True)
        assert client.other_effects() == [ReportMilestone(manifest.file_id, Milestone.COMPLETE, 3)]

    def test_added_share_is_requested_and_reported(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 5), held=((0, 5),))
        assert ReportMilestone(manifest.file_id, Milestone.SHARE_HELD, 5) in client.other_effects()
        client.assign(manifest, (0, 5), (5, 10))
        assert client.requests()[0].ranges == (Range(5, 10),)
        client.deliver(manifest, 5, 10)
        assert ReportMilestone(manifest.file_id, Milestone.SHARE_HELD, 10) in client.other_effects()

    def test_replaced_share_is_not_requested(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 5))
        client.deliver(manifest, 0, 2)
        client.datagrams()
        client.assign(manifest, (5, 8))
        assert client.requests()[0].ranges == (Range(5, 8),)
        client.deliver(manifest, 5, 8, number=2)
        assert ReportMilestone(manifest.file_id, Milestone.SHARE_HELD, 3) in client.other_effects()

    def test_client_that_loses_its_share_keeps_its_chunks(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 5))
        client.deliver(manifest, 0, 2)
        client.datagrams()
        client.assign(manifest)
        assert [request.ranges for request in client.requests()] == [()]
        assert ReportMilestone(manifest.file_id, Milestone.SHARE_HELD, 0) in client.effects
        client.pass_time(SECOND_NS)
        assert client.requests() == []
        assert list(client.machine.downloads[manifest.file_id].verified) == [Range(0, 2)]

    def test_new_division_restarts_the_download(self) -> None:
        client = Client()
        manifest, again = manifest_of(10, share_count=2), manifest_of(10, share_count=3)
        assert manifest.file_id == again.file_id
        client.assign(manifest, (0, 5))
        client.deliver(manifest, 0, 4, number=6)
        client.datagrams()
        client.machine.joined(SESSION, SERVER, FAST, client.now)
        client.assign(again, (0, 3), held=((0, 1),))
        (request,) = client.requests()
        assert (request.number, request.acknowledged, request.ranges) == (1, 0, (Range(1, 3),))
        client.receive(
            Broadcast(SESSION, again.file_id, 1, (AskedRange(0, 1, EVERY_HOLDER), AskedRange(1, 2, EVERY_HOLDER)))
        )
        sent = [effect.frame.start for effect in client.other_effects() if isinstance(effect, Contribute)]
        assert sent == [0]

    def test_repeated_assignment_keeps_the_download(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 5))
        client.deliver(manifest, 0, 4, number=6)
        client.datagrams()
        client.assign(manifest_of(10), (0, 5))
        (request,) = client.requests()
        assert (request.number, request.acknowledged, request.ranges) == (2, 6, (Range(4, 5),))

    def test_empty_share_is_reported_as_held_at_once(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest)
        assert client.other_effects() == [ReportMilestone(manifest.file_id, Milestone.SHARE_HELD, 0)]

    def test_empty_file_is_whole_at_once(self) -> None:
        client = Client()
        manifest = manifest_of(0)
        client.assign(manifest, exchange=True)
        assert client.other_effects() == [FinishFile(manifest.file_id)]

    def test_late_joiner_requests_everything_missing(self) -> None:
        client = Client()
        client.assign(manifest_of(10), exchange=True, held=((3, 4),))
        assert client.requests()[0].ranges == (Range(0, 3), Range(4, 10))

    def test_assignment_while_finishing_changes_nothing(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, exchange=True, held=((0, 4),))
        client.other_effects()
        client.assign(manifest, exchange=True)
        assert client.other_effects() == []

    def test_next_request_follows_after_a_part_of_the_window(self) -> None:
        client = Client()
        step = FAST.window_min_chunks // 2
        manifest = manifest_of(4 * step)
        client.assign(manifest, exchange=True)
        client.datagrams()
        client.deliver(manifest, 0, step - 1)
        assert client.requests() == []
        client.deliver(manifest, step - 1, step, number=2)
        assert client.requests()[0].ranges == (Range(step, manifest.chunk_count),)

    def test_window_that_grew_does_not_delay_the_next_request(self) -> None:
        client = Client()
        advertised = FAST.window_min_chunks
        manifest = manifest_of(8 * advertised)
        client.assign(manifest, exchange=True)
        client.datagrams()
        window = client.machine.downloads[manifest.file_id].window
        window.chunks = 8 * advertised
        client.deliver(manifest, 0, advertised // 2)
        (request,) = client.requests()
        assert request.window_chunks == window.chunks

    def test_next_request_waits_for_the_last_part_of_a_delivery(self) -> None:
        client = Client()
        step = FAST.window_min_chunks // 2
        manifest = manifest_of(2 * step)
        client.assign(manifest, (0, 2 * step))
        client.datagrams()
        client.deliver(manifest, 0, step - 1, number=0)
        client.deliver(manifest, step - 1, step, number=0)
        assert client.requests() == []
        client.deliver(manifest, step, step + 1, number=3)
        (request,) = client.requests()
        assert (request.ranges, request.acknowledged) == ((Range(step + 1, 2 * step),), 3)

    def test_part_that_completes_the_share_ends_the_wait(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 5))
        client.deliver(manifest, 4, 5, number=1)
        client.deliver(manifest, 0, 4, number=0)
        assert ReportMilestone(manifest.file_id, Milestone.SHARE_HELD, 5) in client.other_effects()

    def test_corrupt_unit_is_counted_and_requested_again(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, exchange=True)
        client.datagrams()
        client.deliver(manifest, 0, 2, good=False)
        client.deliver(manifest, 2, 4, number=2)
        assert client.machine.drop_counts == {DropReason.CORRUPT: 1}
        client.pass_time(SECOND_NS)
        assert client.requests()[-1].ranges == (Range(0, 2),)

    def test_unrequested_delivery_is_stored(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, (0, 2), held=((0, 2),))
        client.datagrams()
        client.deliver(manifest, 0, 2)
        client.deliver(manifest, 2, 4)
        assert client.other_effects() == []
        assert client.machine.downloads[manifest.file_id].is_whole

    def test_new_link_repeats_requests(self) -> None:
        client = Client()
        wanted, had = manifest_of(4), manifest_of(5, "g")
        client.assign(wanted, exchange=True)
        client.assign(had, exchange=True, held=((0, 5),))
        client.datagrams()
        client.machine.link_opened(client.now)
        assert [request.file_id for request in client.requests()] == [wanted.file_id]

    def test_new_session_restarts_the_numbers(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, (0, 2))
        client.deliver(manifest, 0, 1, number=9)
        client.datagrams()
        client.machine.joined(SESSION + 1, SERVER, FAST, client.now)
        client.assign(manifest, (0, 1))
        hello, *requests = client.datagrams()
        assert hello == Hello(SESSION + 1, 2, 0)
        assert [(r.session, r.number, r.acknowledged, r.ranges) for r in requests] == [(SESSION + 1, 1, 0, ())]
        assert ReportMilestone(manifest.file_id, Milestone.SHARE_HELD, 1) in client.effects

    def test_new_session_requests_unverified_chunks_again(self) -> None:
        """In the new session, the server does not know that it delivered these chunks."""
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, exchange=True)
        client.machine.delivery_stored(client.frame(manifest, 0, 2), WriteResult(), client.now)
        assert client.requests()[-1].ranges == (Range(0, 4),)
        client.machine.link_opened(client.now)
        assert client.requests()[-1].ranges == (Range(2, 4),)
        client.machine.joined(SESSION, SERVER, FAST, client.now)
        client.assign(manifest, exchange=True)
        assert client.requests()[-1].ranges == (Range(0, 4),)

    def test_exchange_of_an_unknown_file_is_ignored(self) -> None:
        client = Client()
        client.machine.exchange_started(bytes(32), client.now)
        assert client.requests() == []

    def test_number_of_measured_requests_is_bounded(self) -> None:
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


class TestContributions:
    def asked(self, client: Client, manifest: Manifest, *asked: AskedRange, number: int = 6) -> list[tuple[int, int]]:
        client.other_effects()
        client.receive(Broadcast(SESSION, manifest.file_id, number, asked))
        frames = [effect.frame for effect in client.other_effects() if isinstance(effect, Contribute)]
        assert all(frame.number == number and frame.session == SESSION for frame in frames)
        assert all(frame.length == manifest.byte_span(frame.start, frame.stop)[1] for frame in frames)
        return [(frame.start, frame.stop) for frame in frames]

    def test_requested_chunks_are_sent_if_held(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (2, 6), held=((2, 6), (9, 10)))
        assert self.asked(
            client,
            manifest,
            AskedRange(2, 6, SESSION),
            AskedRange(3, 5, EVERY_HOLDER),
            AskedRange(9, 10, EVERY_HOLDER),
            AskedRange(4, 5, SESSION + 1),
            AskedRange(5, 7, SESSION),
            AskedRange(9, 11, EVERY_HOLDER),
        ) == [(2, 6), (3, 5), (9, 10)]

    def test_owner_sends_its_part(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (2, 5), (7, 9), held=((2, 9),))
        assert self.asked(client, manifest, AskedRange(0, 10, OWNERS)) == [(2, 5), (7, 9)]
        assert self.asked(client, manifest, AskedRange(3, 8, OWNERS), number=7) == [(3, 5), (7, 8)]
        assert self.asked(client, manifest, AskedRange(5, 7, OWNERS), number=8) == []

    def test_owner_with_the_whole_file_sends_its_part(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (2, 5), held=((0, 10),), complete=True)
        assert self.asked(client, manifest, AskedRange(0, 10, OWNERS)) == [(2, 5)]

    def test_owner_does_not_send_missing_chunks(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (2, 5), held=((2, 4),))
        assert self.asked(client, manifest, AskedRange(0, 10, OWNERS)) == []
        assert self.asked(client, manifest, AskedRange(0, 4, OWNERS), number=7) == [(2, 4)]

    def test_declined_file_is_contributed_but_not_requested(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, exchange=True, held=((0, 4),))
        client.deliver(manifest, 4, 5, number=3)
        client.datagrams()
        client.machine.file_declined(manifest.file_id, client.now)
        (request,) = client.requests()
        assert (request.ranges, request.acknowledged) == ((), 3)
        assert not client.machine.delivery_started(client.frame(manifest, 5, 6), "server")
        client.machine.exchange_started(manifest.file_id, client.now)
        client.pass_time(60 * SECOND_NS)
        assert not client.requests()
        assert self.asked(client, manifest, AskedRange(0, 5, EVERY_HOLDER)) == [(0, 5)]

    def test_declined_file_restarts_from_the_store(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, exchange=True)
        client.machine.file_declined(manifest.file_id, client.now)
        client.datagrams()
        client.assign(manifest, exchange=True, held=((0, 7),))
        (request,) = client.requests()
        assert RangeSet(request.ranges) == RangeSet([(7, 10)])

    def test_duplicated_broadcast_is_answered_once(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, exchange=True, held=((0, 1),))
        client.datagrams()
        for _ in range(2):
            client.receive(Broadcast(SESSION, manifest.file_id, 6, (AskedRange(0, 1, EVERY_HOLDER),)))
        assert [type(effect) for effect in client.other_effects()] == [Contribute, InputDropped]
        assert client.machine.drop_counts == {DropReason.DUPLICATE: 1}

    @pytest.mark.parametrize(("stop", "answers"), [(16 * 1024, 1), (16 * 1024 + 1, 0), (5 * 2**20, 0)])
    def test_range_larger_than_a_frame_is_not_sent(self, stop: int, answers: int) -> None:
        size_bytes = 5 * 2**30
        digests = bytes(size_bytes // block_bytes_of(size_bytes) * DIGEST_BYTES)
        client = Client()
        manifest = Manifest.parse("large", size_bytes, digests, blake3_digest)
        client.machine.contribute_as_source(manifest)
        client.receive(Broadcast(SESSION, manifest.file_id, 1, (AskedRange(0, stop, EVERY_HOLDER),)))
        frames = [effect.frame for effect in client.other_effects() if isinstance(effect, Contribute)]
        assert [encode_frame(frame)[:2] for frame in frames] == [b"PS"] * answers

    def test_number_of_remembered_broadcasts_is_bounded(self) -> None:
        client = Client(tuning=replace(CLIENT_TUNING, answered_broadcasts_max=2))
        manifest = manifest_of(4)
        client.assign(manifest, exchange=True, held=((0, 1),))
        client.datagrams()
        for number in (1, 2, 3, 3, 2, 1):
            client.receive(Broadcast(SESSION, manifest.file_id, number, (AskedRange(0, 1, EVERY_HOLDER),)))
        sent = [effect.frame.number for effect in client.other_effects() if isinstance(effect, Contribute)]
        assert sent == [1, 2, 3, 1]

    def test_unknown_file_is_not_sent(self) -> None:
        client = Client()
        assert self.asked(client, manifest_of(3), AskedRange(0, 1, EVERY_HOLDER)) == []

    def test_source_contributes_and_requests_nothing(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.machine.contribute_as_source(manifest)
        assert self.asked(client, manifest, AskedRange(0, 10, SESSION)) == [(0, 10)]
        client.machine.link_opened(client.now)
        assert client.requests() == []

    def test_delivered_chunks_are_contributed(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, exchange=True)
        assert self.asked(client, manifest, AskedRange(0, 1, EVERY_HOLDER)) == []
        client.deliver(manifest, 0, 1)
        assert self.asked(client, manifest, AskedRange(0, 1, EVERY_HOLDER)) == [(0, 1)]

    def test_name_is_known_while_the_file_is_held(self) -> None:
        client = Client()
        manifest = manifest_of(4, "a name")
        assert client.machine.name_of(manifest.file_id) is None
        client.machine.contribute_as_source(manifest)
        assert client.machine.name_of(manifest.file_id) == "a name"

    def test_file_declined_between_sessions_sends_nothing(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, exchange=True)
        client.machine.left()
        client.datagrams()
        client.machine.file_declined(manifest.file_id, client.now)
        assert client.datagrams() == []
        assert not client.machine.accepts_deliveries(manifest.file_id)


class TestDroppedFiles:
    def test_dropped_file_is_neither_sent_nor_requested(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, exchange=True, held=((0, 2),))
        client.other_effects()
        client.machine.file_dropped(manifest.file_id)
        client.receive(Broadcast(SESSION, manifest.file_id, 1, (AskedRange(0, 1, EVERY_HOLDER),)))
        client.machine.link_opened(client.now)
        client.machine.exchange_started(manifest.file_id, client.now)
        client.pass_time(5 * SECOND_NS)
        assert client.requests() == []
        assert not client.machine.delivery_started(client.frame(manifest, 2, 3), "x")
        assert client.other_effects() == [InputDropped(DropReason.UNKNOWN_FILE, "x")]

    def test_file_assigned_again_requests_missing_chunks(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, exchange=True, held=((0, 4),))
        assert FinishFile(manifest.file_id) in client.other_effects()
        client.machine.file_dropped(manifest.file_id)
        client.assign(manifest, exchange=True, held=((0, 1), (2, 4)))
        assert [request.ranges for request in client.requests()] == [(Range(1, 2),)]
        client.deliver(manifest, 1, 2)
        assert FinishFile(manifest.file_id) in client.other_effects()

    def test_other_files_continue(self) -> None:
        client = Client()
        wrong, right = manifest_of(4), manifest_of(4, "g")
        client.assign(wrong, exchange=True)
        client.assign(right, exchange=True)
        client.datagrams()
        client.machine.file_dropped(wrong.file_id)
        client.machine.link_opened(client.now)
        assert [request.file_id for request in client.requests()] == [right.file_id]

    def test_dropping_an_unknown_file_is_ignored(self) -> None:
        client = Client()
        client.machine.file_dropped(bytes(32))
        assert client.other_effects() == []

    def test_source_does_not_send_a_dropped_file(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.machine.contribute_as_source(manifest)
        client.machine.file_dropped(manifest.file_id)
        client.receive(Broadcast(SESSION, manifest.file_id, 1, (AskedRange(0, 4, SESSION),)))
        assert client.other_effects() == []


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
    def test_invalid_delivery_is_dropped(self, change: dict[str, object], reason: DropReason) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, exchange=True)
        frame = client.frame(manifest, 8, 10)._replace(**change)
        assert not client.machine.delivery_started(frame, "x")
        assert client.other_effects() == [InputDropped(reason, "x")]
        assert client.machine.drop_counts == {reason: 1}

    def test_invalid_datagram_is_dropped(self) -> None:
        client = Client()
        client.machine.receive_datagram(b"x", ("y", 3), client.now)
        client.receive(HelloAck(SESSION + 1, 1, 5000))
        client.receive(HelloAck(SESSION, 1, 5000), source=("y", 3))
        client.receive(Hello(SESSION, 1, 0))
        client.machine.connection_dropped(DropReason.BAD_MAGIC, "z")
        assert client.other_effects() == [
            InputDropped(DropReason.TOO_SHORT, "y:3"),
            InputDropped(DropReason.UNKNOWN_SESSION, "server:1"),
            InputDropped(DropReason.UNKNOWN_SESSION, "y:3"),
            InputDropped(DropReason.UNKNOWN_KIND, "server:1"),
            InputDropped(DropReason.BAD_MAGIC, "z"),
        ]
        assert client.machine.drop_counts.total() == 5


def test_finished_download_requests_nothing() -> None:
    found = download.Download(manifest_of(4), RangeSet(), FAST, CLIENT_TUNING, Random(1), 0)
    found.enter(download.Stage.COMPLETE)
    assert not found.wanted()


def test_first_hellos_are_repeated_without_backoff() -> None:
    client = Client()
    client.datagrams()
    pauses = []
    for _ in range(CLIENT_TUNING.hellos_without_backoff + 4):
        due = client.machine.next_timeout()
        assert due is not None
        pauses.append((due - client.now) / RTO_INITIAL_NS)
        client.now = due
        client.machine.handle_timeout(due)
        assert [type(datagram) for datagram in client.datagrams()] == [Hello]
    assert all(1 <= pause <= 1.25 for pause in pauses[: CLIENT_TUNING.hellos_without_backoff])
    assert pauses[-1] >= 4
