"""Every dropped datagram is counted by the reason that ``docs/protocol.md`` gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from pspd.core.effects.client import ReportMilestone
from pspd.core.effects.shared import InputDropped, Milestone
from pspd.core.model.manifest import Manifest
from pspd.core.model.parameters import CLASSIC, FAST, Parameters
from pspd.core.model.ranges import Range
from pspd.core.model.tuning import SERVER_TUNING
from pspd.core.wire.datagrams import (
    ACCEPTED_BY_CLIENT,
    ACCEPTED_BY_SERVER,
    DATAGRAM_BYTES_MAX,
    DATAGRAM_KINDS,
    EVERY_HOLDER,
    REQUEST_NUMBER_MAX,
    AskedRange,
    Broadcast,
    Datagram,
    Hello,
    HelloAck,
    Request,
    RequestAck,
    encode_datagram,
)
from pspd.core.wire.header import Kind
from pspd.text.addresses import Address
from tests.core.alone import SERVER, SESSION, Client, manifest_of
from tests.core.bench import Bench, address_of
from tests.support.drop_table import Row, datagram_rows, sizes

HEADER_BYTES = 32
FILE_ID = bytes(range(32))
CHUNKS = 4

Drops = Counter[str]
Trial = Callable[[Parameters], list[Drops]]


class ServerSide:
    """A server with a client "a" that holds half of a file, a client "b", and files in every other state."""

    kinds = ACCEPTED_BY_SERVER

    def __init__(self, parameters: Parameters) -> None:
        self.bench = Bench(parameters)
        self.member, _ = self.bench.join("a"), self.bench.join("b")
        self.file = self.bench.exchange("f", CHUNKS)
        self.session = self.member.session
        self.file_id = self.file.file_id

    def receive(self, data: bytes) -> Drops:
        """Return the drops that the server counts when the client sends a datagram."""
        return self.receive_from("a", data)

    def receive_from(self, name: str, data: bytes) -> Drops:
        before = Counter(self.bench.server.drop_counts)
        self.bench.server.poll()
        self.bench.server.receive_datagram(data, address_of(name), self.bench.now)
        counts = Counter(map(str, (self.bench.server.drop_counts - before).elements()))
        assert counts == Counter(str(drop.reason) for drop in self.bench.effects(InputDropped))
        return counts


class ClientSide:
    """A client that holds the first half of a file and requests the second half."""

    kinds = ACCEPTED_BY_CLIENT

    def __init__(self, parameters: Parameters) -> None:
        self.client = Client(parameters)
        self.session = SESSION
        self.manifest: Manifest = manifest_of(CHUNKS)
        self.file_id = self.manifest.file_id
        self.client.assign(self.manifest, exchange=True, held=((0, 2),))
        self.number = self.client.requests()[-1].number

    def receive(self, data: bytes, source: Address = SERVER) -> Drops:
        """Return the drops that the client counts when it receives a datagram."""
        before = Counter(self.client.machine.drop_counts)
        self.client.machine.poll()
        self.client.machine.receive_datagram(data, source, self.client.now)
        counts = Counter(map(str, (self.client.machine.drop_counts - before).elements()))
        told = [effect for effect in self.client.machine.poll() if isinstance(effect, InputDropped)]
        assert counts == Counter(str(drop.reason) for drop in told)
        return counts


Side = ServerSide | ClientSide
SIDES: dict[str, type[ServerSide] | type[ClientSide]] = {"server": ServerSide, "client": ClientSide}


def valid(side: Side, kind: Kind, session: int | None = None) -> bytes:
    """Return a datagram of a kind for the file of its side, with one range if the kind has ranges."""
    session = side.session if session is None else session
    datagrams: dict[Kind, Datagram] = {
        Kind.HELLO: Hello(session, 3, 1000),
        Kind.HELLO_ACK: HelloAck(session, 1, 5000),
        Kind.REQUEST: Request(session, side.file_id, 5, 0, 10, (Range(2, 3),)),
        Kind.BROADCAST: Broadcast(session, side.file_id, 1, (AskedRange(0, 1, EVERY_HOLDER),)),
        Kind.REQUEST_ACK: RequestAck(session, side.file_id, 1, 30_000),
    }
    return encode_datagram(datagrams[kind])


# Each function yields datagrams for one side. Each of them must be counted as the row of the table says.

Sent = Iterator[bytes]


def too_long(side: Side) -> Sent:
    yield bytes(DATAGRAM_BYTES_MAX + 1)
    for kind in DATAGRAM_KINDS:
        yield valid(side, kind).ljust(DATAGRAM_BYTES_MAX + 1, b"\0")


def shorter_than_header(side: Side) -> Sent:
    for length in range(HEADER_BYTES):
        yield bytes(length)
        yield valid(side, Kind.HELLO)[:length]


def other_magic(side: Side) -> Sent:
    for kind in DATAGRAM_KINDS:
        yield b"PT" + valid(side, kind)[2:]
        yield b"ps" + valid(side, kind)[2:HEADER_BYTES]


def other_version(side: Side) -> Sent:
    for kind in DATAGRAM_KINDS:
        for version in (0, 2, 255):
            yield b"PS" + bytes([version]) + valid(side, kind)[3:]


def unaccepted_kind(side: Side) -> Sent:
    good = valid(side, Kind.HELLO)
    for kind in set(range(256)) - side.kinds:
        yield good[:3] + bytes([kind]) + good[4:]
        yield good[:3] + bytes([kind]) + good[4:HEADER_BYTES]
    for known in DATAGRAM_KINDS - side.kinds:
        yield valid(side, known)


def shorter_than_fixed_part(side: Side) -> Sent:
    for kind in side.kinds:
        for length in range(HEADER_BYTES, sizes()[kind.name].fixed):
            yield valid(side, kind)[:length]


def wrong_size(side: Side) -> Sent:
    for kind in side.kinds:
        size, good = sizes()[kind.name], valid(side, kind)
        assert len(good) == size.fixed + size.per_range
        if size.per_range:
            yield from (good[:length] for length in range(size.fixed, len(good)))
            yield good[: size.fixed - 2] + b"\xff\xff" + good[size.fixed :]
        yield from (good + bytes(extra) for extra in range(1, DATAGRAM_BYTES_MAX - len(good) + 1, 37))


def reversed_range(side: Side) -> Sent:
    for kind in side.kinds:
        size, good = sizes()[kind.name], valid(side, kind)
        for start, stop in ((0, 0), (3, 3), (3, 2), (2**32 - 1, 0)) if size.per_range else ():
            span = start.to_bytes(4, "big") + stop.to_bytes(4, "big")
            yield good[: size.fixed] + span + good[size.fixed + 8 :]


def other_session(side: Side) -> Sent:
    for kind in side.kinds:
        for session in (0, 1, side.session ^ 1, 2**64 - 1):
            yield valid(side, kind, session)


SENT: dict[str, Callable[[Side], Sent]] = {
    "a datagram of more than 1200 bytes": too_long,
    "a datagram shorter than the header": shorter_than_header,
    "a datagram with another magic": other_magic,
    "a datagram with another version": other_version,
    "a datagram of a kind that this side does not receive": unaccepted_kind,
    "a datagram shorter than the fixed part of its kind": shorter_than_fixed_part,
    "a datagram that is longer than its kind allows, or whose size does not match its range_count": wrong_size,
    "a datagram with a range whose start is not below its stop": reversed_range,
    "a datagram of an unknown session; at a client, of any session but its own": other_session,
}


# Drops that depend on the state of a file or on earlier datagrams. Each function returns the drops that were counted.


def from_another_address(parameters: Parameters) -> list[Drops]:
    side = ClientSide(parameters)
    good = valid(side, Kind.HELLO_ACK)
    drops = [side.receive(good, source) for source in ((SERVER[0], SERVER[1] + 1), ("another", SERVER[1]))]
    assert side.receive(good) == {}
    side.client.machine.left()
    return [*drops, side.receive(good), side.receive(valid(side, Kind.HELLO_ACK, 0))]


def request(side: ServerSide, file_id: bytes, *ranges: tuple[int, int], number: int = 5) -> bytes:
    spans = tuple(Range(*span) for span in ranges)
    return encode_datagram(Request(side.session, file_id, number, 0, 10, spans))


def request_for_unknown_file(parameters: Parameters) -> list[Drops]:
    side = ServerSide(parameters)
    drops = [side.receive(request(side, FILE_ID, (2, 3)))]
    source = side.bench.join("source", is_source=True)
    announced = side.bench.manifest("g", CHUNKS)
    side.bench.server.catalogue.announce(announced, source.session)
    drops.append(side.receive(request(side, announced.file_id, (2, 3))))
    side.bench.server.catalogue.remove(side.file, side.bench.now, force=True)
    return [*drops, side.receive(request(side, side.file_id, (2, 3)))]


def request_of_a_source(parameters: Parameters) -> list[Drops]:
    side = ServerSide(parameters)
    side.session = side.bench.join("source", is_source=True).session
    return [side.receive_from("source", request(side, side.file_id, (2, 3)))]


def range_beyond_the_end(parameters: Parameters) -> list[Drops]:
    side = ServerSide(parameters)
    drops = [side.receive(request(side, side.file_id, (2, CHUNKS + 1)))]
    drops.append(side.receive(request(side, side.file_id, (2, 3), (CHUNKS, CHUNKS + 1))))
    return [*drops, side.receive(request(side, side.file_id, (0, 2**32 - 1)))]


def stale_request(parameters: Parameters) -> list[Drops]:
    side = ServerSide(parameters)
    assert side.receive(request(side, side.file_id, (2, 3), number=2)) == {}
    drops = [side.receive(request(side, side.file_id, (2, 3), number=2))]
    drops.append(side.receive(request(side, side.file_id, number=1)))
    drops.append(side.receive(request(side, side.file_id, number=0)))
    report = ReportMilestone(side.file_id, Milestone.COMPLETE, 0, request_number=9)
    side.bench.server.catalogue.milestone_reached(side.session, report, side.bench.now)
    return [*drops, side.receive(request(side, side.file_id, (2, 3), number=9))]


def number_far_ahead(parameters: Parameters) -> list[Drops]:
    drops = []
    for number in (SERVER_TUNING.request_number_jump_max + 1, REQUEST_NUMBER_MAX):
        side = ServerSide(parameters)
        drops.append(side.receive(request(side, side.file_id, (2, 3), number=number)))
        assert side.session not in {member.session for member in side.bench.server.members.values()}
    return drops


def stale_hello_ack(parameters: Parameters) -> list[Drops]:
    side = ClientSide(parameters)
    drops = [side.receive(encode_datagram(HelloAck(SESSION, 7, 5000)))]
    assert side.receive(encode_datagram(HelloAck(SESSION, 1, 5000))) == {}
    return [*drops, side.receive(encode_datagram(HelloAck(SESSION, 1, 5000)))]


def request_ack_for_unknown_file(parameters: Parameters) -> list[Drops]:
    return [ClientSide(parameters).receive(encode_datagram(RequestAck(SESSION, FILE_ID, 1, 30_000)))]


def stale_request_ack(parameters: Parameters) -> list[Drops]:
    side = ClientSide(parameters)
    good = encode_datagram(RequestAck(SESSION, side.file_id, side.number, 30_000))
    assert side.receive(good) == {}
    drops = [side.receive(encode_datagram(RequestAck(SESSION, side.file_id, side.number - 1, 30_000)))]
    side.client.deliver(side.manifest, 2, 4)
    return [*drops, side.receive(good)]


def duplicate_broadcast(parameters: Parameters) -> list[Drops]:
    side = ClientSide(parameters)
    asks = encode_datagram(Broadcast(SESSION, side.file_id, 8, (AskedRange(0, 2, EVERY_HOLDER),)))
    assert side.receive(asks) == {}
    return [side.receive(asks)]


TRIALS: dict[str, Trial] = {
    "a datagram that does not come from the server's address and port": from_another_address,
    "REQUEST for a file that is not in the network, not divided yet, or removed": request_for_unknown_file,
    "REQUEST from a source": request_of_a_source,
    "REQUEST with a range beyond the file's end": range_beyond_the_end,
    "REQUEST whose number is more than 2^20 above every earlier one of its session, or above 2^32 - 1 - 2^20; the"
    " session ends": number_far_ahead,
    "REQUEST whose number is not higher than that of the latest request or report for the file": stale_request,
    "HELLO_ACK that does not answer the latest hello, or answers it again": stale_hello_ack,
    "REQUEST_ACK for a file that was not assigned": request_ack_for_unknown_file,
    "REQUEST_ACK that does not answer the latest request for the file, or arrives after all that this request named": (
        stale_request_ack
    ),
    "BROADCAST that this client has answered": duplicate_broadcast,
}


def test_table_and_cases_agree() -> None:
    assert sorted({row.what for row in datagram_rows()}) == sorted({*SENT, *TRIALS})


@pytest.mark.parametrize("parameters", [CLASSIC, FAST], ids=["classic", "fast"])
@pytest.mark.parametrize("row", datagram_rows(), ids=lambda row: f"{row.side}-{row.reason}")
def test_dropped_datagram_counts_as_in_the_table(row: Row, parameters: Parameters) -> None:
    if row.what in TRIALS:
        drops = TRIALS[row.what](parameters)
        assert drops == [{row.reason: 1}] * len(drops)
        return
    side = SIDES[row.side](parameters)
    sent = list(SENT[row.what](side))
    assert sent
    for data in sent:
        assert side.receive(data) == {row.reason: 1}, data.hex()


@pytest.mark.parametrize("parameters", [CLASSIC, FAST], ids=["classic", "fast"])
@pytest.mark.parametrize("name", SIDES)
def test_valid_datagram_is_not_dropped(name: str, parameters: Parameters) -> None:
    """All flags and tags are valid, and so are a session's first hello-ack and request-ack."""
    for kind in SIDES[name].kinds:
        for flags, tag in ((0, 0), (0xFFFFFFFF, 0), (0xFFFFFFF8, 255)):
            side = SIDES[name](parameters)
            good = valid(side, kind)
            data = good[:4] + flags.to_bytes(4, "big") + good[8:16] + bytes([tag]) * 16 + good[32:]
            assert side.receive(data) == {}, kind.name


def test_broadcast_for_chunks_not_held_is_ignored() -> None:
    side = ClientSide(FAST)
    for file_id, span in ((FILE_ID, (0, 1)), (side.file_id, (0, 3)), (side.file_id, (3, 2**32 - 1))):
        asks = Broadcast(SESSION, file_id, 3, (AskedRange(*span, EVERY_HOLDER),))
        assert side.receive(encode_datagram(asks)) == {}
