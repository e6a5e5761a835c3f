"""The lines of the log for the events of the network."""

from __future__ import annotations

from pspd.core.effects.server import (
    ClientJoined,
    ClientLost,
    DuplicateRefused,
    FileCompleted,
    FileDeclined,
    FileDivided,
    FileEvent,
    FileRemoved,
    FileResumed,
    FileSeeded,
    FileStalled,
    ReachabilityChanged,
    ServerEvent,
    ShareReassigned,
    UplinkConfirmed,
)
from pspd.text.sizes import size_text


def event_text(event: ServerEvent) -> str:
    """Return the line of the log for an event."""
    match event:
        case ClientJoined(name):
            return f"{name} joined"
        case UplinkConfirmed(name):
            return f"{name}: its first datagram arrived"
        case ClientLost(name, reason):
            return f"{name} is gone: {reason}"
        case DuplicateRefused(name, refused, present):
            return (
                f"{name}: refused a second client with its identity at {refused or 'an unknown address'}, as the one at"
                f" {present or 'an unknown address'} is connected: if its folder was copied, give one another --name"
            )
        case ReachabilityChanged(name, reachable):
            if reachable:
                return f"{name} is reachable again"
            return f"{name} is unreachable: datagrams do not pass both ways, or its connection for data is down"
        case _:
            return f"{event.name}: {_file_event_text(event)}"


def _file_event_text(event: FileEvent) -> str:
    match event:
        case FileDivided(shares=shares, replica_count=replica_count):
            each = f", each for {replica_count} clients" if replica_count > 1 else ""
            return f"divided into {len(shares) // replica_count} shares{each}"
        case FileSeeded(share_count=share_count, chunk_count=chunk_count, cached_bytes=cached_bytes):
            return (
                f"seeded: clients hold {share_count} disjoint shares, {chunk_count} chunks together;"
                f" {size_text(cached_bytes)} of the file remain in the server's cache"
            )
        case FileDeclined(client=client, reason=reason):
            return f"{client} declined it: {reason}"
        case ShareReassigned(client=client):
            return f"{client} made no progress on its share; reassigned"
        case FileStalled(missing=missing):
            ranges = ", ".join(f"{span} last held by {holder or 'nobody'}" for span, holder in missing[:8])
            return f"stalled: no connected client holds {ranges}"
        case FileResumed():
            return "continues: every chunk has a holder again"
        case FileRemoved():
            return "removed"
        case FileCompleted(client_count=client_count):
            return f"complete: {client_count} clients have it"
