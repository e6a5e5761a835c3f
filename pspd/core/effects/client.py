"""Effects of ``ClientMachine``. Commands have imperative names, events names in the past tense."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from pspd.core.effects.shared import InputDropped, Milestone, SendDatagram
from pspd.core.model.manifest import FileId
from pspd.core.wire.frames import Frame


@dataclass(frozen=True, slots=True)
class DownlinkChanged:
    """The server's datagrams have stopped arriving, or arrive again.

    Attributes:
        downlink_ok: whether the server's datagrams arrive.
    """

    downlink_ok: bool


class Contribute(NamedTuple):
    """Send a range to the server over TCP (R8): the frame's head, then its payload from the store."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class FinishFile:
    """Make a verified file visible (R10), then call ``file_finished``."""

    file_id: FileId


@dataclass(frozen=True, slots=True)
class ReportMilestone:
    """Report a milestone to the server, and repeat the report until the server confirms it.

    Attributes:
        file_id: the file.
        milestone: what the client has reached.
        share_chunk_count: how many chunks its shares have. A share assigned later is not part of the report.
        division: which division of the file the shares are from.
        request_number: the number of the client's last request before the report. The report supersedes this request
            and earlier ones.
    """

    file_id: FileId
    milestone: Milestone
    share_chunk_count: int
    division: int = 0
    request_number: int = field(default=0, compare=False)


ClientEffect = SendDatagram | Contribute | FinishFile | ReportMilestone | DownlinkChanged | InputDropped
