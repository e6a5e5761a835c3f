"""The requests of a client: their chunks, their order, and their repetition."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pspd.core.effects.client import ReportMilestone
from pspd.core.model.manifest import Manifest
from pspd.core.model.parameters import CLASSIC, FAST, MILLISECOND_NS, SECOND_NS, Order, Parameters
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import HeldChunks, WriteResult
from pspd.core.model.tuning import CLIENT_TUNING
from pspd.core.timing.rtt import LINEAR_TIMEOUTS, RTO_INITIAL_NS, RTO_MAX_NS
from pspd.core.wire.datagrams import AskedRange, Broadcast, HelloAck, RequestAck
from pspd.core.wire.header import DropReason
from tests.core.alone import SESSION, Client, manifest_of

RANDOM = replace(CLASSIC, order=Order.RANDOM)


def with_answered_request(retry_after_ms: int) -> tuple[Client, Manifest]:
    """Return a client whose first request, for a whole file, was answered with a REQUEST_ACK."""
    client = Client()
    manifest = manifest_of(10)
    client.assign(manifest, (0, 10))
    client.datagrams()
    client.receive(RequestAck(SESSION, manifest.file_id, 1, retry_after_ms))
    return client, manifest


class TestRepeating:
    def test_request_is_repeated_after_a_timeout(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 10))
        client.datagrams()
        client.pass_time(RTO_INITIAL_NS * 5 // 4)
        (request,) = client.requests()
        assert request.repeated
        assert (request.number, request.ranges) == (2, (Range(0, 10),))

    def test_first_timeout_uses_the_round_trip_of_hellos(self) -> None:
        client = Client()
        client.now += 10 * MILLISECOND_NS
        client.receive(HelloAck(SESSION, 1, 5000))
        client.assign(manifest_of(10), (0, 10))
        client.datagrams()
        client.pass_time(100 * MILLISECOND_NS)
        assert client.requests()[0].repeated

    def test_answered_request_is_repeated_after_the_stated_time(self) -> None:
        client, _ = with_answered_request(30_000)
        client.pass_time(30 * SECOND_NS - 1)
        assert client.requests() == []
        client.pass_time(1)
        (request,) = client.requests()
        assert (request.number, request.repeated) == (2, True)

    def test_slow_delivery_makes_requests_want_an_ack(self) -> None:
        client = Client(replace(FAST, request_ranges=1))
        manifest = manifest_of(10)
        client.assign(manifest, (0, 10), held=((4, 5),))
        (request,) = client.requests()
        assert not request.wants_ack
        client.now += RTO_MAX_NS
        client.deliver(manifest, 0, 4, echo=request.number)
        (request,) = client.requests()
        assert (request.wants_ack, request.repeated) == (True, False)

    def test_answered_request_makes_the_next_want_an_ack(self) -> None:
        client, manifest = with_answered_request(120_000)
        client.pass_time(SECOND_NS)
        client.deliver(manifest, 0, 4)
        client.pass_time(SECOND_NS)
        assert client.requests()[0].wants_ack

    def test_fast_delivery_makes_requests_want_no_ack(self) -> None:
        client, manifest = with_answered_request(120_000)
        client.now += MILLISECOND_NS
        client.deliver(manifest, 0, 4, echo=1)
        client.pass_time(SECOND_NS)
        assert not client.requests()[0].wants_ack

    def test_delivery_ends_the_stated_wait(self) -> None:
        client, manifest = with_answered_request(120_000)
        client.deliver(manifest, 0, 4, echo=1)
        client.pass_time(SECOND_NS)
        assert [request.repeated for request in client.requests()][:1] == [True]

    def test_delivery_does_not_end_the_wait_if_all_are_slow(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 10))
        (request,) = client.requests()
        client.now += RTO_MAX_NS
        client.deliver(manifest, 0, 1, echo=request.number)
        client.pass_time(2 * RTO_MAX_NS)
        request = client.requests()[-1]
        assert request.wants_ack
        client.receive(RequestAck(SESSION, manifest.file_id, request.number, 60_000))
        client.deliver(manifest, 1, 2, number=2)
        client.pass_time(60 * SECOND_NS - 1)
        assert client.requests() == []
        client.pass_time(1)
        assert client.requests() != []

    def test_empty_request_wants_no_ack(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 2))
        (request,) = client.requests()
        client.now += 4 * RTO_MAX_NS
        client.deliver(manifest, 0, 2, echo=request.number)
        (request,) = client.requests()
        assert (request.ranges, request.wants_ack) == ((), False)

    def test_stated_wait_has_a_maximum(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 10))
        client.datagrams()
        client.receive(RequestAck(SESSION, manifest.file_id, 1, 2**32 - 1))
        client.pass_time(CLIENT_TUNING.retry_after_ns_max)
        assert client.requests()

    def test_stated_wait_has_a_minimum(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 10))
        client.datagrams()
        client.requests()
        client.receive(RequestAck(SESSION, manifest.file_id, 1, 0))
        client.pass_time(CLIENT_TUNING.retry_after_ns_min - 1)
        assert client.requests() == []
        client.pass_time(1)
        assert client.requests()

    @pytest.mark.parametrize("number", [0, 2])
    def test_answer_to_another_request_is_stale(self, number: int) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 10))
        client.datagrams()
        client.receive(RequestAck(SESSION, manifest.file_id, number, 30_000))
        client.receive(RequestAck(SESSION, bytes(32), 1, 30_000))
        assert client.machine.drop_counts == {DropReason.STALE: 1, DropReason.UNKNOWN_FILE: 1}
        client.pass_time(SECOND_NS)
        assert client.requests()

    def test_answer_after_the_delivery_is_stale(self) -> None:
        client = Client(replace(FAST, request_ranges=1))
        manifest = manifest_of(10)
        client.assign(manifest, (0, 10), held=((4, 5),))
        client.datagrams()
        client.deliver(manifest, 0, 4)
        client.receive(RequestAck(SESSION, manifest.file_id, 1, 120_000))
        client.pass_time(SECOND_NS)
        assert client.requests()[0].ranges == (Range(5, 10),)

    def test_answer_to_an_empty_request_is_stale(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, (0, 2), held=((0, 2),))
        (request,) = client.requests()
        client.receive(RequestAck(SESSION, manifest.file_id, request.number, 1))
        client.pass_time(SECOND_NS)
        assert client.requests() == []


class TestOrder:
    def first_ranges(self, parameters: Parameters) -> list[tuple[Range, ...]]:
        client = Client(parameters)
        manifest = manifest_of(10)
        client.assign(manifest, exchange=True, held=((0, 1), (4, 6)))
        found = []
        for _ in range(40):
            found.append(client.requests()[-1].ranges)
            client.machine.link_opened(client.now)
        return found

    def test_sequential_order_requests_the_first_missing_chunk(self) -> None:
        assert set(self.first_ranges(CLASSIC)) == {(Range(1, 2),)}

    def test_unanswered_chunk_is_skipped_after_some_repeats(self) -> None:
        client = Client(CLASSIC)
        client.assign(manifest_of(4), exchange=True)
        client.pass_time(60 * SECOND_NS)
        asked = [request.ranges for request in client.requests()]
        assert asked[: LINEAR_TIMEOUTS + 1] == [(Range(0, 1),)] * (LINEAR_TIMEOUTS + 1)
        assert [span.start for (span,) in asked[LINEAR_TIMEOUTS + 1 :]][:6] == [1, 2, 3, 0, 1, 2]

    def test_sequence_ends_with_the_skipped_chunk(self) -> None:
        client = Client(CLASSIC)
        manifest = manifest_of(4)
        client.assign(manifest, exchange=True)
        while client.requests()[-1:] != [] or client.machine.downloads[manifest.file_id].rtt.timeout_count == 0:
            client.pass_time(SECOND_NS)
        for chunk in (1, 2, 3):
            client.deliver(manifest, chunk, chunk + 1, number=chunk)
        assert [request.ranges[0].start for request in client.requests()] == [2, 3, 0]

    def test_exchange_begins_at_the_first_chunk(self) -> None:
        """If clients began after their own shares, they would not request the same chunks together."""
        client = Client(CLASSIC)
        manifest = manifest_of(6)
        client.assign(manifest, (2, 4))
        client.pass_time(60 * SECOND_NS)
        client.deliver(manifest, 2, 3)
        client.deliver(manifest, 3, 4, number=2)
        client.datagrams()
        client.machine.exchange_started(manifest.file_id, client.now)
        assert [request.ranges for request in client.requests()] == [(Range(0, 1),)]

    @pytest.mark.parametrize("order", [Order.CURSOR, Order.SEQUENTIAL])
    def test_answered_chunks_are_skipped_too(self, order: Order) -> None:
        client = Client(replace(FAST, request_ranges=1, order=order))
        manifest = manifest_of(9)
        client.assign(manifest, exchange=True, held=((1, 4), (5, 8)))
        named = set()
        for _ in range(LINEAR_TIMEOUTS + 3):
            (request,) = client.requests()
            named.update(request.ranges)
            client.receive(RequestAck(SESSION, manifest.file_id, request.number, 5000))
            client.pass_time(5 * SECOND_NS)
        assert named == {Range(0, 1), Range(4, 5), Range(8, 9)}

    def test_random_order_requests_any_missing_chunk(self) -> None:
        found = {span for ranges in self.first_ranges(RANDOM) for span in ranges}
        assert found == {Range(chunk, chunk + 1) for chunk in (1, 2, 3, 6, 7, 8, 9)}

    def test_cursor_order_starts_after_the_latest_broadcast(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, exchange=True)
        client.receive(Broadcast(SESSION, manifest.file_id, 1, (AskedRange(0, 2, 5), AskedRange(2, 7, 5))))
        client.datagrams()
        client.machine.link_opened(client.now)
        assert client.requests()[0].ranges == (Range(7, 10), Range(0, 7))
        client.receive(Broadcast(SESSION, manifest.file_id, 2, ()))
        client.machine.link_opened(client.now)
        assert client.requests()[0].ranges == (Range(0, 10),)

    def test_number_of_ranges_is_bounded(self) -> None:
        client = Client(replace(FAST, request_ranges=2))
        client.assign(manifest_of(10), exchange=True, held=((1, 2), (3, 4), (5, 6)))
        assert client.requests()[0].ranges == (Range(0, 1), Range(2, 3))


def test_requests_for_all_files_share_one_sequence_of_numbers() -> None:
    """If a file is removed and seeded again, its earlier requests have lower numbers than its later ones."""
    client = Client()
    first, second = manifest_of(4, "f"), manifest_of(4, "g")
    numbers = []
    for manifest in (first, second):
        client.assign(manifest, (0, 2))
        numbers += [request.number for request in client.requests()]
    client.machine.file_dropped(first.file_id)
    client.assign(first, (0, 2))
    numbers += [request.number for request in client.requests()]
    assert numbers == [1, 2, 3]


def test_report_has_the_division_and_the_last_request() -> None:
    client = Client()
    manifest = manifest_of(4)
    verified = RangeSet()
    client.machine.file_assigned(manifest, (Range(0, 2),), False, HeldChunks(verified, False), client.now, 9)
    (request,) = client.requests()
    verified.add(0, 2)
    client.machine.delivery_stored(client.frame(manifest, 0, 2), WriteResult(verified), client.now)
    (report,) = [effect for effect in client.other_effects() if isinstance(effect, ReportMilestone)]
    assert (report.division, report.request_number) == (9, request.number)
