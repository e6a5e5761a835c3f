"""The errors that users see: a tree of classes, and the reason, gRPC status and exit code of each."""

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
    """Why an operation was refused or failed.

    Attributes:
        grpc_status: the name of the gRPC status that carries the error. It is a string, so that the core can import
            this module without gRPC.
        exit_code: the exit code of a command that fails with the error.
    """

    grpc_status: str
    exit_code: Exit

    def __new__(cls, name: str, grpc_status: str, exit_code: Exit) -> Reason:
        """Return a member whose value is its name.

        Args:
            name: the name of the member.
            grpc_status: the name of the member's gRPC status.
            exit_code: the member's exit code.
        """
        member = str.__new__(cls, name)
        member._value_, member.grpc_status, member.exit_code = name, grpc_status, exit_code
        return member

    INTERNAL = "INTERNAL", "INTERNAL", Exit.FAILED
    BAD_ARGUMENT = "BAD_ARGUMENT", "INVALID_ARGUMENT", Exit.USAGE
    BAD_NAME = "BAD_NAME", "INVALID_ARGUMENT", Exit.USAGE
    NOT_FOUND = "NOT_FOUND", "NOT_FOUND", Exit.NOT_FOUND
    SESSION_UNKNOWN = "SESSION_UNKNOWN", "UNAUTHENTICATED", Exit.FAILED
    NAME_TAKEN = "NAME_TAKEN", "ALREADY_EXISTS", Exit.CONFLICT
    DUPLICATE_INSTANCE = "DUPLICATE_INSTANCE", "ALREADY_EXISTS", Exit.CONFLICT
    WRONG_STATE = "WRONG_STATE", "FAILED_PRECONDITION", Exit.CONFLICT
    PORT_TAKEN = "PORT_TAKEN", "UNAVAILABLE", Exit.CONFLICT
    UNREACHABLE = "UNREACHABLE", "UNAVAILABLE", Exit.UNREACHABLE
    NO_DATA_PATH = "NO_DATA_PATH", "UNAVAILABLE", Exit.UNREACHABLE
    TIMED_OUT = "TIMED_OUT", "DEADLINE_EXCEEDED", Exit.TIMED_OUT
    INTEGRITY = "INTEGRITY", "DATA_LOSS", Exit.INTEGRITY
    LIMIT_REACHED = "LIMIT_REACHED", "RESOURCE_EXHAUSTED", Exit.LIMIT
    STORAGE = "STORAGE", "INTERNAL", Exit.FAILED


class PspError(Exception):
    """The base class of the errors that users see.

    The text of an error is one line: what happened, with which value, and what the user can do.

    Attributes:
        reason: the reason for the error, for programs.
    """

    reason: ClassVar[Reason] = Reason.INTERNAL

    @property
    def exit_code(self) -> Exit:
        """The exit code of a command that fails with this error."""
        return self.reason.exit_code


class InternalError(PspError):
    """A bug in this program."""


class BadArgument(PspError):
    """An invalid value."""

    reason = Reason.BAD_ARGUMENT


class BadName(PspError):
    """A file name that is not allowed in a client's folder."""

    reason = Reason.BAD_NAME


class NotFound(PspError):
    """The named file, client or context does not exist."""

    reason = Reason.NOT_FOUND


class SessionUnknown(PspError):
    """The session has ended or never existed: the member must join again."""

    reason = Reason.SESSION_UNKNOWN


class NameTaken(PspError):
    """The name is in use."""

    reason = Reason.NAME_TAKEN


class DuplicateInstance(PspError):
    """Another session with the same identity is active: a client's folder may have been copied."""

    reason = Reason.DUPLICATE_INSTANCE


class WrongState(PspError):
    """The current state, such as the state of a file or a client, does not allow this operation."""

    reason = Reason.WRONG_STATE


class PortTaken(PspError):
    """The address to listen on is not available."""

    reason = Reason.PORT_TAKEN


class Unreachable(PspError):
    """Nothing answers at an address, or a host name cannot be resolved."""

    reason = Reason.UNREACHABLE


class NoDataPath(PspError):
    """The control API answers, but datagrams or data connections do not arrive."""

    reason = Reason.NO_DATA_PATH


class TimedOut(PspError):
    """Something did not happen in time."""

    reason = Reason.TIMED_OUT


class IntegrityError(PspError):
    """Bytes do not match their digest, or are not verified."""

    reason = Reason.INTEGRITY


class LimitReached(PspError):
    """A maximum is reached."""

    reason = Reason.LIMIT_REACHED


class StorageError(PspError):
    """A disk or a folder failed."""

    reason = Reason.STORAGE


class ContradictoryDigests(StorageError):
    """The digests of a file contradict each other: no bytes match all of them, so no retry helps."""

    reason = Reason.INTEGRITY


class StoreFailed(StorageError):
    """The whole store has failed: it can neither store nor contribute files."""


def error_classes() -> dict[Reason, type[PspError]]:
    """Return the class of each reason. Only direct subclasses of :class:`PspError` are included."""
    return {cls.reason: cls for cls in PspError.__subclasses__()}


def parse_daemon_error(exit_code: int | None, last_line: str) -> PspError | None:
    """Return the error that made a daemon exit; None if the last line of its log is not an error with this exit code.

    Several reasons share an exit code: the result has the class of the first such reason.

    Args:
        exit_code: the daemon's exit code; None if the daemon has not ended.
        last_line: the last line of the daemon's log, such as ``pspd server: error: what happened``.
    """
    _, separator, text = last_line.partition(": error: ")
    for reason, cls in error_classes().items():
        if separator and reason.exit_code == exit_code:
            return cls(text)
    return None
