"""What is on its way from the cache to those who wait for it (R4, R6, R9).

What is cached when a client asks leaves at once. What arrives is handed to all who wait for it before anything can
evict it: at once, or, where very many wait, gathered with what comes soon after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from pspd.core.cache.cache import Cache
from pspd.core.effects.server import Deliver, ServerEffect
from pspd.core.model.parameters import Parameters
from pspd.core.model.ranges import Range, RangeMap, RangeSet
from pspd.core.server.fetching import Fetching
from pspd.core.server.members import Interest, Member
from pspd.core.server.pending import Fetch
from pspd.core.server.shared_file import SharedFile
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import Kind

CLAIM_FRACTION = 4
"""One member claims at most this fraction of the cache, or two frames where that is no more than half of it: who reads
slowly does not pin it all."""
HANDING_OUT_NS_PER_DELIVERY = 200_000
"""So much work is a delivery, its client's included. What comes sooner after something was handed out, of whichever
file, is gathered until it fills a frame; where few wait, next to nothing is. Measured with 100 shares of a chunk or two
to 100 clients on two cores: with a tenth of it the exchange took five times as long. With 25 such files to 240 clients,
each in a pace of its own took nearly three times as many deliveries, and as long."""
GATHERED_FRACTION = 2
"""At most this fraction of the cache is gathered: the rest is for what is fetched meanwhile."""


class Departure(NamedTuple):
    """A delivery that is to leave."""

    interest: Interest
    span: Range
    number: int
    echo: int


@dataclass(slots=True)
class Load:
    """Deliveries out of one cached frame that leave together: what they carry is pinned once, until the last is sent.

    Attributes:
        start, stop: the frame.
        departures: the deliveries, until they leave.
        pinned: what they carry, together.
        unsent_count: how many have left and are not sent.
    """

    start: int
    stop: int
    departures: list[Departure] = field(default_factory=list)
    pinned: list[Range] = field(default_factory=list)
    unsent_count: int = 0


class Deliveries:
    """Moves chunks from the cache to members. Effects go to ``emit``, in order; see ``Relay`` for ``failed``."""

    def __init__(
        self,
        parameters: Parameters,
        cache: Cache,
        fetching: Fetching,
        emit: Callable[[ServerEffect], None],
        failed: Callable[[Member, Exception], None],
    ) -> None:
        self._failed = failed
        self._parameters = parameters
        self._cache = cache
        self._fetching = fetching
        self._emit = emit
        self._gathering: dict[SharedFile, None] = {}  # in turn
        self._next_turn_at = 0
        self._loads: dict[tuple[int, int], tuple[Interest, Range, Load]] = {}
        self._number = 0

    # -- time

    def next_timeout(self) -> int | None:
        """When :meth:`handle_timeout` is due."""
        return self._next_turn_at if self._gathering else None

    def handle_timeout(self, now: int) -> None:
        """Hands out what was gathered, the files in turn, as far as it is time."""
        while self._gathering and now >= self._next_turn_at:
            self._take_turn(next(iter(self._gathering)), now)

    def _take_turn(self, file: SharedFile, now: int) -> None:
        self._next_turn_at = now + self.hand_out(file) * HANDING_OUT_NS_PER_DELIVERY

    # -- how much a client may have on its way

    def claim_left_chunks(self, member: Member) -> int:
        """How many chunks more a member may claim of the cache."""
        capacity = self._cache.capacity_chunks
        two_frames = min(2 * self._fetching.frame_chunks, max(1, capacity // 2))
        return max(capacity // CLAIM_FRACTION, two_frames) - member.claimed_chunks

    def _credit_chunks(self, interest: Interest) -> int:
        """How many more chunks the client will take now, and may claim of the cache."""
        return min(interest.window_left_chunks, self.claim_left_chunks(interest.member))

    # -- what leaves

    def hit(self, interest: Interest) -> None:
        """Delivers what a client has open and is cached."""
        credit_chunks = self._credit_chunks(interest)
        for cached in self._cache.cached_among(interest.file.file_id, interest.open) if credit_chunks > 0 else ():
            echo = interest.echoes[-1].number if interest.echoes else 0
            for departure in self._depart(interest, cached, echo, credit_chunks):
                credit_chunks -= departure.span.chunk_count
                self._cache.count_hits(departure.span.chunk_count)
                self._deliver(interest.file, Load(*departure.span, [departure]))
            if credit_chunks <= 0:
                break

    def received(self, fetch: Fetch, now: int) -> None:
        """What was fetched is cached: everyone who waits for it gets it (R9), at once or after a little gathering."""
        file = fetch.file
        file.fresh.append(fetch)
        others_wait = len(self._gathering) > (file in self._gathering)
        is_enough = sum(each.chunk_count for each in file.fresh) >= self._gathered_chunks_max
        if not self._parameters.gathers or (is_enough and others_wait):
            self.hand_out(file)  # which is not to put off the others' turn
        elif is_enough:
            self._take_turn(file, now)
        else:
            self._gathering[file] = None
            self.handle_timeout(now)

    @property
    def _gathered_chunks_max(self) -> int:
        return min(self._parameters.frame_chunks, self._cache.capacity_chunks // GATHERED_FRACTION)

    def hand_out(self, file: SharedFile) -> int:
        """Delivers what has come since the last time to all who have it open. Returns how many deliveries those are."""
        self._gathering.pop(file, None)
        fetches, file.fresh = file.fresh, []
        # A chunk that was asked for twice says nothing of how long an answer takes (Karn's rule).
        measured = all(fetch.tries == 1 for fetch in fetches)
        order = min((fetch.order for fetch in fetches), default=0)
        runs = RangeSet((fetch.start, fetch.stop) for fetch in fetches)
        cached = self._cache.cached_among(file.file_id, runs)
        loads: RangeMap[Load] = RangeMap()
        for run in cached:
            for frame in _cut(run, self._parameters.frame_chunks):
                loads.insert(Load(*frame))
        delivered_chunks = 0
        for interest in list(file.waiting):
            try:
                delivered_chunks += self._load(interest, cached, loads, order if measured else 0)
            except Exception as error:  # the others that wait get theirs
                self._failed(interest.member, error)
        delivery_count = 0
        for load in loads:
            delivery_count += len(load.departures)
            self._deliver(file, load)
        self._cache.count_joins(max(0, delivered_chunks - runs.chunk_count))
        self._cache.trim()
        return delivery_count

    def hand_out_gathered(self) -> None:
        """Hands out all that is gathered, before it can be evicted."""
        while self._gathering:
            self.hand_out(next(iter(self._gathering)))

    def _load(self, interest: Interest, cached: RangeSet, loads: RangeMap[Load], fetch_order: int) -> int:
        """Adds what goes to one who waits to the loads that leave; ``fetch_order`` is 0 if that measures nothing.

        Returns:
            How many chunks that are.
        """
        credit_chunks = granted_chunks = self._credit_chunks(interest) if interest.member.reachable else 0
        if credit_chunks <= 0:
            return 0
        echo = interest.echo_of(fetch_order) if fetch_order else 0
        for wanted in interest.open.common(cached):
            for load in loads.overlapping(*wanted):
                span = Range(max(wanted.start, load.start), min(wanted.stop, load.stop))
                for departure in self._depart(interest, span, echo, credit_chunks):
                    credit_chunks -= departure.span.chunk_count
                    load.departures.append(departure)
            if credit_chunks <= 0:
                break
        return granted_chunks - credit_chunks

    def _depart(self, interest: Interest, span: Range, echo: int, credit_chunks: int) -> Iterator[Departure]:
        """As much of a cached range as the client has credit for, in frames; from now on it is on its way."""
        frame_chunks = min(self._parameters.frame_chunks, interest.frame_chunks)
        for part in _cut(Range(span.start, min(span.stop, span.start + credit_chunks)), frame_chunks):
            self._number += 1
            interest.depart(self._number, part)
            yield Departure(interest, part, self._number, echo)

    def _deliver(self, file: SharedFile, load: Load) -> None:
        """Sends what is on its way."""
        departures, load.departures = load.departures, []
        load.pinned = list(RangeSet(departure.span for departure in departures))
        load.unsent_count = len(departures)
        for span in load.pinned:
            self._cache.pin(file.file_id, *span)
        for interest, span, number, echo in departures:
            session = interest.member.session
            self._loads[session, number] = (interest, span, load)
            length = file.manifest.byte_span(*span)[1]
            frame = Frame(Kind.DELIVERY, session, file.file_id, *span, length, number, echo)
            self._emit(Deliver(session, number, frame, self._cache.views(file.file_id, *span, length)))

    def left(self, session: int, number: int) -> tuple[Interest, Range] | None:
        """A delivery's bytes are out of the cache, or will not be sent: nothing pins them, and its claim has ended.

        Returns:
            Whose it was and what it carried; None if it had left before.
        """
        loaded = self._loads.pop((session, number), None)
        if loaded is None:
            return None
        interest, span, load = loaded
        load.unsent_count -= 1
        if load.unsent_count == 0:
            for pinned in load.pinned:
                self._cache.unpin(interest.file.file_id, *pinned)
        interest.member.claimed_chunks -= span.chunk_count
        return interest, span


def _cut(run: Range, size: int) -> list[Range]:
    return [Range(start, min(start + size, run.stop)) for start in range(run.start, run.stop, size)]
