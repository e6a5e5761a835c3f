"""Reports are sent in few calls, in order, and repeated until the server answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from pspd.core.effects.client import ReportMilestone
from pspd.core.effects.shared import Milestone
from pspd.daemon.member import reports as reports_module
from pspd.daemon.member.reports import Reports
from pspd.errors import BadArgument, PspError, SessionUnknown, TimedOut
from pspd.rpc.client.member import MemberClient
from pspd.rpc.translate import Declined, Report
from tests.support.loops import on_loop, until

SESSION = 7
FIRST, SECOND, THIRD = (ReportMilestone(bytes([number]) * 32, Milestone.COMPLETE, number) for number in range(3))
DECLINED = Declined(bytes(32), "no room")


class Server:
    """A server that answers each call when the test allows it, and fails as often as the test wants."""

    def __init__(self, *failures: PspError) -> None:
        self.calls: list[tuple[int, list[Report]]] = []
        self.answers = asyncio.Semaphore(0)
        self._failures = list(failures)

    async def report(self, session: int, reports: Sequence[Report]) -> None:
        self.calls.append((session, list(reports)))
        await self.answers.acquire()
        if self._failures:
            raise self._failures.pop(0)


def told_to(server: Server) -> Reports:
    return Reports("amy", cast("MemberClient", cast("Any", server)))


@on_loop
async def test_reports_during_a_call_go_with_the_next() -> None:
    server = Server()
    reports = told_to(server)
    telling = asyncio.ensure_future(reports.send(SESSION))
    reports.add(FIRST)
    await until("the first is sent at once", lambda: server.calls == [(SESSION, [FIRST])])
    for report in (SECOND, DECLINED, THIRD):
        reports.add(report)
    server.answers.release()
    await until("the others follow", lambda: server.calls[1:] == [(SESSION, [SECOND, DECLINED, THIRD])])
    server.answers.release()
    telling.cancel()


@pytest.mark.parametrize("error", [TimedOut("too slow"), PspError("the server said: CANCELLED")], ids=repr)
@on_loop
async def test_failed_reports_are_repeated_before_later_ones(monkeypatch: pytest.MonkeyPatch, error: PspError) -> None:
    monkeypatch.setattr(reports_module, "RETRY_SECONDS_MIN", 0.001)
    server = Server(error, error)
    reports = told_to(server)
    reports.add(FIRST)
    telling = asyncio.ensure_future(reports.send(SESSION))
    await until("it is sent", lambda: len(server.calls) == 1)
    reports.add(SECOND)
    for _ in range(3):
        server.answers.release()
    await until("it is repeated until it is answered", lambda: len(server.calls) == 3)
    assert [reports for _, reports in server.calls] == [[FIRST], [FIRST, SECOND], [FIRST, SECOND]]
    telling.cancel()


@on_loop
async def test_new_session_drops_unsent_reports() -> None:
    server = Server()
    reports = told_to(server)
    reports.add(FIRST)
    reports.clear()
    telling = asyncio.ensure_future(reports.send(SESSION))
    reports.add(SECOND)
    await until("the new one is sent", lambda: server.calls == [(SESSION, [SECOND])])
    telling.cancel()


@on_loop
async def test_unknown_session_ends_the_reports() -> None:
    server = Server(SessionUnknown("who are you?"))
    reports = told_to(server)
    reports.add(FIRST)
    server.answers.release()
    with pytest.raises(SessionUnknown):
        await reports.send(SESSION)


@on_loop
async def test_refused_report_does_not_hold_up_later_ones() -> None:
    server = Server(BadArgument("what is that?"))
    reports = told_to(server)
    reports.add(FIRST)
    telling = asyncio.ensure_future(reports.send(SESSION))
    await until("it is sent", lambda: len(server.calls) == 1)
    reports.add(SECOND)
    for _ in range(2):
        server.answers.release()
    await until("the next is sent", lambda: server.calls[1:] == [(SESSION, [SECOND])])
    telling.cancel()


@on_loop
async def test_forgotten_report_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports_module, "RETRY_SECONDS_MIN", 0.001)
    server = Server(TimedOut("too slow"))
    reports = told_to(server)
    reports.add(FIRST)
    telling = asyncio.ensure_future(reports.send(SESSION))
    await until("it is sent", lambda: len(server.calls) == 1)
    reports.add(SECOND)
    reports.add(THIRD)
    reports.forget(FIRST.file_id)
    reports.forget(THIRD.file_id)
    for _ in range(2):
        server.answers.release()
    await until("the rest is sent", lambda: server.calls[1:] == [(SESSION, [SECOND])])
    telling.cancel()
