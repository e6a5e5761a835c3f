"""Translates the state of the server's state machine to messages, and compares two statuses."""

from __future__ import annotations

from dataclasses import fields

from pspd.core.cache.cache import Cache
from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import CHUNK_BYTES
from pspd.core.model.parameters import SECOND_NS
from pspd.core.model.ranges import RangeSet
from pspd.core.server.machine import ServerMachine
from pspd.core.server.sessions import Member
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.traffic import Traffic
from pspd.rpc.translate import range_to_pb
from pspd.text.addresses import address_text
from pspd.v1 import network_pb2 as pb
from pspd.v1 import status_service_pb2

HELD_RANGES_SHOWN_MAX = 256
"""The most held ranges that a file's message lists for one client."""
_COUNTERS = [field.name for field in fields(Traffic)]
"""The counters of a file's traffic; the message has fields of the same names."""


def cache_to_pb(cache: Cache) -> pb.Cache:
    """Return the state of the cache as a message."""
    return pb.Cache(
        capacity_bytes=cache.capacity_chunks * CHUNK_BYTES,
        used_bytes=cache.used_chunks * CHUNK_BYTES,
        high_water_bytes=cache.high_water_chunks * CHUNK_BYTES,
        hit_count=cache.hit_count,
        miss_count=cache.miss_count,
        join_count=cache.join_count,
        eviction_count=cache.eviction_count,
    )


def clients_to_pb(machine: ServerMachine) -> list[pb.Client]:
    """Return all members and lost clients as messages, sorted by name."""
    found = [_member_to_pb(member) for member in machine.members.values()]
    for name, address in machine.sessions.lost_clients.items():
        found.append(pb.Client(name=name, address=address_text(address), state=pb.CLIENT_STATE_LOST))
    return sorted(found, key=lambda client: client.name)


def _member_to_pb(member: Member) -> pb.Client:
    return pb.Client(
        name=member.name,
        address=address_text(member.address),
        state=pb.CLIENT_STATE_CONNECTED if member.reachable and member.address is not None else pb.CLIENT_STATE_LOST,
        srtt_ms=member.srtt_us / 1000,
        source=member.is_source,
    )


def file_to_pb(machine: ServerMachine, file: SharedFile, now: int, *, with_clients: bool) -> pb.File:
    """Return the state of a file as a message.

    Args:
        machine: the server's state machine.
        file: the file.
        now: the current time in nanoseconds.
        with_clients: whether to list the file's clients.
    """
    clients = [member.name for member in machine.members.values() if not member.is_source]
    accepting = machine.lifecycle.accepting_clients(file)
    message = pb.File(
        file_id=file.file_id,
        name=file.manifest.name,
        size_bytes=file.manifest.size_bytes,
        chunk_count=file.manifest.chunk_count,
        state=_file_state(file),
        client_count=len(accepting),
        complete_client_count=sum(name in file.recipients.complete_names for name in accepting),
        min_holder_count=file.availability.min_holder_count(),
        missing_ranges=[
            pb.MissingRange(range=range_to_pb(span), last_holder=name)
            for span, name in (file.availability.missing_ranges() if file.is_stalled else ())
        ],
        traffic=pb.Traffic(**{name: getattr(file.traffic, name) for name in _COUNTERS}),
        seeding_seconds=_seconds(file.seeding_at, file.seeded_at, now),
        exchange_seconds=_seconds(file.exchanging_at, file.completed_at, now),
        cached_bytes=machine.cache.chunks_of(file.file_id) * CHUNK_BYTES,
        cached_bytes_when_seeded=file.cached_bytes_when_seeded,
        held_back=file.held_back,
        seeded=file.seeded_at is not None,
        folder=file.manifest.is_folder,
        missing_clients=[
            pb.MissingClient(
                name=name, away_seconds=_seconds(since, None, now), given_up=now - since >= machine.sessions.lease_ns
            )
            for name, since in file.recipients.away()
        ],
        recipient_count=file.recipients.count,
    )
    if with_clients:
        unheld = set(file.shares.unheld_owners()) if file.phase is Phase.SEEDING else set()
        for name in clients:
            client = _file_client_to_pb(file, name)
            client.share_held = file.is_divided and name not in unheld
            if name in unheld:
                member = machine.members[name]
                state = machine.demand.existing_state(member, file.file_id)
                since = max(file.seeding_at or 0, member.joined_at, state.requested_at if state else 0)
                client.share_idle_seconds = (now - since) / SECOND_NS
            message.clients.append(client)
    return message


def _file_state(file: SharedFile) -> pb.FileState:
    if file.is_stalled:
        return pb.FILE_STATE_STALLED
    match file.phase:
        case Phase.ANNOUNCED | Phase.SEEDING:
            return pb.FILE_STATE_SEEDING
        case Phase.SEEDED:
            return pb.FILE_STATE_SEEDED
        case Phase.EXCHANGING | Phase.REMOVED:
            return pb.FILE_STATE_COMPLETE if file.is_complete else pb.FILE_STATE_DISTRIBUTING


def _file_client_to_pb(file: SharedFile, name: str) -> pb.FileClient:
    held = file.manifest.whole_units_of(file.availability.held.get(name) or RangeSet())
    ranges = list(held)[:HELD_RANGES_SHOWN_MAX]
    return pb.FileClient(
        name=name,
        held_chunk_count=held.chunk_count,
        complete=name in file.recipients.complete_names,
        share_chunk_count=sum(share.chunk_count for share in file.shares.ranges_of(name)),
        held_ranges=map(range_to_pb, ranges),
        refusal=file.recipients.decline_reasons.get(name, ""),
    )


def _seconds(start: int | None, stop: int | None, now: int) -> float:
    if start is None:
        return 0.0
    return ((now if stop is None else stop) - start) / SECOND_NS


def status_change(
    seen: status_service_pb2.GetStatusResponse | None, status: status_service_pb2.GetStatusResponse
) -> status_service_pb2.WatchStatusResponse | None:
    """Return the message that tells a watcher what differs in two statuses; None if nothing differs.

    Elapsed times and the server's own state are not compared. If `seen` is None, or one of its clients or files is
    gone, return the whole status.

    Args:
        seen: the previous status; None if there is none.
        status: the current status.
    """
    known_clients = {client.name: client for client in seen.clients} if seen else {}
    known_files = {file.file_id: file for file in seen.files} if seen else {}
    is_gone = known_clients.keys() - {client.name for client in status.clients} or known_files.keys() - {
        file.file_id for file in status.files
    }
    if seen is None or is_gone:
        return status_service_pb2.WatchStatusResponse(
            snapshot=True, server=status.server, cache=status.cache, clients=status.clients, files=status.files
        )
    clients = [client for client in status.clients if known_clients.get(client.name) != client]
    files = [file for file in status.files if _timeless(known_files.get(file.file_id)) != _timeless(file)]
    cache = status.cache if status.cache != seen.cache else None
    if not (clients or files or cache):
        return None
    return status_service_pb2.WatchStatusResponse(server=status.server, cache=cache, clients=clients, files=files)


def _timeless(file: pb.File | None) -> pb.File | None:
    """Return a copy of a file without the elapsed times; None if there is no file."""
    if file is None:
        return None
    timeless = pb.File()
    timeless.CopyFrom(file)
    timeless.seeding_seconds = timeless.exchange_seconds = 0
    for missing in timeless.missing_clients:
        missing.away_seconds = 0
    for client in timeless.clients:
        client.ClearField("share_idle_seconds")
    return timeless
