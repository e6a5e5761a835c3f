"""The download of one file to one client: which chunks to request next, and when to repeat requests (R5, R10, R11)."""

from __future__ import annotations

from enum import Enum
from random import Random

from pspd.core.model.manifest import FILE_CHUNKS_MAX, FileId, Manifest
from pspd.core.model.parameters import Order, Parameters
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import WriteResult
from pspd.core.model.tuning import ClientTuning
from pspd.core.timing.rtt import LINEAR_TIMEOUTS, RTO_MAX_NS, RttEstimator
from pspd.core.timing.window import Window, frame_chunks_max
from pspd.core.wire.datagrams import REQUEST_RANGES_MAX, Request
from pspd.core.wire.frames import Frame


class Stage(Enum):
    """The stages of a download.

    In SHARE, the client gets its shares. In WAITING, it requests nothing until the server starts the exchange or
    assigns the file again. In EXCHANGE, it gets all missing chunks. In FINISHING, it makes the file visible. In
    COMPLETE, the file is visible. In DECLINED, the client cannot store the file.
    """

    SHARE = "share"
    WAITING = "waiting"
    EXCHANGE = "exchange"
    FINISHING = "finishing"
    COMPLETE = "complete"
    DECLINED = "declined"


class Download:
    """The verified and the missing chunks of one file at one client, and the state of the requests for the file.

    Args:
        manifest: the manifest of the file.
        verified: the verified chunks, as a live view of the store's record.
        parameters: the parameters of the network.
        tuning: the client's tunables.
        random: the source of jitter and of the random order of requests.
        srtt_ns: the smoothed round-trip time of hellos, in nanoseconds; 0 if unknown.

    Attributes:
        manifest: the manifest of the file.
        stage: the stage of the download.
        verified: the verified chunks, which may be contributed. Only the store changes this set.
        missing: the chunks that are neither verified nor delivered in this session. Corrupt chunks are missing again.
        shares: the client's shares, which are requested before the exchange (R1).
        division: the number of the division that made the shares.
        is_paused: whether the next request waits, because two or more deliveries in a row were corrupt.
        request_number: the number of the last request for this file; 0 if this session has none.
        window: the limit on the chunks in flight.
        rtt: the round trips from a request to the delivery that echoes its number. They include the server's fetch. The
            first sample is the round-trip time of hellos, if known.
    """

    def __init__(
        self,
        manifest: Manifest,
        verified: RangeSet,
        parameters: Parameters,
        tuning: ClientTuning,
        random: Random,
        srtt_ns: int,
    ) -> None:
        self.manifest = manifest
        self.stage = Stage.SHARE
        self.verified = verified
        self.missing = RangeSet(verified.gaps(0, manifest.chunk_count))
        self.shares: tuple[Range, ...] = ()
        self.division = 0
        self.is_paused = False
        self.request_number = 0
        self.window = Window(parameters.window_min_chunks, parameters.window_max_chunks)
        self.rtt = RttEstimator()
        if srtt_ns:
            self.rtt.sample(srtt_ns)
        self._parameters = parameters
        self._tuning = tuning
        self._random = random
        self._acknowledged = 0  # the highest number of a stored delivery
        self._outstanding = RangeSet()  # chunks of the last request, without those delivered since
        self._retry_after_ns = 0  # from the REQUEST_ACK of the last request; 0 without one
        self._expects_wait = False  # whether deliveries take longer than the timeout
        self._cursor = 0  # the end of the latest broadcast
        self._sequence_start = 0  # where the sequential order starts
        self._requested_stop = 0  # one past the last chunk that the last request named
        self._advertised_chunks = self.window.chunks  # the window in the last request
        self._repeat_count = 0  # repeated requests in a row without a delivery
        self._chunks_since_request = 0
        self._sent_at: dict[int, int] = {}  # send times, by request number
        self._corrupt_delivery_count = 0  # in a row
        self._delivery_is_corrupt = False  # whether the current delivery is corrupt so far

    @property
    def file_id(self) -> FileId:
        """The id of the file."""
        return self.manifest.file_id

    @property
    def is_whole(self) -> bool:
        """Whether every chunk of the file is verified."""
        return self.verified.chunk_count == self.manifest.chunk_count

    @property
    def is_requesting(self) -> bool:
        """Whether chunks are requested in this stage."""
        return self.stage in (Stage.SHARE, Stage.EXCHANGE)

    # -- stages

    def assign(self, shares: tuple[Range, ...], division: int, verified: RangeSet) -> None:
        """Record an assignment by the server.

        Args:
            shares: the client's shares, which replace earlier ones.
            division: the number of the division that made the shares.
            verified: the verified chunks, as a live view of the store's record.
        """
        self.shares, self.division, self.verified = shares, division, verified

    def enter(self, stage: Stage) -> None:
        """Enter a stage, let the sequential order start at the first chunk, and reset the count of repeats.

        All clients start at the first chunk, so that they request the same chunks together.
        """
        self.stage = stage
        self._sequence_start = self._repeat_count = 0

    def advance(self) -> bool:
        """Enter WAITING if all shares are held, or FINISHING if the file is whole; return whether the stage changed."""
        if self.stage is Stage.SHARE and all(self.verified.covers(*share) for share in self.shares):
            self.stage = Stage.WAITING
            return True
        if self.stage is Stage.EXCHANGE and self.is_whole:
            self.stage = Stage.FINISHING
            return True
        return False

    def end_session(self) -> None:
        """Reset the state of the session. Request nothing until the file is assigned in the next session.

        Delivered chunks that are not verified are missing again: in the next session, the server does not know
        that it delivered them.
        """
        self.stage = Stage.WAITING
        self.shares = ()
        self.missing = RangeSet(self.verified.gaps(0, self.manifest.chunk_count))
        self.request_number = 0
        self._acknowledged = 0
        self._outstanding.clear()
        self._retry_after_ns = 0
        self._chunks_since_request = 0
        self._sent_at.clear()
        self.window.discard_epoch()

    # -- requests

    def wanted(self) -> RangeSet:
        """Return the chunks to request in this stage."""
        if self.stage is Stage.SHARE:
            return RangeSet(part for share in self.shares for part in self.missing.within(*share))
        return self.missing if self.stage is Stage.EXCHANGE else RangeSet()

    def next_request(
        self, session: int, number: int, now: int, *, repeated: bool = False, downlink_ok: bool = False
    ) -> Request:
        """Return the next request, and record it as sent. This ends the pause after corrupt deliveries.

        The request names as many wanted ranges as the parameters and the size of a datagram allow. A request without
        ranges cancels all measurements of round trips that have begun.

        Args:
            session: the number of the client's session.
            number: the number of the request.
            now: the time, in nanoseconds.
            repeated: whether no delivery arrived in time after the last request.
            downlink_ok: whether the server's datagrams arrive at the client.
        """
        self.request_number = number
        self.is_paused = False
        self._repeat_count += repeated
        self._chunks_since_request = 0
        self._advertised_chunks = self.window.chunks
        ranges = self._pick(self.wanted())
        if ranges:
            self._sent_at[number] = now
            if len(self._sent_at) > self._tuning.measured_requests_max:
                del self._sent_at[next(iter(self._sent_at))]
        else:
            self._sent_at.clear()
        self._outstanding, self._retry_after_ns = RangeSet(ranges), 0
        # If the server is busy, deliveries take longer than any timeout. A REQUEST_ACK makes the client wait instead
        # of repeating the request.
        wants_ack = bool(ranges) and (self._expects_wait or self.rtt.rto_ns >= RTO_MAX_NS)
        acknowledged, window_chunks, named = self._acknowledged, self.window.chunks, tuple(ranges)
        return Request(
            session, self.file_id, number, acknowledged, window_chunks, named, repeated, wants_ack, downlink_ok
        )

    def note_broadcast(self, stop: int) -> None:
        """Move the cursor to ``stop``, the end of a broadcast, so that all clients request the same chunks next."""
        self._cursor = stop

    def note_ack(self, number: int, retry_after_ns: int) -> bool:
        """Record that the server has received a request.

        Args:
            number: the number of the request.
            retry_after_ns: how long to wait for a delivery, in nanoseconds.

        Returns:
            Whether the answer is current. False if the request is not the last one, or if all its chunks have arrived.
        """
        if number != self.request_number or not self._outstanding:
            return False
        self._retry_after_ns = retry_after_ns
        self._expects_wait = True
        self.rtt.note_answer()
        return True

    def note_timeout(self) -> None:
        """Record that no delivery arrived in time."""
        self.window.note_timeout()
        self.rtt.note_timeout()

    def timeout_ns(self) -> int:
        """Return how long to wait for the next delivery before the request is repeated, in nanoseconds.

        If the timeout without backoff is at its maximum, and the server has acknowledged the last request, the result
        is the time that the server stated, within bounds.
        """
        if self._retry_after_ns and self.rtt.rto_ns >= RTO_MAX_NS:
            return self._retry_after_ns
        return self.rtt.timeout_ns(self._random)

    def _pick(self, wanted: RangeSet) -> list[Range]:
        """Return the ranges to request, in the order that the parameters state; remember where the last one ends."""
        parameters = self._parameters
        if not wanted:
            return []
        if self._repeat_count > LINEAR_TIMEOUTS:  # perhaps the requested chunks have no holder: skip them
            start = self._sequence_start = self._requested_stop
        elif parameters.order is Order.SEQUENTIAL:
            start = self._sequence_start
        elif parameters.order is Order.CURSOR:
            start = self._cursor
        else:
            start = self._random_chunk(wanted)
        # If the window is one chunk, each range is one chunk. Otherwise a range is as long as possible.
        range_chunks = 1 if parameters.window_max_chunks == 1 else self.manifest.chunk_count
        picked: list[Range] = []
        for low, high in wanted.cyclic_from(start):
            picked.append(Range(low, min(high, low + range_chunks)))
            if len(picked) >= min(parameters.request_ranges, REQUEST_RANGES_MAX):
                break
        self._requested_stop = picked[-1].stop
        return picked

    def _random_chunk(self, wanted: RangeSet) -> int:
        index = self._random.randrange(wanted.chunk_count)
        spans = iter(wanted)
        while index >= (span := next(spans)).chunk_count:
            index -= span.chunk_count
        return span.start + index

    # -- deliveries

    def note_delivery(self, frame: Frame, written: WriteResult, now: int) -> bool:
        """Record that a delivery, or a part of one, is stored. All parts but the last have number and echo 0.

        Args:
            frame: the head of the delivery or of its part.
            written: the result of storing the payload.
            now: the time, in nanoseconds.

        Returns:
            Whether to send the next request. True if no requested chunks are outstanding. Also True if this is the last
            part of the delivery, and enough chunks have arrived since the last request.
        """
        sent_at = self._sent_at.pop(frame.echo, None)
        if sent_at is not None:
            self._expects_wait = now - sent_at > self.rtt.rto_ns
            self.rtt.sample(now - sent_at)
        self.rtt.note_answer()
        self._repeat_count = 0
        self._outstanding.discard(frame.start, frame.stop)
        self._acknowledged = max(self._acknowledged, frame.number)
        self.missing.discard(frame.start, frame.stop)
        self.missing.update(written.corrupt)
        is_complete = frame.number > 0
        self._count_corrupt(written, is_complete=is_complete)
        chunk_count = frame.stop - frame.start
        self.window.note_delivery(chunk_count, self.rtt.min_ns, now)
        self._chunks_since_request += chunk_count
        return not self._outstanding or (is_complete and self._chunks_since_request >= self._step_chunks)

    @property
    def corrupt_pause_ns(self) -> int:
        """The pause before the next request, in nanoseconds; 0 after fewer than two corrupt deliveries in a row."""
        if self._corrupt_delivery_count < 2:
            return 0
        doubled_ns = self._tuning.corrupt_pause_ns_min << min(self._corrupt_delivery_count - 2, 16)
        return min(doubled_ns, self._tuning.corrupt_pause_ns_max)

    def _count_corrupt(self, written: WriteResult, *, is_complete: bool) -> None:
        """Count the corrupt deliveries in a row, and update ``is_paused``. A delivery stored in parts counts once.

        A delivery is corrupt if it completes corrupt units and no verified one. In a delivery that is stored in parts,
        a verified unit cancels only the corrupt units of its own part and of earlier parts.
        """
        if written.verified:
            self._corrupt_delivery_count, self._delivery_is_corrupt = 0, False
        elif written.corrupt:
            self._delivery_is_corrupt = True
        if is_complete and self._delivery_is_corrupt:
            self._corrupt_delivery_count, self._delivery_is_corrupt = self._corrupt_delivery_count + 1, False
        self.is_paused = self.corrupt_pause_ns > 0

    @property
    def _step_chunks(self) -> int:
        """The number of chunks after which the next request is sent, even if requested chunks are outstanding.

        It depends on the window in the last request, because the server sends no more, even if the window has grown.
        """
        frame_chunks = min(self._parameters.frame_chunks, frame_chunks_max(self._advertised_chunks))
        return max(self._advertised_chunks // self._tuning.requests_per_window, frame_chunks)

    def check(self) -> None:
        """Assert the invariants."""
        for chunks in (self.missing, self.verified):
            assert not chunks.overlaps(self.manifest.chunk_count, FILE_CHUNKS_MAX), "chunks are beyond the end"
        assert not self._outstanding.difference(self.missing), "delivered chunks are outstanding"
        assert self.stage is not Stage.FINISHING or self.is_whole, "the file is being finished, but is not whole"
        assert len(self._sent_at) <= self._tuning.measured_requests_max, "too many requests are measured"
        assert all(number <= self.request_number for number in self._sent_at), "an unsent request is measured"
