"""What a member has to say of its files: gathered, and said in as few calls as the server's pace asks for."""

from __future__ import annotations

import asyncio
import logging

from pspd.core.model.manifest import FileId
from pspd.errors import BadArgument, PspError, SessionUnknown
from pspd.rpc.client.member import MemberClient
from pspd.rpc.translate import Report

AGAIN_SECONDS_MIN = 0.1
AGAIN_SECONDS_MAX = 10.0

log = logging.getLogger(__name__)


class Reports:
    """Reports in the order in which they came up, each kept until the server has heard it.

    While the server answers one call, what comes up gathers for the next one: a busy server gets fewer calls, not more
    to do. A session ends with what it did not get said, as the next one begins with all that is held.

    Args:
        name: the member's name.
    """

    def __init__(self, name: str, client: MemberClient) -> None:
        self._name = name
        self._client = client
        self._waiting: list[Report] = []
        self._being_said: list[Report] = []
        self._news = asyncio.Event()

    def add(self, report: Report) -> None:
        """Has something said."""
        self._waiting.append(report)
        self._news.set()

    def forget(self, file_id: FileId) -> None:
        """What was to be said of a file is not true any more: say it neither now nor again."""
        for reports in (self._waiting, self._being_said):
            reports[:] = [report for report in reports if report.file_id != file_id]

    def clear(self) -> None:
        """Forgets what is not said yet: a session begins."""
        self._waiting.clear()
        self._being_said.clear()
        self._news.clear()

    async def tell(self, session: int) -> None:
        """Says what there is to say, for as long as the session lasts.

        Raises:
            SessionUnknown: it does not any more.
        """
        delay = AGAIN_SECONDS_MIN
        while True:
            await self._news.wait()
            self._news.clear()
            self._being_said, self._waiting = self._being_said + self._waiting, []
            if not self._being_said:
                continue
            try:
                await self._client.report(session, self._being_said)
            except SessionUnknown:
                raise
            except BadArgument as error:  # it would be refused again, and keep what comes later from being heard
                log.error("%s: a report was refused: %s", self._name, error)
            except PspError as error:
                log.info("%s: a report failed, and will be repeated: %s", self._name, error)
                await asyncio.sleep(delay)
                delay = min(2 * delay, AGAIN_SECONDS_MAX)
                self._news.set()
                continue
            delay = AGAIN_SECONDS_MIN
            self._being_said.clear()
