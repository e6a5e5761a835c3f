"""The server's work once it knows who asks for what: hit, join or fetch (R4, R6-R9).

What a client asks for is *open* until it is delivered. :meth:`Relay.serve` delivers what is cached, as far
as the client's window allows, and fetches the rest from a cursor that all clients of a file share, so that
they meet although the cache is small. Whoever has asked for what is being fetched already waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from pspd.core.cache.cache import Cache
from pspd.core.effects.server import ServerEffect
from pspd.core.model.manifest import CHUNK_BYTES, FileId
from pspd.core.model.parameters import Parameters
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.server.deliveries import Deliveries
from pspd.core.server.fetching import Fetching
from pspd.core.server.file_record import Phase
from pspd.core.server.members import Echo, Interest, Member
from pspd.core.server.pending import Fetch
from pspd.core.server.shared_file import SharedFile
from pspd.core.timing.timers import Timers, earliest

PASSED_MAX = 3
"""How many in line for room are passed by for those behind them, who may want what another holder can send."""
PASSED_ALTOGETHER_MAX = 16
"""The same for the lines of all files together, while fetches are on their way: with dozens of files, to try each line
at every input would be most of the work. The next input goes on where this one ends."""
SHARES_TRIED_MAX = 8
"""How many shares are looked into for a holder with room before a client has to wait."""


class Relay:
    """Moves chunks between members and the cache. Effects go to ``emit``, in order.

    ``failed`` is told of a member for whom something raised; the others are served all the same.
    """

    def __init__(
        self,
        parameters: Parameters,
        cache: Cache,
        fetching: Fetching,
        files: dict[FileId, SharedFile],
        emit: Callable[[ServerEffect], None],
        failed: Callable[[Member, Exception], None],
    ) -> None:
        self._cache = cache
        self._fetching = fetching
        self._deliveries = Deliveries(parameters, cache, fetching, emit, failed)
        self._failed = failed
        self._files = files
        self._hungry: dict[Interest, None] = {}
        self._blocked: dict[SharedFile, dict[Interest, None]] = {}
        self._room_in_vain: tuple[bool, int] | None = None
        self._untried_lines = 0
        self._held_back: Timers[FileId] = Timers()
        self._now = 0
        self._is_due = False

    @property
    def now(self) -> int:
        """The time of the last input, in nanoseconds."""
        return self._now

    @property
    def frame_chunks(self) -> int:
        """The most chunks that one delivery carries of what was fetched."""
        return self._fetching.frame_chunks

    # -- time

    def next_timeout(self) -> int | None:
        """When :meth:`handle_timeout` is due."""
        return earliest(self._fetching.next_timeout(), self._held_back.next_deadline(), self._deliveries.next_timeout())

    def handle_timeout(self, now: int) -> list[SharedFile]:
        """Has what did not come asked for again; :meth:`serve` then sees to those who waited in vain.

        Returns:
            The files of which fetches were given up.
        """
        list(self._held_back.expired(now))  # whoever was held back is served anew, as after every input
        self._room_in_vain = None
        self._deliveries.handle_timeout(now)
        given_up = self._fetching.handle_timeout(now)
        for file in given_up:
            self.wake(file)
        return given_up

    # -- what clients ask

    def asked(self, interest: Interest, number: int, window_chunks: int, ranges: RangeSet) -> None:
        """A client's newest request replaces what it asked before, except what is on its way already."""
        interest.number = number
        interest.window_chunks = window_chunks
        if not interest.open:  # what was asked before is on its way: its age says nothing of what comes from now on
            interest.echoes.clear()
        interest.want(ranges)
        if ranges:
            interest.echoes.append(Echo(number, self._fetching.started_count))
        self._hungry[interest] = None

    def acknowledged(self, interest: Interest, number: int) -> None:
        """The client has dealt with every delivery up to this number, of those that were not given up."""
        arrived = [delivery for delivery in interest.in_flight if delivery <= number]
        for delivery in arrived:
            self._settle(interest, delivery, arrived=True)
        if arrived:
            interest.take_turn()
        given_up = interest.given_up.pop(number, None)
        if given_up is not None and interest.file.hold(interest.member.name, [given_up]):
            self.wake(interest.file)

    def give_up(self, interest: Interest) -> None:
        """What is on its way to the client is taken for lost, and can be asked for again."""
        interest.give_up()
        self._hungry[interest] = None

    def declined(self, interest: Interest) -> None:
        """The client stores no more of the file: it wants nothing, and drops what is on its way."""
        self.give_up(interest)
        interest.want(RangeSet())

    def satisfied(self, interest: Interest) -> None:
        """The client has the whole file: it wants nothing, and whatever was on its way has arrived."""
        interest.want(RangeSet())
        for delivery in list(interest.in_flight):
            self._settle(interest, delivery, arrived=True)

    def delivery_sent(self, session: int, number: int) -> SharedFile | None:
        """The bytes of a delivery are out of the cache. Returns whose they were; None if they were before."""
        left = self._left(session, number)
        if left is None:
            return None
        interest, span = left
        interest.file.traffic.delivered_bytes += interest.file.manifest.byte_span(*span)[1]
        return interest.file

    def delivery_failed(self, member: Member | None, session: int, number: int) -> SharedFile | None:
        """A delivery will not arrive. The member may be gone by now.

        Returns:
            The file whose bytes left the cache by it; None if they had before.
        """
        left = self._left(session, number)
        for interest in member.interests.values() if member else ():
            if number in interest.in_flight:
                self._settle(interest, number, arrived=False)
                break
        return left[0].file if left else None

    def _left(self, session: int, number: int) -> tuple[Interest, Range] | None:
        """A delivery has left the cache: if its claim was what held the member back, it is served anew."""
        left = self._deliveries.left(session, number)
        if left is not None:
            interest, span = left
            claim_left_chunks = self._deliveries.claim_left_chunks(interest.member) - span.chunk_count
            for other in interest.member.interests.values():
                if other.open and other.window_left_chunks > claim_left_chunks:
                    self._hungry[other] = None
        return left

    def _settle(self, interest: Interest, number: int, arrived: bool) -> None:
        span = interest.arrived(number)
        if arrived and interest.file.hold(interest.member.name, [span]):
            self.wake(interest.file)
        self._hungry[interest] = None

    def link_lost(self, member: Member) -> None:
        """The member's link is gone, and with it what was on its way. Its pins end as the driver tells."""
        for interest in member.interests.values():
            for number, span in list(interest.in_flight.items()):
                self._settle(interest, number, arrived=False)
                if interest.file.phase is Phase.EXCHANGING:  # before, what may be served can change meanwhile
                    interest.want_again(span)  # its client may have been told to wait for it
            self._hungry[interest] = None  # out of every line: nothing is fetched for whom nothing can reach
        self._fetching.link_lost(member)

    def reached(self, member: Member) -> None:
        """The member can be sent to again, and be asked: what it asked for before is served, and who waits for it."""
        self._room_in_vain = None
        self._hungry.update(dict.fromkeys(member.interests.values()))

    def member_lost(self, member: Member) -> None:
        """The member is gone: nobody waits for it."""
        self.link_lost(member)
        for interest in member.interests.values():
            self._hungry.pop(interest, None)
            self._unblock(interest)
            interest.want(RangeSet())
        member.interests.clear()

    def wake(self, file: SharedFile) -> None:
        """Chunks of a file may be had that could not before: whoever asked for any is served anew."""
        self._room_in_vain = None
        self._hungry.update(file.waiting)

    # -- serving

    def serve_soon(self, now: int) -> None:
        """Something has changed: :meth:`serve` is due. Many inputs may come before it, and cost one look at all."""
        self._now = now
        self._is_due = True

    def serve(self) -> None:
        """Delivers what is cached, and fetches what is not, as far as windows, cache and holders allow, if it is due.

        For whom nothing could be fetched for want of room in the cache or in a holder's window is *blocked*:
        in line for the next room, and handed meanwhile whatever is fetched for others. Who asks again keeps its place.
        """
        if not self._is_due:
            return
        self._is_due = False
        while self._hungry:
            hungry, self._hungry = self._hungry, {}
            for interest in hungry:
                if interest.member.reachable and interest.open:
                    self._serve_member(interest)
                else:
                    self._unblock(interest)
        if self._blocked and not self._is_in_vain:
            self._serve_lines()
        self._fetching.ask(self._now)

    @property
    def _room(self) -> tuple[bool, int]:
        """What changes when there is room for a fetch that was not: in the cache, or in a busy holder's window."""
        return self._cache_has_room, self._fetching.ended_count

    @property
    def _cache_has_room(self) -> bool:
        return self._cache.has_room(self._fetching.frame_chunks)

    @property
    def _is_in_vain(self) -> bool:
        """Whether to try those in line would most likely be in vain, and will be done soon all the same.

        With thousands of clients that is so at nearly every input. While fetches go on, one of them will end, and the
        line is tried then; where none does, whatever comes in may be what is waited for. Who is held back waits for
        what others want, which any input may change.
        """
        is_same = self._room == self._room_in_vain and self._untried_lines == 0
        return is_same and self._fetching.next_timeout() is not None and self._held_back.next_deadline() is None

    def _serve_lines(self) -> None:
        """Serves those in line for each file, the files in turn, as far as one input is to go."""
        if self._untried_lines == 0 or self._room != self._room_in_vain:
            self._untried_lines = len(self._blocked)
        passed = 0
        for file in list(islice(self._blocked, self._untried_lines)):
            if not self._cache_has_room:  # the next room is for the files whose turn it was not
                self._untried_lines = 0
                break
            self._untried_lines -= 1
            passed += self._serve_line(file)
            if file in self._blocked:
                self._blocked[file] = self._blocked.pop(file)
            if passed >= PASSED_ALTOGETHER_MAX and self._fetching.next_timeout() is not None:
                break
        else:
            self._untried_lines = 0
        self._room_in_vain = self._room

    def _serve_line(self, file: SharedFile) -> int:
        """Serves those in line, first come, first served, but past a few whose holders have no room.

        Returns:
            How many were passed.
        """
        passed = 0
        while passed < PASSED_MAX and self._cache_has_room:
            following = next(islice(self._blocked.get(file, ()), passed, None), None)
            if following is None:
                break
            passed += self._serve_member(following)
        return passed

    def _serve_member(self, interest: Interest) -> bool:
        """As :meth:`_hit_or_fetch`; what raises costs this member its session, and nobody else a turn."""
        try:
            return self._hit_or_fetch(interest)
        except Exception as error:
            self._unblock(interest)
            self._failed(interest.member, error)
            return False

    def _hit_or_fetch(self, interest: Interest) -> bool:
        """Delivers what is cached, and fetches what is not.

        Returns:
            Whether the client wants more than could be fetched, and is in line for it.
        """
        self._deliveries.hit(interest)
        fetchable = self._fetchable(interest)
        wanted_chunks = self._wanted_chunks(interest) if fetchable else 0
        if wanted_chunks > 0:
            wanted_chunks -= self._fetch_from_cursor(interest, fetchable, wanted_chunks)
        if wanted_chunks <= 0 or not self._fetchable(interest):
            self._unblock(interest)
            return False
        interest.echoes.clear()
        self._blocked.setdefault(interest.file, {}).setdefault(interest)
        return True

    def _wanted_chunks(self, interest: Interest) -> int:
        """How many chunks more are to be fetched for a client: its credit, less what is being fetched of its wants."""
        here_chunks = interest.window_left_chunks
        claim_chunks = self._deliveries.claim_left_chunks(interest.member)
        for other in interest.member.interests.values():
            if min(here_chunks, claim_chunks) <= 0:
                return 0
            expected_chunks = other.expected_chunks
            claim_chunks -= expected_chunks
            if other is interest:
                here_chunks -= expected_chunks
        return min(here_chunks, claim_chunks)

    def _fetchable(self, interest: Interest) -> RangeSet:
        """What a client wants that somebody holds and that is not being fetched."""
        file = interest.file
        return interest.open.common(file.available).minus(file.fetching)

    def _unblock(self, interest: Interest) -> None:
        line = self._blocked.get(interest.file)
        if line is not None and interest in line:
            del line[interest]
            self._room_in_vain = None  # those behind it move up
            if not line:
                del self._blocked[interest.file]

    def _fetch_from_cursor(self, interest: Interest, fetchable: RangeSet, wanted_chunks: int) -> int:
        """Starts fetches of what a client wants, from the common cursor on. Returns how many chunks those bring it."""
        file = interest.file
        shares_tried = fetched_chunks = 0
        for start, stop in fetchable.cyclic_from(file.cursor):
            while start < stop and fetched_chunks < wanted_chunks:
                span, holder = self._fetching.fetchable(file, start, stop, interest.frame_chunks)
                if span is None:
                    shares_tried += 1
                    if shares_tried > SHARES_TRIED_MAX:
                        return fetched_chunks
                    start = file.share_at(start).stop
                elif not self._reserve(file, span):
                    return fetched_chunks
                else:
                    self._fetching.start(file, span, holder)
                    file.cursor = start = span.stop
                    fetched_chunks += span.chunk_count
        return fetched_chunks

    def _reserve(self, file: SharedFile, span: Range) -> bool:
        """Reserves room for a fetch. Returns False if there is none, or none that others could spare."""
        if not self._cache.has_room(span.chunk_count):  # asked first: with hundreds in line it is the usual answer
            return False
        return not self._waits_for_slower(file, span) and self._cache.reserve(file.file_id, *span)

    def _waits_for_slower(self, file: SharedFile, span: Range) -> bool:
        """Whether a fetch is held back for those who still want what it would evict."""
        if self._cache.victims(span.chunk_count):
            self._deliveries.hand_out_gathered()
        victims = self._cache.victims(span.chunk_count)  # those that are pinned now are none any more
        if not victims:
            return False
        wanted = any(self._files[file_id].is_wanted(start, stop) for file_id, start, stop in victims)
        deadline = file.courtesy.wait_until(wanted, self._now)
        if deadline is not None:
            self._held_back.set(file.file_id, deadline)
        return deadline is not None

    # -- what came, and what goes

    def received(self, fetch: Fetch, now: int) -> None:
        """What was fetched is cached: everyone who waits for it gets it (R9)."""
        self._deliveries.received(fetch, now)

    def forget(self, file: SharedFile, now: int) -> int:
        """Makes the server forget a file (R2). Returns how many bytes of it are still being received or sent."""
        self._deliveries.hand_out(file)
        for interest in list(file.waiting):  # every share is held: what is still open was asked before that was known
            interest.want(RangeSet())
        self._fetching.give_up_unwanted(file)
        return self._cache.forget(file.file_id) * CHUNK_BYTES
