"""Effects of both state machines."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from pspd.core.wire.header import DropReason
from pspd.text.addresses import Address


class Milestone(Enum):
    """A milestone that a client reaches with a file: it holds all its shares, or has the complete file."""

    SHARE_HELD = 1
    COMPLETE = 2


class SendDatagram(NamedTuple):
    """Send a datagram once. The driver does not retransmit it: the state machine does.

    Attributes:
        address: the destination.
        data: the datagram.
    """

    address: Address
    data: bytes


@dataclass(frozen=True, slots=True)
class InputDropped:
    """An input was dropped: a datagram, frame, unit, connection or report.

    Attributes:
        reason: the reason for dropping the input.
        origin: the sender, or a description of the input.
    """

    reason: DropReason
    origin: str
