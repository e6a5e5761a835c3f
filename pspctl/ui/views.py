"""Makes the JSON documents that commands print, from messages of the control API.

Every field is present, and integers are numbers. proto3's own JSON omits zeros, and writes 64-bit integers as strings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, TypedDict, TypeVar, cast

from pspd.v1 import network_pb2, status_service_pb2

SCHEMA_VERSION = 1
"""The version of all documents; it changes when a field is removed or gets another meaning."""

CLIENT_STATES = {
    network_pb2.CLIENT_STATE_CONNECTED: "connected",
    network_pb2.CLIENT_STATE_LOST: "lost",
}
FILE_STATES = {
    network_pb2.FILE_STATE_SEEDING: "seeding",
    network_pb2.FILE_STATE_SEEDED: "seeded",
    network_pb2.FILE_STATE_DISTRIBUTING: "distributing",
    network_pb2.FILE_STATE_STALLED: "stalled",
    network_pb2.FILE_STATE_COMPLETE: "complete",
}
UNKNOWN = "unknown"
"""The name for a state of a client or file that this version of `pspctl` does not know."""


class ServerView(TypedDict):
    """The server."""

    address: str
    version: str
    profile: str
    uptime_seconds: float
    data_port: int
    dropped_counts: dict[str, int]


class CacheView(TypedDict):
    """The server's cache (R4). Its counts are numbers of chunks; ``join_count`` counts those of aggregated requests."""

    capacity_bytes: int
    used_bytes: int
    high_water_bytes: int
    hit_count: int
    miss_count: int
    join_count: int
    eviction_count: int


class ClientView(TypedDict):
    """One client or source."""

    name: str
    address: str
    state: str
    srtt_ms: float


class MissingRangeView(TypedDict):
    """Chunks ``[start, stop)`` without a reachable holder; ``last_holder`` is empty if no earlier holder is known."""

    start: int
    stop: int
    last_holder: str


class TrafficView(TypedDict):
    """The traffic of one file."""

    request_datagrams: int
    broadcast_datagrams: int
    contributed_bytes: int
    delivered_bytes: int
    duplicate_bytes: int
    retransmit_count: int
    seeding_contributed_bytes: int
    seeding_delivered_bytes: int
    corrupt_bytes: int


class FileClientView(TypedDict):
    """One client's state for one file; ``refusal`` is the reason for declining the file, or empty.

    ``share_idle_seconds`` is the time since the latest of these: the division, the client's Join, and its last request
    for the file. It is None, except while the file is being seeded and the client does not hold its share.
    """

    name: str
    held_chunk_count: int
    share_chunk_count: int
    complete: bool
    refusal: str
    share_held: bool
    share_idle_seconds: float | None


class DurationsView(TypedDict):
    """How many seconds the seeding and the exchange took, or have taken so far."""

    seeding: float
    exchange: float


class MissingClientView(TypedDict):
    """A recipient that left, or became unreachable, before it had the file.

    ``given_up`` is true once it has been away for a full lease.
    """

    name: str
    away_seconds: float
    given_up: bool


class FileView(TypedDict):
    """One file of the network. ``rate_bytes_per_second`` and ``eta_seconds`` are None if unknown.

    ``client_count`` counts the reachable clients that have not declined the file.
    """

    file_id: str
    name: str
    folder: bool
    size_bytes: int
    chunk_count: int
    state: str
    held_back: bool
    client_count: int
    complete_client_count: int
    declined_client_count: int
    min_holder_count: int
    missing_ranges: list[MissingRangeView]
    cached_bytes: int
    cached_bytes_when_seeded: int
    seconds: DurationsView
    rate_bytes_per_second: float | None
    eta_seconds: float | None
    missing_clients: list[MissingClientView]
    recipient_count: int
    traffic: TrafficView
    clients: list[FileClientView]


class StatusView(TypedDict):
    """The answer of `pspctl status`."""

    server: ServerView
    cache: CacheView
    clients: list[ClientView]
    sources: list[ClientView]
    files: list[FileView]


class SeedView(TypedDict):
    """The answer of `pspctl seed` and `pspctl wait`."""

    file: FileView
    seconds: DurationsView
    cache: CacheView


class RunView(SeedView):
    """The answer of `pspctl run`."""

    verified_client_count: int


View = TypeVar("View")


def _view(kind: type[View], message: Any, **converted: Any) -> View:
    """Return a view of a message: each field that is not given is copied from the message's field of the same name.

    Args:
        kind: the type of the view.
        message: the protocol message.
        converted: the values of the fields that are not copied.
    """
    fields = {name: converted[name] if name in converted else getattr(message, name) for name in kind.__annotations__}
    return cast(View, fields)


def _finite(value: float) -> float:
    """Return a number that JSON can express: infinity and NaN, which no correct server sends, become 0."""
    return value if math.isfinite(value) else 0.0


def cache_view(cache: network_pb2.Cache) -> CacheView:
    """Return the view of a cache."""
    return _view(CacheView, cache)


def client_views(clients: Iterable[network_pb2.Client], *, source: bool = False) -> list[ClientView]:
    """Return the views of all clients, or of all sources.

    Args:
        clients: the clients and sources of the network.
        source: whether to return the sources instead of the clients.
    """
    return [
        {
            "name": client.name,
            "address": client.address,
            "state": CLIENT_STATES.get(client.state, UNKNOWN),
            "srtt_ms": _finite(client.srtt_ms),
        }
        for client in clients
        if client.source == source
    ]


def _file_client_view(client: network_pb2.FileClient) -> FileClientView:
    # `_view` would take twice as long, and a network may have thousands of clients.
    return {
        "name": client.name,
        "held_chunk_count": client.held_chunk_count,
        "share_chunk_count": client.share_chunk_count,
        "complete": client.complete,
        "refusal": client.refusal,
        "share_held": client.share_held,
        "share_idle_seconds": _finite(client.share_idle_seconds) if client.HasField("share_idle_seconds") else None,
    }


def file_view(file: network_pb2.File) -> FileView:
    """Return the view of a file."""
    rate = file.rate_bytes_per_second if file.HasField("rate_bytes_per_second") else math.nan
    eta = file.eta_seconds if file.HasField("eta_seconds") else math.nan
    return _view(
        FileView,
        file,
        file_id=file.file_id.hex(),
        state=FILE_STATES.get(file.state, UNKNOWN),
        declined_client_count=sum(bool(client.refusal) for client in file.clients),
        missing_ranges=[
            {"start": missing.range.start, "stop": missing.range.stop, "last_holder": missing.last_holder}
            for missing in file.missing_ranges
        ],
        seconds={"seeding": _finite(file.seeding_seconds), "exchange": _finite(file.exchange_seconds)},
        rate_bytes_per_second=round(rate) if math.isfinite(rate) else None,
        eta_seconds=round(eta, 1) if math.isfinite(eta) else None,
        missing_clients=[
            _view(MissingClientView, client, away_seconds=round(_finite(client.away_seconds), 1))
            for client in file.missing_clients
        ],
        traffic=_view(TrafficView, file.traffic),
        clients=[_file_client_view(client) for client in sorted(file.clients, key=lambda client: client.name)],
    )


def accepting_clients(file: FileView) -> list[FileClientView]:
    """Return the clients of a file, except those that declined it."""
    return [client for client in file["clients"] if not client["refusal"]]


def status_view(status: status_service_pb2.GetStatusResponse) -> StatusView:
    """Return the view of the whole network."""
    server = status.server
    return {
        "server": _view(
            ServerView,
            server,
            uptime_seconds=round(_finite(server.uptime_seconds), 3),
            dropped_counts=dict(sorted(server.dropped_counts.items())),
        ),
        "cache": cache_view(status.cache),
        "clients": client_views(status.clients),
        "sources": client_views(status.clients, source=True),
        "files": [file_view(file) for file in status.files],
    }


def seed_view(file: FileView, cache: network_pb2.Cache) -> SeedView:
    """Return the answer of `pspctl seed` and `pspctl wait`.

    Args:
        file: the view of the file.
        cache: the server's cache.
    """
    return {"file": file, "seconds": file["seconds"], "cache": cache_view(cache)}
