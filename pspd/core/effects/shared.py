"""Effects that both machines have."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from pspd.core.wire.header import DropReason
from pspd.text.addresses import Address


class Milestone(Enum):
    """What a client reached with a file."""

    SHARE_HELD = 1
    COMPLETE = 2


class SendDatagram(NamedTuple):
    """Send this by UDP. It may be lost; whoever wanted it to arrive sends it again."""

    address: Address
    data: bytes


@dataclass(frozen=True, slots=True)
class InputDropped:
    """Something that came in was dropped."""

    reason: DropReason
    origin: str
