"""A member's reports about its files, sent in batches."""

from __future__ import annotations

import asyncio
import logging

from pspd.core.model.manifest import FileId
from pspd.errors import BadArgument, PspError, SessionUnknown
from pspd.rpc.client.member import MemberClient
from pspd.rpc.translate import Report

RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 10.0

log = logging.getLogger(__name__)


class Reports:
    """Sends a member's reports in the order in which they were made; keeps each until the server accepts or refuses it.

    Reports that are made during a call wait for the next call, so a busy server gets fewer calls. Unanswered reports
    are dropped when the next session begins, because the server then assigns every file again, and the member reports
    again.

    Args:
        name: the member's name.
        client: the client of the control API.
    """

    def __init__(self, name: str, client: MemberClient) -> None:
        self._name = name
        self._client = client
        self._waiting: list[Report] = []
        self._sending: list[Report] = []
        self._has_more = asyncio.Event()

    def add(self, report: Report) -> None:
        """Queue a report for the next call."""
        self._waiting.append(report)
        self._has_more.set()

    def forget(self, file_id: FileId) -> None:
        """Drop all reports about a file, as they are no longer true, and must not be repeated."""
        for reports in (self._waiting, self._sending):
            reports[:] = [report for report in reports if report.file_id != file_id]

    def clear(self) -> None:
        """Drop all unanswered reports, as a new session begins."""
        self._waiting.clear()
        self._sending.clear()
        self._has_more.clear()

    async def send(self, session: int) -> None:
        """Send reports until the session ends.

        Raises:
            SessionUnknown: the session has ended.
        """
        delay = RETRY_SECONDS_MIN
        while True:
            await self._has_more.wait()
            self._has_more.clear()
            self._sending, self._waiting = self._sending + self._waiting, []
            if not self._sending:
                continue
            try:
                await self._client.report(session, self._sending)
            except SessionUnknown:
                raise
            except BadArgument as error:  # the server would refuse a repetition too, which would delay later reports
                log.error("%s: the server refused reports, which are dropped: %s", self._name, error)
            except PspError as error:
                log.info("%s: cannot send reports; they will be sent again: %s", self._name, error)
                await asyncio.sleep(delay)
                delay = min(2 * delay, RETRY_SECONDS_MAX)
                self._has_more.set()
                continue
            delay = RETRY_SECONDS_MIN
            self._sending.clear()
