"""Every reason has one class, one gRPC status and one exit code."""

from __future__ import annotations

import grpc
import pytest

from pspd import errors
from pspd.errors import (
    EXIT_CODE,
    GRPC_STATUS,
    Exit,
    InternalError,
    PspError,
    Reason,
    error_classes,
    told_error,
)

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and PspError in value.__bases__]


@pytest.mark.parametrize("reason", list(Reason))
class TestReason:
    def test_is_in_both_tables_and_has_a_class(self, reason: Reason) -> None:
        assert GRPC_STATUS[reason] in grpc.StatusCode.__members__
        assert EXIT_CODE[reason] is Exit(EXIT_CODE[reason])
        assert error_classes()[reason].reason is reason

    def test_reads_on_the_wire_as_it_is_named(self, reason: Reason) -> None:
        assert reason.value == reason.name

    def test_ends_a_command_with_failure_and_is_never_ok_on_the_wire(self, reason: Reason) -> None:
        error = error_classes()[reason]("what happened")
        assert str(error) == "what happened"
        assert error.exit_code is EXIT_CODE[reason]
        assert error.exit_code not in (Exit.OK, Exit.INTERRUPTED, Exit.TERMINATED)
        assert error.grpc_status == GRPC_STATUS[reason] != "OK"


class TestTold:
    @pytest.mark.parametrize("reason", list(Reason))
    def test_an_error_of_a_daemon_keeps_its_text_and_its_code(self, reason: Reason) -> None:
        told = told_error(EXIT_CODE[reason], "pspd server: error: what happened: what to do")
        assert told is not None
        assert (str(told), told.exit_code) == ("what happened: what to do", EXIT_CODE[reason])

    @pytest.mark.parametrize(
        ("exit_code", "line"),
        [(1, "the disk is on fire"), (-9, "pspd server: error: what happened"), (None, ""), (0, "x: error: y")],
    )
    def test_another_end_is_none(self, exit_code: int | None, line: str) -> None:
        assert told_error(exit_code, line) is None


class TestTables:
    def test_hold_nothing_but_reasons(self) -> None:
        assert list(GRPC_STATUS) == list(EXIT_CODE) == list(Reason)

    def test_no_two_classes_share_a_reason(self) -> None:
        assert sorted(cls.reason for cls in CLASSES) == sorted(Reason)
        assert error_classes() == {cls.reason: cls for cls in CLASSES}

    def test_an_error_without_a_class_of_its_own_is_internal(self) -> None:
        assert PspError.reason is InternalError.reason is Reason.INTERNAL

    def test_exit_codes_are_these(self) -> None:
        assert {code.name: int(code) for code in Exit} == {
            "OK": 0,
            "FAILED": 1,
            "USAGE": 2,
            "NOT_FOUND": 3,
            "CONFLICT": 4,
            "UNREACHABLE": 5,
            "TIMED_OUT": 6,
            "INTEGRITY": 7,
            "LIMIT": 8,
            "HUNG_UP": 129,
            "INTERRUPTED": 130,
            "READER_GONE": 141,
            "TERMINATED": 143,
        }
