"""What one client has asked for, and what became of it."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from pspd.core.model.manifest import FileId
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.tuning import ServerTuning
from pspd.core.server.fetch import FetchTable
from pspd.core.server.member import Member
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.straggler_budget import StragglerBudget
from pspd.core.timing.window import frame_chunks_in

ECHOES_MAX = 16
"""How many requests may wait for the delivery that measures their round trip."""


class Echo(NamedTuple):
    """A request whose round trip is to be measured: by a delivery of what was fetched after it came.

    Attributes:
        number: the request's.
        fetch_order: how many fetches had been started when it came.
    """

    number: int
    fetch_order: int


class FileDemand:
    """What all clients together want of one file. ``Demand`` alone calls the methods that change it.

    Attributes:
        waiting: the requests that are not satisfied, in order.
        ack_count: how many requests have acknowledged deliveries.
        cursor: the chunk after the last new fetch; requests that follow it meet.
        budget: how long fetches may be stalled for stragglers.
    """

    __slots__ = ("ack_count", "budget", "cursor", "straggler_rounds", "waiting")

    def __init__(self, tuning: ServerTuning) -> None:
        self.waiting: dict[RequestState, None] = {}
        self.ack_count = 0
        self.cursor = 0
        self.budget = StragglerBudget(tuning)
        self.straggler_rounds = tuning.straggler_rounds

    def is_wanted(self, start: int, stop: int) -> bool:
        """Return whether a client that is no straggler waits for some of a range.

        Args:
            start: the first chunk.
            stop: one past the last chunk.
        """
        rounds = self.straggler_rounds * len(self.waiting)
        return any(
            self.ack_count - state.ack_round <= rounds and state.wanted.overlaps(start, stop) for state in self.waiting
        )

    def is_wanted_by_any(self, start: int, stop: int) -> bool:
        """Return whether a client, straggler or not, waits for some of a range.

        Args:
            start: the first chunk.
            stop: one past the last chunk.
        """
        return any(state.wanted.overlaps(start, stop) for state in self.waiting)

    def note_ack(self) -> int:
        """Count a request that acknowledges deliveries. Return the count."""
        self.ack_count += 1
        return self.ack_count

    def set_waiting(self, state: RequestState, is_waiting: bool) -> None:
        """Note whether a request is not satisfied; one that waits already keeps its place.

        Args:
            state: the request.
            is_waiting: whether it waits.
        """
        if is_waiting:
            self.waiting[state] = None
        else:
            self.waiting.pop(state, None)

    def advance(self, cursor: int) -> None:
        """Move the cursor to a chunk."""
        self.cursor = cursor


class Requester:
    """All requests of one member, and the part of the cache that its deliveries pin.

    Attributes:
        states: its request of each file.
        quota_used_chunks: chunks in deliveries to it whose buffers are not released.
    """

    __slots__ = ("member", "quota_used_chunks", "states")

    def __init__(self, member: Member) -> None:
        self.member = member
        self.states: dict[FileId, RequestState] = {}
        self.quota_used_chunks = 0

    def add(self, state: RequestState) -> None:
        """Add the request of another file."""
        self.states[state.file.file_id] = state

    def forget(self, file_id: FileId) -> None:
        """Forget the request of a file that is gone."""
        self.states.pop(file_id, None)

    def use_quota(self, chunk_count: int) -> None:
        """Note a delivery that pins chunks."""
        self.quota_used_chunks += chunk_count

    def release_quota(self, chunk_count: int) -> None:
        """Note that a delivery pins its chunks no longer."""
        self.quota_used_chunks -= chunk_count


class RequestState:
    """What one client has asked of one file. ``Demand`` and ``Deliveries`` alone call the methods that change it.

    A chunk is *wanted* until it is delivered, then *in flight* until the client acknowledges it. The window bounds what
    is in flight. A delivery that was *presumed lost* may arrive all the same; its number tells if it is acknowledged.

    Args:
        requester: the client.
        file: the file.
        demand: what all clients want of the file.
        fetches: what is being fetched of it.
        presumed_lost_max: how many deliveries that were presumed lost are remembered.

    Attributes:
        number: of the newest request.
        requested_at: when that came, in nanoseconds.
        echoes: requests whose round trips are to be measured. Empty once the client waits in a queue: waiting says
            nothing of the network.
        ack_round: the file's count of acknowledging requests at the client's last one; tells a straggler.
    """

    __slots__ = (
        "_expected_as_of",
        "_expected_chunks",
        "_fetches",
        "_presumed_lost_max",
        "ack_round",
        "demand",
        "echoes",
        "file",
        "in_flight",
        "in_flight_chunks",
        "number",
        "presumed_lost",
        "requested_at",
        "requester",
        "wanted",
        "window_chunks",
    )

    def __init__(
        self,
        requester: Requester,
        file: SharedFile,
        demand: FileDemand,
        fetches: FetchTable,
        presumed_lost_max: int,
    ) -> None:
        self.requester = requester
        self.file = file
        self.demand = demand
        self.number = 0
        self.requested_at = 0
        self.echoes: deque[Echo] = deque(maxlen=ECHOES_MAX)
        self.window_chunks = 0
        self.wanted = RangeSet()
        self.in_flight: dict[int, Range] = {}
        self.in_flight_chunks = 0
        self.presumed_lost: dict[int, Range] = {}
        self.ack_round = demand.ack_count
        self._presumed_lost_max = presumed_lost_max
        self._fetches = fetches
        self._expected_chunks = 0
        self._expected_as_of = fetches.change_count

    # -- reading

    @property
    def member(self) -> Member:
        """The client."""
        return self.requester.member

    @property
    def frame_chunks(self) -> int:
        """The most chunks that one frame brings it."""
        return frame_chunks_in(self.window_chunks)

    @property
    def window_left_chunks(self) -> int:
        """How many more chunks the client takes now."""
        return self.window_chunks - self.in_flight_chunks

    @property
    def expected_chunks(self) -> int:
        """How many chunks that it wants are being fetched; counted only when that has changed, as it is asked often."""
        if self._expected_as_of != self._fetches.change_count:
            self._expected_as_of = self._fetches.change_count
            self._expected_chunks = self.wanted.common(self._fetches.chunks).chunk_count
        return self._expected_chunks

    @property
    def newest_echo(self) -> int:
        """The number of the newest request to measure; 0 if there is none."""
        return self.echoes[-1].number if self.echoes else 0

    def echo_of(self, fetch_order: int) -> int:
        """Return the newest request that came before a fetch was started; 0 if none did."""
        echoes = self.echoes
        while len(echoes) > 1 and echoes[1].fetch_order < fetch_order:
            echoes.popleft()
        return echoes[0].number if echoes and echoes[0].fetch_order < fetch_order else 0

    # -- what the client asks for

    def note_number(self, number: int) -> None:
        """Note that the client has sent requests up to a number."""
        self.number = max(self.number, number)

    def renew(self, number: int, window_chunks: int, ranges: RangeSet, fetch_order: int, now: int) -> None:
        """Take the newest request in place of the one before.

        Args:
            number: its number.
            window_chunks: how many chunks may be in flight.
            ranges: what it asks for; the set is taken over.
            fetch_order: how many fetches have been started.
            now: the time, in nanoseconds.
        """
        self.number, self.requested_at = number, now
        self.window_chunks = window_chunks
        if not self.wanted:  # what was asked before is in flight: its age says nothing of what comes from now on
            self.echoes.clear()
        self.want(ranges)
        if ranges:
            self.echoes.append(Echo(number, fetch_order))

    def queued(self) -> None:
        """Note that the client waits in a queue."""
        self.echoes.clear()

    def want(self, ranges: RangeSet) -> None:
        """Want this and nothing else, except what is in flight already. The set is taken over."""
        if not (self.wanted or self.in_flight):
            self.ack_round = self.demand.ack_count  # it did not wait until now
        self.wanted = ranges
        self.wanted.difference_update(self.in_flight.values())
        self._wanted_changed()

    def want_again(self, span: Range) -> None:
        """Want what a lost delivery carried, until the client says what it lacks."""
        self.wanted.add(*span)
        self._wanted_changed()

    # -- deliveries

    def depart(self, number: int, span: Range) -> None:
        """Note a delivery of what is wanted.

        Args:
            number: the delivery's number.
            span: what it carries.
        """
        self.in_flight[number] = span
        self.in_flight_chunks += span.chunk_count
        self.requester.use_quota(span.chunk_count)
        self.wanted.discard(*span)
        self._wanted_changed()

    def settle(self, number: int) -> Range:
        """Note that a delivery is in flight no longer. Return what it carried."""
        span = self.in_flight.pop(number)
        self.in_flight_chunks -= span.chunk_count
        return span

    def acknowledge(self, number: int, is_rest_lost: bool) -> list[Range]:
        """Take deliveries for processed. Clients that acknowledge deliveries in turn keep up with each other.

        Args:
            number: the last delivery that the client has processed, and with it all before it.
            is_rest_lost: what else is in flight is presumed lost.

        Returns:
            What has arrived.
        """
        arrived = [self.settle(delivery) for delivery in list(self.in_flight) if delivery <= number]
        if arrived:
            self.ack_round = self.demand.note_ack()
        found = self.presumed_lost.pop(number, None)
        if found is not None:
            arrived.append(found)
        if is_rest_lost:
            self.presume_lost()
        return arrived

    def presume_lost(self) -> None:
        """Take everything in flight for lost."""
        for number in list(self.in_flight):
            self.presumed_lost[number] = self.settle(number)
        while len(self.presumed_lost) > self._presumed_lost_max:
            del self.presumed_lost[next(iter(self.presumed_lost))]

    def _wanted_changed(self) -> None:
        self._expected_as_of = -1
        self.demand.set_waiting(self, bool(self.wanted))

    def check(self) -> None:
        """Assert the invariants."""
        in_flight = RangeSet(self.in_flight.values())
        assert self.in_flight_chunks == sum(span.chunk_count for span in self.in_flight.values())
        assert not self.wanted.common(in_flight), f"{self.member.name} wants what is in flight"
        assert (self in self.demand.waiting) == bool(self.wanted), f"{self.member.name} waits, or does not, for nothing"
