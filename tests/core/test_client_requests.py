"""What a client asks for, in which order, and when it asks again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pspd.core.effects.client import ReportMilestone
from pspd.core.model.manifest import Manifest
from pspd.core.model.parameters import CLASSIC, FAST, MILLISECOND_NS, SECOND_NS, Order, Parameters
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import Held, Written
from pspd.core.model.tuning import CLIENT_TUNING
from pspd.core.timing.rtt import LINEAR_TIMEOUTS, RTO_INITIAL_NS, RTO_MAX_NS
from pspd.core.wire.datagrams import Asked, Broadcast, HelloAck, RequestAck
from pspd.core.wire.header import DropReason
from tests.core.alone import SESSION, Client, manifest_of

RANDOM = replace(CLASSIC, order=Order.RANDOM)


def told_to_wait(retry_after_ms: int) -> tuple[Client, Manifest]:
    """A client whose first request, for all of a file, was answered: wait so long."""
    client = Client()
    manifest = manifest_of(10)
    client.assign(manifest, (0, 10))
    client.heard()
    client.hear(RequestAck(SESSION, manifest.file_id, 1, retry_after_ms))
    return client, manifest


class TestAskingAgain:
    def test_no_answer_in_time_asks_again_and_says_so(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 10))
        client.heard()
        client.pass_time(RTO_INITIAL_NS * 5 // 4)
        (request,) = client.requests()
        assert request.repeated
        assert (request.number, request.ranges) == (2, (Range(0, 10),))

    def test_the_first_timeout_knows_the_round_trip_of_the_hellos(self) -> None:
        client = Client()
        client.now += 10 * MILLISECOND_NS
        client.hear(HelloAck(SESSION, 1, 5000))
        client.assign(manifest_of(10), (0, 10))
        client.heard()
        client.pass_time(100 * MILLISECOND_NS)
        assert client.requests()[0].repeated

    def test_a_request_that_has_arrived_is_not_repeated_for_as_long_as_the_server_says(self) -> None:
        client, _ = told_to_wait(30_000)
        client.pass_time(30 * SECOND_NS - 1)
        assert client.requests() == []
        client.pass_time(1)
        (request,) = client.requests()
        assert (request.number, request.repeated) == (2, True)

    def test_who_has_waited_long_for_a_delivery_wants_its_requests_answered(self) -> None:
        client = Client(replace(FAST, request_ranges=1))
        manifest = manifest_of(10)
        client.assign(manifest, (0, 10), held=((4, 5),))
        (request,) = client.requests()
        assert not request.wants_ack
        client.now += RTO_MAX_NS
        client.deliver(manifest, 0, 4, echo=request.number)
        (request,) = client.requests()
        assert (request.wants_ack, request.repeated) == (True, False)

    def test_who_was_told_to_wait_wants_its_next_request_answered_as_well(self) -> None:
        client, manifest = told_to_wait(120_000)
        client.pass_time(SECOND_NS)
        client.deliver(manifest, 0, 4)
        client.pass_time(SECOND_NS)
        assert client.requests()[0].wants_ack

    def test_until_a_delivery_comes_within_a_timeout(self) -> None:
        client, manifest = told_to_wait(120_000)
        client.now += MILLISECOND_NS
        client.deliver(manifest, 0, 4, echo=1)
        client.pass_time(SECOND_NS)
        assert not client.requests()[0].wants_ack

    def test_what_comes_after_an_answer_ends_the_long_wait(self) -> None:
        client, manifest = told_to_wait(120_000)
        client.deliver(manifest, 0, 4, echo=1)
        client.pass_time(SECOND_NS)
        assert [request.repeated for request in client.requests()][:1] == [True]

    def test_but_not_where_deliveries_take_as_long(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 10))
        (request,) = client.requests()
        client.now += RTO_MAX_NS
        client.deliver(manifest, 0, 1, echo=request.number)
        client.pass_time(2 * RTO_MAX_NS)
        request = client.requests()[-1]
        assert request.wants_ack
        client.hear(RequestAck(SESSION, manifest.file_id, request.number, 60_000))
        client.deliver(manifest, 1, 2, number=2)
        client.pass_time(60 * SECOND_NS - 1)
        assert client.requests() == []
        client.pass_time(1)
        assert client.requests() != []

    def test_an_acknowledgement_wants_no_answer(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 2))
        (request,) = client.requests()
        client.now += 4 * RTO_MAX_NS
        client.deliver(manifest, 0, 2, echo=request.number)
        (request,) = client.requests()
        assert (request.ranges, request.wants_ack) == ((), False)

    def test_nor_waits_it_longer_than_is_sane(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 10))
        client.heard()
        client.hear(RequestAck(SESSION, manifest.file_id, 1, 2**32 - 1))
        client.pass_time(CLIENT_TUNING.retry_after_ns_max)
        assert client.requests()

    def test_nor_does_it_ask_at_once_when_told_to(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 10))
        client.heard()
        client.requests()
        client.hear(RequestAck(SESSION, manifest.file_id, 1, 0))
        client.pass_time(CLIENT_TUNING.retry_after_ns_min - 1)
        assert client.requests() == []
        client.pass_time(1)
        assert client.requests()

    @pytest.mark.parametrize("number", [0, 2])
    def test_that_another_request_arrived_says_nothing(self, number: int) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, (0, 10))
        client.heard()
        client.hear(RequestAck(SESSION, manifest.file_id, number, 30_000))
        client.hear(RequestAck(SESSION, bytes(32), 1, 30_000))
        assert client.machine.drop_counts == {DropReason.STALE: 1, DropReason.UNKNOWN_FILE: 1}
        client.pass_time(SECOND_NS)
        assert client.requests()

    def test_nor_does_an_answer_that_a_delivery_has_overtaken(self) -> None:
        client = Client(replace(FAST, request_ranges=1))
        manifest = manifest_of(10)
        client.assign(manifest, (0, 10), held=((4, 5),))
        client.heard()
        client.deliver(manifest, 0, 4)
        client.hear(RequestAck(SESSION, manifest.file_id, 1, 120_000))
        client.pass_time(SECOND_NS)
        assert client.requests()[0].ranges == (Range(5, 10),)

    def test_nor_does_an_answer_when_nothing_is_wanted_any_more(self) -> None:
        client = Client()
        manifest = manifest_of(4)
        client.assign(manifest, (0, 2), held=((0, 2),))
        (request,) = client.requests()
        client.hear(RequestAck(SESSION, manifest.file_id, request.number, 1))
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

    def test_sequential_is_one_chunk_after_another(self) -> None:
        assert set(self.first_ranges(CLASSIC)) == {(Range(1, 2),)}

    def test_what_gets_no_answer_again_and_again_lets_those_after_it_have_their_turn(self) -> None:
        client = Client(CLASSIC)
        client.assign(manifest_of(4), exchange=True)
        client.pass_time(60 * SECOND_NS)
        asked = [request.ranges for request in client.requests()]
        assert asked[: LINEAR_TIMEOUTS + 1] == [(Range(0, 1),)] * (LINEAR_TIMEOUTS + 1)
        assert [span.start for (span,) in asked[LINEAR_TIMEOUTS + 1 :]][:6] == [1, 2, 3, 0, 1, 2]

    def test_behind_an_unheld_chunk_the_sequence_goes_on_and_ends_with_it(self) -> None:
        client = Client(CLASSIC)
        manifest = manifest_of(4)
        client.assign(manifest, exchange=True)
        while client.requests()[-1:] != [] or client.machine.downloads[manifest.file_id].rtt.timeout_count == 0:
            client.pass_time(SECOND_NS)
        for chunk in (1, 2, 3):
            client.deliver(manifest, chunk, chunk + 1, number=chunk)
        assert [request.ranges[0].start for request in client.requests()] == [2, 3, 0]

    def test_the_exchange_begins_at_the_first_chunk_however_long_the_share_took(self) -> None:
        """A hundred clients that began behind their shares met nowhere: holders sent the file six times."""
        client = Client(CLASSIC)
        manifest = manifest_of(6)
        client.assign(manifest, (2, 4))
        client.pass_time(60 * SECOND_NS)
        client.deliver(manifest, 2, 3)
        client.deliver(manifest, 3, 4, number=2)
        client.heard()
        client.machine.exchange_started(manifest.file_id, client.now)
        assert [request.ranges for request in client.requests()] == [(Range(0, 1),)]

    @pytest.mark.parametrize("order", [Order.CURSOR, Order.SEQUENTIAL])
    def test_so_it_is_though_the_server_answers_each_request(self, order: Order) -> None:
        client = Client(replace(FAST, request_ranges=1, order=order))
        manifest = manifest_of(9)
        client.assign(manifest, exchange=True, held=((1, 4), (5, 8)))
        named = set()
        for _ in range(LINEAR_TIMEOUTS + 3):
            (request,) = client.requests()
            named.update(request.ranges)
            client.hear(RequestAck(SESSION, manifest.file_id, request.number, 5000))
            client.pass_time(5 * SECOND_NS)
        assert named == {Range(0, 1), Range(4, 5), Range(8, 9)}

    def test_random_is_any_chunk_that_lacks_one_at_a_time(self) -> None:
        found = {span for ranges in self.first_ranges(RANDOM) for span in ranges}
        assert found == {Range(chunk, chunk + 1) for chunk in (1, 2, 3, 6, 7, 8, 9)}

    def test_the_cursor_is_where_the_last_broadcast_ended(self) -> None:
        client = Client()
        manifest = manifest_of(10)
        client.assign(manifest, exchange=True)
        client.hear(Broadcast(SESSION, manifest.file_id, 1, (Asked(0, 2, 5), Asked(2, 7, 5))))
        client.heard()
        client.machine.link_opened(client.now)
        assert client.requests()[0].ranges == (Range(7, 10), Range(0, 7))
        client.hear(Broadcast(SESSION, manifest.file_id, 2, ()))
        client.machine.link_opened(client.now)
        assert client.requests()[0].ranges == (Range(0, 10),)

    def test_a_request_names_only_so_many_ranges(self) -> None:
        client = Client(replace(FAST, request_ranges=2))
        client.assign(manifest_of(10), exchange=True, held=((1, 2), (3, 4), (5, 6)))
        assert client.requests()[0].ranges == (Range(0, 1), Range(2, 3))


def test_all_requests_of_a_client_are_numbered_in_one_row() -> None:
    """What was asked of a file before it was removed is older than all that is asked since it was seeded anew."""
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


def test_a_report_tells_of_which_division_it_is_and_what_it_has_overtaken() -> None:
    client = Client()
    manifest = manifest_of(4)
    verified = RangeSet()
    client.machine.file_assigned(manifest, (Range(0, 2),), False, Held(verified, False), client.now, 9)
    (request,) = client.requests()
    verified.add(0, 2)
    client.machine.delivery_stored(client.frame(manifest, 0, 2), Written(verified), client.now)
    (report,) = [effect for effect in client.others() if isinstance(effect, ReportMilestone)]
    assert (report.division, report.request_number) == (9, request.number)
