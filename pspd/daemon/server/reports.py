"""Applies the reports of members to the machine."""

from __future__ import annotations

import logging

from pspd.core.effects.client import ReportMilestone
from pspd.core.server.machine import ServerMachine
from pspd.errors import PspError, SessionUnknown
from pspd.net.driver import now_ns
from pspd.rpc.translate import Declined, Report

log = logging.getLogger(__name__)


def apply_report(machine: ServerMachine, session: int, report: Report) -> None:
    """Apply one report; an error with one file does not affect the others.

    Args:
        machine: the protocol.
        session: the member's session.
        report: its report.

    Raises:
        SessionUnknown: the session ends here, as the report is impossible.
    """
    catalogue = machine.catalogue
    try:
        match report:
            case Declined(file_id, reason, division, still_holds):
                catalogue.file_declined(session, file_id, reason, now_ns(), division=division, still_holds=still_holds)
            case ReportMilestone():
                catalogue.milestone_reached(session, report, now_ns())
    except SessionUnknown:
        raise
    except PspError as error:
        machine.report_refused(session)
        log.debug("refused a report: %s", error)
    except Exception:  # an error with one file must not affect the others
        log.exception("cannot process a report")
