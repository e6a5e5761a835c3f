"""Limits the size of the requests of each method, before a request is parsed.

Parsing is expensive: two bytes on the wire may become an object of a hundred bytes. Requests without a manifest or
a long list are limited to 1 to 24 KiB. The limit of other requests is the sum of the limits of their fields.
"""

from __future__ import annotations

from pspd.core.model.manifest import BLOCK_COUNT_MAX, DIGEST_BYTES, NAME_BYTES_MAX, SHARE_COUNT_MAX
from pspd.core.server.sessions import CLIENT_NAME_CHARACTERS_MAX
from pspd.errors import LimitReached
from pspd.text.sizes import size_text

INSTANCE_ID_BYTES = 16
HELD_FILES_MAX, HELD_RANGES_MAX = 10_000, 100_000
"""The most files, and the most ranges of all files together, that a client may report as held. Each file and each
range costs the server memory and time."""
REPORTS_MAX = 1000
"""The most reports in one call. A client sends further reports with its next call."""
REPORT_REASON_CHARACTERS_MAX = 300
"""The most characters of the reason why a client declined a file. The client cuts a longer reason."""
STOP_NAMES_MAX = 1000
DIRECTORY_CHARACTERS_MAX = 4096
ADDRESS_CHARACTERS_MAX = 300
WATCH_INTERVAL_MS_MAX = 3_600_000

UTF8_BYTES_MAX = 4
"""The most bytes of one character."""
_TAG_BYTES = 6
"""The most bytes of a field's number and length, or of its number and value: a varint of 32 bits takes 5."""
_RANGE_BYTES = 3 * _TAG_BYTES
_HOLDING_BYTES = 3 * _TAG_BYTES + DIGEST_BYTES
_REPORT_BYTES = 6 * _TAG_BYTES + DIGEST_BYTES + REPORT_REASON_CHARACTERS_MAX * UTF8_BYTES_MAX
_MANIFEST_BYTES = 8 * _TAG_BYTES + NAME_BYTES_MAX + BLOCK_COUNT_MAX * DIGEST_BYTES
_CUTS_BYTES = 2 * SHARE_COUNT_MAX * DIGEST_BYTES
"""A boundary between shares adds the digests of at most two pieces of a block."""

FIXED_BYTES_MAX = 1024
"""The limit of requests without text, in bytes, with room for fields of later versions."""
TEXT_BYTES_MAX = 8 * 1024
"""The limit of requests with one short text, such as a file's name or id, in bytes."""

_MEMBERSHIP, _FILES, _CACHE, _CLIENTS, _STATUS = (
    f"/pspd.v1.{name}Service/" for name in ("Membership", "File", "Cache", "Client", "Status")
)
REQUEST_BYTES_MAX: dict[str, int] = {
    _MEMBERSHIP + "GetParameters": FIXED_BYTES_MAX,
    _MEMBERSHIP + "Join": TEXT_BYTES_MAX + HELD_FILES_MAX * _HOLDING_BYTES + HELD_RANGES_MAX * _RANGE_BYTES,
    _MEMBERSHIP + "Attend": FIXED_BYTES_MAX,
    _MEMBERSHIP + "RenewLease": FIXED_BYTES_MAX,
    _MEMBERSHIP + "ReportFiles": FIXED_BYTES_MAX + REPORTS_MAX * _REPORT_BYTES,
    _MEMBERSHIP + "Leave": FIXED_BYTES_MAX,
    _FILES + "AnnounceFile": FIXED_BYTES_MAX + _MANIFEST_BYTES,
    _FILES + "DivideFile": FIXED_BYTES_MAX + _MANIFEST_BYTES + _CUTS_BYTES,
    _FILES + "ReleaseFile": TEXT_BYTES_MAX,
    _FILES + "RemoveFile": TEXT_BYTES_MAX,
    _FILES + "ListFiles": FIXED_BYTES_MAX,
    _CACHE + "GetCache": FIXED_BYTES_MAX,
    _CACHE + "ClearCache": FIXED_BYTES_MAX,
    _CACHE + "ResizeCache": FIXED_BYTES_MAX,
    _CLIENTS + "ListClients": FIXED_BYTES_MAX,
    _CLIENTS + "LaunchClients": TEXT_BYTES_MAX + DIRECTORY_CHARACTERS_MAX * UTF8_BYTES_MAX,
    _CLIENTS + "StopClients": FIXED_BYTES_MAX
    + STOP_NAMES_MAX * (_TAG_BYTES + CLIENT_NAME_CHARACTERS_MAX * UTF8_BYTES_MAX),
    "/pspd.v1.AgentService/LaunchClients": TEXT_BYTES_MAX + DIRECTORY_CHARACTERS_MAX * UTF8_BYTES_MAX,
    _STATUS + "GetStatus": TEXT_BYTES_MAX,
    _STATUS + "WatchStatus": TEXT_BYTES_MAX,
    _STATUS + "StopServer": FIXED_BYTES_MAX,
    "/grpc.health.v1.Health/Check": FIXED_BYTES_MAX,
    "/grpc.health.v1.Health/List": FIXED_BYTES_MAX,
    "/grpc.health.v1.Health/Watch": FIXED_BYTES_MAX,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": TEXT_BYTES_MAX,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": TEXT_BYTES_MAX,
}
"""The largest request of each method, in bytes, by the method's gRPC path."""
LARGEST_REQUEST_BYTES = max(REQUEST_BYTES_MAX.values())
"""The largest request of any method, in bytes. gRPC itself enforces this limit, before the method is known."""


def validate_request_size(method: str, size_bytes: int) -> None:
    """Refuse a request that is larger than its method allows.

    Args:
        method: the method's gRPC path. The limit of an unlisted method is ``FIXED_BYTES_MAX``.
        size_bytes: the size of the request on the wire, in bytes.

    Raises:
        LimitReached: the request is too large.
    """
    most = REQUEST_BYTES_MAX.get(method, FIXED_BYTES_MAX)
    if size_bytes > most:
        name = method.rpartition("/")[2]
        raise LimitReached(
            f"this {name} request has {size_text(size_bytes)}, but at most {size_text(most)} are allowed"
        )
