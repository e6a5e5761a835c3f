"""Broadcasts: what they say, who hears them, and when they are sent (R7)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pspd.core.effects.shared import SendDatagram
from pspd.core.model.file_record import Phase
from pspd.core.model.parameters import Parameters
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.fetch import Fetch
from pspd.core.server.holders import Holders
from pspd.core.server.member import Member
from pspd.core.server.pending import Pending
from pspd.core.server.sessions import Sessions
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.work_set import WorkSet
from pspd.core.timing.pacing import Pacer
from pspd.core.wire.datagrams import (
    BROADCAST_RANGES_MAX,
    EVERY_HOLDER,
    OWNERS,
    Asked,
    encode_broadcast_body,
    encode_broadcast_head,
)


@dataclass(slots=True)
class Entry:
    """One range of a broadcast, and the fetches that it asks for."""

    asked: Asked
    fetches: list[Fetch] = field(default_factory=list)


class Broadcasts:
    """Broadcasts what is to be fetched, the files in turn.

    Args:
        parameters: the profile.
        pending: what is to be asked.
        holders: who can answer.
        sessions: who is connected.
        work: takes the effects.
        tuning: the pace.
    """

    def __init__(
        self,
        parameters: Parameters,
        pending: Pending,
        holders: Holders,
        sessions: Sessions,
        work: WorkSet,
        tuning: ServerTuning,
    ) -> None:
        self._pending = pending
        self._holders = holders
        self._sessions = sessions
        self._work = work
        self._tuning = tuning
        self._pacer = Pacer(tuning.broadcast_pacing_ns if parameters.gathers else 0)
        self._burst_datagrams = tuning.broadcast_burst_datagrams if parameters.gathers else None

    def next_timeout(self) -> int | None:
        """Return when :meth:`send` is due; None if there is nothing to ask."""
        return self._pacer.next_at if self._pending.unasked else None

    def send(self, now: int) -> None:
        """Broadcast what is to be asked, unless the last broadcasts were only a moment ago."""
        if not self._pending.unasked or not self._pacer.is_allowed(now):
            return
        datagram_count = 0
        for file, fetches in self._pending.take_unasked().items():
            if self._burst_datagrams is not None and datagram_count >= self._burst_datagrams:
                break
            self._pending.asking(fetches)
            entries = entries_of(self._joined(file, fetches))
            for index in range(0, len(entries), BROADCAST_RANGES_MAX):
                datagram_count += self._broadcast(file, entries[index : index + BROADCAST_RANGES_MAX], now)
        self._pacer.spend(datagram_count, now)

    def _joined(self, file: SharedFile, fetches: list[Fetch]) -> list[Fetch]:
        """Return fetches in the order of their chunks, from the first on, those of one holder joined."""
        first = fetches[0].start
        fetches.sort(key=lambda fetch: (fetch.start - first) % file.manifest.chunk_count)
        joined: list[Fetch] = []
        for fetch in fetches:
            if joined and self._can_be_joined(joined[-1], fetch):
                self._pending.join(joined[-1], fetch)
            else:
                joined.append(fetch)
        return joined

    def _can_be_joined(self, fetch: Fetch, following: Fetch) -> bool:
        """Whether one holder is asked for both, for the first time, and one frame has room for them."""
        return (
            fetch.holder is following.holder is not None
            and fetch.stop == following.start
            and following.stop - fetch.start <= self._pending.joined_chunks_max
            and fetch.tries == following.tries == 0
        )

    def _broadcast(self, file: SharedFile, entries: list[Entry], now: int) -> int:
        """Send one broadcast. Return how many datagrams that are."""
        fetches = [fetch for entry in entries for fetch in entry.fetches]
        number = self._pending.asked(fetches, now)
        body = encode_broadcast_body(file.file_id, number, tuple(entry.asked for entry in entries))
        datagram_count = 0
        for member in self._audience(file, fetches):
            if member.address is not None:
                datagram_count += 1
                file.traffic.count_broadcast()
                self._work.emit(SendDatagram(member.address, encode_broadcast_head(member.session) + body))
        return datagram_count

    def _audience(self, file: SharedFile, fetches: list[Fetch]) -> Iterable[Member]:
        """Return who is told: every member (R7); during seeding the sources and those named, if that goes well.

        Nobody else has anything then, and to tell n clients of each of n shares would be most of seeding's work.
        """
        everyone = self._sessions.members.values()
        if file.phase is not Phase.SEEDING or any(fetch.tries > self._tuning.named_tries_max for fetch in fetches):
            return everyone
        sources = self._holders.able_to_send(file.availability.sources, file, 0, file.manifest.chunk_count)
        if not sources:
            return everyone
        named = [fetch.holder for fetch in fetches if fetch.holder is not None]
        return dict.fromkeys(holder.member for holder in [*sources, *named])


def entries_of(fetches: Iterable[Fetch]) -> list[Entry]:
    """Return how to ask for fetches, in their order.

    A run of shares that the owners are asked for is one entry: in a large network shares are a few chunks, and naming
    every owner would take more datagrams than there is anything to say.
    """
    entries: list[Entry] = []
    for fetch in fetches:
        last = entries[-1] if entries else None
        if last is not None and last.asked.stop == fetch.start and _meet_at_a_border(last.fetches[-1], fetch):
            last.asked = Asked(last.asked.start, fetch.stop, OWNERS)
            last.fetches.append(fetch)
        else:
            responder = fetch.holder.member.session if fetch.holder else EVERY_HOLDER
            entries.append(Entry(Asked(fetch.start, fetch.stop, responder), [fetch]))
    return entries


def _meet_at_a_border(fetch: Fetch, following: Fetch) -> bool:
    """Whether two neighbours are asked of the owners of two shares, between which they meet."""
    share, next_share = (fetch.file.shares.at(each.start) for each in (fetch, following))
    return (
        fetch.file.terms.replica_count == 1  # else every owner of a replica would take itself for asked
        and share.stop == following.start
        and following.stop <= next_share.stop
        and fetch.holder is not None
        and fetch.holder.member.name == share.owner
        and following.holder is not None
        and following.holder.member.name == next_share.owner
    )
