"""What a broadcast says (R7): ranges, and who is asked to send them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pspd.core.server.pending import Fetch
from pspd.core.wire.datagrams import EVERY_HOLDER, OWNERS, Asked


@dataclass(slots=True)
class Entry:
    """One range of a broadcast, and the fetches that it asks for."""

    asked: Asked
    fetches: list[Fetch] = field(default_factory=list)


def entries_of(fetches: Iterable[Fetch]) -> list[Entry]:
    """How to ask for fetches, in their order.

    A run of shares of which each owner is to send what is missed is one entry: in a large network shares are a
    few chunks, and naming every owner would take more datagrams than there is anything to say.
    """
    entries: list[Entry] = []
    for fetch in fetches:
        last = entries[-1] if entries else None
        if last is not None and last.asked.stop == fetch.start and _meet_at_a_border(last.fetches[-1], fetch):
            last.asked = Asked(last.asked.start, fetch.stop, OWNERS)
            last.fetches.append(fetch)
        else:
            responder = fetch.holder.session if fetch.holder else EVERY_HOLDER
            entries.append(Entry(Asked(fetch.start, fetch.stop, responder), [fetch]))
    return entries


def _meet_at_a_border(fetch: Fetch, following: Fetch) -> bool:
    """Whether two neighbours are asked of the owners of two shares, between which they meet."""
    share, next_share = (fetch.file.share_at(each.start) for each in (fetch, following))
    return (
        fetch.file.terms.replica_count == 1  # else every owner of a replica would take itself for asked
        and share.stop == following.start
        and following.stop <= next_share.stop
        and fetch.holder is not None
        and fetch.holder.name == share.owner
        and following.holder is not None
        and following.holder.name == next_share.owner
    )
