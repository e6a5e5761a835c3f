"""The client's state machine: requests any number of files, and contributes verified chunks (R5, R8, R10, R11).

Inputs that depend on the time have an argument ``now``; :meth:`ClientMachine.poll` returns the effects. A source uses
the same machine, with a file that it holds completely.
"""

from __future__ import annotations

from collections import Counter
from random import Random

from pspd.core.client.download import Download, Stage
from pspd.core.client.hellos import Hellos
from pspd.core.client.holder import Holder
from pspd.core.effects.client import ClientEffect, Contribute, DownlinkChanged, FinishFile, ReportMilestone
from pspd.core.effects.shared import InputDropped, Milestone, SendDatagram
from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.parameters import MILLISECOND_NS, Parameters
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import HeldChunks, WriteResult
from pspd.core.model.tuning import CLIENT_TUNING, ClientTuning
from pspd.core.timing.timers import Timers
from pspd.core.wire import datagrams
from pspd.core.wire.datagrams import REQUEST_NUMBER_MAX, Broadcast, Datagram, HelloAck, RequestAck
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason, Kind, WireError
from pspd.text.addresses import Address, address_text

_HELLO_TIMER = b"hello"
"""The name of the timer for hellos. The names of the other timers are file ids, which are longer."""


class ClientMachine:
    """One client or source of the network, in one session after another.

    Args:
        seed: the seed of jitter and of the random order of requests. The same seed and inputs give the same effects.
        tuning: the tunables.

    Attributes:
        downloads: the downloads of the files that were assigned to the client, by file id.
        drop_counts: the numbers of dropped inputs, by reason.
        hellos: the hellos and the state of the downlink.
    """

    def __init__(self, seed: int, tuning: ClientTuning = CLIENT_TUNING) -> None:
        self._random = Random(seed)
        self._tuning = tuning
        self.downloads: dict[FileId, Download] = {}
        self.drop_counts: Counter[DropReason] = Counter()
        self.hellos = Hellos(tuning, self._random)
        self._holder = Holder(tuning)
        self._effects: list[ClientEffect] = []
        self._timers: Timers[bytes] = Timers()
        self._session = 0
        self._server: Address = ("", 0)
        self._parameters: Parameters | None = None
        self._request_number = 0  # of the last request in this session, for any file

    # -- for the driver

    def poll(self) -> list[ClientEffect]:
        """Return the effects since the last call, in order."""
        effects, self._effects = self._effects, []
        return effects

    def next_timeout(self) -> int | None:
        """Return when to call :meth:`handle_timeout`, in nanoseconds; None if nothing will be due."""
        return self._timers.next_deadline()

    def handle_timeout(self, now: int) -> None:
        """Send the hello and the requests that are due (R11)."""
        for name in self._timers.expired(now):
            if name == _HELLO_TIMER:
                self._send_hello(now)
                continue
            download = self.downloads[name]
            is_timeout = not download.is_paused  # the end of a pause does not mean a loss
            if is_timeout:
                download.note_timeout()
            self._request(download, now, repeated=is_timeout)

    # -- the session

    def joined(self, session: int, server: Address, parameters: Parameters, now: int) -> None:
        """Begin a session, and send its first hello. Each download waits until the server assigns its file again.

        Args:
            session: the number of the session.
            server: the server's address for datagrams.
            parameters: the parameters of the network.
            now: the time, in nanoseconds.
        """
        self._session, self._server, self._parameters = session, server, parameters
        self._request_number = 0
        self._holder.start_session()
        for download in self.downloads.values():
            download.end_session()
            self._timers.cancel(download.file_id)
        self.hellos.start_session(now)
        self._send_hello(now)

    def left(self) -> None:
        """End the session, and cancel all timers."""
        self._session = 0
        self._timers.cancel(_HELLO_TIMER)
        for download in self.downloads.values():
            self._timers.cancel(download.file_id)

    def link_opened(self, now: int) -> None:
        """Request the missing chunks again, because deliveries may have been lost with the previous link."""
        for download in self.downloads.values():
            self._request(download, now)

    def _send_hello(self, now: int) -> None:
        if self.hellos.detect_downlink_loss(now):
            self._effects.append(DownlinkChanged(False))
        self._send(self.hellos.next_hello(self._session, now))
        self._timers.set(_HELLO_TIMER, now + self.hellos.timeout_ns())

    # -- files

    def contribute_as_source(self, manifest: Manifest) -> None:
        """Contribute every chunk of a file that this machine seeds."""
        self._holder.add(manifest, RangeSet([(0, manifest.chunk_count)]))

    def file_assigned(
        self,
        manifest: Manifest,
        shares: tuple[Range, ...],
        exchange_started: bool,
        held: HeldChunks,
        now: int,
        division: int,
    ) -> None:
        """Begin or continue to download a file that the server has assigned, with these shares (R1).

        A file that is complete in the store is reported as complete, and not requested. For a file that is being
        finished, only the shares and the division change.

        Args:
            manifest: the manifest of the file.
            shares: the client's shares, which are requested before the exchange.
            exchange_started: whether the exchange has started.
            held: the chunks of the file in the store; ``held.verified`` is a live view.
            now: the time, in nanoseconds.
            division: the number of the division that made the shares.
        """
        assert self._parameters is not None, "files are assigned within a session"
        download = self.downloads.get(manifest.file_id)
        # A manifest with another share count has other units, so the download begins again.
        if download is None or download.manifest != manifest or download.stage is Stage.DECLINED:
            srtt_ns = self.hellos.rtt.srtt_ns
            download = Download(manifest, held.verified, self._parameters, self._tuning, self._random, srtt_ns)
            self.downloads[manifest.file_id] = download
        download.assign(shares, division, held.verified)
        self._holder.add(manifest, held.verified)
        if held.complete:
            self.file_finished(manifest.file_id)
        elif download.stage is not Stage.FINISHING:
            download.enter(Stage.EXCHANGE if exchange_started else Stage.SHARE)
            self._advance(download, now)

    def exchange_started(self, file_id: FileId, now: int) -> None:
        """Request all missing chunks of a file, because its exchange has started (R5).

        Do nothing if the file is unknown, or its download is in another stage than SHARE or WAITING.

        Args:
            file_id: the id of the file.
            now: the time, in nanoseconds.
        """
        download = self.downloads.get(file_id)
        if download is not None and download.stage in (Stage.SHARE, Stage.WAITING):
            download.enter(Stage.EXCHANGE)
            self._advance(download, now)

    def name_of(self, file_id: FileId) -> str | None:
        """Return the name of a file that is held or downloaded; None if the file is unknown."""
        return self._holder.name_of(file_id)

    def file_dropped(self, file_id: FileId) -> None:
        """Stop contributing and downloading a file until it is assigned again."""
        self.downloads.pop(file_id, None)
        self._holder.remove(file_id)
        self._timers.cancel(file_id)

    def file_declined(self, file_id: FileId, now: int) -> None:
        """Stop requesting a file that cannot be stored, until it is assigned again; continue to contribute it (R8).

        Args:
            file_id: the id of the file.
            now: the time, in nanoseconds.
        """
        download = self.downloads[file_id]
        download.enter(Stage.DECLINED)
        self._advance(download, now)

    def accepts_deliveries(self, file_id: FileId) -> bool:
        """Return whether a file was assigned and not declined, so that its deliveries are stored."""
        download = self.downloads.get(file_id)
        return download is not None and download.stage is not Stage.DECLINED

    def file_finished(self, file_id: FileId) -> None:
        """Record and report that a file is complete and visible under its own name (R10)."""
        download = self.downloads[file_id]
        download.enter(Stage.COMPLETE)
        self._report(download, Milestone.COMPLETE)

    def _report(self, download: Download, milestone: Milestone) -> None:
        share_chunks = sum(share.chunk_count for share in download.shares)
        division, number = download.division, download.request_number
        self._effects.append(ReportMilestone(download.file_id, milestone, share_chunks, division, number))

    def _advance(self, download: Download, now: int) -> None:
        """Enter the next stage and emit its effect if the current one is done; then send the next request."""
        if download.advance():
            if download.stage is Stage.WAITING:
                self._report(download, Milestone.SHARE_HELD)
            else:
                self._effects.append(FinishFile(download.file_id))
        if download.is_requesting:
            self._request(download, now)
        else:
            download.window.discard_epoch()
            self._timers.cancel(download.file_id)
            self._send_request(download, now)  # without ranges: it acknowledges deliveries

    def _request(self, download: Download, now: int, *, repeated: bool = False) -> None:
        if download.is_requesting and self._session:
            self._send_request(download, now, repeated=repeated)
            self._timers.set(download.file_id, now + download.timeout_ns())

    def _send_request(self, download: Download, now: int, *, repeated: bool = False) -> None:
        if not self._session:
            return
        # The server ends a session before the request numbers reach the maximum. If the client does not learn of this,
        # the numbers stay at the maximum.
        number = self._request_number = min(self._request_number + 1, REQUEST_NUMBER_MAX)
        downlink_ok = self.hellos.downlink_ok
        self._send(download.next_request(self._session, number, now, repeated=repeated, downlink_ok=downlink_ok))

    def _send(self, datagram: Datagram) -> None:
        self._effects.append(SendDatagram(self._server, datagrams.encode_datagram(datagram)))

    # -- deliveries

    def delivery_started(self, frame: Frame, origin: str) -> bool:
        """Check the head of a frame from the server; drop the frame if its payload must not be stored.

        Args:
            frame: the head of the frame.
            origin: the sender's address, as text.

        Returns:
            Whether to store the payload.
        """
        download = self.downloads.get(frame.file_id)
        if frame.kind is not Kind.DELIVERY:
            self._drop(DropReason.UNKNOWN_KIND, origin)
        elif frame.session != self._session:
            self._drop(DropReason.UNKNOWN_SESSION, origin)
        elif download is None or not self.accepts_deliveries(frame.file_id):
            self._drop(DropReason.UNKNOWN_FILE, origin)
        elif not download.manifest.has_range(frame.start, frame.stop, frame.length):
            self._drop(DropReason.BAD_RANGE, origin)
        else:
            return True
        return False

    def delivery_stored(self, frame: Frame, written: WriteResult, now: int) -> None:
        """Record that the payload of a delivery is stored, and send the next request if it is due.

        Each corrupt unit counts as dropped. A delivery may be recorded in parts, each with its own head. All heads but
        the last have number and echo 0.

        Args:
            frame: the head of the delivery or of its part.
            written: the result of storing the payload.
            now: the time, in nanoseconds.
        """
        download = self.downloads[frame.file_id]
        for unit in written.corrupt:
            self._drop(DropReason.CORRUPT, f"chunks {unit} of {download.manifest.name}")
        is_due = download.note_delivery(frame, written, now)
        if not download.is_requesting:
            return
        if self._session and (download.is_paused or not is_due):
            self._timers.set(download.file_id, now + (download.corrupt_pause_ns or download.timeout_ns()))
        else:
            self._advance(download, now)

    # -- datagrams

    def receive_datagram(self, data: bytes | memoryview, source: Address, now: int) -> None:
        """Process a datagram, which may be malformed or forged.

        Args:
            data: the datagram.
            source: the sender's address.
            now: the time, in nanoseconds.
        """
        origin = address_text(source)
        try:
            datagram = datagrams.decode_datagram(data, datagrams.ACCEPTED_BY_CLIENT)
        except WireError as error:
            self._drop(error.reason, origin)
            return
        if self._session == 0 or datagram.session != self._session or source != self._server:
            self._drop(DropReason.UNKNOWN_SESSION, origin)
            return
        if self.hellos.note_datagram(now):
            self._effects.append(DownlinkChanged(True))
        if isinstance(datagram, HelloAck):
            self._receive_hello_ack(datagram, now)
        elif isinstance(datagram, RequestAck):
            self._receive_request_ack(datagram, now)
        else:
            assert isinstance(datagram, Broadcast), "clients accept no other datagrams"
            self._receive_broadcast(datagram)

    def _receive_hello_ack(self, ack: HelloAck, now: int) -> None:
        if not self.hellos.note_ack(ack, now):
            self._drop(DropReason.STALE, "hello")
            return
        # If the server does not know yet that the downlink works, the next hello tells it at once.
        wait_ns = self.hellos.interval_ns if self.hellos.is_downlink_confirmed else 0
        self._timers.set(_HELLO_TIMER, now + wait_ns)

    def _receive_request_ack(self, ack: RequestAck, now: int) -> None:
        """Wait for deliveries as long as the server states, within the bounds of the tuning.

        Drop an answer that is stale or about an unknown file.
        """
        download, tuning = self.downloads.get(ack.file_id), self._tuning
        told_ns = min(ack.retry_after_ms * MILLISECOND_NS, tuning.retry_after_ns_max)
        retry_after_ns = max(tuning.retry_after_ns_min, told_ns)
        if download is None:
            self._drop(DropReason.UNKNOWN_FILE, "request")
        elif download.note_ack(ack.number, retry_after_ns):
            self._timers.set(ack.file_id, now + retry_after_ns)
            if self.hellos.is_downlink_confirmed:  # a REQUEST_ACK counts as a hello-ack
                self._timers.set(_HELLO_TIMER, now + self.hellos.interval_ns)
        else:
            self._drop(DropReason.STALE, "request")

    def _receive_broadcast(self, broadcast: Broadcast) -> None:
        download = self.downloads.get(broadcast.file_id)
        if download is not None:
            download.note_broadcast(broadcast.asked[-1].stop if broadcast.asked else 0)
        frames = self._holder.answer(broadcast, download.shares if download is not None else ())
        if frames is None:
            self._drop(DropReason.DUPLICATE, "broadcast")
        else:
            self._effects += map(Contribute, frames)

    def connection_dropped(self, reason: DropReason, origin: str) -> None:
        """Count and report a TCP connection that the driver closes because of invalid input or a limit.

        Args:
            reason: the reason for closing the connection.
            origin: the address of the peer, as text.
        """
        self._drop(reason, origin)

    def _drop(self, reason: DropReason, origin: str) -> None:
        self.drop_counts[reason] += 1
        self._effects.append(InputDropped(reason, origin))

    def check(self) -> None:
        """Assert the invariants of the timers and of every download."""
        self._timers.check()
        for file_id, download in self.downloads.items():
            download.check()
            assert file_id in self._timers or not (download.is_requesting and self._session), "a request has no timer"
