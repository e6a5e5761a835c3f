"""Corrupt deliveries: the client pauses longer and longer, until a unit is verified."""

from __future__ import annotations

from itertools import pairwise

from pspd.core.model.manifest import Manifest
from pspd.core.model.parameters import FAST, MILLISECOND_NS, SECOND_NS
from pspd.core.model.tuning import CLIENT_TUNING
from tests.core.alone import SERVER, SESSION, Client, manifest_of


def exchanging() -> tuple[Client, Manifest]:
    """Return a client that has requested eight missing chunks."""
    client, manifest = Client(), manifest_of(8)
    client.assign(manifest, exchange=True)
    client.datagrams()
    return client, manifest


def pause_ns(client: Client, at_most_ns: int = 2 * CLIENT_TUNING.corrupt_pause_ns_max) -> int:
    """Let time pass until the next request; return how much."""
    began = client.now
    while not client.requests():
        assert client.now - began <= at_most_ns, "no request"
        client.pass_time(MILLISECOND_NS)
    return client.now - began


def test_first_corrupt_delivery_causes_no_pause() -> None:
    client, manifest = exchanging()
    client.deliver(manifest, 0, 8, number=1, good=False)
    assert pause_ns(client) == 0


def test_pauses_double_up_to_their_bound() -> None:
    client, manifest = exchanging()
    pauses = []
    for number in range(1, 13):
        client.deliver(manifest, 0, 8, number=number, good=False)
        pauses.append(pause_ns(client))
    assert pauses[:2] == [0, CLIENT_TUNING.corrupt_pause_ns_min]
    assert all(later == min(2 * earlier, CLIENT_TUNING.corrupt_pause_ns_max) for earlier, later in pairwise(pauses[1:]))
    assert pauses[-1] == CLIENT_TUNING.corrupt_pause_ns_max


def test_repeated_corruption_causes_few_requests() -> None:
    client, manifest = exchanging()
    began, number, request_count = client.now, 0, 0
    while client.now - began < 60 * SECOND_NS:
        number += 1
        client.deliver(manifest, 0, 8, number=number, good=False)
        pause_ns(client)
        request_count += 1
    assert request_count < 25


def test_verified_unit_ends_the_pauses() -> None:
    client, manifest = exchanging()
    for number in range(1, 6):
        client.deliver(manifest, 0, 8, number=number, good=False)
        pause_ns(client)
    client.deliver(manifest, 0, 4, number=6)
    client.deliver(manifest, 4, 8, number=7, good=False)
    assert pause_ns(client) == 0


def test_end_of_a_pause_is_not_a_timeout() -> None:
    client, manifest = exchanging()
    client.deliver(manifest, 0, 8, number=1, good=False)
    client.datagrams()
    client.deliver(manifest, 0, 8, number=2, good=False)
    client.pass_time(CLIENT_TUNING.corrupt_pause_ns_min)
    (request,) = client.requests()
    assert not request.repeated
    assert client.machine.downloads[manifest.file_id].rtt.timeout_count == 0


def test_delivery_in_parts_counts_once() -> None:
    client, manifest = exchanging()
    for start in range(0, 7):
        client.deliver(manifest, start, start + 1, number=0, good=False)
    client.deliver(manifest, 7, 8, number=1, good=False)
    assert pause_ns(client) == 0


def test_new_session_ends_the_pause() -> None:
    client, manifest = exchanging()
    for number in (1, 2):
        client.deliver(manifest, 0, 8, number=number, good=False)
    client.machine.left()
    client.machine.joined(SESSION, SERVER, FAST, client.now)
    client.assign(manifest, exchange=True)
    client.datagrams()
    client.pass_time(2 * SECOND_NS)
    assert client.machine.downloads[manifest.file_id].rtt.timeout_count > 0, "the request was lost"
    assert all(request.repeated for request in client.requests())
