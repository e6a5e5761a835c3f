"""Effects of a client's machine: commands to carry out (imperative), events to log (past tense)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from pspd.core.effects.shared import InputDropped, Milestone, SendDatagram
from pspd.core.model.manifest import FileId
from pspd.core.wire.frames import Frame


@dataclass(frozen=True, slots=True)
class DownlinkChanged:
    """The server's datagrams reach a client no more, or do again."""

    heard: bool


class Contribute(NamedTuple):
    """Send a range that is held to the server over TCP (R8), head first."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class FinishFile:
    """Every chunk is verified: make the file visible (R10), then say ``file_finished``."""

    file_id: FileId


@dataclass(frozen=True, slots=True)
class ReportMilestone:
    """Tell the server what was reached, and again until it has heard.

    Attributes:
        share_chunk_count: chunks of the shares that the client knows of: a share that was given to it
            meanwhile is not meant.
        division: which division of the file is meant.
        request_number: the client's newest request before it: what it overtakes is no news any more.
    """

    file_id: FileId
    milestone: Milestone
    share_chunk_count: int
    division: int = 0
    request_number: int = field(default=0, compare=False)


ClientEffect = SendDatagram | Contribute | FinishFile | ReportMilestone | DownlinkChanged | InputDropped
