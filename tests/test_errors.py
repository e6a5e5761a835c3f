"""Every reason has one class, one gRPC status and one exit code."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest

from pspd import errors
from pspd.errors import Exit, InternalError, PspError, Reason, error_classes, parse_daemon_error

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and PspError in value.__bases__]


@pytest.mark.parametrize("reason", list(Reason))
class TestReason:
    def test_reason_has_a_grpc_status_an_exit_code_and_a_class(self, reason: Reason) -> None:
        assert reason.grpc_status in grpc.StatusCode.__members__
        assert reason.exit_code is Exit(reason.exit_code)
        assert error_classes()[reason].reason is reason

    def test_reason_has_its_name_as_value(self, reason: Reason) -> None:
        assert reason.value == reason.name

    def test_error_is_a_failure_for_commands_and_grpc(self, reason: Reason) -> None:
        error = error_classes()[reason]("what happened")
        assert str(error) == "what happened"
        assert error.exit_code is reason.exit_code
        assert error.exit_code not in (Exit.OK, Exit.INTERRUPTED, Exit.TERMINATED)
        assert error.reason.grpc_status == reason.grpc_status != "OK"


class TestDaemonError:
    @pytest.mark.parametrize("reason", list(Reason))
    def test_error_keeps_its_text_and_exit_code(self, reason: Reason) -> None:
        error = parse_daemon_error(reason.exit_code, "pspd server: error: what happened: what to do")
        assert error is not None
        assert (str(error), error.exit_code) == ("what happened: what to do", reason.exit_code)

    @pytest.mark.parametrize(
        ("exit_code", "line"),
        [(1, "the disk is on fire"), (-9, "pspd server: error: what happened"), (None, ""), (0, "x: error: y")],
    )
    def test_other_end_is_none(self, exit_code: int | None, line: str) -> None:
        assert parse_daemon_error(exit_code, line) is None


class TestClasses:
    def test_each_reason_has_one_class(self) -> None:
        assert sorted(cls.reason for cls in CLASSES) == sorted(Reason)
        assert error_classes() == {cls.reason: cls for cls in CLASSES}

    def test_base_class_is_internal(self) -> None:
        assert PspError.reason is InternalError.reason is Reason.INTERNAL

    def test_exit_codes_are_the_documented_ones(self) -> None:
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


class TestProtocolPage:
    """The table of errors in ``docs/protocol.md`` agrees with the one in the code."""

    ROW = re.compile(r"^\| [^|]+ \| `([A-Z_]+)`[^|]* \| `([A-Z_]+)` \|", re.MULTILINE)
    NEVER_ON_THE_WIRE = frozenset({Reason.PORT_TAKEN, Reason.UNREACHABLE, Reason.TIMED_OUT, Reason.NO_DATA_PATH})
    """Errors that a program reports about itself, and those that ``LaunchClients`` passes on."""
    OF_CLIENTS = frozenset({Reason.INTEGRITY, Reason.STORAGE})
    """Errors that only clients have, with their files."""

    def rows(self) -> list[tuple[str, str]]:
        page = Path(__file__).resolve().parent.parent / "docs" / "protocol.md"
        section = page.read_text(encoding="utf-8").partition("## Errors and message sizes of the control API")[2]
        return self.ROW.findall(section.partition("### Message sizes")[0])

    def test_each_row_has_the_status_of_its_reason(self) -> None:
        assert len(self.rows()) >= 12
        for status, reason in self.rows():
            assert Reason[reason].grpc_status == status

    def test_each_reason_has_a_row(self) -> None:
        documented = {Reason[reason] for _, reason in self.rows()} | {Reason.INTERNAL}  # in the row of another
        assert documented | self.NEVER_ON_THE_WIRE | self.OF_CLIENTS == set(Reason)
