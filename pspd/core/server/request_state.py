"""The requests of one client, the demand of all clients for one file, and the budget for deferring its fetches."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from pspd.core.model.manifest import FileId
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.pending import FetchTable
from pspd.core.server.sessions import Member
from pspd.core.server.shared_file import SharedFile
from pspd.core.timing.window import frame_chunks_max

ECHOES_MAX = 16
"""The most request numbers per client and file that are remembered for deliveries to repeat."""


class Echo(NamedTuple):
    """The number of a request, which a later delivery may repeat, so that the client measures the round trip.

    Attributes:
        number: the request's number.
        started_count: how many fetches the server had started when the request arrived.
    """

    number: int
    started_count: int


@dataclass(eq=False, slots=True)
class DeferralBudget:
    """The time for which fetches of a file may still be deferred, so that chunks stay cached for slower clients.

    Clients of equal speed drift apart, because their machines schedule them differently. If the distance between two
    clients exceeds the cache, chunks must be fetched twice. Short pauses avoid that, but a slow client must not slow
    down the fast ones. So pauses use up a budget. Between pauses, the budget grows by a part of the elapsed time.

    Args:
        _tuning: the limits and the growth of the budget.
        _budget_ns: the initial budget, in nanoseconds.
    """

    _tuning: ServerTuning
    _budget_ns: int
    _counted_until: int | None = None
    _is_deferring: bool = False

    def defer_until(self, is_wanted: bool, now: int) -> int | None:
        """Update the budget, and decide whether to defer the next fetch.

        Args:
            is_wanted: whether a client that is not a straggler wants chunks that the next fetch would evict.
            now: the time, in nanoseconds.

        Returns:
            The time until which the fetch may be deferred, in nanoseconds; None to fetch now.
        """
        elapsed_ns = 0 if self._counted_until is None else now - self._counted_until
        self._counted_until = now
        if self._is_deferring:
            self._budget_ns = max(0, self._budget_ns - elapsed_ns)
        else:
            earned_ns = elapsed_ns // self._tuning.deferral_budget_divisor
            self._budget_ns = min(self._tuning.deferral_budget_ns_max, self._budget_ns + earned_ns)
        self._is_deferring = is_wanted and self._budget_ns >= self._tuning.deferral_budget_ns_min
        return now + self._budget_ns if self._is_deferring else None


@dataclass(eq=False, repr=False, slots=True)
class FileDemand:
    """The demand of all clients together for one file.

    Only ``Forwarder`` moves the cursor and uses the budget. Each ``RequestState`` adds itself to ``wanting``, removes
    itself, and increments ``ack_count``.

    Attributes:
        budget: the time for which fetches may still be deferred for slower clients.
        straggler_acks: a client is a straggler if, since its own last acknowledgement, the clients that want chunks
            have sent more than this number of acknowledgements each, on average.
        wanting: the requests that want chunks, in the order in which they began to want chunks.
        ack_count: how many requests have acknowledged deliveries in flight.
        cursor: the chunk at which the next fetch starts. All clients share it, so that one fetch serves many.
    """

    budget: DeferralBudget
    straggler_acks: int
    wanting: dict[RequestState, None] = field(default_factory=dict)
    ack_count: int = 0
    cursor: int = 0

    def is_wanted(self, start: int, stop: int) -> bool:
        """Return whether a client that is not a straggler wants a chunk of a range.

        Args:
            start: the first chunk.
            stop: one past the last chunk.
        """
        acks_max = self.straggler_acks * len(self.wanting)
        return any(
            self.ack_count - state.last_ack_count <= acks_max and state.wanted.overlaps(start, stop)
            for state in self.wanting
        )

    def is_wanted_by_any(self, start: int, stop: int) -> bool:
        """Return whether any client, stragglers included, wants a chunk of a range.

        Args:
            start: the first chunk.
            stop: one past the last chunk.
        """
        return any(state.wanted.overlaps(start, stop) for state in self.wanting)

    def move_cursor(self, cursor: int) -> None:
        """Move the cursor to a chunk."""
        self.cursor = cursor


@dataclass(eq=False, repr=False, slots=True)
class Requester:
    """The requests of one member, and how much of the member's quota is used.

    Attributes:
        member: the member.
        states: the member's request for each file, by the file's id.
        quota_used_chunks: the number of chunks in the deliveries to the member that still occupy the server's memory.
    """

    member: Member
    states: dict[FileId, RequestState] = field(default_factory=dict)
    quota_used_chunks: int = 0

    def release_quota(self, chunk_count: int) -> None:
        """Note that the buffers of a delivery with this number of chunks are released."""
        self.quota_used_chunks -= chunk_count


@dataclass(eq=False, repr=False, slots=True)
class RequestState:
    """A client's request for one file. Only ``Demand``, ``Deliveries`` and ``Forwarder`` call methods that change it.

    A chunk is *wanted* until it is sent, then *in flight* until the client acknowledges its delivery, or the delivery
    is lost or presumed lost. The window limits the chunks in flight. A delivery that is *presumed lost* may have
    arrived, so a later request may acknowledge its number.

    Args:
        _fetches: the fetches of the file.
        _presumed_lost_max: the most deliveries in ``presumed_lost``.

    Attributes:
        requester: the record of all requests of the client.
        file: the file.
        demand: the demand of all clients for the file.
        number: the highest number of an accepted request, or of a request that a report superseded.
        requested_at: when the newest request arrived, in nanoseconds; 0 before the first.
        echoes: the request numbers that deliveries may still repeat, oldest first. They are discarded when the request
            waits in a queue, because the waiting time says nothing about the network.
        window_chunks: how many chunks may be in flight.
        wanted: the chunks that the client wants and that are not in flight.
        in_flight: the range of each delivery in flight, by the number of the delivery.
        in_flight_chunks: the number of chunks in flight.
        presumed_lost: the range of each delivery presumed lost, by the number of the delivery.
        last_ack_count: the value of ``demand.ack_count`` when this client last acknowledged a delivery, or began to
            want chunks. It shows whether the client is a straggler.
    """

    requester: Requester
    file: SharedFile
    demand: FileDemand
    _fetches: FetchTable
    _presumed_lost_max: int
    number: int = 0
    requested_at: int = 0
    echoes: deque[Echo] = field(default_factory=partial(deque, maxlen=ECHOES_MAX))
    window_chunks: int = 0
    wanted: RangeSet = field(default_factory=RangeSet)
    in_flight: dict[int, Range] = field(default_factory=dict)
    in_flight_chunks: int = 0
    presumed_lost: dict[int, Range] = field(default_factory=dict)
    last_ack_count: int = 0
    _expected_chunks: int = 0
    _expected_as_of: int = -1

    # -- reading

    @property
    def member(self) -> Member:
        """The client."""
        return self.requester.member

    @property
    def delivery_chunks_max(self) -> int:
        """The most chunks in one delivery that the window allows: half of the window, but at least one."""
        return frame_chunks_max(self.window_chunks)

    @property
    def window_left_chunks(self) -> int:
        """The number of further chunks that the window allows; negative if the client has reduced the window."""
        return self.window_chunks - self.in_flight_chunks

    @property
    def expected_chunks(self) -> int:
        """The number of wanted chunks that are being fetched."""
        if self._expected_as_of != self._fetches.change_count:
            self._expected_as_of = self._fetches.change_count
            self._expected_chunks = self.wanted.intersection(self._fetches.chunks).chunk_count
        return self._expected_chunks

    @property
    def fetchable(self) -> RangeSet:
        """The wanted chunks that are not being fetched and that a reachable member holds."""
        return self.wanted.intersection(self.file.availability.available).difference(self._fetches.chunks)

    @property
    def newest_echo(self) -> int:
        """The newest request number that a delivery may repeat; 0 if there is none."""
        return self.echoes[-1].number if self.echoes else 0

    def echo_of(self, serial: int) -> int:
        """Return the number of the newest request that arrived before a fetch started; 0 if there is none.

        Older requests are no longer measured.

        Args:
            serial: the serial number of the fetch.
        """
        echoes = self.echoes
        while len(echoes) > 1 and echoes[1].started_count < serial:
            echoes.popleft()
        return echoes[0].number if echoes and echoes[0].started_count < serial else 0

    # -- requests

    def supersede(self, number: int) -> None:
        """Note that a report supersedes the requests up to a number: they are dropped if they arrive later."""
        self.number = max(self.number, number)

    def renew(self, number: int, window_chunks: int, ranges: RangeSet, started_count: int, now: int) -> None:
        """Replace the previous request by a newer one.

        Args:
            number: the number of the newer request.
            window_chunks: how many chunks may be in flight.
            ranges: the requested chunks that may be served. This object keeps the set and changes it.
            started_count: how many fetches the server has started so far.
            now: the time, in nanoseconds.
        """
        self.number, self.requested_at = number, now
        self.window_chunks = window_chunks
        if not self.wanted:  # earlier requests were served in full, so no later delivery answers them
            self.echoes.clear()
        self.want(ranges)
        if ranges:
            self.echoes.append(Echo(number, started_count))

    def discard_echoes(self) -> None:
        """Stop measuring the round trips of the requests so far, because the request waits in a queue."""
        self.echoes.clear()

    def want(self, ranges: RangeSet) -> None:
        """Replace the wanted chunks by the chunks of ``ranges`` that are not in flight. Keep this set and change it."""
        if not (self.wanted or self.in_flight):
            self.last_ack_count = self.demand.ack_count  # a client that wanted nothing is not a straggler
        self.wanted = ranges
        self.wanted.difference_update(self.in_flight.values())
        self._wanted_changed()

    def want_again(self, span: Range) -> None:
        """Add the range of a lost delivery to the wanted chunks, until the client's next request replaces them."""
        self.wanted.add(*span)
        self._wanted_changed()

    # -- deliveries

    def add_in_flight(self, number: int, span: Range) -> None:
        """Note that a delivery is sent: its chunks are now in flight, and count against the quota.

        Args:
            number: the delivery's number.
            span: the delivery's range.
        """
        self.in_flight[number] = span
        self.in_flight_chunks += span.chunk_count
        self.requester.quota_used_chunks += span.chunk_count
        self.wanted.discard(*span)
        self._wanted_changed()

    def remove_in_flight(self, number: int) -> Range:
        """Note that a delivery is no longer in flight. Return the delivery's range."""
        span = self.in_flight.pop(number)
        self.in_flight_chunks -= span.chunk_count
        return span

    def acknowledge(self, number: int, is_rest_lost: bool) -> list[Range]:
        """Remove the deliveries up to a number from those in flight, because the client has acknowledged them.

        Of the deliveries presumed lost, only the one with exactly this number counts as arrived.

        Args:
            number: the number of the latest delivery that the client has stored.
            is_rest_lost: whether to presume that the later deliveries in flight are lost.

        Returns:
            The ranges that have arrived at the client.
        """
        arrived = [self.remove_in_flight(delivery) for delivery in list(self.in_flight) if delivery <= number]
        if arrived:
            self.demand.ack_count += 1
            self.last_ack_count = self.demand.ack_count
        found = self.presumed_lost.pop(number, None)
        if found is not None:
            arrived.append(found)
        if is_rest_lost:
            self.presume_lost()
        return arrived

    def presume_lost(self) -> None:
        """Presume that every delivery in flight is lost. Remember only the newest deliveries presumed lost."""
        for number in list(self.in_flight):
            self.presumed_lost[number] = self.remove_in_flight(number)
        while len(self.presumed_lost) > self._presumed_lost_max:
            del self.presumed_lost[next(iter(self.presumed_lost))]

    def _wanted_changed(self) -> None:
        self._expected_as_of = -1
        if self.wanted:
            self.demand.wanting[self] = None
        else:
            self.demand.wanting.pop(self, None)

    def check(self) -> None:
        """Assert the invariants."""
        in_flight = RangeSet(self.in_flight.values())
        assert self.in_flight_chunks == sum(span.chunk_count for span in self.in_flight.values())
        assert not self.wanted.intersection(in_flight), f"{self.member.name} wants chunks that are in flight"
        is_wanting = self in self.demand.wanting
        assert is_wanting == bool(self.wanted), f"{self.member.name}: wants chunks or is listed as wanting"
