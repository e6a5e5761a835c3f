"""Effects of ``ServerMachine``: commands with imperative names, and events with names in the past tense."""

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
    """Send a delivery to a client over TCP (R6): the head, then the views, without copying them.

    Call ``ServerMachine.delivery_sent`` when the kernel has taken all bytes, or ``delivery_failed`` if they could not
    be sent. Do not use the views after that.

    Attributes:
        session: the client's session number.
        number: the delivery's number.
        frame: the delivery's head.
        views: the memory of the payload, in order.
    """

    session: int
    number: int
    frame: Frame
    views: list[memoryview]


@dataclass(frozen=True, slots=True)
class CloseLink:
    """Close a member's link, if it is open."""

    session: int


@dataclass(frozen=True, slots=True)
class Assign:
    """Assign a file and its shares to a client. This replaces an earlier assignment of the same file.

    Attributes:
        session: the client's session number.
        manifest: the manifest of the file.
        shares: the client's shares during seeding; empty if it has none, or after seeding.
        exchange_started: whether the client may request the whole file.
        division: the number of the file's division. A file that is removed and seeded again gets another number.
    """

    session: int
    manifest: Manifest
    shares: tuple[Range, ...]
    exchange_started: bool
    division: int = 0


@dataclass(frozen=True, slots=True)
class StartExchange:
    """Tell a client that the exchange has started: the client may now request the whole file."""

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
    """Tell a member that its session has ended.

    Attributes:
        session: the member's session number.
        reason: why the session ended, for people.
        cause: why the session ended, for programs. The server always sets it; None at a client means that the message
            has no cause that the client knows.
    """

    session: int
    reason: str
    cause: EndCause | None = None


@dataclass(frozen=True, slots=True)
class MemberJoined:
    """A client or a source has joined."""

    name: str


@dataclass(frozen=True, slots=True)
class UplinkConfirmed:
    """The first datagram of a client's session has arrived. From now on the client can own shares."""

    name: str


@dataclass(frozen=True, slots=True)
class MemberLeft:
    """The session of a client or source has ended, or a client has not returned after a restart of the server.

    Attributes:
        name: the member's name.
        reason: why the session ended, or that the client has not returned, for people.
    """

    name: str
    reason: str


Fault = Exception
"""Any error. mypyc looks up the type of a dataclass field only in the module of the class, so the builtin needs a name
here."""


@dataclass(frozen=True, slots=True)
class MemberFailed:
    """An internal error occurred while ``ServerMachine`` served a member. The session of this member ends.

    Attributes:
        name: the member's name.
        error: the error, to be logged.
    """

    name: str
    error: Fault


@dataclass(frozen=True, slots=True)
class DuplicateRefused:
    """A second machine with a member's identity was refused, because the first is still active.

    While refusals continue, there is at most one such event for each member in ``ServerTuning.replacement_ns``.

    Attributes:
        name: the member's name.
        refused_address: the address of the refused machine's control calls; empty if unknown.
        present_address: the address of the connected machine's control calls; empty if unknown.
    """

    name: str
    refused_address: str
    present_address: str


@dataclass(frozen=True, slots=True)
class ReachabilityChanged:
    """A connected member became unreachable, or reachable again.

    Attributes:
        name: the member's name.
        reachable: whether the member is reachable now.
    """

    name: str
    reachable: bool


@dataclass(frozen=True, slots=True)
class SaveFile:
    """Save the record of a file for a restart of the server. Do so before you carry out the next effects."""

    record: FileRecord


@dataclass(frozen=True, slots=True)
class RemoveFile:
    """Tell a client that a file was removed from the network. The client deletes an unfinished copy."""

    session: int
    file_id: FileId


@dataclass(frozen=True, slots=True)
class VerifyFile:
    """Tell a member that it sent wrong bytes of a file. The member leaves, verifies its copy, and joins again."""

    session: int
    file_id: FileId


@dataclass(frozen=True, slots=True)
class FileEffect:
    """The base class of the effects in :data:`FileEvent`.

    Attributes:
        file_id: the id of the file.
        name: the file's name.
    """

    file_id: FileId
    name: str


@dataclass(frozen=True, slots=True)
class FileRemoved(FileEffect):
    """A file was removed from the network. The driver deletes the file's saved record."""


@dataclass(frozen=True, slots=True)
class FileDivided(FileEffect):
    """A file was divided into shares (R1).

    Attributes:
        shares: the owner's name and the range of each share, replica by replica.
        replica_count: how many replicas of each share there are.
    """

    shares: tuple[tuple[str, Range], ...]
    replica_count: int = 1


@dataclass(frozen=True, slots=True)
class FileSeeded(FileEffect):
    """Every share is held, and the server has no byte of the file (R2).

    Attributes:
        share_count: how many shares there are.
        chunk_count: how many chunks the file has.
        cached_bytes: the number of bytes of the file in the cache: always 0 (R2).
    """

    share_count: int
    chunk_count: int
    cached_bytes: int


@dataclass(frozen=True, slots=True)
class FileDeclined(FileEffect):
    """A client declined a file.

    Attributes:
        client: the client's name.
        reason: why the client cannot take the file, in one line.
    """

    client: str
    reason: str


@dataclass(frozen=True, slots=True)
class ShareReassigned(FileEffect):
    """The shares of a client that made no progress were reassigned.

    Attributes:
        client: the client's name.
    """

    client: str


@dataclass(frozen=True, slots=True)
class FileStalled(FileEffect):
    """Chunks of a file have no reachable holder.

    Attributes:
        missing: the ranges of these chunks, each with the name of its last holder; an empty name if it is unknown.
    """

    missing: tuple[tuple[Range, str], ...]


@dataclass(frozen=True, slots=True)
class FileResumed(FileEffect):
    """Every chunk of a stalled file has a reachable holder again."""


@dataclass(frozen=True, slots=True)
class FileCompleted(FileEffect):
    """Every reachable client has the file, except clients that declined it (R10).

    Attributes:
        client_count: the number of reachable clients that have the file.
    """

    client_count: int


MemberEffect = Assign | StartExchange | RemoveFile | VerifyFile | EndSession
"""Messages to a member over the control plane."""

FileEvent = (
    FileDivided | FileSeeded | FileDeclined | ShareReassigned | FileStalled | FileResumed | FileCompleted | FileRemoved
)

ServerEvent = MemberJoined | UplinkConfirmed | MemberLeft | DuplicateRefused | ReachabilityChanged | FileEvent
"""Events for the log and for watchers of the network."""

ControlEffect = MemberEffect | SaveFile | InputDropped | MemberFailed | ServerEvent
"""Effects that are not for the sockets: messages to members, changes of the ledger, and log entries."""

ServerEffect = SendDatagram | Deliver | CloseLink | ControlEffect
