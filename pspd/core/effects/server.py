"""Effects of ``ServerMachine``. Commands have imperative names, events names in the past tense."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from pspd.core.effects.shared import InputDropped, SendDatagram
from pspd.core.model.file_record import FileRecord
from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.ranges import Range
from pspd.core.wire.frames import Frame


class Deliver(NamedTuple):
    """Send a range to a client over TCP (R6): the frame's head, then the views, without copying them.

    Call ``delivery_sent`` as soon as the views are no longer needed, or ``delivery_failed`` if they could not be sent.
    The client acknowledges the delivery in its next request.

    Attributes:
        session: the client's session.
        number: of the delivery.
        frame: the head.
        views: the payload.
    """

    session: int
    number: int
    frame: Frame
    views: list[memoryview]


@dataclass(frozen=True, slots=True)
class CloseLink:
    """Close a member's TCP link."""

    session: int


@dataclass(frozen=True, slots=True)
class Assign:
    """Assign a file and shares of it to a client, in place of an earlier assignment.

    Attributes:
        session: the client's session.
        manifest: the file.
        shares: its shares, to get before the exchange.
        exchange_started: whether the client may request the whole file.
        division: identifies this division of the file; a file that is removed and seeded again has another.
    """

    session: int
    manifest: Manifest
    shares: tuple[Range, ...]
    exchange_started: bool
    division: int = 0


@dataclass(frozen=True, slots=True)
class StartExchange:
    """Tell a client that every share is held, so that it may request the whole file."""

    session: int
    file_id: FileId


class EndCause(Enum):
    """Why a session ended."""

    REPLACED = 1
    LEASE_EXPIRED = 2
    LEFT = 3
    CONNECTION_ENDED = 4
    SOURCE_DONE = 5
    PROTOCOL_ERROR = 6
    SERVER_FAULT = 7


@dataclass(frozen=True, slots=True)
class EndSession:
    """Tell a client that its session is over.

    Attributes:
        session: the client's session.
        reason: why, for people.
        cause: why, for programs; None if the server is older than this field.
    """

    session: int
    reason: str
    cause: EndCause | None = None


@dataclass(frozen=True, slots=True)
class ClientJoined:
    """A client has joined."""

    name: str


@dataclass(frozen=True, slots=True)
class UplinkConfirmed:
    """The first datagram of a client's session has arrived. From now on the client can own shares."""

    name: str


@dataclass(frozen=True, slots=True)
class ClientLost:
    """A client's session has ended.

    Attributes:
        name: the client's name.
        reason: why.
    """

    name: str
    reason: str


Fault = Exception
"""Any error. mypyc looks up the type of a dataclass field in its own module only."""


@dataclass(frozen=True, slots=True)
class MemberFailed:
    """``ServerMachine`` raised an error while it served a member. It ends the member's session; log the error.

    Attributes:
        name: the member's name.
        error: the error.
    """

    name: str
    error: Fault


@dataclass(frozen=True, slots=True)
class DuplicateRefused:
    """A second machine with a client's identity was refused, because the first is still active.

    Attributes:
        name: the client's name.
        refused: control address of the machine that was refused.
        present: control address of the machine that is connected.
    """

    name: str
    refused: str
    present: str


@dataclass(frozen=True, slots=True)
class ReachabilityChanged:
    """A connected member became unreachable, or reachable again.

    Attributes:
        name: the member's name.
        reachable: whether it can be asked for chunks.
    """

    name: str
    reachable: bool


@dataclass(frozen=True, slots=True)
class SaveFile:
    """Save what a restarted server must know of a file, before carrying out the effects that follow."""

    record: FileRecord


@dataclass(frozen=True, slots=True)
class RemoveFile:
    """Tell a client that a file was removed from the network: it deletes the unfinished file."""

    session: int
    file_id: FileId


@dataclass(frozen=True, slots=True)
class VerifyFile:
    """Tell a member that it sent wrong bytes of a file: it verifies what it holds, and joins again."""

    session: int
    file_id: FileId


@dataclass(frozen=True, slots=True)
class AboutFile:
    """The fields of every event of a file.

    Attributes:
        file_id: the file.
        name: its name.
    """

    file_id: FileId
    name: str


@dataclass(frozen=True, slots=True)
class FileRemoved(AboutFile):
    """A file was removed from the network: delete its saved record."""


@dataclass(frozen=True, slots=True)
class FileDivided(AboutFile):
    """A file was divided into shares (R1).

    Attributes:
        shares: the owner and the range of each.
        replica_count: how many clients own each range.
    """

    shares: tuple[tuple[str, Range], ...]
    replica_count: int = 1


@dataclass(frozen=True, slots=True)
class FileSeeded(AboutFile):
    """Every share is held, and the server has no byte of the file (R2).

    Attributes:
        share_count: how many shares there are.
        chunk_count: how many chunks the file has.
        cached_bytes: how much of it the server has cached.
    """

    share_count: int
    chunk_count: int
    cached_bytes: int


@dataclass(frozen=True, slots=True)
class FileDeclined(AboutFile):
    """A client cannot store a file.

    Attributes:
        client: the client's name.
        reason: why.
    """

    client: str
    reason: str


@dataclass(frozen=True, slots=True)
class ShareReassigned(AboutFile):
    """The share of a client without progress was reassigned.

    Attributes:
        client: the client's name.
    """

    client: str


@dataclass(frozen=True, slots=True)
class FileStalled(AboutFile):
    """Chunks of a file have no connected holder.

    Attributes:
        missing: the chunks, and the name of their last holder.
    """

    missing: tuple[tuple[Range, str], ...]


@dataclass(frozen=True, slots=True)
class FileResumed(AboutFile):
    """Every chunk of a stalled file has a holder again."""


@dataclass(frozen=True, slots=True)
class FileCompleted(AboutFile):
    """Every connected client has the file (R10).

    Attributes:
        client_count: how many clients have it.
    """

    client_count: int


MemberEffect = Assign | StartExchange | RemoveFile | VerifyFile | EndSession
"""Messages to a member over the control plane."""

FileEvent = (
    FileDivided | FileSeeded | FileDeclined | ShareReassigned | FileStalled | FileResumed | FileCompleted | FileRemoved
)

ServerEvent = ClientJoined | UplinkConfirmed | ClientLost | DuplicateRefused | ReachabilityChanged | FileEvent
"""Events for the log and for watchers of the network."""

ControlEffect = MemberEffect | SaveFile | InputDropped | MemberFailed | ServerEvent
"""Effects outside the data plane."""

ServerEffect = SendDatagram | Deliver | CloseLink | ControlEffect
