"""The server's work once it knows who asks for what: hit, join or fetch, and deliver (R4, R6-R9).

Requests are *open* at first. :meth:`Relay.serve` promises as much of them as each client's window
allows: it joins what is being fetched already, delivers what is cached, and fetches the rest from a
cursor that all clients of a file share, so that they meet although the cache is small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pspd.core.cache import Cache
from pspd.core.effects import Deliver, ServerEffect
from pspd.core.fetching import Fetching
from pspd.core.manifest import CHUNK_BYTES, FileId
from pspd.core.members import Interest, Member
from pspd.core.parameters import Parameters
from pspd.core.pending import Fetch
from pspd.core.ranges import Range, RangeSet
from pspd.core.shared_file import SharedFile
from pspd.core.timers import Timers
from pspd.core.wire import (
    Frame,
    Kind,
)

CLAIM_FRACTION = 4
"""One member claims at most this fraction of the cache, or two frames: who reads slowly does not pin it all."""
SHARES_TRIED_MAX = 8
"""How many shares are looked into for a holder with room before a client has to wait."""


class Relay:
    """Moves chunks between members and the cache. Effects go to ``emit``, in order."""

    def __init__(
        self,
        parameters: Parameters,
        cache: Cache,
        fetching: Fetching,
        members: dict[str, Member],
        emit: Callable[[ServerEffect], None],
    ) -> None:
        self._parameters = parameters
        self._cache = cache
        self._fetching = fetching
        self._members = members
        self._emit = emit
        self._hungry: dict[Interest, None] = {}
        self._blocked: dict[SharedFile, dict[Interest, None]] = {}
        self._waits: Timers[FileId] = Timers()
        self._now = 0
        self._pinned: dict[tuple[int, int], tuple[Interest, Range]] = {}
        self._delivery_number = 0

    # -- time

    def next_timeout(self) -> int | None:
        """When :meth:`handle_timeout` is due."""
        deadlines = (self._fetching.next_timeout(), self._waits.next_deadline())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def handle_timeout(self, now: int) -> None:
        """Has what did not come asked for again; :meth:`serve` then sees to those who waited in vain."""
        list(self._waits.expired(now))  # whoever was held back is served anew, as after every input
        for fetch in self._fetching.handle_timeout(now):
            for interest, parts in fetch.waiters.items():
                for part in parts:
                    interest.take_back(*part)
                self._hungry[interest] = None

    # -- what clients ask

    def asked(self, interest: Interest, number: int, window_chunks: int, ranges: Iterable[tuple[int, int]]) -> None:
        """A client's newest request replaces what it asked before, except what is promised already."""
        interest.number = interest.echo = number
        interest.window_chunks = window_chunks
        interest.open.clear()
        interest.open.update(ranges)
        interest.open.difference_update(list(interest.promised))
        self._hungry[interest] = None

    def acknowledged(self, interest: Interest, number: int) -> None:
        """The client has dealt with every delivery up to this number."""
        for delivery in [delivery for delivery in interest.in_flight if delivery <= number]:
            self._settle(interest, delivery, arrived=True)

    def satisfied(self, interest: Interest) -> None:
        """The client has the whole file: it wants nothing, and whatever was on its way has arrived."""
        interest.open.clear()
        for delivery in list(interest.in_flight):
            self._settle(interest, delivery, arrived=True)

    def delivery_sent(self, session: int, number: int) -> SharedFile | None:
        """The bytes of a delivery are out of the cache. Returns whose they were; None if they were before."""
        pinned = self._unpin(session, number)
        if pinned is None:
            return None
        interest, span = pinned
        interest.file.traffic.delivered_bytes += interest.file.manifest.byte_span(*span)[1]
        return interest.file

    def delivery_ended(self, member: Member | None, session: int, number: int, *, arrived: bool) -> SharedFile | None:
        """A delivery failed, or its own connection was closed in good order. The member may be gone by now.

        Returns:
            The file whose bytes left the cache by it; None if they had before.
        """
        pinned = self._unpin(session, number)
        for interest in member.interests.values() if member else ():
            if number in interest.in_flight:
                self._settle(interest, number, arrived)
                break
        return pinned[0].file if pinned else None

    def _unpin(self, session: int, number: int) -> tuple[Interest, Range] | None:
        pinned = self._pinned.pop((session, number), None)
        if pinned is not None:
            interest, span = pinned
            self._cache.unpin(interest.file.file_id, *span)
            self._claim_ended(interest.member, span)
        return pinned

    def _claim_ended(self, member: Member, span: Range) -> None:
        """Chunks left the cache: if their claim was what held the member back, it is served anew."""
        was_held_back = member.claimed_chunks >= self._claim_chunks_max
        member.claimed_chunks -= span.chunk_count
        if was_held_back:
            for interest in member.interests.values():
                if interest.open:
                    self._hungry[interest] = None

    @property
    def _claim_chunks_max(self) -> int:
        return max(2 * self._fetching.frame_chunks, self._cache.capacity_chunks // CLAIM_FRACTION)

    def _credit_chunks(self, interest: Interest) -> int:
        """How many more chunks the client will take now, and may claim of the cache."""
        return min(
            interest.window_chunks - interest.promised.chunk_count,
            self._claim_chunks_max - interest.member.claimed_chunks,
        )

    def _settle(self, interest: Interest, number: int, arrived: bool) -> None:
        span = interest.in_flight.pop(number)
        interest.promised.discard(*span)
        if arrived:
            interest.file.hold(interest.member.name, [span])
        self._hungry[interest] = None

    def link_lost(self, member: Member) -> None:
        """The member's link is gone, and with it what was on its way. Its pins end as the driver tells."""
        for interest in member.interests.values():
            for number in list(interest.in_flight):
                self._settle(interest, number, arrived=False)
            self._hungry[interest] = None  # out of every line: nothing is fetched for whom nothing can reach
        self._fetching.link_lost(member)

    def member_lost(self, member: Member) -> None:
        """The member is gone: nobody waits for it."""
        self.link_lost(member)
        for interest in member.interests.values():
            self._hungry.pop(interest, None)
            self._unblock(interest)
            interest.open.clear()
            for fetch in interest.file.fetches:
                fetch.leave(interest)
        member.interests.clear()

    def wake(self, file: SharedFile) -> None:
        """Chunks of a file may be had that could not before: whoever asked for any is served anew."""
        for member in self._members.values():
            if (interest := member.interests.get(file.file_id)) is not None and interest.open:
                self._hungry[interest] = None

    # -- promises

    def serve(self, now: int) -> None:
        """Promises open requests as far as windows, cache and holders allow, and broadcasts for what is new.

        Whoever could not be served for want of room in the cache or in a holder's window is *blocked*: in
        line for the next room, and joined meanwhile to whatever others fetch.
        """
        self._now = now
        while self._hungry:
            interest = self._hungry.popitem()[0]
            self._unblock(interest)
            if interest.member.reachable:
                self._join_and_hit(interest)
                self._fetch_or_block(interest)
        for file in list(self._blocked):
            while (line := self._blocked.get(file)) and self._cache.reservable_chunks >= self._fetching.frame_chunks:
                first = next(iter(line))
                self._unblock(first)
                if self._fetch_or_block(first, ahead=True):
                    break
        self._fetching.ask(now)

    def _fetch_or_block(self, interest: Interest, *, ahead: bool = False) -> bool:
        """Fetches for a client; returns whether it wants more than could be fetched, and is in line for it."""
        if interest.open and self._credit_chunks(interest) > 0:
            self._fetch_from_cursor(interest)
        if self._credit_chunks(interest) <= 0 or not interest.open.common(interest.file.available):
            return False
        interest.echo = 0
        line = self._blocked.setdefault(interest.file, {})
        if ahead:
            self._blocked[interest.file] = {interest: None, **line}
        else:
            line[interest] = None
        return True

    def _unblock(self, interest: Interest) -> None:
        line = self._blocked.get(interest.file)
        if line is not None:
            line.pop(interest, None)
            if not line:
                del self._blocked[interest.file]

    def _join_and_hit(self, interest: Interest) -> None:
        file = interest.file
        for start, stop in list(interest.open):
            for cached in self._cache.cached(file.file_id, start, stop):
                part = self._creditable(interest, *cached)
                if part.chunk_count == 0:
                    return
                self._cache.hit_count += part.chunk_count
                interest.promise(*part)
                self._deliver(interest, part, interest.echo)
        for start, stop in list(interest.open):
            for fetch in file.fetches.overlapping(start, stop):
                if self._credit_chunks(interest) <= 0:
                    return
                self._join(interest, fetch)

    def _join(self, interest: Interest, fetch: Fetch) -> None:
        for start, stop in interest.open.within(fetch.start, fetch.stop):
            part = self._creditable(interest, start, stop)
            if part.chunk_count > 0:
                self._cache.join_count += part.chunk_count
                fetch.join(interest, *part)

    def _creditable(self, interest: Interest, start: int, stop: int) -> Range:
        return Range(start, min(stop, start + max(0, self._credit_chunks(interest))))

    def _fetch_from_cursor(self, interest: Interest) -> None:
        file = interest.file
        shares_tried = 0
        available = RangeSet(interest.open.common(file.available))
        for start, stop in available.cyclic_from(file.cursor):
            while start < stop and self._credit_chunks(interest) > 0:
                span, holder = self._fetching.fetchable(file, start, stop)
                if span is None:
                    shares_tried += 1
                    if shares_tried > SHARES_TRIED_MAX:
                        return
                    start = file.share_at(start).stop
                elif self._waits_for_slower(file, span):
                    return
                elif self._cache.reserve(file.file_id, *span):
                    self._start_fetch(interest, span, holder)
                    start = span.stop
                else:
                    return

    def _waits_for_slower(self, file: SharedFile, span: Range) -> bool:
        """Whether a fetch is held back for those who still want what it would evict."""
        victims = self._cache.victims(span.chunk_count)
        if not victims:
            return False
        deadline = file.courtesy.wait_until(any(self._is_wanted(*victim) for victim in victims), self._now)
        if deadline is not None:
            self._waits.set(file.file_id, deadline)
        return deadline is not None

    def _is_wanted(self, file_id: FileId, start: int, stop: int) -> bool:
        interests = (member.interests.get(file_id) for member in self._members.values())
        return any(interest.open.within(start, stop) for interest in interests if interest and interest.open)

    def _start_fetch(self, interest: Interest, span: Range, holder: Member | None) -> None:
        file = interest.file
        fetch = self._fetching.start(file, span, holder)
        file.cursor = span.stop
        self._cache.miss_count += span.chunk_count
        fetch.join(interest, *self._creditable(interest, *span))
        for other in self._blocked.get(file, ()):
            self._join(other, fetch)

    # -- deliveries

    def hand_out(self, fetch: Fetch) -> None:
        """What was fetched is cached: everyone who waits for it gets it (R9)."""
        for interest, parts in fetch.waiters.items():
            # A chunk that was asked for twice says nothing of how long an answer takes (Karn's rule).
            echo = fetch.echoes.get(interest, 0) if fetch.tries == 1 else 0
            for part in parts:
                self._deliver(interest, part, echo)
        self._cache.trim()

    def _deliver(self, interest: Interest, span: Range, echo: int) -> None:
        for start in range(span.start, span.stop, self._parameters.frame_chunks):
            self._deliver_frame(interest, Range(start, min(start + self._parameters.frame_chunks, span.stop)), echo)

    def _deliver_frame(self, interest: Interest, span: Range, echo: int) -> None:
        member, file = interest.member, interest.file
        if not member.reachable:
            interest.withdraw(*span)
            return
        self._delivery_number += 1
        number = self._delivery_number
        interest.in_flight[number] = span
        self._cache.pin(file.file_id, *span)
        self._pinned[member.session, number] = (interest, span)
        length = file.manifest.byte_span(*span)[1]
        frame = Frame(Kind.DELIVERY, member.session, file.file_id, *span, length, number, echo)
        self._emit(Deliver(member.session, number, frame, self._cache.views(file.file_id, *span, length)))

    def forget(self, file: SharedFile) -> int:
        """Makes the server forget a file (R2). Returns how many bytes of it are still being received or sent."""
        self._fetching.give_up_unwanted(file)
        return self._cache.forget(file.file_id) * CHUNK_BYTES
