"""The downlink: a client reports whether the server's datagrams arrive, and its round-trip time."""

from __future__ import annotations

from pspd.core.effects.client import DownlinkChanged
from pspd.core.model.parameters import FAST, MILLISECOND_NS, SECOND_NS
from pspd.core.model.tuning import CLIENT_TUNING
from pspd.core.wire.datagrams import Broadcast, Hello, HelloAck, Request, RequestAck
from tests.core.alone import SERVER, SESSION, Client, manifest_of


def client_with_answered_hello() -> Client:
    """Return a client whose first hello had a round trip of 20 ms."""
    client = Client()
    client.now += 20 * MILLISECOND_NS
    client.receive(HelloAck(SESSION, 1, 5000))
    client.datagrams()
    return client


def reported_us(client: Client) -> list[int]:
    """Return the round-trip times in the hellos since the last call."""
    return [datagram.srtt_us for datagram in client.datagrams() if isinstance(datagram, Hello)]


def lose_downlink(client: Client) -> None:
    """Let time pass until the client marks the downlink as lost and sends a hello."""
    client.pass_time(CLIENT_TUNING.downlink_timeout_ns + 3 * SECOND_NS)


class TestAnsweredRequests:
    def test_answered_requests_replace_hellos(self) -> None:
        client, manifest = client_with_answered_hello(), manifest_of(10)
        client.pass_time(0)
        client.receive(HelloAck(SESSION, 2, 5000))
        client.assign(manifest, (0, 10))
        for _ in range(5):
            (request,) = (datagram for datagram in client.datagrams() if isinstance(datagram, Request))
            assert request.downlink_ok
            client.receive(RequestAck(SESSION, manifest.file_id, request.number, 4000))
            client.pass_time(4 * SECOND_NS)
        client.receive(RequestAck(SESSION, manifest.file_id, request.number + 1, 60_000))
        assert reported_us(client) == []
        client.pass_time(5 * SECOND_NS)
        assert reported_us(client) != []

    def test_request_reports_an_unknown_downlink(self) -> None:
        client = Client()
        client.assign(manifest_of(10), (0, 10))
        (request,) = client.requests()
        assert not request.downlink_ok


class TestLostDownlink:
    def test_loss_is_reported_once(self) -> None:
        client = Client()
        lose_downlink(client)
        lose_downlink(client)
        assert [effect for effect in client.other_effects() if isinstance(effect, DownlinkChanged)] == [
            DownlinkChanged(False)
        ]

    def test_hellos_report_no_round_trip_after_the_loss(self) -> None:
        client = client_with_answered_hello()
        client.pass_time(CLIENT_TUNING.downlink_timeout_ns - 3 * SECOND_NS)
        assert set(reported_us(client)) == {20_000}
        client.pass_time(6 * SECOND_NS)
        reported = reported_us(client)
        assert reported[-1] == 0
        assert DownlinkChanged(False) in client.effects
        assert sorted(reported, reverse=True) == reported

    def test_any_datagram_of_the_server_restores_the_downlink(self) -> None:
        client = client_with_answered_hello()
        lose_downlink(client)
        client.datagrams()
        client.receive(Broadcast(SESSION, bytes(32), 1, ()))
        client.receive(Broadcast(SESSION, bytes(32), 2, ()))
        assert client.other_effects() == [DownlinkChanged(True)]
        client.pass_time(3 * SECOND_NS)
        assert set(reported_us(client)) == {20_000}

    def test_datagrams_of_others_do_not_restore_the_downlink(self) -> None:
        client = client_with_answered_hello()
        lose_downlink(client)
        client.datagrams()
        client.receive(Broadcast(SESSION, bytes(32), 1, ()), source=("other", 1))
        client.receive(Broadcast(SESSION + 1, bytes(32), 1, ()))
        client.machine.receive_datagram(b"x", SERVER, client.now)
        assert DownlinkChanged(True) not in client.other_effects()
        client.pass_time(3 * SECOND_NS)
        assert set(reported_us(client)) == {0}

    def test_broadcasts_keep_the_downlink_without_hello_acks(self) -> None:
        client = client_with_answered_hello()
        for number in range(3 * CLIENT_TUNING.downlink_timeout_ns // SECOND_NS):
            client.receive(Broadcast(SESSION, bytes(32), number, ()))
            client.pass_time(SECOND_NS)
        assert set(reported_us(client)) == {20_000}
        assert client.effects.count(DownlinkChanged(False)) == 0

    def test_loss_ends_with_the_session(self) -> None:
        client = client_with_answered_hello()
        lose_downlink(client)
        client.datagrams()
        client.machine.joined(SESSION, SERVER, FAST, client.now)
        assert reported_us(client) == [0]
        client.receive(HelloAck(SESSION, 0, 5000))
        client.pass_time(CLIENT_TUNING.downlink_timeout_ns - 3 * SECOND_NS)
        assert reported_us(client)[0] == 20_000
        assert DownlinkChanged(False) not in client.effects[:-1]

    def test_loss_does_not_stop_requests(self) -> None:
        client = client_with_answered_hello()
        client.assign(manifest_of(10), exchange=True)
        lose_downlink(client)
        client.datagrams()
        client.pass_time(5 * SECOND_NS)
        assert client.requests()


def test_shortest_reported_round_trip_is_one_microsecond() -> None:
    client = Client()
    client.receive(HelloAck(SESSION, 1, 5000))
    client.datagrams()
    client.pass_time(0)
    assert reported_us(client) == [1]
