"""Effects of ``ClientMachine``: commands with imperative names, and events with names in the past tense."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from pspd.core.effects.shared import InputDropped, Milestone, SendDatagram
from pspd.core.model.manifest import FileId
from pspd.core.wire.frames import Frame


@dataclass(frozen=True, slots=True)
class DownlinkChanged:
    """No datagram has arrived from the server for too long, or one has arrived again after such a silence.

    Attributes:
        downlink_ok: whether the server's datagrams arrive now.
    """

    downlink_ok: bool


class Contribute(NamedTuple):
    """Send a contribution to the server over TCP (R8): its head, then the payload from the store.

    Attributes:
        frame: the head of the contribution.
    """

    frame: Frame


@dataclass(frozen=True, slots=True)
class FinishFile:
    """Make a verified file visible (R10), then call ``ClientMachine.file_finished``."""

    file_id: FileId


@dataclass(frozen=True, slots=True)
class ReportMilestone:
    """Report a milestone to the server, and repeat the report until the server confirms it.

    Attributes:
        file_id: the id of the file.
        milestone: the milestone.
        share_chunk_count: the number of chunks in the client's shares at the time of the report.
        division: the number of the file's division; 0 if unknown.
        request_number: the number of the client's newest request for the file; 0 if this session has none. The report
            supersedes this request and earlier ones.
    """

    file_id: FileId
    milestone: Milestone
    share_chunk_count: int
    division: int = 0
    request_number: int = field(default=0, compare=False)


ClientEffect = SendDatagram | Contribute | FinishFile | ReportMilestone | DownlinkChanged | InputDropped
