"""A delivery echoes a request for its chunks, or no request."""

from __future__ import annotations

from pspd.core.server.sessions import Member
from pspd.core.server.shared_file import SharedFile
from tests.core.alone import Client, manifest_of
from tests.core.bench import Bench


def exchange() -> tuple[Bench, dict[str, Member], SharedFile]:
    """Return a file of eight chunks; a, b, c and d hold two chunks each."""
    bench = Bench()
    members = {name: bench.join(name) for name in "abcd"}
    return bench, members, bench.exchange("f", 8)


def deliver_first(bench: Bench, members: dict[str, Member], file: SharedFile) -> int:
    """Let client a request and receive two chunks. Return the number of the delivery."""
    bench.ask(members["a"], file, (6, 8))
    bench.contribute(bench.frame(members["d"], file, 6, 8))
    (delivery,) = bench.delivered(members["a"])
    assert delivery.frame.echo == bench.last_request
    bench.sent(members["a"], delivery.number)
    return delivery.number


def join_a_fetch(bench: Bench, members: dict[str, Member], file: SharedFile) -> int:
    """Let client a request chunks that are being fetched for b. Return the echo of the delivery."""
    bench.ask(members["b"], file, (4, 6))
    bench.ask(members["a"], file, (4, 6))
    bench.contribute(bench.frame(members["c"], file, 4, 6))
    (delivery,) = bench.delivered(members["a"])
    return delivery.frame.echo


def test_echo_never_names_a_request_without_ranges() -> None:
    bench, members, file = exchange()
    number = deliver_first(bench, members, file)
    bench.ask(members["a"], file, acknowledged=number)
    assert join_a_fetch(bench, members, file) == 0


def test_echo_never_names_a_request_that_was_served() -> None:
    bench, members, file = exchange()
    deliver_first(bench, members, file)
    assert join_a_fetch(bench, members, file) == 0


def test_echo_names_the_request_before_the_fetch() -> None:
    bench, members, file = exchange()
    bench.ask(members["a"], file, (4, 8))
    first = bench.last_request
    bench.ask(members["a"], file, (4, 8))
    bench.contribute(bench.frame(members["c"], file, 4, 6))
    assert [delivery.frame.echo for delivery in bench.delivered(members["a"])] == [first]


def test_client_does_not_measure_requests_without_ranges() -> None:
    client = Client()
    manifest = manifest_of(10)
    client.assign(manifest, (0, 5))
    (asked,) = client.requests()
    client.deliver(manifest, 0, 5, number=1)
    (nothing,) = client.requests()
    assert nothing.ranges == ()
    download = client.machine.downloads[manifest.file_id]
    before = download.rtt.srtt_ns
    client.machine.exchange_started(manifest.file_id, client.now)
    client.now += 6_500_000_000
    for echo in (asked.number, nothing.number):
        client.deliver(manifest, 5 + echo, 6 + echo, number=1 + echo, echo=echo)
    assert download.rtt.srtt_ns == before
