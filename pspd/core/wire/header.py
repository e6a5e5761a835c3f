"""The header of every datagram and frame, and the reasons for dropping inputs."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from struct import Struct
from typing import Any

VERSION = 1

_MAGIC = b"PS"
_TAG = bytes(16)
"""The tag, which is reserved for authentication. Receivers ignore it."""
_HEADER = Struct(">2sBBIQ16s")

HEADER_BYTES = _HEADER.size


class Kind(IntEnum):
    """Kinds of datagrams (below 16) and frames (from 16)."""

    HELLO = 1
    HELLO_ACK = 2
    REQUEST = 3
    BROADCAST = 4
    REQUEST_ACK = 5
    LINK = 16
    DELIVERY = 17
    CONTRIBUTION = 18


class DropReason(StrEnum):
    """The reasons for dropping an input: a datagram, frame, unit, connection or report.

    Drops are counted by reason. docs/protocol.md explains each reason. ``TOO_LONG`` is for an input above the limit of
    all datagrams or frames, ``BAD_LENGTH`` for one with another length than its kind and its ranges require.
    """

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
    UNSOLICITED = "not_asked"
    DUPLICATE = "duplicate"
    CORRUPT = "corrupt"
    ABORTED = "aborted"
    MISPLACED = "misplaced"
    SILENT = "silent"
    TOO_MANY = "too_many"


class WireError(Exception):
    """A datagram or frame that is not a valid message of this protocol.

    Attributes:
        reason: the reason for dropping the datagram or frame.
    """

    def __init__(self, reason: DropReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def encode_header(kind: Kind, session: int, flags: int = 0) -> bytes:
    """Encode a header.

    Args:
        kind: the kind of the datagram or frame.
        session: the number of the member's session.
        flags: the flags; 0 for every kind except REQUEST.
    """
    return _HEADER.pack(_MAGIC, VERSION, kind, flags, session, _TAG)


def parse_header(data: bytes | memoryview) -> tuple[int, int, int]:
    """Parse a header; return its kind, flags and session. The kind may be unknown.

    Raises:
        WireError: the data is shorter than a header, or has another magic or version.
    """
    if len(data) < _HEADER.size:
        raise WireError(DropReason.TOO_SHORT)
    magic, version, kind, flags, session, _tag = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise WireError(DropReason.BAD_MAGIC)
    if version != VERSION:
        raise WireError(DropReason.BAD_VERSION)
    return kind, flags, session


def unpack_exactly(layout: Struct, body: bytes | memoryview) -> tuple[Any, ...]:
    """Unpack a body that has exactly the size of its layout.

    Args:
        layout: the layout of the body.
        body: the body.

    Raises:
        WireError: the body is shorter or longer than the layout.
    """
    if len(body) < layout.size:
        raise WireError(DropReason.TOO_SHORT)
    if len(body) > layout.size:
        raise WireError(DropReason.BAD_LENGTH)
    return layout.unpack(body)
