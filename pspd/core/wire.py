"""The bytes on the wire: datagrams (UDP) and frames (TCP). docs/protocol.md shows them in tables.

Both begin with the same 32-byte header: magic, version, kind, flags, the session, and room for an
authentication tag. Parsing takes bytes from anyone and either gives a whole, sane message or raises
:class:`WireError` with the reason under which the machines count it.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from functools import lru_cache
from struct import Struct, pack, unpack_from
from typing import Any, NamedTuple

from pspd.core.manifest import FileId
from pspd.core.ranges import Range

VERSION = 1
DATAGRAM_BYTES_MAX = 1200
FRAME_PAYLOAD_BYTES_MAX = 16 * 1024 * 1024

_MAGIC = b"PS"
_FLAG_REPEATED = 1
_FLAG_ANSWER = 2
_FLAG_HEARS = 4
_TAG = bytes(16)
_HEADER = Struct(">2sBBIQ16s")
_HELLO = Struct(">II")
_REQUEST = Struct(">32sIQIH")
_REQUEST_ACK = Struct(">32sII")
_BROADCAST = Struct(">32sQH")
_ASKED = Struct(">IIQ")
_FRAME = Struct(">32sIIIQI")

FRAME_BYTES = _HEADER.size + _FRAME.size
"""Size of a frame's head; its payload follows."""
REQUEST_RANGES_MAX = (DATAGRAM_BYTES_MAX - _HEADER.size - _REQUEST.size) // 8
BROADCAST_RANGES_MAX = (DATAGRAM_BYTES_MAX - _HEADER.size - _BROADCAST.size) // _ASKED.size
EVERY_HOLDER = 0
"""In place of a session: whoever holds the range is asked to send it."""
OWNERS = 2**64 - 1
"""In place of a session: each owner of a share in the range is asked to send its part of that."""
RESERVED_SESSIONS = (EVERY_HOLDER, OWNERS)
"""No session has one of these numbers."""
REQUEST_NUMBER_MAX = 2**32 - 1


class Kind(IntEnum):
    """What a datagram (below 16) or a frame (from 16) is."""

    HELLO = 1
    HELLO_ACK = 2
    REQUEST = 3
    BROADCAST = 4
    REQUEST_ACK = 5
    LINK = 16
    DELIVERY = 17
    CONTRIBUTION = 18


SERVER_DATAGRAMS = frozenset({Kind.HELLO, Kind.REQUEST})
"""The kinds of datagram that a server takes."""
CLIENT_DATAGRAMS = frozenset({Kind.HELLO_ACK, Kind.BROADCAST, Kind.REQUEST_ACK})
"""The kinds of datagram that a client takes."""
DATAGRAMS = SERVER_DATAGRAMS | CLIENT_DATAGRAMS


class DropReason(StrEnum):
    """Why something that came in was dropped; each is counted."""

    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    BAD_MAGIC = "bad_magic"
    BAD_VERSION = "bad_version"
    UNKNOWN_KIND = "unknown_kind"
    BAD_LENGTH = "bad_length"
    BAD_RANGE = "bad_range"
    UNKNOWN_SESSION = "unknown_session"
    UNKNOWN_FILE = "unknown_file"
    STALE = "stale"
    BAD_NUMBER = "bad_number"
    NOT_ASKED = "not_asked"
    DUPLICATE = "duplicate"
    CORRUPT = "corrupt"
    ABORTED = "aborted"
    MISPLACED = "misplaced"
    SILENT = "silent"
    TOO_MANY = "too_many"


class WireError(Exception):
    """What came in is no message of this protocol.

    Attributes:
        reason: under what it is counted.
    """

    def __init__(self, reason: DropReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Hello(NamedTuple):
    """Client to server: here I am. Tells the server the client's address, and keeps a NAT's door open.

    Attributes:
        session: the client's session.
        number: counts the client's hellos; the answer repeats it.
        srtt_us: the client's smoothed round-trip time, in microseconds; 0 if it has none yet, or hears nothing.
    """

    session: int
    number: int
    srtt_us: int


class HelloAck(NamedTuple):
    """Server to client: the answer to a hello.

    Attributes:
        session: the client's session.
        number: of the hello that is answered.
        again_ms: when the server wants the next, in milliseconds from now.
    """

    session: int
    number: int
    again_ms: int


class Request(NamedTuple):
    """Client to server: what I lack (R5).

    Attributes:
        session: the client's session.
        file_id: the file.
        number: counts the client's requests, of all files; an older one for this file says nothing new.
        acknowledged: number of the last delivery that came over the link and is dealt with; all before it are too.
        window_chunks: how many chunks may be on their way to the client at a time.
        ranges: what to send, the most wanted first.
        repeated: sent again because nothing came in time (R11).
        wants_answer: the client wants to be told that it is here, as what it asks for will be long in coming.
        hears: the client hears the server: the request is as good as a hello that says so.
    """

    session: int
    file_id: FileId
    number: int
    acknowledged: int
    window_chunks: int
    ranges: tuple[Range, ...]
    repeated: bool = False
    wants_answer: bool = False
    hears: bool = False


class RequestAck(NamedTuple):
    """Server to client: your request is here, and is being seen to; what you ask for is on its way, or will be.

    Attributes:
        session: the client's session.
        file_id: the file.
        number: of the request that is answered.
        again_ms: how long the client is to wait for a delivery before it asks again, in milliseconds.
    """

    session: int
    file_id: FileId
    number: int
    again_ms: int


class Asked(NamedTuple):
    """One range of a broadcast, and who is asked to send it: a session, :data:`EVERY_HOLDER` or :data:`OWNERS`."""

    start: int
    stop: int
    responder: int


class Broadcast(NamedTuple):
    """Server to every client: who has this? (R7)"""

    session: int
    file_id: FileId
    number: int
    asked: tuple[Asked, ...]


Datagram = Hello | HelloAck | Request | RequestAck | Broadcast


class Frame(NamedTuple):
    """The head of a frame; ``length`` bytes of payload follow it.

    Attributes:
        kind: LINK (opens a link, names its session), DELIVERY or CONTRIBUTION.
        session: the client at the far end from the server.
        file_id: the file; zeros in LINK.
        start: first chunk of the payload.
        stop: one past its last.
        length: payload size, in bytes.
        number: of a delivery, its own; of a contribution, that of the broadcast it answers.
        echo: of a delivery, the number of the newest request from its client; 0 if it is no measure of a round trip.
    """

    kind: Kind
    session: int
    file_id: FileId = bytes(32)
    start: int = 0
    stop: int = 0
    length: int = 0
    number: int = 0
    echo: int = 0


def _header(kind: Kind, session: int, flags: int = 0) -> bytes:
    return _HEADER.pack(_MAGIC, VERSION, kind, flags, session, _TAG)


def _parse_header(data: bytes | memoryview) -> tuple[int, int, int]:
    if len(data) < _HEADER.size:
        raise WireError(DropReason.TOO_SHORT)
    magic, version, kind, flags, session, _tag = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise WireError(DropReason.BAD_MAGIC)
    if version != VERSION:
        raise WireError(DropReason.BAD_VERSION)
    return kind, flags, session


def encode_datagram(datagram: Datagram) -> bytes:
    """The bytes of a datagram; never more than :data:`DATAGRAM_BYTES_MAX`."""
    match datagram:
        case Hello(session, number, srtt_us):
            return _header(Kind.HELLO, session) + _HELLO.pack(number, srtt_us)
        case HelloAck(session, number, again_ms):
            return _header(Kind.HELLO_ACK, session) + _HELLO.pack(number, again_ms)
        case Request():
            return _encode_request(datagram)
        case RequestAck(session, file_id, number, again_ms):
            return _header(Kind.REQUEST_ACK, session) + _REQUEST_ACK.pack(file_id, number, again_ms)
    body = encode_broadcast_body(datagram.file_id, datagram.number, datagram.asked)
    return encode_broadcast_head(datagram.session) + body


def _encode_request(request: Request) -> bytes:
    assert len(request.ranges) <= REQUEST_RANGES_MAX
    flags = _FLAG_REPEATED * request.repeated | _FLAG_ANSWER * request.wants_answer | _FLAG_HEARS * request.hears
    numbers = [number for span in request.ranges for number in span]
    return b"".join(
        (
            _header(Kind.REQUEST, request.session, flags),
            _REQUEST.pack(
                request.file_id,
                request.number,
                request.acknowledged,
                request.window_chunks,
                len(request.ranges),
            ),
            pack(f">{len(numbers)}I", *numbers),
        )
    )


def encode_broadcast_body(file_id: FileId, number: int, asked: tuple[Asked, ...]) -> bytes:
    """What a broadcast says, which is the same for every client; see :func:`encode_broadcast_head`."""
    assert len(asked) <= BROADCAST_RANGES_MAX
    entries = [_ASKED.pack(entry.start, entry.stop, entry.responder) for entry in asked]
    return b"".join((_BROADCAST.pack(file_id, number, len(asked)), *entries))


def encode_broadcast_head(session: int) -> bytes:
    """What a broadcast begins with for one client."""
    return _header(Kind.BROADCAST, session)


def decode_datagram(data: bytes | memoryview, kinds: frozenset[Kind] = DATAGRAMS) -> Datagram:
    """The message in a datagram.

    Args:
        data: the datagram.
        kinds: what the receiver takes.

    Raises:
        WireError: it holds none of these kinds.
    """
    if len(data) > DATAGRAM_BYTES_MAX:
        raise WireError(DropReason.TOO_LONG)
    kind, flags, session = _parse_header(data)
    if kind not in kinds:
        raise WireError(DropReason.UNKNOWN_KIND)
    body = data[_HEADER.size :]
    match kind:
        case Kind.HELLO:
            return Hello(session, *_unpack_exactly(_HELLO, body))
        case Kind.HELLO_ACK:
            return HelloAck(session, *_unpack_exactly(_HELLO, body))
        case Kind.REQUEST:
            return _decode_request(session, flags, body)
        case Kind.BROADCAST:
            return _decode_broadcast(session, body)
    file_id, number, again_ms = _unpack_exactly(_REQUEST_ACK, body)
    return RequestAck(session, file_id, number, again_ms)


def _unpack_exactly(layout: Struct, body: bytes | memoryview) -> tuple[Any, ...]:
    if len(body) < layout.size:
        raise WireError(DropReason.TOO_SHORT)
    if len(body) > layout.size:
        raise WireError(DropReason.BAD_LENGTH)
    return layout.unpack(body)


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
    return Request(
        session,
        file_id,
        number,
        acknowledged,
        window_chunks,
        ranges,
        repeated=flags & _FLAG_REPEATED != 0,
        wants_answer=flags & _FLAG_ANSWER != 0,
        hears=flags & _FLAG_HEARS != 0,
    )


def _decode_broadcast(session: int, body: bytes | memoryview) -> Broadcast:
    return Broadcast(session, *_broadcast_body(bytes(body)))


@lru_cache(maxsize=16)
def _broadcast_body(body: bytes) -> tuple[FileId, int, tuple[Asked, ...]]:
    """What a broadcast says; remembered, as all clients of a process hear the same."""
    if len(body) < _BROADCAST.size:
        raise WireError(DropReason.TOO_SHORT)
    file_id, number, count = _BROADCAST.unpack_from(body)
    entries = body[_BROADCAST.size :]
    if len(entries) != count * _ASKED.size:
        raise WireError(DropReason.BAD_LENGTH)
    asked = tuple(Asked(*entry) for entry in _ASKED.iter_unpack(entries))
    if any(entry.start >= entry.stop for entry in asked):
        raise WireError(DropReason.BAD_RANGE)
    return file_id, number, asked


def encode_frame(frame: Frame) -> bytes:
    """The bytes of a frame's head; the payload follows it on the wire."""
    return _header(frame.kind, frame.session) + _FRAME.pack(
        frame.file_id, frame.start, frame.stop, frame.length, frame.number, frame.echo
    )


def decode_frame(data: bytes | memoryview) -> Frame:
    """The head of a frame from its first :data:`FRAME_BYTES` bytes.

    Raises:
        WireError: it is none; nothing that follows on the stream can be understood.
    """
    kind, _flags, session = _parse_header(data)
    if kind not in (Kind.LINK, Kind.DELIVERY, Kind.CONTRIBUTION):
        raise WireError(DropReason.UNKNOWN_KIND)
    file_id, start, stop, length, number, echo = _unpack_exactly(_FRAME, data[_HEADER.size :])
    frame = Frame(Kind(kind), session, bytes(file_id), start, stop, length, number, echo)
    if length > FRAME_PAYLOAD_BYTES_MAX:
        raise WireError(DropReason.TOO_LONG)
    if (start >= stop or length == 0) if kind != Kind.LINK else length != 0:
        raise WireError(DropReason.BAD_RANGE)
    return frame
