"""Broadcasts: their entries, receivers, pacing and retransmission (R7, R11)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pspd.core.effects.server import CloseLink
from pspd.core.effects.shared import SendDatagram
from pspd.core.model.file_record import Phase
from pspd.core.model.parameters import Parameters
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.demand import Demand
from pspd.core.server.holders import HolderSelector
from pspd.core.server.pending import Fetch, Pending
from pspd.core.server.sessions import Member, Sessions
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.work_set import WorkSet
from pspd.core.timing.pacing import Pacer
from pspd.core.timing.timers import earliest
from pspd.core.timing.window import frame_chunks_max
from pspd.core.wire import datagrams
from pspd.core.wire.datagrams import AskedRange


@dataclass(slots=True)
class Entry:
    """One range of a broadcast, and its fetches.

    Attributes:
        asked: the range, and the members that answer.
        fetches: the fetches that the entry asks for.
    """

    asked: AskedRange
    fetches: list[Fetch] = field(default_factory=list)


@dataclass(eq=False)
class Broadcasts:
    """Broadcasts fetches, one file after the other, and broadcasts a fetch again if no answer comes.

    Args:
        _parameters: the profile.
        _pending: the fetches.
        _selector: the service that finds members that can answer.
        _demand: the requests, which show whether a client still wants the chunks of a fetch.
        _sessions: the connected members.
        _work: the work set, which notes what must be done next.
        _tuning: the pacing, and the limits on the tries of a fetch.
    """

    _parameters: Parameters
    _pending: Pending
    _selector: HolderSelector
    _demand: Demand
    _sessions: Sessions
    _work: WorkSet
    _tuning: ServerTuning
    _pacer: Pacer = field(init=False)

    def __post_init__(self) -> None:
        self._pacer = Pacer(self._tuning.broadcast_pacing_ns if self._parameters.uses_batches else 0)

    def next_timeout(self) -> int | None:
        """Return when :meth:`handle_timeout` is due, in nanoseconds; None if there are no fetches."""
        return earliest(self._pending.next_timeout(), self._pacer.allowed_at if self._pending.broadcast_queue else None)

    def handle_timeout(self, now: int) -> None:
        """Handle overdue answers, and send the broadcasts that are due.

        A fetch without an answer waits longer while its holder answers earlier fetches. Otherwise it is broadcast
        again. It is abandoned instead after ``fetch_tries_max`` broadcasts, if no client wants its chunks, or if no
        reachable member holds any of them. If a contribution takes too long, the sender's link, if any, is closed.
        """
        for fetch in self._pending.expired(now):
            if fetch.sender_session is not None:
                self._work.emit(CloseLink(fetch.sender_session))
                self._pending.set_receive_timer(fetch, now)
            elif self._is_answering(fetch, now):
                self._pending.restart_timer(fetch, now)
            elif fetch.tries >= self._tuning.fetch_tries_max or not self._is_wanted_and_held(fetch):
                self._pending.abandon(fetch)
                self._work.mark_servable(fetch.file.file_id)
            else:
                if fetch.tries > 0:
                    fetch.file.traffic.count_retransmit()
                self._pending.requeue(self._prepare_retry(fetch))
        self.send(now)

    # -- sending

    def send(self, now: int) -> None:
        """Broadcast the queued fetches, file by file, as far as pacing allows."""
        if not self._pending.broadcast_queue or not self._pacer.is_allowed(now):
            return
        datagram_count = 0
        for file, fetches in self._pending.queued_by_file().items():
            if self._parameters.uses_batches and datagram_count >= self._tuning.broadcast_burst_datagrams:
                break
            entries = entries_of(self._sort_and_merge(file, fetches))
            for index in range(0, len(entries), datagrams.BROADCAST_RANGES_MAX):
                datagram_count += self._broadcast(file, entries[index : index + datagrams.BROADCAST_RANGES_MAX], now)
        self._pacer.start_pause(datagram_count, now)

    def _sort_and_merge(self, file: SharedFile, fetches: list[Fetch]) -> list[Fetch]:
        """Sort fetches by their chunks, cyclically from the first fetch on. Merge them where possible. Return them."""
        first = fetches[0].start
        fetches.sort(key=lambda fetch: (fetch.start - first) % file.manifest.chunk_count)
        merged: list[Fetch] = []
        for fetch in fetches:
            if merged and self._can_be_merged(merged[-1], fetch):
                self._pending.merge(merged[-1], fetch)
            else:
                merged.append(fetch)
        return merged

    def _can_be_merged(self, fetch: Fetch, following: Fetch) -> bool:
        """Return whether two fetches can be merged.

        They must be adjacent, name the same holder, and never have been broadcast. The merged range must fit into one
        fetch, and into one delivery to a client with the smallest window.
        """
        chunks_max = min(self._pending.fetch_chunks_max, frame_chunks_max(self._parameters.window_min_chunks))
        return (
            fetch.holder is following.holder is not None
            and fetch.stop == following.start
            and following.stop - fetch.start <= chunks_max
            and fetch.tries == following.tries == 0
        )

    def _broadcast(self, file: SharedFile, entries: list[Entry], now: int) -> int:
        """Send one broadcast to its receivers, and set the timers of its fetches. Return the number of datagrams."""
        fetches = [fetch for entry in entries for fetch in entry.fetches]
        number = self._pending.record_broadcast(fetches, now)
        body = datagrams.encode_broadcast_body(file.file_id, number, tuple(entry.asked for entry in entries))
        datagram_count = 0
        for member in self._receivers(file, fetches):
            if member.address is not None:
                datagram_count += 1
                file.traffic.count_broadcast()
                self._work.emit(SendDatagram(member.address, datagrams.encode_broadcast_head(member.session) + body))
        return datagram_count

    def _receivers(self, file: SharedFile, fetches: list[Fetch]) -> Iterable[Member]:
        """Return the receivers of a broadcast: every member (R7), but during seeding only sources and named holders.

        During seeding, broadcasting each of n shares to n clients would be most of the server's work. A broadcast still
        goes to every member if no source can send the file, or if it asks for a fetch that was broadcast at least
        ``named_tries_max`` times before.
        """
        everyone = self._sessions.members.values()
        if file.phase is not Phase.SEEDING or any(fetch.tries > self._tuning.named_tries_max for fetch in fetches):
            return everyone
        sources = self._selector.able_to_send(file.availability.sources, file, 0, file.manifest.chunk_count)
        if not sources:
            return everyone
        named = [fetch.holder for fetch in fetches if fetch.holder is not None]
        return dict.fromkeys(holder.member for holder in [*sources, *named])

    # -- no answer

    def _is_wanted_and_held(self, fetch: Fetch) -> bool:
        """Return whether a client wants a chunk of a fetch, and a reachable member holds a chunk of it."""
        start, stop = fetch.start, fetch.stop
        is_wanted = self._demand.of_file(fetch.file.file_id).is_wanted_by_any(start, stop)
        return is_wanted and fetch.file.availability.available.overlaps(start, stop)

    def _is_answering(self, fetch: Fetch, now: int) -> bool:
        """Return whether the named holder is still answering earlier fetches, which it does in order.

        The holder counts as answering while it sends a contribution, and for one timeout after a contribution began or
        ended. It does not if it has no data path, or if the latest broadcast of the fetch is presumed lost.
        """
        holder = fetch.holder
        if holder is None or fetch.is_presumed_lost or not holder.member.has_data_path:
            return False
        is_sending = any(other.sender_session == holder.member.session for other in holder.fetches)
        return is_sending or now - holder.heard_at < self._pending.timeout_ns(fetch)

    def _prepare_retry(self, fetch: Fetch) -> list[Fetch]:
        """Record the timeout of a fetch, and prepare to broadcast the fetch again.

        Name another holder, name the same one, ask every holder, or cut the fetch into units.

        Returns:
            The fetches to broadcast: the fetch itself, or a fetch for each of its units.
        """
        silent = self._pending.record_timeout(fetch)
        if silent is None:
            is_early = fetch.tries < self._tuning.named_tries_max
            return [fetch] if is_early else self._pending.cut_into_units(fetch)
        others = self._selector.able_to_answer(fetch, excluded=silent)
        is_named = bool(others) and fetch.tries < self._tuning.named_tries_max
        if is_named or (not others and self._selector.still_holds(silent, fetch)):
            self._pending.choose_holder(fetch, others or [silent])
            return [fetch]
        units = self._pending.cut_into_units(fetch)
        for unit in units if not others else ():
            self._pending.choose_holder(unit, self._selector.able_to_answer(unit))  # members may hold some of the units
        return units


def entries_of(fetches: Iterable[Fetch]) -> list[Entry]:
    """Return the entries of a broadcast that ask for fetches, in the order of the fetches.

    One entry may ask the owners of several adjacent shares. In a large network a share has few chunks, so that a
    separate entry for each owner would take many datagrams.
    """
    entries: list[Entry] = []
    for fetch in fetches:
        last = entries[-1] if entries else None
        if last is not None and last.asked.stop == fetch.start and _are_adjacent_shares(last.fetches[-1], fetch):
            last.asked = AskedRange(last.asked.start, fetch.stop, datagrams.OWNERS)
            last.fetches.append(fetch)
        else:
            responder = fetch.holder.member.session if fetch.holder else datagrams.EVERY_HOLDER
            entries.append(Entry(AskedRange(fetch.start, fetch.stop, responder), [fetch]))
    return entries


def _are_adjacent_shares(fetch: Fetch, following: Fetch) -> bool:
    """Return whether two adjacent fetches are in adjacent shares, and each names the only owner of its share."""
    share, next_share = (fetch.file.shares.at(each.start) for each in (fetch, following))
    return (
        fetch.file.terms.replica_count == 1  # with replicas, every owner of a share would answer
        and share.stop == following.start
        and following.stop <= next_share.stop
        and fetch.holder is not None
        and fetch.holder.member.name == share.owner
        and following.holder is not None
        and following.holder.member.name == next_share.owner
    )
