"""Frames (TCP) as bytes; docs/protocol.md has the tables."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from pspd.core.model.manifest import FileId
from pspd.core.wire.header import HEADER_BYTES, DropReason, Kind, WireError, encode_header, parse_header, unpack_exactly

FRAME_PAYLOAD_BYTES_MAX = 16 * 1024 * 1024

_FRAME = Struct(">32sIIIQI")

FRAME_BYTES = HEADER_BYTES + _FRAME.size
"""Size of a frame's head; its payload follows."""


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


def encode_frame(frame: Frame) -> bytes:
    """The bytes of a frame's head; the payload follows it on the wire."""
    return encode_header(frame.kind, frame.session) + _FRAME.pack(
        frame.file_id, frame.start, frame.stop, frame.length, frame.number, frame.echo
    )


def decode_frame(data: bytes | memoryview) -> Frame:
    """The head of a frame from its first :data:`FRAME_BYTES` bytes.

    Raises:
        WireError: it is none; nothing that follows on the stream can be understood.
    """
    kind, _flags, session = parse_header(data)
    if kind not in (Kind.LINK, Kind.DELIVERY, Kind.CONTRIBUTION):
        raise WireError(DropReason.UNKNOWN_KIND)
    file_id, start, stop, length, number, echo = unpack_exactly(_FRAME, data[HEADER_BYTES:])
    frame = Frame(Kind(kind), session, bytes(file_id), start, stop, length, number, echo)
    if length > FRAME_PAYLOAD_BYTES_MAX:
        raise WireError(DropReason.TOO_LONG)
    if (start >= stop or length == 0) if kind != Kind.LINK else length != 0:
        raise WireError(DropReason.BAD_RANGE)
    return frame
