"""Effects of the server's machine: commands to carry out (imperative), events to log and publish (past tense)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from pspd.core.effects.shared import InputDropped, SendDatagram
from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.ranges import Range
from pspd.core.server.file_record import FileRecord
from pspd.core.wire.frames import Frame


class Deliver(NamedTuple):
    """Send a range to a client over TCP (R6), the views after the head, without copying them.

    Then say ``delivery_sent`` as soon as the views are no longer needed, or ``delivery_failed`` if they
    could not be sent. That it has arrived its client tells in its next request.
    """

    session: int
    number: int
    frame: Frame
    views: list[memoryview]


@dataclass(frozen=True, slots=True)
class CloseLink:
    """Close the client's TCP link."""

    session: int


@dataclass(frozen=True, slots=True)
class Assign:
    """Tell a client of a file that it is to get, and of its share.

    Attributes:
        division: names this one division of the file; when it was removed and is seeded anew it has another.
    """

    session: int
    manifest: Manifest
    shares: tuple[Range, ...]
    exchange_started: bool
    division: int = 0


@dataclass(frozen=True, slots=True)
class StartExchange:
    """Tell a client that every share is held and that it may ask for the rest."""

    session: int
    file_id: FileId


class EndCause(Enum):
    """Why a session ended, as a program reads it."""

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
        reason: why, in words.
        cause: why, as a program reads it; None where the server is of a version that does not say.
    """

    session: int
    reason: str
    cause: EndCause | None = None


@dataclass(frozen=True, slots=True)
class ClientJoined:
    """A client became a member."""

    name: str


@dataclass(frozen=True, slots=True)
class ClientHeard:
    """The first datagram of a client's session came: it can be given shares."""

    name: str


@dataclass(frozen=True, slots=True)
class ClientLost:
    """A client is a member no more."""

    name: str
    reason: str


Fault = Exception
"""An error that the machine does not know. mypyc looks for the type of a dataclass's field in its module alone."""


@dataclass(frozen=True, slots=True)
class MemberFailed:
    """The machine raised while it served a member: log the error. The member's session ends, the others go on."""

    name: str
    error: Fault


@dataclass(frozen=True, slots=True)
class DuplicateRefused:
    """A second machine with a client's identity was refused, as the first still speaks.

    Attributes:
        name: the client's name.
        refused: control address of the machine that was refused.
        present: control address of the machine that is connected.
    """

    name: str
    refused: str
    present: str


@dataclass(frozen=True, slots=True)
class ClientReach:
    """A member that is connected went out of reach, or came back: whether it can be asked for chunks now."""

    name: str
    in_reach: bool


@dataclass(frozen=True, slots=True)
class SaveFile:
    """Write down what a restarted server is to know of a file, before anything that follows is carried out."""

    record: FileRecord


@dataclass(frozen=True, slots=True)
class RemoveFile:
    """Tell a client that a file is no longer in the network: it drops what is unfinished of it."""

    session: int
    file_id: FileId


@dataclass(frozen=True, slots=True)
class FileRemoved:
    """A file is no longer in the network; what was written down of it is to go."""

    file_id: FileId
    name: str


@dataclass(frozen=True, slots=True)
class VerifyFile:
    """What a member sent of a file was wrong: it is to verify what it holds and to join again."""

    session: int
    file_id: FileId


@dataclass(frozen=True, slots=True)
class FileDivided:
    """A file was divided into shares (R1)."""

    file_id: FileId
    name: str
    shares: tuple[tuple[str, Range], ...]
    replica_count: int = 1


@dataclass(frozen=True, slots=True)
class FileSeeded:
    """Every share is held and acknowledged; the server holds no byte of the file (R2)."""

    file_id: FileId
    name: str
    share_count: int
    chunk_count: int
    cached_bytes: int


@dataclass(frozen=True, slots=True)
class FileDeclined:
    """A client cannot take a file."""

    file_id: FileId
    name: str
    client: str
    reason: str


@dataclass(frozen=True, slots=True)
class ShareReassigned:
    """A client takes nothing of its share: nobody waits for it any more."""

    file_id: FileId
    name: str
    client: str


@dataclass(frozen=True, slots=True)
class FileStalled:
    """Chunks of a file have no connected holder."""

    file_id: FileId
    name: str
    missing: tuple[tuple[Range, str], ...]


@dataclass(frozen=True, slots=True)
class FileResumed:
    """Every chunk of a stalled file has a holder again."""

    file_id: FileId
    name: str


@dataclass(frozen=True, slots=True)
class FileCompleted:
    """Every connected client has the file (R10)."""

    file_id: FileId
    name: str
    client_count: int


MemberEffect = Assign | StartExchange | RemoveFile | VerifyFile | EndSession
"""What a member is to be told over the control plane."""

FileEvent = (
    FileDivided | FileSeeded | FileDeclined | ShareReassigned | FileStalled | FileResumed | FileCompleted | FileRemoved
)

ServerEvent = ClientJoined | ClientHeard | ClientLost | DuplicateRefused | ClientReach | FileEvent
"""What the log tells, and whoever follows the network hears of."""

ControlEffect = MemberEffect | SaveFile | InputDropped | MemberFailed | ServerEvent
"""Effects that are not of the data plane."""

ServerEffect = SendDatagram | Deliver | CloseLink | ControlEffect
