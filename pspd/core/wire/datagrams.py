"""Datagrams (UDP): their encoding and decoding. docs/protocol.md specifies the layout."""

from __future__ import annotations

from functools import lru_cache
from struct import Struct, pack, unpack_from
from typing import NamedTuple

from pspd.core.model.manifest import FileId
from pspd.core.model.ranges import Range
from pspd.core.wire.header import HEADER_BYTES, DropReason, Kind, WireError, encode_header, parse_header, unpack_exactly

_REPEATED, _WANTS_ACK, _DOWNLINK_OK = 1, 2, 4
"""Flags of a request."""

_HELLO = Struct(">II")
_REQUEST = Struct(">32sIQIH")
_REQUEST_ACK = Struct(">32sII")
_BROADCAST = Struct(">32sQH")
_ASKED = Struct(">IIQ")

DATAGRAM_BYTES_MAX = 1200
"""The largest size of a datagram. Practically no path fragments such a datagram; QUIC starts with the same size."""
REQUEST_RANGES_MAX = (DATAGRAM_BYTES_MAX - HEADER_BYTES - _REQUEST.size) // 8
BROADCAST_RANGES_MAX = (DATAGRAM_BYTES_MAX - HEADER_BYTES - _BROADCAST.size) // _ASKED.size
HELLO_NUMBER_MAX = REQUEST_NUMBER_MAX = 2**32 - 1

EVERY_HOLDER = 0
"""The responder that means every holder of the range."""
OWNERS = 2**64 - 1
"""The responder that means every owner of a share in the range. Each owner sends the part in its own share."""
RESERVED_SESSIONS = (EVERY_HOLDER, OWNERS)
"""Numbers that no session has."""

ACCEPTED_BY_SERVER = frozenset({Kind.HELLO, Kind.REQUEST})
"""The kinds of datagram that a server accepts."""

ACCEPTED_BY_CLIENT = frozenset({Kind.HELLO_ACK, Kind.BROADCAST, Kind.REQUEST_ACK})
"""The kinds of datagram that a client or a source accepts."""

DATAGRAM_KINDS = ACCEPTED_BY_SERVER | ACCEPTED_BY_CLIENT


class Hello(NamedTuple):
    """Member to server: announces the member's datagram address, and confirms that the server's datagrams arrive.

    Attributes:
        session: the number of the member's session.
        number: the number of this hello, which the hello-ack repeats.
        srtt_us: the member's smoothed round-trip time, in microseconds; 0 if the server's datagrams do not arrive.
    """

    session: int
    number: int
    srtt_us: int


class HelloAck(NamedTuple):
    """Server to member: the answer to a hello.

    Attributes:
        session: the number of the member's session.
        number: the number of the answered hello.
        hello_interval_ms: the time until the member's next hello, in milliseconds.
    """

    session: int
    number: int
    hello_interval_ms: int


class Request(NamedTuple):
    """Client to server: requests missing chunks (R5).

    Attributes:
        session: the number of the client's session.
        file_id: the id of the file.
        number: the number of this request, in one sequence for all files. A request is stale if the server
            has received, for the same file, a request or report whose request number is the same or higher.
        acknowledged: the number of the latest delivery of this file that the client has stored; 0 for none.
        window_chunks: the number of chunks of this file that may be in flight to the client.
        ranges: the ranges of the wanted chunks, in the order in which the client wants them.
        repeated: whether no delivery arrived in time after the last request (R11).
        wants_ack: whether the client asks for a REQUEST_ACK, because deliveries may take longer than its timeout.
        downlink_ok: whether the server's datagrams arrive at the client.
    """

    session: int
    file_id: FileId
    number: int
    acknowledged: int
    window_chunks: int
    ranges: tuple[Range, ...]
    repeated: bool = False
    wants_ack: bool = False
    downlink_ok: bool = False


class RequestAck(NamedTuple):
    """Server to client: the answer to a request, which confirms that the request has arrived.

    Attributes:
        session: the number of the client's session.
        file_id: the id of the file.
        number: the number of the answered request.
        retry_after_ms: how long the client waits for a delivery before it requests again, in milliseconds.
    """

    session: int
    file_id: FileId
    number: int
    retry_after_ms: int


class AskedRange(NamedTuple):
    """One range of a broadcast.

    Attributes:
        start: the first chunk.
        stop: one past the last chunk.
        responder: the sender of the range: the number of a session, :data:`EVERY_HOLDER` or :data:`OWNERS`.
    """

    start: int
    stop: int
    responder: int


class Broadcast(NamedTuple):
    """Server to member: asks holders for chunks (R7). Each member gets its own datagram.

    Attributes:
        session: the number of the member's session.
        file_id: the id of the file.
        number: the number of this broadcast, which contributions repeat.
        asked: the ranges that the server asks for, with their responders.
    """

    session: int
    file_id: FileId
    number: int
    asked: tuple[AskedRange, ...]


Datagram = Hello | HelloAck | Request | RequestAck | Broadcast


def encode_datagram(datagram: Datagram) -> bytes:
    """Encode a datagram. The result has at most :data:`DATAGRAM_BYTES_MAX` bytes."""
    match datagram:
        case Hello(session, number, srtt_us):
            return encode_header(Kind.HELLO, session) + _HELLO.pack(number, srtt_us)
        case HelloAck(session, number, hello_interval_ms):
            return encode_header(Kind.HELLO_ACK, session) + _HELLO.pack(number, hello_interval_ms)
        case Request():
            return _encode_request(datagram)
        case RequestAck(session, file_id, number, retry_after_ms):
            return encode_header(Kind.REQUEST_ACK, session) + _REQUEST_ACK.pack(file_id, number, retry_after_ms)
    body = encode_broadcast_body(datagram.file_id, datagram.number, datagram.asked)
    return encode_broadcast_head(datagram.session) + body


def _encode_request(request: Request) -> bytes:
    session, file_id, number, acknowledged, window_chunks, ranges, repeated, wants_ack, downlink_ok = request
    assert len(ranges) <= REQUEST_RANGES_MAX
    flags = _REPEATED * repeated | _WANTS_ACK * wants_ack | _DOWNLINK_OK * downlink_ok
    boundaries = [chunk for span in ranges for chunk in span]
    body = _REQUEST.pack(file_id, number, acknowledged, window_chunks, len(ranges))
    return b"".join((encode_header(Kind.REQUEST, session, flags), body, pack(f">{len(boundaries)}I", *boundaries)))


def encode_broadcast_body(file_id: FileId, number: int, asked: tuple[AskedRange, ...]) -> bytes:
    """Encode the body of a broadcast, which is the same for all members and follows the head.

    Args:
        file_id: the id of the file.
        number: the number of the broadcast.
        asked: the ranges of the broadcast, at most :data:`BROADCAST_RANGES_MAX`.
    """
    assert len(asked) <= BROADCAST_RANGES_MAX
    entries = [_ASKED.pack(entry.start, entry.stop, entry.responder) for entry in asked]
    return b"".join((_BROADCAST.pack(file_id, number, len(asked)), *entries))


def encode_broadcast_head(session: int) -> bytes:
    """Encode the head of a broadcast, which differs between members."""
    return encode_header(Kind.BROADCAST, session)


def decode_datagram(data: bytes | memoryview, kinds: frozenset[Kind] = DATAGRAM_KINDS) -> Datagram:
    """Decode a datagram.

    Args:
        data: the datagram.
        kinds: the kinds that the receiver accepts.

    Raises:
        WireError: the datagram is not a valid message of these kinds.
    """
    if len(data) > DATAGRAM_BYTES_MAX:
        raise WireError(DropReason.TOO_LONG)
    kind, flags, session = parse_header(data)
    if kind not in kinds:
        raise WireError(DropReason.UNKNOWN_KIND)
    body = data[HEADER_BYTES:]
    match kind:
        case Kind.HELLO:
            return Hello(session, *unpack_exactly(_HELLO, body))
        case Kind.HELLO_ACK:
            return HelloAck(session, *unpack_exactly(_HELLO, body))
        case Kind.REQUEST:
            return _decode_request(session, flags, body)
        case Kind.BROADCAST:
            return Broadcast(session, *_decode_broadcast_body(bytes(body)))
    file_id, number, retry_after_ms = unpack_exactly(_REQUEST_ACK, body)
    return RequestAck(session, file_id, number, retry_after_ms)


def _decode_request(session: int, flags: int, body: bytes | memoryview) -> Request:
    if len(body) < _REQUEST.size:
        raise WireError(DropReason.TOO_SHORT)
    file_id, number, acknowledged, window_chunks, count = _REQUEST.unpack_from(body)
    if len(body) != _REQUEST.size + 8 * count:
        raise WireError(DropReason.BAD_LENGTH)
    numbers = unpack_from(f">{2 * count}I", body, _REQUEST.size)
    ranges = tuple(map(Range, numbers[::2], numbers[1::2]))
    for start, stop in ranges:
        if start >= stop:
            raise WireError(DropReason.BAD_RANGE)
    repeated, wants_ack, downlink_ok = flags & _REPEATED != 0, flags & _WANTS_ACK != 0, flags & _DOWNLINK_OK != 0
    return Request(session, file_id, number, acknowledged, window_chunks, ranges, repeated, wants_ack, downlink_ok)


@lru_cache(maxsize=16)
def _decode_broadcast_body(body: bytes) -> tuple[FileId, int, tuple[AskedRange, ...]]:
    """Decode the body of a broadcast. The result is cached, because all members in a process receive the same body."""
    if len(body) < _BROADCAST.size:
        raise WireError(DropReason.TOO_SHORT)
    file_id, number, count = _BROADCAST.unpack_from(body)
    entries = body[_BROADCAST.size :]
    if len(entries) != count * _ASKED.size:
        raise WireError(DropReason.BAD_LENGTH)
    asked = tuple(AskedRange(*entry) for entry in _ASKED.iter_unpack(entries))
    if any(entry.start >= entry.stop for entry in asked):
        raise WireError(DropReason.BAD_RANGE)
    return file_id, number, asked
