"""All errors that are shown to people: one tree of classes, each with its own reason code.

Two tables map reasons to gRPC statuses and to exit codes of commands. Status names are plain strings, so that the core
can import this module without gRPC.
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
    """Why something was refused or failed. Every gRPC error carries its reason."""

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
    """The base of all errors. The text is one line: what happened, with which value, and what to do.

    Attributes:
        reason: why, for programs.
    """

    reason: ClassVar[Reason] = Reason.INTERNAL

    @property
    def exit_code(self) -> Exit:
        """The exit code of a command that fails with this error."""
        return EXIT_CODE[self.reason]

    @property
    def grpc_status(self) -> str:
        """The name of the gRPC status that carries this error."""
        return GRPC_STATUS[self.reason]


class InternalError(PspError):
    """A bug in this program."""


class BadArgument(PspError):
    """An invalid value."""

    reason = Reason.BAD_ARGUMENT


class BadName(PspError):
    """A file name that is not allowed in a client's folder."""

    reason = Reason.BAD_NAME


class NotFound(PspError):
    """There is no such file, client or context."""

    reason = Reason.NOT_FOUND


class SessionUnknown(PspError):
    """The session has ended or never existed: join again."""

    reason = Reason.SESSION_UNKNOWN


class NameTaken(PspError):
    """The name is in use."""

    reason = Reason.NAME_TAKEN


class DuplicateInstance(PspError):
    """Another machine with the same identity is connected: a client's folder was copied."""

    reason = Reason.DUPLICATE_INSTANCE


class WrongState(PspError):
    """The file or the client is not in a state for this operation."""

    reason = Reason.WRONG_STATE


class PortTaken(PspError):
    """The address to listen on is not available."""

    reason = Reason.PORT_TAKEN


class Unreachable(PspError):
    """Nothing answers at an address."""

    reason = Reason.UNREACHABLE


class NoDataPath(PspError):
    """The control API answers, but datagrams or data connections do not arrive."""

    reason = Reason.NO_DATA_PATH


class TimedOut(PspError):
    """Something did not happen in time."""

    reason = Reason.TIMED_OUT


class IntegrityError(PspError):
    """Bytes do not match their digest."""

    reason = Reason.INTEGRITY


class LimitReached(PspError):
    """A maximum is reached."""

    reason = Reason.LIMIT_REACHED


class StorageError(PspError):
    """A disk or a folder failed for one file, or for all if it is a :class:`StoreFailed`."""

    reason = Reason.STORAGE


class ContradictoryDigests(StorageError):
    """The digests of a file contradict each other: no bytes match all of them, so no retry helps."""

    reason = Reason.INTEGRITY


class StoreFailed(StorageError):
    """The store as a whole does not work: no file can be stored or contributed any more."""


def error_classes() -> dict[Reason, type[PspError]]:
    """Return every error class by its reason."""
    return {cls.reason: cls for cls in PspError.__subclasses__()}


def parse_daemon_error(exit_code: int | None, last_line: str) -> PspError | None:
    """Return the error with which a daemon has ended; None if it has ended otherwise.

    Args:
        exit_code: its exit code. Several reasons may share one; the first stands for all.
        last_line: the last line of its log, ``pspd server: error: what happened``.
    """
    _, separator, text = last_line.partition(": error: ")
    for reason, cls in error_classes().items():
        if separator and EXIT_CODE[reason] == exit_code:
            return cls(text)
    return None
