"""Everything that can go wrong and be told to a person: one tree, one reason code each.

Two tables live here and nowhere else: from a reason to the gRPC status that carries it, and from a
reason to the exit code with which a command ends. Status names are plain strings, so that the core
may import this module without importing gRPC.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import ClassVar


class Exit(IntEnum):
    """Exit codes of ``pspd`` and ``pspctl``, by cause."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNREACHABLE = 5
    TIMED_OUT = 6
    INTEGRITY = 7
    LIMIT = 8
    HUNG_UP = 129
    INTERRUPTED = 130
    READER_GONE = 141
    TERMINATED = 143


class Reason(StrEnum):
    """Why something was refused or failed; travels with every gRPC error."""

    INTERNAL = "INTERNAL"
    BAD_ARGUMENT = "BAD_ARGUMENT"
    BAD_NAME = "BAD_NAME"
    NOT_FOUND = "NOT_FOUND"
    SESSION_UNKNOWN = "SESSION_UNKNOWN"
    NAME_TAKEN = "NAME_TAKEN"
    DUPLICATE_INSTANCE = "DUPLICATE_INSTANCE"
    WRONG_STATE = "WRONG_STATE"
    PORT_TAKEN = "PORT_TAKEN"
    UNREACHABLE = "UNREACHABLE"
    NO_DATA_PATH = "NO_DATA_PATH"
    TIMED_OUT = "TIMED_OUT"
    INTEGRITY = "INTEGRITY"
    LIMIT_REACHED = "LIMIT_REACHED"
    STORAGE = "STORAGE"


GRPC_STATUS: dict[Reason, str] = {
    Reason.INTERNAL: "INTERNAL",
    Reason.BAD_ARGUMENT: "INVALID_ARGUMENT",
    Reason.BAD_NAME: "INVALID_ARGUMENT",
    Reason.NOT_FOUND: "NOT_FOUND",
    Reason.SESSION_UNKNOWN: "UNAUTHENTICATED",
    Reason.NAME_TAKEN: "ALREADY_EXISTS",
    Reason.DUPLICATE_INSTANCE: "ALREADY_EXISTS",
    Reason.WRONG_STATE: "FAILED_PRECONDITION",
    Reason.PORT_TAKEN: "UNAVAILABLE",
    Reason.UNREACHABLE: "UNAVAILABLE",
    Reason.NO_DATA_PATH: "UNAVAILABLE",
    Reason.TIMED_OUT: "DEADLINE_EXCEEDED",
    Reason.INTEGRITY: "DATA_LOSS",
    Reason.LIMIT_REACHED: "RESOURCE_EXHAUSTED",
    Reason.STORAGE: "INTERNAL",
}

EXIT_CODE: dict[Reason, Exit] = {
    Reason.INTERNAL: Exit.FAILED,
    Reason.BAD_ARGUMENT: Exit.USAGE,
    Reason.BAD_NAME: Exit.USAGE,
    Reason.NOT_FOUND: Exit.NOT_FOUND,
    Reason.SESSION_UNKNOWN: Exit.FAILED,
    Reason.NAME_TAKEN: Exit.CONFLICT,
    Reason.DUPLICATE_INSTANCE: Exit.CONFLICT,
    Reason.WRONG_STATE: Exit.CONFLICT,
    Reason.PORT_TAKEN: Exit.CONFLICT,
    Reason.UNREACHABLE: Exit.UNREACHABLE,
    Reason.NO_DATA_PATH: Exit.UNREACHABLE,
    Reason.TIMED_OUT: Exit.TIMED_OUT,
    Reason.INTEGRITY: Exit.INTEGRITY,
    Reason.LIMIT_REACHED: Exit.LIMIT,
    Reason.STORAGE: Exit.FAILED,
}


class PspError(Exception):
    """Base of all; its text is one line: what happened, the value, what to do.

    Attributes:
        reason: why, as a program reads it.
    """

    reason: ClassVar[Reason] = Reason.INTERNAL

    @property
    def exit_code(self) -> Exit:
        """The code with which a command ends that meets this error."""
        return EXIT_CODE[self.reason]

    @property
    def grpc_status(self) -> str:
        """The name of the gRPC status that carries this error."""
        return GRPC_STATUS[self.reason]


class InternalError(PspError):
    """We broke it."""


class BadArgument(PspError):
    """A value that nothing can be done with."""

    reason = Reason.BAD_ARGUMENT


class BadName(PspError):
    """A file name that would not stay inside a client's folder."""

    reason = Reason.BAD_NAME


class NotFound(PspError):
    """No such file, client or context."""

    reason = Reason.NOT_FOUND


class SessionUnknown(PspError):
    """The session has ended or never was: join again."""

    reason = Reason.SESSION_UNKNOWN


class NameTaken(PspError):
    """The name belongs to something else already."""

    reason = Reason.NAME_TAKEN


class DuplicateInstance(PspError):
    """Two machines have one identity, as after a client's folder was copied; the other one is connected."""

    reason = Reason.DUPLICATE_INSTANCE


class WrongState(PspError):
    """Not now: the file or the client is not in a state for it."""

    reason = Reason.WRONG_STATE


class PortTaken(PspError):
    """An address to listen on that cannot be had."""

    reason = Reason.PORT_TAKEN


class Unreachable(PspError):
    """Nobody answers there."""

    reason = Reason.UNREACHABLE


class NoDataPath(PspError):
    """The control API answers, but datagrams or connections for data do not pass."""

    reason = Reason.NO_DATA_PATH


class TimedOut(PspError):
    """It did not happen in the time allowed."""

    reason = Reason.TIMED_OUT


class IntegrityError(PspError):
    """Bytes that are not what their digest says."""

    reason = Reason.INTEGRITY


class LimitReached(PspError):
    """A named maximum is reached."""

    reason = Reason.LIMIT_REACHED


class StorageError(PspError):
    """A disk or a folder that does not do what is asked; of one file, unless it is a :class:`StoreFailed`."""

    reason = Reason.STORAGE


class ContradictoryDigests(StorageError):
    """A file whose digests are proved to contradict each other: no bytes satisfy them, so no retry helps."""

    reason = Reason.INTEGRITY


class StoreFailed(StorageError):
    """The store as a whole does not work: no file can be taken or given any more."""


def error_classes() -> dict[Reason, type[PspError]]:
    """Every error class by its reason."""
    return {cls.reason: cls for cls in PspError.__subclasses__()}


def parse_daemon_error(exit_code: int | None, last_line: str) -> PspError | None:
    """The error with which a daemon ended; None if it ended otherwise.

    Args:
        exit_code: what it ended with; several reasons may share one, and the first stands for them.
        last_line: of its log: ``pspd server: error: what happened``.
    """
    _, mark, text = last_line.partition(": error: ")
    for reason, cls in error_classes().items():
        if mark and EXIT_CODE[reason] == exit_code:
            return cls(text)
    return None
