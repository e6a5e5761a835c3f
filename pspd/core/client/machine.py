"""The client machine: requester and holder of any number of files (R5, R8, R10, R11).

Inputs go in with the time, effects come out of :meth:`ClientMachine.poll`. A source is the same machine
that holds a file and wants nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import count
from random import Random

from pspd.core.client.download import Download, Stage
from pspd.core.effects.client import ClientEffect, Contribute, DownlinkChanged, FinishFile, ReportMilestone
from pspd.core.effects.shared import InputDropped, Milestone, SendDatagram
from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS, Parameters
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import Held, Written
from pspd.core.timing.rtt import RttEstimator
from pspd.core.timing.timers import Timers
from pspd.core.wire.datagrams import (
    CLIENT_DATAGRAMS,
    EVERY_HOLDER,
    HELLO_NUMBER_MAX,
    OWNERS,
    Broadcast,
    Datagram,
    Hello,
    HelloAck,
    RequestAck,
    decode_datagram,
    encode_datagram,
)
from pspd.core.wire.frames import FRAME_PAYLOAD_BYTES_MAX, Frame
from pspd.core.wire.header import DropReason, Kind, WireError
from pspd.text.addresses import Address, address_text

PATIENCE_NS_MIN = 50 * MILLISECOND_NS
"""However soon the server lets a client ask again, it waits as long as the shortest timeout."""
PATIENCE_NS_MAX = 240 * SECOND_NS
"""However long the server wants a client to wait, after this it asks again."""
HELLO_INTERVAL_NS_MIN = SECOND_NS
"""A client shows where it is as often as the server wants, but not more often than this."""

HELLOS_WITHOUT_BACKOFF = 20
"""Hellos until the first answer ever: some 10 s, in which to find out whether data can flow despite heavy loss."""

SILENCE_NS = 30 * SECOND_NS
HELLOS_PER_SILENCE = 2
"""After so long without a datagram from the server, and so many hellos, a client says in them that it hears nothing."""

ANSWERED_MAX = 1024
"""How many broadcasts are remembered, so that one that comes twice is not answered twice."""

_HELLO_TIMER = b"hello"


class ClientMachine:
    """One client of the network, for as long as one session lasts or several.

    Args:
        seed: of jitter and of the random order; the same seed gives the same effects.

    Attributes:
        downloads: the files it is to get, or has got.
        drop_counts: what came in and was dropped, by reason.
        rtt: round trips of hellos: the network alone.
    """

    def __init__(self, seed: int) -> None:
        self.downloads: dict[FileId, Download] = {}
        self.drop_counts: Counter[DropReason] = Counter()
        self.rtt = RttEstimator()
        self._held: dict[FileId, tuple[Manifest, RangeSet]] = {}
        self._random = Random(seed)
        self._effects: list[ClientEffect] = []
        self._timers: Timers[bytes] = Timers()
        self._session = 0
        self._server: Address = ("", 0)
        self._parameters: Parameters | None = None
        self._answered: dict[int, None] = {}
        self._request_numbers = count(1)  # within a session
        self._hello_number = 0
        self._hello_sent_at: int | None = None
        self._hello_interval_ns = 0
        self._heard_at = 0
        self._downlink_ok = False
        self._told_downlink_ok = False
        self._said_deaf = False

    @property
    def downlink_ok(self) -> bool:
        """Whether a datagram of the server has come lately: it sends none before it has got one of this session."""
        return self._downlink_ok

    # -- for the driver

    def poll(self) -> list[ClientEffect]:
        """Everything to be done since the last call, in order."""
        effects = self._effects.copy()
        self._effects.clear()
        return effects

    def next_timeout(self) -> int | None:
        """When :meth:`handle_timeout` is due, in nanoseconds; None if nothing waits for the time."""
        return self._timers.next_deadline()

    def handle_timeout(self, now: int) -> None:
        """Does what is due: hellos, and requests that got no answer (R11)."""
        for name in self._timers.expired(now):
            if name == _HELLO_TIMER:
                self._say_hello(now)
            else:
                download = self.downloads[name]
                if download.is_paused:  # nothing was lost
                    self._request(download, now)
                    continue
                download.window.timed_out()
                download.rtt.timed_out()
                self._request(download, now, repeated=True)

    # -- the session

    def joined(self, session: int, server: Address, parameters: Parameters, now: int) -> None:
        """The server took the client in. Files are assigned anew; what is held stays."""
        self._session, self._server, self._parameters = session, server, parameters
        self._answered.clear()
        self._request_numbers = count(1)
        for download in self.downloads.values():
            download.new_session(self._request_numbers)
            self._timers.cancel(download.file_id)
        self._hello_sent_at = None
        self._heard_at, self._downlink_ok = now, False
        self._say_hello(now)

    def left(self) -> None:
        """The session is over: say nothing more until the next."""
        self._session = 0
        self._timers.cancel(_HELLO_TIMER)
        for download in self.downloads.values():
            self._timers.cancel(download.file_id)

    def link_opened(self, now: int) -> None:
        """The TCP link stands: ask for what is wanted; what was on its way over the last one is lost."""
        for download in self.downloads.values():
            self._request(download, now)

    def _say_hello(self, now: int) -> None:
        if self._hello_sent_at is not None:
            self.rtt.timed_out()
        if now - self._heard_at >= max(SILENCE_NS, HELLOS_PER_SILENCE * self._hello_interval_ns):
            self._downlink_ok = False
            self._tell_deaf(True)
        self._hello_number = self._hello_number % HELLO_NUMBER_MAX + 1
        self._hello_sent_at = now
        srtt_us = min(max(1, self.rtt.srtt_ns // 1000), 2**32 - 1) if self._downlink_ok else 0
        self._told_downlink_ok = self._downlink_ok
        hello = Hello(self._session, self._hello_number, srtt_us)
        self._effects.append(SendDatagram(self._server, encode_datagram(hello)))
        is_first = self.rtt.srtt_ns == 0 and self.rtt.timeout_count < HELLOS_WITHOUT_BACKOFF
        self._timers.set(_HELLO_TIMER, now + self.rtt.timeout_ns(self._random, 0 if is_first else None))

    def _tell_deaf(self, deaf: bool) -> None:
        if deaf != self._said_deaf:
            self._said_deaf = deaf
            self._effects.append(DownlinkChanged(not deaf))

    # -- files

    def hold_whole(self, manifest: Manifest) -> None:
        """The client is the source of this file."""
        self._held[manifest.file_id] = (manifest, RangeSet([(0, manifest.chunk_count)]))

    def file_assigned(
        self,
        manifest: Manifest,
        shares: tuple[Range, ...],
        exchange_started: bool,
        held: Held,
        now: int,
        division: int = 0,
    ) -> None:
        """The server told of a file to get, and of the share to get first (R1); told again, of its share now."""
        assert self._parameters is not None, "a file is assigned within a session"
        download = self.downloads.get(manifest.file_id)
        is_new = download is None or download.manifest != manifest  # divided anew, it has other units
        if download is None or is_new or download.stage is Stage.DECLINED:  # then the store knows best what is held
            download = Download(manifest, held, self._parameters, self._random, self.rtt.srtt_ns, self._request_numbers)
            self.downloads[manifest.file_id] = download
            self._held[manifest.file_id] = (manifest, download.verified)
        download.shares, download.division = shares, division
        if held.complete:
            download.stage = Stage.COMPLETE
            self._report(download, Milestone.COMPLETE)
            return
        if download.stage is not Stage.FINISHING:
            download.begin(Stage.EXCHANGE if exchange_started else Stage.SHARE)
            self._advance(download, now)

    def exchange_started(self, file_id: FileId, now: int) -> None:
        """Every share is held: ask for the rest (R5)."""
        download = self.downloads.get(file_id)
        if download is not None and download.stage in (Stage.SHARE, Stage.WAITING):
            download.begin(Stage.EXCHANGE)
            self._advance(download, now)

    def name_of(self, file_id: FileId) -> str | None:
        """The name of a file that is wanted or held; None if it is not known."""
        held = self._held.get(file_id)
        return held[0].name if held is not None else None

    def file_dropped(self, file_id: FileId) -> None:
        """Until a file is assigned again nothing of it is held or wanted: it is verified anew, or was removed."""
        self.downloads.pop(file_id, None)
        self._held.pop(file_id, None)
        self._timers.cancel(file_id)

    def file_declined(self, file_id: FileId, now: int) -> None:
        """The client cannot store more of a file: it stops requesting it, and still sends what it holds (R8).

        When the file is assigned again, the client requests it again.
        """
        download = self.downloads[file_id]
        download.stage = Stage.DECLINED
        if self._session:
            self._advance(download, now)

    def takes(self, file_id: FileId) -> bool:
        """Whether deliveries of a file are to be stored."""
        download = self.downloads.get(file_id)
        return download is not None and download.stage is not Stage.DECLINED

    def file_finished(self, file_id: FileId) -> None:
        """The file is visible under its own name (R10)."""
        download = self.downloads[file_id]
        download.stage = Stage.COMPLETE
        self._report(download, Milestone.COMPLETE)

    def _report(self, download: Download, milestone: Milestone) -> None:
        self._effects.append(
            ReportMilestone(
                download.file_id, milestone, download.share_chunk_count, download.division, download.request_number
            )
        )

    def _advance(self, download: Download, now: int) -> None:
        """Asks for what is wanted, or goes on to the next stage."""
        if download.stage is Stage.SHARE and download.share_is_held:
            download.stage = Stage.WAITING
            self._report(download, Milestone.SHARE_HELD)
        elif download.stage is Stage.EXCHANGE and download.is_whole:
            download.stage = Stage.FINISHING
            self._effects.append(FinishFile(download.file_id))
        if download.stage in (Stage.SHARE, Stage.EXCHANGE):
            self._request(download, now)
        else:
            download.window.idle()
            self._timers.cancel(download.file_id)
            self._acknowledge(download, now)

    def _acknowledge(self, download: Download, now: int) -> None:
        """An empty request: nothing is wanted now, and what was delivered has arrived."""
        self._send(download.request(self._session, now, downlink_ok=self._downlink_ok))

    def _request(self, download: Download, now: int, *, repeated: bool = False) -> None:
        if download.stage in (Stage.SHARE, Stage.EXCHANGE) and self._session:
            self._send(download.request(self._session, now, repeated=repeated, downlink_ok=self._downlink_ok))
            self._timers.set(download.file_id, now + download.timeout_ns())

    def _send(self, datagram: Datagram) -> None:
        self._effects.append(SendDatagram(self._server, encode_datagram(datagram)))

    # -- deliveries

    def delivery_started(self, frame: Frame, origin: str) -> bool:
        """A frame's head has come from the server. Returns whether its payload is to be stored."""
        download = self.downloads.get(frame.file_id)
        if frame.kind is not Kind.DELIVERY:
            self._drop(DropReason.UNKNOWN_KIND, origin)
        elif frame.session != self._session:
            self._drop(DropReason.UNKNOWN_SESSION, origin)
        elif download is None or not self.takes(frame.file_id):
            self._drop(DropReason.UNKNOWN_FILE, origin)
        elif not download.manifest.has_range(frame.start, frame.stop, frame.length):
            self._drop(DropReason.BAD_RANGE, origin)
        else:
            return True
        return False

    def delivery_stored(self, frame: Frame, written: Written, now: int) -> None:
        """A delivery's payload is written, and verified as far as its units are whole.

        It may be told piece by piece, each as a frame of its own, all but the last with number and echo 0.
        """
        download = self.downloads[frame.file_id]
        for unit in written.corrupt:
            self._drop(DropReason.CORRUPT, f"chunks {unit} of {download.manifest.name}")
        time_to_ask = download.delivered(frame, written, now)
        if download.stage not in (Stage.SHARE, Stage.EXCHANGE):
            return
        if download.is_paused:
            self._timers.set(download.file_id, now + download.refuted_pause_ns)
        elif time_to_ask:
            self._advance(download, now)
        else:
            self._timers.set(download.file_id, now + download.timeout_ns())

    # -- datagrams

    def receive_datagram(self, data: bytes | memoryview, source: Address, now: int) -> None:
        """Takes in one datagram, whatever it holds."""
        origin = address_text(source)
        try:
            datagram = decode_datagram(data, CLIENT_DATAGRAMS)
        except WireError as error:
            self._drop(error.reason, origin)
            return
        if self._session == 0 or datagram.session != self._session or source != self._server:
            self._drop(DropReason.UNKNOWN_SESSION, origin)
            return
        self._heard_at, self._downlink_ok = now, True
        self._tell_deaf(False)
        match datagram:
            case HelloAck():
                self._hello_answered(datagram, now)
            case RequestAck():
                self._request_answered(datagram, now)
            case Broadcast():
                self._receive_broadcast(datagram)

    def _hello_answered(self, answer: HelloAck, now: int) -> None:
        if answer.number != self._hello_number or self._hello_sent_at is None:
            self._drop(DropReason.STALE, "hello")
            return
        self.rtt.sample(now - self._hello_sent_at)
        self.rtt.answered()
        self._hello_sent_at = None
        # That it hears is told at once; that it still hears, from time to time.
        self._hello_interval_ns = max(
            HELLO_INTERVAL_NS_MIN, min(answer.retry_after_ms * MILLISECOND_NS, PATIENCE_NS_MAX)
        )
        self._timers.set(_HELLO_TIMER, now + self._hello_interval_ns if self._told_downlink_ok else now)

    def _request_answered(self, answer: RequestAck, now: int) -> None:
        """The request is not lost: what it asks for is on its way, or has to wait for others."""
        download = self.downloads.get(answer.file_id)
        patience_ns = max(PATIENCE_NS_MIN, min(answer.retry_after_ms * MILLISECOND_NS, PATIENCE_NS_MAX))
        if download is None:
            self._drop(DropReason.UNKNOWN_FILE, "request")
        elif download.answered(answer.number, patience_ns):
            self._timers.set(answer.file_id, now + patience_ns)
            if self._told_downlink_ok and self._hello_sent_at is None:  # both have shown what a hello would
                self._timers.set(_HELLO_TIMER, now + self._hello_interval_ns)
        else:
            self._drop(DropReason.STALE, "request")

    def _receive_broadcast(self, broadcast: Broadcast) -> None:
        """Sends what is asked and held; ignores the rest (R8)."""
        held = self._held.get(broadcast.file_id)
        if held is None:
            return
        manifest, verified = held
        download = self.downloads.get(broadcast.file_id)
        if download is not None:
            download.hear_broadcast(broadcast.asked[-1].stop if broadcast.asked else 0)
        if broadcast.number in self._answered:
            self._drop(DropReason.DUPLICATE, "broadcast")
            return
        for start, stop in self._asked_of_me(broadcast, download):
            length = manifest.byte_span(start, stop)[1]
            if verified.covers(start, stop) and length <= FRAME_PAYLOAD_BYTES_MAX:
                self._answered[broadcast.number] = None
                frame = Frame(
                    Kind.CONTRIBUTION, self._session, broadcast.file_id, start, stop, length, broadcast.number
                )
                self._effects.append(Contribute(frame))
        if len(self._answered) > ANSWERED_MAX:
            del self._answered[next(iter(self._answered))]

    def _asked_of_me(self, broadcast: Broadcast, download: Download | None) -> Iterator[tuple[int, int]]:
        for entry in broadcast.asked:
            if entry.responder in (EVERY_HOLDER, self._session):
                yield entry.start, entry.stop
            elif entry.responder == OWNERS and download is not None:
                for start, stop in download.shares:
                    if start < entry.stop and entry.start < stop:
                        yield max(start, entry.start), min(stop, entry.stop)

    def frame_refused(self, reason: DropReason, origin: str) -> None:
        """What came in over TCP was no frame; its connection is closed."""
        self._drop(reason, origin)

    def _drop(self, reason: DropReason, origin: str) -> None:
        self.drop_counts[reason] += 1
        self._effects.append(InputDropped(reason, origin))
