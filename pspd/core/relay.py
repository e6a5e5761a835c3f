"""The server's work once it knows who asks for what: hit, join or fetch, and deliver (R4, R6-R9).

Requests are *open* at first. :meth:`Relay.serve` promises as much of them as each client's window
allows: it joins what is being fetched already, delivers what is cached, and fetches the rest from a
cursor that all clients of a file share, so that they meet although the cache is small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from pspd.core.cache import Cache
from pspd.core.effects import CloseLink, Deliver, SendDatagram, ServerEffect
from pspd.core.manifest import CHUNK_BYTES, Digest, FileId
from pspd.core.members import Interest, Member
from pspd.core.parameters import MILLISECOND_NS, SECOND_NS, Parameters
from pspd.core.pending import Fetch
from pspd.core.ranges import Range
from pspd.core.rto import RttEstimator
from pspd.core.shared_file import SharedFile
from pspd.core.timers import Timers
from pspd.core.wire import (
    BROADCAST_RANGES_MAX,
    EVERY_HOLDER,
    Asked,
    DropReason,
    Frame,
    Kind,
    encode_broadcast_body,
    encode_broadcast_head,
)

NAMED_TRIES = 3
"""How often one holder is named to answer, each time another if there is one, before every holder is asked."""
FETCH_TRIES_MAX = 10
"""After so many broadcasts a fetch is given up; whoever waits for it is served anew, with other chunks first."""
REORDERING_NS_MIN = 2 * MILLISECOND_NS
"""A broadcast that a later one overtook may still be on its way: it is given this, or half a round trip."""
RECEIVE_TIMEOUT_NS = 60 * SECOND_NS
"""How long one contribution may take to come in."""
CACHE_FRACTION = 4
"""One frame takes at most this fraction of the cache, so that several are on their way at a time."""
SHARES_TRIED_MAX = 8
"""How many shares are looked into for a holder with room before a client has to wait."""


class Relay:
    """Moves chunks between members and the cache. Effects go to ``emit``, in order."""

    def __init__(
        self,
        parameters: Parameters,
        cache: Cache,
        digest: Digest,
        members: dict[str, Member],
        files: dict[FileId, SharedFile],
        emit: Callable[[ServerEffect], None],
        random: Random,
    ) -> None:
        self._parameters = parameters
        self._cache = cache
        self._digest = digest
        self._members = members
        self._files = files
        self._emit = emit
        self._random = random
        self._hungry: dict[Interest, None] = {}
        self._blocked: dict[SharedFile, dict[Interest, None]] = {}
        self._unasked: dict[SharedFile, list[Fetch]] = {}
        self._timers: Timers[Fetch] = Timers()
        self._waits: Timers[FileId] = Timers()
        self._now = 0
        self._pinned: dict[tuple[int, int], tuple[SharedFile, Range]] = {}
        self._rtt = RttEstimator()
        self._delivery_number = 0
        self._broadcast_number = 0

    # -- what clients ask

    def asked(
        self, interest: Interest, number: int, window_chunks: int, ranges: Iterable[tuple[int, int]]
    ) -> None:
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
        file, span = pinned
        file.traffic.delivered_bytes += file.manifest.byte_span(*span)[1]
        return file

    def delivery_ended(
        self, member: Member | None, session: int, number: int, *, arrived: bool
    ) -> SharedFile | None:
        """A delivery failed, or its own connection was closed in good order. The member may be gone by now.

        Returns:
            The file whose bytes left the cache by it; None if they had before.
        """
        pinned = self._unpin(session, number)
        for interest in member.interests.values() if member else ():
            if number in interest.in_flight:
                self._settle(interest, number, arrived)
                break
        return pinned[0] if pinned else None

    def _unpin(self, session: int, number: int) -> tuple[SharedFile, Range] | None:
        pinned = self._pinned.pop((session, number), None)
        if pinned is not None:
            self._cache.unpin(pinned[0].file_id, *pinned[1])
        return pinned

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
        for fetch in member.asked:
            if fetch.sender is None:
                self._timers.set(fetch, fetch.asked_at)

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
            while (line := self._blocked.get(file)) and self._cache.reservable_chunks >= self._frame_chunks:
                first = next(iter(line))
                self._unblock(first)
                if self._fetch_or_block(first, ahead=True):
                    break
        self._broadcast_all(self._unasked, now)
        self._unasked.clear()

    def _fetch_or_block(self, interest: Interest, *, ahead: bool = False) -> bool:
        """Fetches for a client; returns whether it wants more than could be fetched, and is in line for it."""
        if interest.open and interest.credit_chunks > 0:
            self._fetch_from_cursor(interest)
        if not interest.open or interest.credit_chunks <= 0:
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
                if interest.credit_chunks <= 0:
                    return
                self._join(interest, fetch)

    def _join(self, interest: Interest, fetch: Fetch) -> None:
        for start, stop in interest.open.within(fetch.start, fetch.stop):
            part = self._creditable(interest, start, stop)
            if part.chunk_count > 0:
                self._cache.join_count += part.chunk_count
                fetch.join(interest, *part)

    def _creditable(self, interest: Interest, start: int, stop: int) -> Range:
        return Range(start, min(stop, start + max(0, interest.credit_chunks)))

    def _fetch_from_cursor(self, interest: Interest) -> None:
        file = interest.file
        shares_tried = 0
        for start, stop in list(interest.open.cyclic_from(file.cursor)):
            while start < stop and interest.credit_chunks > 0:
                span, holder = self._fetchable(interest, start, stop)
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

    def _fetchable(self, interest: Interest, start: int, stop: int) -> tuple[Range | None, Member | None]:
        """The first part of an open range that can be fetched now, and the holder to name.

        None as a range: no holder of ``start`` has room, or there is none.
        """
        file, limit = interest.file, self._frame_chunks
        if self._parameters.all_holders_answer:
            available = file.available.within(start, min(stop, file.share_at(start).stop))
            if not available or available[0].start > start:
                return None, None
            return file.manifest.frame_from(*available[0], limit), None
        holder = self._choose_holder(file, start)
        if holder is None:
            return None, None
        stop = min(file.held[holder.name].within(start, stop)[0].stop, file.share_at(start).stop)
        return file.manifest.frame_from(start, stop, limit), holder

    def _choose_holder(self, file: SharedFile, chunk: int) -> Member | None:
        """Who is to send a chunk: the owner of its share if it can, else the holder who is asked least."""
        owner = self._members.get(file.share_at(chunk).owner)
        if owner is not None and self._can_send(owner, file, chunk):
            return owner
        able = [m for name in file.held if (m := self._members.get(name)) and self._can_send(m, file, chunk)]
        return min(able, key=lambda member: member.asked_chunks, default=None)

    def _can_send(self, member: Member, file: SharedFile, chunk: int) -> bool:
        held = file.held.get(member.name)
        return (
            held is not None
            and chunk in held
            and member.reachable
            and member.asked_chunks < member.window.chunks
        )

    @property
    def _frame_chunks(self) -> int:
        return min(self._parameters.frame_chunks, max(1, self._cache.capacity_chunks // CACHE_FRACTION))

    # -- fetches

    def _start_fetch(self, interest: Interest, span: Range, holder: Member | None) -> None:
        file = interest.file
        fetch = Fetch(file, *span, holder)
        file.fetches.insert(fetch)
        file.cursor = span.stop
        self._cache.miss_count += span.chunk_count
        part = self._creditable(interest, *span)
        fetch.join(interest, *part)
        for other in self._blocked.get(file, ()):
            self._join(other, fetch)
        if holder is not None:
            holder.ask(fetch)
        self._unasked.setdefault(file, []).append(fetch)

    def _broadcast_all(self, unasked: dict[SharedFile, list[Fetch]], now: int) -> None:
        for file, fetches in unasked.items():
            for index in range(0, len(fetches), BROADCAST_RANGES_MAX):
                self._broadcast(file, fetches[index : index + BROADCAST_RANGES_MAX], now)

    def _broadcast(self, file: SharedFile, fetches: list[Fetch], now: int) -> None:
        self._broadcast_number += 1
        asked = []
        for fetch in fetches:
            fetch.number = self._broadcast_number
            fetch.asked_at = now
            fetch.tries += 1
            fetch.overtaken = False
            responder = fetch.holder.session if fetch.holder else EVERY_HOLDER
            asked.append(Asked(fetch.start, fetch.stop, responder))
            self._timers.set(fetch, now + self._timeout_ns(fetch))
        body = encode_broadcast_body(file.file_id, self._broadcast_number, tuple(asked))
        for member in self._members.values():
            if member.address is not None:
                file.traffic.broadcast_datagrams += 1
                self._emit(SendDatagram(member.address, encode_broadcast_head(member.session) + body))

    def _timeout_ns(self, fetch: Fetch) -> int:
        rtt = fetch.holder.rtt if fetch.holder else self._rtt
        return rtt.timeout_ns(self._random, fetch.tries - 1)

    def next_timeout(self) -> int | None:
        """When :meth:`handle_timeout` is due."""
        deadlines = (self._timers.next_deadline(), self._waits.next_deadline())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def handle_timeout(self, now: int) -> None:
        """Asks again for what did not come (R11), first of one holder, then of all; at last gives up."""
        list(self._waits.expired(now))  # whoever was held back is served anew, as after every input
        again: dict[SharedFile, list[Fetch]] = {}
        for fetch in self._timers.expired(now):
            if fetch.sender is not None:
                self._emit(CloseLink(fetch.sender))
            elif self._is_answering(fetch, now):
                self._timers.set(fetch, now + self._timeout_ns(fetch))
            elif fetch.tries >= FETCH_TRIES_MAX or not fetch.waiters:
                self._give_up(fetch)
            else:
                fetch.file.traffic.retransmit_count += 1
                again.setdefault(fetch.file, []).extend(self._ask_otherwise(fetch, now))
        self._broadcast_all(again, now)

    def _is_answering(self, fetch: Fetch, now: int) -> bool:
        """Whether the holder named is busy with what it was asked before: it answers in that order."""
        holder = fetch.holder
        if holder is None or fetch.overtaken or not holder.reachable:
            return False
        sending = any(other.sender == holder.session for other in holder.asked)
        return sending or now - holder.heard_at < self._timeout_ns(fetch)

    def _ask_otherwise(self, fetch: Fetch, now: int) -> list[Fetch]:
        """Names a holder again, or cuts the fetch into units, which every holder has whole or not at all."""
        silent = fetch.holder
        if silent is not None:
            silent.window.timed_out()
            silent.excuse(fetch)
            others = [member for member in self._holders_of(fetch) if member is not silent]
            fetch.holder = min(others, key=lambda member: member.asked_chunks, default=silent)
            if not others or fetch.tries < NAMED_TRIES:
                fetch.holder.ask(fetch)
                return [fetch]
            fetch.holder = None
        elif fetch.tries < NAMED_TRIES:
            return [fetch]
        return self._cut_into_units(fetch)

    def _cut_into_units(self, fetch: Fetch) -> list[Fetch]:
        file = fetch.file
        file.fetches.remove(fetch)
        self._timers.cancel(fetch)
        pieces = []
        for unit, _ in file.manifest.units(fetch.start, fetch.stop):
            piece = fetch.piece(max(unit.start, fetch.start), min(unit.stop, fetch.stop))
            file.fetches.insert(piece)
            pieces.append(piece)
        return pieces

    def _holders_of(self, fetch: Fetch) -> list[Member]:
        names = [name for name, held in fetch.file.held.items() if held.covers(fetch.start, fetch.stop)]
        return [member for name in names if (member := self._members.get(name)) and member.reachable]

    def _give_up(self, fetch: Fetch) -> None:
        """Frees what a fetch had taken; those who waited are hungry again."""
        self._end(fetch)
        self._cache.release(fetch.file.file_id, fetch.start, fetch.stop)
        for interest, parts in fetch.waiters.items():
            for part in parts:
                interest.take_back(*part)
            self._hungry[interest] = None

    def _end(self, fetch: Fetch) -> None:
        self._timers.cancel(fetch)
        fetch.file.fetches.remove(fetch)
        if fetch.holder is not None:
            fetch.holder.excuse(fetch)

    # -- contributions

    def contribution_started(
        self, member: Member, file: SharedFile, frame: Frame, now: int
    ) -> list[memoryview] | DropReason:
        """A contribution's head has come. Returns where to receive its payload, or why it is to be dropped."""
        fetch = file.fetches.at(frame.start)
        exact = fetch is not None and (fetch.start, fetch.stop) == (frame.start, frame.stop)
        if fetch is None or not exact or fetch.sender is not None or fetch.tries == 0:
            file.traffic.duplicate_bytes += frame.length
            answers = 0 < frame.number <= self._broadcast_number
            return DropReason.DUPLICATE if answers else DropReason.NOT_ASKED
        if frame.number == fetch.number:
            rtt = member.rtt if fetch.holder is member else self._rtt
            rtt.sample(now - fetch.asked_at)
        self._note_overtaken(member, frame.number, now)
        fetch.sender = member.session
        self._timers.set(fetch, now + RECEIVE_TIMEOUT_NS)
        return self._cache.views(file.file_id, frame.start, frame.stop, frame.length)

    def _note_overtaken(self, member: Member, number: int, now: int) -> None:
        """A holder answers in the order in which it was asked: what it passes over was lost on the way (R11)."""
        member.heard_at = now
        for fetch in member.asked:
            if fetch.number < number and fetch.sender is None:
                fetch.overtaken = True
                self._timers.set(fetch, now + max(REORDERING_NS_MIN, member.rtt.srtt_ns // 2))

    def contribution_received(
        self, member: Member | None, file: SharedFile, frame: Frame, now: int
    ) -> DropReason | None:
        """The payload is where it was to go: verify it, cache it, deliver it to everyone who waits (R9)."""
        fetch = self._being_received(file, frame)
        if not self._is_good(file, frame):
            file.traffic.corrupt_bytes += frame.length
            if member is not None:
                file.lack(member.name, [(frame.start, frame.stop)])
            self._retry(fetch, now)
            return DropReason.CORRUPT
        self._end(fetch)
        file.traffic.contributed_bytes += frame.length
        if member is not None:
            member.heard_at = now
            member.window.delivered(fetch.chunk_count, member.rtt.min_ns, now)
        self._cache.commit(file.file_id, fetch.start, fetch.stop)
        for interest, parts in fetch.waiters.items():
            # A chunk that was asked for twice says nothing of how long an answer takes (Karn's rule).
            echo = fetch.echoes.get(interest, 0) if fetch.tries == 1 else 0
            for part in parts:
                self._deliver(interest, part, echo)
        return None

    def contribution_aborted(self, file: SharedFile, frame: Frame, now: int) -> None:
        """The rest of a contribution will not come: ask again at once."""
        self._retry(self._being_received(file, frame), now)

    def _being_received(self, file: SharedFile, frame: Frame) -> Fetch:
        fetch = file.fetches.at(frame.start)
        assert fetch is not None, "no such fetch"
        assert fetch.sender == frame.session, "the fetch is received from someone else"
        return fetch

    def _retry(self, fetch: Fetch, now: int) -> None:
        fetch.sender = None
        self._timers.set(fetch, now)

    def _is_good(self, file: SharedFile, frame: Frame) -> bool:
        """Whether every unit that lies wholly in the contribution has its digest."""
        manifest = file.manifest
        whole = manifest.whole_units(frame.start, frame.stop)
        return all(
            self._digest(self._cache.views(file.file_id, *unit, manifest.byte_span(*unit)[1])) == expected
            for unit, expected in manifest.units(*whole)
        )

    # -- deliveries

    def _deliver(self, interest: Interest, span: Range, echo: int) -> None:
        for start in range(span.start, span.stop, self._parameters.frame_chunks):
            self._deliver_frame(
                interest, Range(start, min(start + self._parameters.frame_chunks, span.stop)), echo
            )

    def _deliver_frame(self, interest: Interest, span: Range, echo: int) -> None:
        member, file = interest.member, interest.file
        if not member.reachable:
            interest.promised.discard(*span)
            return
        self._delivery_number += 1
        number = self._delivery_number
        interest.in_flight[number] = span
        self._cache.pin(file.file_id, *span)
        self._pinned[member.session, number] = (file, span)
        length = file.manifest.byte_span(*span)[1]
        frame = Frame(Kind.DELIVERY, member.session, file.file_id, *span, length, number, echo)
        self._emit(Deliver(member.session, number, frame, self._cache.views(file.file_id, *span, length)))

    def forget(self, file: SharedFile) -> int:
        """Makes the server forget a file (R2). Returns how many bytes of it are still being received or sent."""
        for fetch in list(file.fetches):
            if fetch.sender is None and not fetch.waiters:
                self._give_up(fetch)
        return self._cache.forget(file.file_id) * CHUNK_BYTES
