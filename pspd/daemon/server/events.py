"""The lines of the log for the events of the network."""

from __future__ import annotations

from pspd.core.effects import server as effects
from pspd.text.sizes import size_text


def event_text(event: effects.ServerEvent) -> str:
    """Return the line of the log for an event."""
    match event:
        case effects.ClientJoined(name):
            return f"{name} joined"
        case effects.UplinkConfirmed(name):
            return f"{name}: its first datagram arrived"
        case effects.ClientLost(name, reason):
            return f"{name} is gone: {reason}"
        case effects.DuplicateRefused(name, refused, present):
            return (
                f"{name}: refused a second client with its identity at {refused or 'an unknown address'}, as the one at"
                f" {present or 'an unknown address'} is connected: if its folder was copied, give one another --name"
            )
        case effects.ReachabilityChanged(name, reachable):
            if reachable:
                return f"{name} is reachable again"
            return f"{name} is unreachable: datagrams do not pass both ways, or its connection for data is down"
        case _:
            return f"{event.name}: {_file_event_text(event)}"


def _file_event_text(event: effects.FileEvent) -> str:
    match event:
        case effects.FileDivided(shares=shares, replica_count=replica_count):
            each = f", each for {replica_count} clients" if replica_count > 1 else ""
            return f"divided into {len(shares) // replica_count} shares{each}"
        case effects.FileSeeded(share_count=share_count, chunk_count=chunk_count, cached_bytes=cached_bytes):
            return (
                f"seeded: clients hold {share_count} disjoint shares, {chunk_count} chunks together;"
                f" {size_text(cached_bytes)} of the file remain in the server's cache"
            )
        case effects.FileDeclined(client=client, reason=reason):
            return f"{client} declined it: {reason}"
        case effects.ShareReassigned(client=client):
            return f"{client} made no progress on its share; reassigned"
        case effects.FileStalled(missing=missing):
            ranges = ", ".join(f"{span} last held by {holder or 'nobody'}" for span, holder in missing[:8])
            return f"stalled: no connected client holds {ranges}"
        case effects.FileResumed():
            return "continues: every chunk has a holder again"
        case effects.FileRemoved():
            return "removed"
        case effects.FileCompleted(client_count=client_count):
            return f"complete: {client_count} clients have it"
