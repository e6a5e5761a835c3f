"""A client that does not hear the server says so, and says again how far away it is when it does."""

from __future__ import annotations

from pspd.core.effects.client import DownlinkChanged
from pspd.core.model.parameters import FAST, MILLISECOND_NS, SECOND_NS
from pspd.core.model.tuning import CLIENT_TUNING
from pspd.core.wire.datagrams import Broadcast, Hello, HelloAck, Request, RequestAck
from tests.core.alone import SERVER, SESSION, Client, manifest_of


def answered() -> Client:
    """A client whose first hello had a round trip of 20 ms."""
    client = Client()
    client.now += 20 * MILLISECOND_NS
    client.hear(HelloAck(SESSION, 1, 5000))
    client.heard()
    return client


def told_us(client: Client) -> list[int]:
    """The round-trip times that its hellos told since the last look."""
    return [datagram.srtt_us for datagram in client.heard() if isinstance(datagram, Hello)]


def silence(client: Client) -> None:
    """Lets so much time pass that a client takes note of the silence, with a hello to say so."""
    client.pass_time(CLIENT_TUNING.downlink_timeout_ns + 3 * SECOND_NS)


class TestAnsweredRequests:
    def test_spare_hellos_as_they_show_the_same(self) -> None:
        client, manifest = answered(), manifest_of(10)
        client.pass_time(0)
        client.hear(HelloAck(SESSION, 2, 5000))
        client.assign(manifest, (0, 10))
        for _ in range(5):
            (request,) = (datagram for datagram in client.heard() if isinstance(datagram, Request))
            assert request.downlink_ok
            client.hear(RequestAck(SESSION, manifest.file_id, request.number, 4000))
            client.pass_time(4 * SECOND_NS)
        client.hear(RequestAck(SESSION, manifest.file_id, request.number + 1, 60_000))
        assert told_us(client) == []
        client.pass_time(5 * SECOND_NS)
        assert told_us(client) != []

    def test_tell_that_a_client_does_not_hear_the_server(self) -> None:
        client = Client()
        client.assign(manifest_of(10), (0, 10))
        (request,) = client.requests()
        assert not request.downlink_ok


class TestSilence:
    def test_of_a_server_never_heard_is_told_once(self) -> None:
        client = Client()
        silence(client)
        silence(client)
        assert [effect for effect in client.others() if isinstance(effect, DownlinkChanged)] == [DownlinkChanged(False)]

    def test_after_an_answer_no_round_trip_is_told_any_more(self) -> None:
        client = answered()
        client.pass_time(CLIENT_TUNING.downlink_timeout_ns - 3 * SECOND_NS)
        assert set(told_us(client)) == {20_000}
        client.pass_time(6 * SECOND_NS)
        told = told_us(client)
        assert told[-1] == 0
        assert DownlinkChanged(False) in client.effects
        assert sorted(told, reverse=True) == told

    def test_ends_with_any_datagram_of_the_server(self) -> None:
        client = answered()
        silence(client)
        client.heard()
        client.hear(Broadcast(SESSION, bytes(32), 1, ()))
        client.hear(Broadcast(SESSION, bytes(32), 2, ()))
        assert client.others() == [DownlinkChanged(True)]
        client.pass_time(3 * SECOND_NS)
        assert set(told_us(client)) == {20_000}

    def test_does_not_end_with_a_datagram_of_another_or_of_an_old_session(self) -> None:
        client = answered()
        silence(client)
        client.heard()
        client.hear(Broadcast(SESSION, bytes(32), 1, ()), source=("other", 1))
        client.hear(Broadcast(SESSION + 1, bytes(32), 1, ()))
        client.machine.receive_datagram(b"x", SERVER, client.now)
        assert DownlinkChanged(True) not in client.others()
        client.pass_time(3 * SECOND_NS)
        assert set(told_us(client)) == {0}

    def test_does_not_begin_while_broadcasts_come_though_hellos_are_not_answered(self) -> None:
        client = answered()
        for number in range(3 * CLIENT_TUNING.downlink_timeout_ns // SECOND_NS):
            client.hear(Broadcast(SESSION, bytes(32), number, ()))
            client.pass_time(SECOND_NS)
        assert set(told_us(client)) == {20_000}
        assert client.effects.count(DownlinkChanged(False)) == 0

    def test_of_the_last_session_is_not_that_of_the_next(self) -> None:
        client = answered()
        silence(client)
        client.heard()
        client.machine.joined(SESSION, SERVER, FAST, client.now)
        assert told_us(client) == [0]
        client.hear(HelloAck(SESSION, 0, 5000))
        client.pass_time(CLIENT_TUNING.downlink_timeout_ns - 3 * SECOND_NS)
        assert told_us(client)[0] == 20_000
        assert DownlinkChanged(False) not in client.effects[:-1]

    def test_stops_no_requests(self) -> None:
        client = answered()
        client.assign(manifest_of(10), exchange=True)
        silence(client)
        client.heard()
        client.pass_time(5 * SECOND_NS)
        assert client.requests()


def test_a_round_trip_too_short_to_be_measured_is_told_as_the_shortest_there_is() -> None:
    client = Client()
    client.hear(HelloAck(SESSION, 1, 5000))
    client.heard()
    client.pass_time(0)
    assert told_us(client) == [1]
