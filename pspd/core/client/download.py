"""One file on its way to one client: what to ask for next, and when to ask again (R5, R10, R11)."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from random import Random

from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS, Order, Parameters
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import Held, Written
from pspd.core.timing.rtt import LINEAR_TIMEOUTS, RTO_MAX_NS, RttEstimator
from pspd.core.timing.window import Window, frame_chunks_in
from pspd.core.wire.datagrams import REQUEST_NUMBER_MAX, REQUEST_RANGES_MAX, Request
from pspd.core.wire.frames import Frame

REQUESTS_PER_WINDOW = 8
"""A window is renewed in so many steps: losing a few requests in a row does not stop the flow. A narrow one is renewed
by whole frames, or by halves, as every step costs the server a request and a delivery."""
REFUTED_NS_MIN, REFUTED_NS_MAX = 100 * MILLISECOND_NS, 5 * SECOND_NS
"""How long a client waits for its next request where deliveries are refuted in a row: not at all after the first, then
doubled each time between these bounds, until a unit is verified. Wrong bytes are then not fetched at full rate."""
SENT_REQUESTS_MAX = 64
"""How many requests are remembered to measure round trips."""


class Stage(Enum):
    """What a client is doing about a file."""

    SHARE = "share"
    WAITING = "waiting"
    EXCHANGE = "exchange"
    FINISHING = "finishing"
    COMPLETE = "complete"
    DECLINED = "declined"


class Download:
    """What a client holds and lacks of a file, and its conversation with the server about it.

    Attributes:
        manifest: the file.
        stage: what is being done about it.
        verified: chunks that may be served.
        lacking: chunks that are not here.
        shares: the ranges that are the client's to get before the exchange (R1).
        division: names the division of the file that they are of.
        is_paused: the next request waits, as what came was refuted again and again. Any request ends the pause.
        request_number: its newest request's. All of a client's requests are numbered in one row: what was asked before
            a file was removed is not taken for newer than what is asked since it was seeded anew.
        window: how many chunks may be on their way.
        rtt: round trips from a request to the first delivery it led to, fetching included.
    """

    def __init__(
        self,
        manifest: Manifest,
        held: Held,
        parameters: Parameters,
        random: Random,
        srtt_ns: int,
        request_numbers: Iterator[int],
    ) -> None:
        self.manifest = manifest
        self.stage = Stage.SHARE
        self.verified = held.verified.copy()
        self.lacking = RangeSet(self.verified.gaps(0, manifest.chunk_count))
        self.window = Window(parameters.window_min_chunks, parameters.window_max_chunks)
        self.rtt = RttEstimator()
        if srtt_ns:
            self.rtt.sample(srtt_ns)
        self.shares: tuple[Range, ...] = ()
        self._parameters = parameters
        self._random = random
        self.division = 0
        self.is_paused = False
        self.request_number = 0
        self._request_numbers = request_numbers
        self._acknowledged = 0
        self._awaited = RangeSet()
        self._patience_ns = 0
        self._was_put_off = False
        self._cursor = 0
        self._named_stop = 0
        self._told_chunks = self.window.chunks
        self._sequence_start = 0
        self._repeats = 0
        self._unrequested_chunks = 0
        self._sent_at: dict[int, int] = {}
        self._refuted_in_a_row = 0
        self._is_refuted = False  # something of the delivery that is under way

    @property
    def file_id(self) -> FileId:
        """The digest of the file's manifest."""
        return self.manifest.file_id

    @property
    def share_chunk_count(self) -> int:
        """How many chunks those ranges hold."""
        return sum(share.chunk_count for share in self.shares)

    @property
    def share_is_held(self) -> bool:
        """Whether every chunk of the share is here and verified."""
        return all(self.verified.covers(*share) for share in self.shares)

    @property
    def is_whole(self) -> bool:
        """Whether every chunk of the file is here and verified."""
        return self.verified.chunk_count == self.manifest.chunk_count

    def begin(self, stage: Stage) -> None:
        """Begins with the share, or with the exchange: what was asked in vain before says nothing of it.

        In order of the chunks everybody is to start at the first, so that they meet.
        """
        self.stage = stage
        self._sequence_start = self._repeats = 0

    def wanted(self) -> RangeSet:
        """What is to be asked for now: of the share, or of everything that lacks."""
        match self.stage:
            case Stage.SHARE:
                return RangeSet(part for share in self.shares for part in self.lacking.within(*share))
            case Stage.EXCHANGE:
                return self.lacking
            case _:
                return RangeSet()

    def hear_broadcast(self, stop: int) -> None:
        """Someone fetches up to here: requests that begin here meet (the common cursor)."""
        self._cursor = stop

    def request(self, session: int, now: int, *, repeated: bool = False, downlink_ok: bool = False) -> Request:
        """The next request: everything that may be named of what is wanted, most wanted first."""
        # The server ends a session before its numbers reach the largest; one that hears nothing stays there.
        self.request_number = min(next(self._request_numbers), REQUEST_NUMBER_MAX)
        self.is_paused = False
        self._repeats += repeated
        self._unrequested_chunks = 0
        self._told_chunks = self.window.chunks
        ranges = self._pick(self.wanted())
        self._note_sent(now, asks=bool(ranges))
        self._awaited, self._patience_ns = RangeSet(ranges), 0
        # Where very many share a server's link, what one asks for is long in the queue: longer than any timeout.
        # Who was told to wait for the last will have to wait for the next, and asks but once if it hears so at once.
        wants_ack = bool(ranges) and (self._was_put_off or self.rtt.rto_ns >= RTO_MAX_NS)
        return Request(
            session,
            self.file_id,
            self.request_number,
            self._acknowledged,
            self.window.chunks,
            tuple(ranges),
            repeated,
            wants_ack,
            downlink_ok,
        )

    def _note_sent(self, now: int, *, asks: bool) -> None:
        """Remembers when a request was sent, for its round trip; one that asks for nothing ends all measurements."""
        if not asks:
            self._sent_at.clear()
            return
        self._sent_at[self.request_number] = now
        if len(self._sent_at) > SENT_REQUESTS_MAX:
            del self._sent_at[next(iter(self._sent_at))]

    def answered(self, number: int, patience_ns: int) -> bool:
        """The server says that a request is there, and how long to wait for each delivery.

        Returns:
            Whether it is the last request, and something that it named has not come.
        """
        if number != self.request_number or not self._awaited:
            return False
        self._patience_ns = patience_ns
        self._was_put_off = True
        self.rtt.answered()
        return True

    def timeout_ns(self) -> int:
        """How long to wait for the next delivery before asking again, in nanoseconds.

        That the server said to wait long counts after a delivery only where deliveries are known to take as long.
        """
        if self._patience_ns and self.rtt.rto_ns >= RTO_MAX_NS:
            return self._patience_ns
        return self.rtt.timeout_ns(self._random)

    def _pick(self, wanted: RangeSet) -> list[Range]:
        parameters = self._parameters
        if not wanted:
            return []
        # What was named again and again in vain may have no holder: those after it have their turn first.
        in_vain = self._repeats > LINEAR_TIMEOUTS
        if parameters.order is Order.SEQUENTIAL:
            if in_vain:
                self._sequence_start = self._named_stop
            start = self._sequence_start
        elif in_vain:
            start = self._named_stop
        elif parameters.order is Order.CURSOR:
            start = self._cursor
        else:
            start = self._random_chunk(wanted)
        # Where one chunk is asked at a time a range is one chunk; where many are, all that lack are named.
        range_chunks = 1 if parameters.window_max_chunks == 1 else self.manifest.chunk_count
        picked: list[Range] = []
        for low, high in wanted.cyclic_from(start):
            picked.append(Range(low, min(high, low + range_chunks)))
            if len(picked) >= min(parameters.request_ranges, REQUEST_RANGES_MAX):
                break
        self._named_stop = picked[-1].stop
        return picked

    def _random_chunk(self, wanted: RangeSet) -> int:
        index = self._random.randrange(wanted.chunk_count)
        spans = iter(wanted)
        while index >= (span := next(spans)).chunk_count:
            index -= span.chunk_count
        return span.start + index

    def delivered(self, frame: Frame, written: Written, now: int) -> bool:
        """A delivery, or with number 0 a piece of one that goes on, is stored, as far as it was good.

        Returns:
            Whether it is time for the next request. Unless nothing is awaited any more, that is not before the delivery
            is whole, so that it can be acknowledged.
        """
        sent_at = self._sent_at.pop(frame.echo, None)
        if sent_at is not None:
            self._was_put_off = now - sent_at > self.rtt.rto_ns
            self.rtt.sample(now - sent_at)
        self.rtt.answered()
        self._repeats = 0
        self._awaited.discard(frame.start, frame.stop)
        self._acknowledged = max(self._acknowledged, frame.number)
        self.lacking.discard(frame.start, frame.stop)
        for unit in written.verified:
            self.verified.add(*unit)
        for unit in written.corrupt:
            self.verified.discard(*unit)
            self.lacking.add(*unit)
        self._note_refuted(written, is_whole=frame.number > 0)
        chunk_count = frame.stop - frame.start
        self.window.delivered(chunk_count, self.rtt.min_ns, now)
        self._unrequested_chunks += chunk_count
        is_whole = frame.number > 0
        return not self._awaited or (is_whole and self._unrequested_chunks >= self._step_chunks)

    def _note_refuted(self, written: Written, *, is_whole: bool) -> None:
        """Counts deliveries that brought wrong bytes and no right ones; one that comes in pieces counts once."""
        if written.verified:
            self._refuted_in_a_row, self._is_refuted = 0, False
        elif written.corrupt:
            self._is_refuted = True
        if is_whole and self._is_refuted:
            self._refuted_in_a_row, self._is_refuted = self._refuted_in_a_row + 1, False
        self.is_paused = self.refuted_pause_ns > 0

    @property
    def refuted_pause_ns(self) -> int:
        """How long to wait before the next request, as what came was refuted again and again; 0 if it was not."""
        if self._refuted_in_a_row < 2:
            return 0
        return min(REFUTED_NS_MIN << min(self._refuted_in_a_row - 2, 16), REFUTED_NS_MAX)

    @property
    def _step_chunks(self) -> int:
        """How many chunks are delivered from one request to the next.

        A part of the window that the server knows: it sends no more, however much wider the window has become since.
        """
        frame_chunks = min(self._parameters.frame_chunks, frame_chunks_in(self._told_chunks))
        return max(self._told_chunks // REQUESTS_PER_WINDOW, frame_chunks)

    def new_session(self, request_numbers: Iterator[int]) -> None:
        """The server has forgotten the conversation: begin it anew, when the file is assigned again."""
        self.stage = Stage.WAITING
        self._request_numbers = request_numbers
        self.request_number = 0
        self._acknowledged = 0
        self._awaited.clear()
        self._patience_ns = 0
        self._unrequested_chunks = 0
        self._sent_at.clear()
        self.shares = ()
        self.window.idle()
