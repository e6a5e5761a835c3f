"""Effects of both state machines."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from pspd.core.wire.header import DropReason
from pspd.text.addresses import Address


class Milestone(Enum):
    """What a client has reached with a file."""

    SHARE_HELD = 1
    COMPLETE = 2


class SendDatagram(NamedTuple):
    """Send a datagram. The state machine itself retransmits what is lost.

    Attributes:
        address: the destination.
        data: the datagram.
    """

    address: Address
    data: bytes


@dataclass(frozen=True, slots=True)
class InputDropped:
    """A datagram or frame was dropped.

    Attributes:
        reason: why.
        origin: the sender, or what was dropped.
    """

    reason: DropReason
    origin: str
