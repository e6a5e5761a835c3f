"""Translates between messages of the control API and types of the core."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice, pairwise
from typing import Any
from urllib.parse import unquote

from pspd.core.effects import server as effects
from pspd.core.effects.client import ReportMilestone
from pspd.core.effects.shared import Milestone
from pspd.core.model.manifest import DEFAULT_MODE, DIGEST_BYTES, DigestFunction, FileId, Manifest
from pspd.core.model.parameters import Order, Parameters
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import HeldChunks
from pspd.errors import BadArgument, LimitReached
from pspd.rpc.limits import HELD_FILES_MAX, HELD_RANGES_MAX, REPORT_REASON_CHARACTERS_MAX, REPORTS_MAX
from pspd.v1 import membership_service_pb2 as membership
from pspd.v1 import network_pb2 as pb

END_REASON_CHARACTERS_MAX = 1000
"""The most characters that a member keeps of the reason why its session ended. A name and an address take up to 400."""

_ORDERS: dict[Order, Any] = {order: pb.RequestOrder.Value(f"REQUEST_ORDER_{order.name}") for order in Order}
_ORDERS_BACK: dict[int, Order] = {value: order for order, value in _ORDERS.items()}
_MILESTONES: dict[Milestone, Any] = {
    milestone: membership.FileMilestone.Value(f"FILE_MILESTONE_{milestone.name}") for milestone in Milestone
}
_MILESTONES_BACK: dict[int, Milestone] = {value: milestone for milestone, value in _MILESTONES.items()}
_CAUSES: dict[effects.EndCause, Any] = {
    cause: membership.SessionEndCause.Value(f"SESSION_END_CAUSE_{cause.name}") for cause in effects.EndCause
}
_CAUSES_BACK: dict[int, effects.EndCause] = {value: cause for cause, value in _CAUSES.items()}
_COPIED_PARAMETERS = [field.name for field in fields(Parameters) if field.name != "order"]
"""Names of the parameters whose field in the message has the same name and value."""


def peer_text(peer: str) -> str:
    """Return a peer's address, such as ``[::1]:50``, from gRPC's form ``ipv6:%5B::1%5D:50``."""
    _, _, address = unquote(peer).partition(":")
    return address


def session_ended_from_pb(session: int, message: membership.SessionEnded) -> effects.EndSession:
    """Return the end of a session from a message; a long reason is cut, and an unknown cause becomes None.

    Args:
        session: the session number of the member.
        message: the message.
    """
    return effects.EndSession(session, message.reason[:END_REASON_CHARACTERS_MAX], _CAUSES_BACK.get(message.cause))


def range_to_pb(span: Range) -> pb.ChunkRange:
    """Return a range as a message."""
    return pb.ChunkRange(start=span.start, stop=span.stop)


def ranges_from_pb(ranges: Iterable[pb.ChunkRange]) -> tuple[Range, ...]:
    """Return ranges from messages."""
    return tuple(Range(span.start, span.stop) for span in ranges)


def manifest_to_pb(manifest: Manifest) -> pb.Manifest:
    """Return a manifest as a message."""
    return pb.Manifest(
        name=manifest.name,
        size_bytes=manifest.size_bytes,
        block_digests=manifest.block_digests,
        share_count=manifest.share_count,
        cut_digests=manifest.cut_digests,
        folder=manifest.is_folder,
        mode=0 if manifest.mode == DEFAULT_MODE else manifest.mode,
    )


def manifest_from_pb(message: pb.Manifest, digest: DigestFunction) -> Manifest:
    """Return a manifest from a message.

    Args:
        message: the message.
        digest: the digest function, for the file's id.

    Raises:
        BadName: no client accepts the file's name.
        BadArgument: the manifest is malformed.
    """
    return Manifest.parse(
        message.name,
        message.size_bytes,
        message.block_digests,
        digest,
        message.share_count,
        message.cut_digests,
        is_folder=message.folder,
        mode=message.mode or DEFAULT_MODE,
    )


def parameters_to_pb(parameters: Parameters) -> pb.Parameters:
    """Return parameters as a message."""
    copied = {name: getattr(parameters, name) for name in _COPIED_PARAMETERS}
    return pb.Parameters(order=_ORDERS[parameters.order], **copied)


def parameters_from_pb(message: pb.Parameters) -> Parameters:
    """Return parameters from a message; an unknown order becomes `Order.CURSOR`."""
    copied = {name: getattr(message, name) for name in _COPIED_PARAMETERS}
    return Parameters(order=_ORDERS_BACK.get(message.order, Order.CURSOR), **copied)


def holdings_to_pb(held: Mapping[FileId, HeldChunks]) -> list[pb.Holding]:
    """Return a client's holdings as messages, complete files first, and only as many as the limits allow.

    The server treats omitted chunks as not held. The client holds them nevertheless, and does not request them.
    """
    messages, ranges_left = [], HELD_RANGES_MAX
    for file_id, known in sorted(held.items(), key=lambda item: not item[1].complete)[:HELD_FILES_MAX]:
        ranges = list(islice(known.verified, ranges_left))
        ranges_left -= len(ranges)
        messages.append(pb.Holding(file_id=file_id, ranges=map(range_to_pb, ranges), complete=known.complete))
    return messages


def holdings_from_pb(messages: Sequence[pb.Holding]) -> dict[FileId, HeldChunks]:
    """Return a client's holdings from messages, without empty ranges.

    Raises:
        BadArgument: a file id has the wrong length, or ranges are not ascending and disjoint.
        LimitReached: there are too many files or ranges.
    """
    if len(messages) > HELD_FILES_MAX:  # checked first: a message becomes an object only when it is read
        raise LimitReached(f"a client may report at most {HELD_FILES_MAX} files that it holds")
    if sum(len(message.ranges) for message in messages) > HELD_RANGES_MAX:
        raise LimitReached(f"a client may report at most {HELD_RANGES_MAX} ranges that it holds")
    if any(len(message.file_id) != DIGEST_BYTES for message in messages):
        raise BadArgument(f"a file that a client reports as held has no id of {DIGEST_BYTES} bytes")
    for message in messages:
        boundaries = [boundary for span in message.ranges for boundary in (span.start, span.stop)]
        if any(first > second for first, second in pairwise(boundaries)):
            raise BadArgument("the ranges that a client reports as held are not ascending and disjoint")
    return {
        message.file_id: HeldChunks(
            RangeSet(span for span in ranges_from_pb(message.ranges) if span.start < span.stop), message.complete
        )
        for message in messages
    }


@dataclass(frozen=True, slots=True)
class Declined:
    """A client's report that it declines a file.

    Attributes:
        file_id: the file's id.
        reason: why the client declines the file, in one line.
        division: the number of the division that the client declines; 0 if it is unknown.
        still_holds: whether the client still contributes the chunks of the file that it holds.
    """

    file_id: FileId
    reason: str
    division: int = 0
    still_holds: bool = False


Report = ReportMilestone | Declined
"""A member's report about one file."""


def report_to_pb(report: Report) -> membership.FileReport:
    """Return a report as a message; a long reason is cut."""
    match report:
        case Declined(file_id, reason, division, still_holds):
            return membership.FileReport(
                file_id=file_id,
                milestone=membership.FILE_MILESTONE_DECLINED,
                reason=reason[:REPORT_REASON_CHARACTERS_MAX].encode("utf-8", "replace").decode("utf-8"),
                division=division,
                still_holds=still_holds,
            )
        case ReportMilestone(file_id, milestone, share_chunk_count, division, request_number):
            return membership.FileReport(
                file_id=file_id,
                milestone=_MILESTONES[milestone],
                share_chunk_count=share_chunk_count,
                division=division,
                request_number=request_number,
            )


def reports_from_pb(messages: Sequence[membership.FileReport]) -> list[Report]:
    """Return reports from messages; leave out reports of unknown milestones.

    Raises:
        BadArgument: a file id has the wrong length.
        LimitReached: there are too many reports.
    """
    if len(messages) > REPORTS_MAX:
        raise LimitReached(f"one call has at most {REPORTS_MAX} reports: send the others with the next")
    if any(len(message.file_id) != DIGEST_BYTES for message in messages):
        raise BadArgument(f"a report has no file id of {DIGEST_BYTES} bytes")
    return [report for report in map(report_from_pb, messages) if report is not None]


def report_from_pb(message: membership.FileReport) -> Report | None:
    """Return a report from a message; None if its milestone is unknown."""
    if message.milestone == membership.FILE_MILESTONE_DECLINED:
        return Declined(message.file_id, message.reason, message.division, message.still_holds)
    milestone = _MILESTONES_BACK.get(message.milestone)
    return milestone and ReportMilestone(
        message.file_id, milestone, message.share_chunk_count, message.division, message.request_number
    )


STOP_ASKED = None
"""The event that asks a member to stop."""
MemberEvent = effects.MemberEffect | None
"""An event for a member: an effect, or ``STOP_ASKED``."""


def member_event_to_pb(effect: MemberEvent) -> membership.AttendResponse:
    """Return an event for a member as a message."""
    match effect:
        case effects.Assign(_, manifest, shares, exchange_started, division):
            return membership.AttendResponse(
                file_assigned=membership.FileAssigned(
                    manifest=manifest_to_pb(manifest),
                    shares=map(range_to_pb, shares),
                    exchange_started=exchange_started,
                    division=division,
                )
            )
        case effects.StartExchange(_, file_id):
            return membership.AttendResponse(exchange_started=membership.ExchangeStarted(file_id=file_id))
        case effects.VerifyFile(_, file_id):
            return membership.AttendResponse(file_suspected=membership.FileSuspected(file_id=file_id))
        case effects.RemoveFile(_, file_id):
            return membership.AttendResponse(file_removed=membership.FileRemoved(file_id=file_id))
        case effects.EndSession(_, reason, cause):
            code = membership.SESSION_END_CAUSE_UNSPECIFIED if cause is None else _CAUSES[cause]
            return membership.AttendResponse(session_ended=membership.SessionEnded(reason=reason, cause=code))
        case None:  # STOP_ASKED
            return membership.AttendResponse(stop_asked=membership.StopAsked())
