"""Frames (TCP): the encoding and decoding of their heads. docs/protocol.md specifies the layout."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from pspd.core.model.manifest import FileId
from pspd.core.wire.header import HEADER_BYTES, DropReason, Kind, WireError, encode_header, parse_header, unpack_exactly

_FRAME = Struct(">32sIIIQI")

FRAME_BYTES = HEADER_BYTES + _FRAME.size
"""The size of a frame's head."""
FRAME_PAYLOAD_BYTES_MAX = 16 * 1024 * 1024


class Frame(NamedTuple):
    """The head of a frame; ``length`` bytes of payload follow.

    Attributes:
        kind: LINK (the first frame on a link), DELIVERY or CONTRIBUTION.
        session: the number of the member's session.
        file_id: the id of the file; zeros in LINK.
        start: the first chunk of the payload.
        stop: one past the last chunk of the payload.
        length: the size of the payload, in bytes.
        number: the number of the delivery, or of the broadcast that a contribution answers; 0 in LINK.
        echo: in a delivery, the number of the request whose round trip the delivery measures; otherwise 0.
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
    """Encode the head of a frame."""
    return encode_header(frame.kind, frame.session) + _FRAME.pack(
        frame.file_id, frame.start, frame.stop, frame.length, frame.number, frame.echo
    )


def decode_frame(data: bytes | memoryview) -> Frame:
    """Decode the head of a frame from its :data:`FRAME_BYTES` bytes.

    Raises:
        WireError: the head is not valid, so the rest of the stream cannot be parsed.
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
