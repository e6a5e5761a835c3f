"""A client's data plane: its UDP socket, its link to the server, and its store."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import Callable
from random import Random
from typing import assert_never

from pspd.core.client.machine import ClientMachine
from pspd.core.effects.client import ClientEffect, Contribute, DownlinkChanged, FinishFile, ReportMilestone
from pspd.core.effects.shared import InputDropped, SendDatagram
from pspd.core.model.manifest import CHUNK_BYTES, FileId, Manifest
from pspd.core.model.parameters import Parameters
from pspd.core.model.ranges import Range
from pspd.core.model.storage import Storage
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason, Kind, WireError
from pspd.errors import NoDataPath
from pspd.host.addresses import family_of
from pspd.net.acceptor import Acceptor
from pspd.net.datagrams import DatagramSocket
from pspd.net.dial import DialLog, PathWatch, connect_error
from pspd.net.driver import Driver, now_ns
from pspd.net.faults import Faults
from pspd.net.link import Link
from pspd.net.sockets import bind_datagrams, bind_listener
from pspd.text.addresses import Address, address_text

DIAL_SECONDS_MIN = 0.05
DIAL_SECONDS_MAX = 2.0
"""Between two attempts to reach the server by TCP: doubled from the one to the other, with jitter."""
LASTING_SECONDS = 1.0
"""A link that ends sooner counts as a failed attempt: something else may listen there, or a proxy without a server."""
CONNECTIONS_MAX = 256
"""Transfers with a connection of their own that may be open at a time (classic)."""
PIECE_CHUNKS = 1024
"""Deliveries are stored in pieces, while these are still in the processor's cache. A piece ends at a multiple of this,
where a unit ends as well, so that it is verified where it was received."""

log = logging.getLogger(__name__)

_ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}


class ClientPlane:
    """Drives a client machine over real sockets and a store.

    Args:
        machine: the protocol.
        storage: where its bytes are.
        control: takes the effects that are not about data.
        suspected: told when what the store holds of a file cannot be sent, so it may not be there any more.
        failed: told when the store cannot take in what has come of a file.
    """

    def __init__(
        self,
        machine: ClientMachine,
        storage: Storage,
        control: Callable[[FinishFile | ReportMilestone | DownlinkChanged | InputDropped], None],
        suspected: Callable[[FileId], None],
        failed: Callable[[FileId, Exception], None],
        faults: Faults | None = None,
    ) -> None:
        self._machine = machine
        self._storage = storage
        self._control = control
        self._suspected = suspected
        self._failed = failed
        self._faults = faults
        self._loop = asyncio.get_running_loop()
        self._driver: Driver[ClientEffect] = Driver(machine, self._carry_out)
        self._random = Random()
        self._session = 0
        self._server: Address = ("", 0)
        self._kept_links = True
        self._datagrams: DatagramSocket | None = None
        self._acceptor: Acceptor | None = None
        self._link: Link | None = None
        self._dial_timer: asyncio.TimerHandle | None = None
        self._dial_seconds = DIAL_SECONDS_MIN
        self._dial_log = DialLog()
        self._link_since = 0.0
        self._path = PathWatch()
        self._connections: set[Link] = set()
        self._pieces: dict[Link, tuple[Frame, memoryview]] = {}

    # -- the session

    def listen(self, family: socket.AddressFamily) -> int:
        """Opens the port on which deliveries come, each by a connection of its own. Returns its number."""
        if self._acceptor is None:
            self._acceptor = Acceptor(bind_listener(_ANY[family], 0), self._take_in, at_a_time=1)
        return self._acceptor.port

    def join(self, session: int, server: Address, parameters: Parameters) -> None:
        """The server took the client in: talk to its data ports from now on."""
        self.leave()
        self._session, self._server, self._kept_links = session, server, parameters.kept_links
        self._path = PathWatch()
        bound = bind_datagrams(_ANY[family_of(server)], 0)
        self._datagrams = DatagramSocket(bound, self._on_datagram, self._faults)
        self._machine.joined(session, server, parameters, now_ns())
        if self._kept_links:
            self._dial()
        self.pump()

    async def require_path(self, timeout_seconds: float) -> None:
        """Waits until data can flow in this session: datagrams pass both ways, and TCP connections can be made.

        Where each transfer has a connection of its own, one that carries nothing is made for this.

        Raises:
            NoDataPath: it cannot in this time; says what does not pass.
        """
        path = self._path
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while not (self._kept_links or path.tcp_passes):
                    path.note_tcp(await connect_error(self._server, timeout_seconds))
                    if not path.tcp_passes:
                        await asyncio.sleep(DIAL_SECONDS_MIN)
                await path.stands.wait()
        if not path.stands.is_set():
            raise NoDataPath(path.blocked_text(self._server))

    def leave(self) -> None:
        """Ends the session on this side; files stay held."""
        self._session = 0
        self._machine.left()
        if self._dial_timer is not None:
            self._dial_timer.cancel()
        link, self._link = self._link, None
        for connection in [link, *self._connections]:
            if connection is not None:
                connection.close()
        if self._datagrams is not None:
            self._datagrams.close()
            self._datagrams = None

    def close(self) -> None:
        """Closes every socket."""
        self.leave()
        self._driver.close()
        if self._acceptor is not None:
            self._acceptor.close()

    def pump(self) -> None:
        """Carries out what the machine wants done; to be called after every command to it."""
        self._driver.pump()

    def assign(self, manifest: Manifest, shares: tuple[Range, ...], exchange_started: bool, division: int = 0) -> None:
        """The server told of a file to get.

        Raises:
            Exception: the store cannot take it.
        """
        held = self._storage.begin(manifest)
        self._machine.file_assigned(manifest, shares, exchange_started, held, now_ns(), division)
        self.pump()

    # -- effects

    def _carry_out(self, effect: ClientEffect) -> None:
        match effect:
            case SendDatagram(address, data):
                if self._datagrams is not None:
                    self._datagrams.send(data, address)
            case Contribute(frame):
                self._contribute(frame)
            case FinishFile() | ReportMilestone() | DownlinkChanged() | InputDropped():
                self._control(effect)
            case _:
                assert_never(effect)

    def _contribute(self, frame: Frame) -> None:
        """Sends what was asked, over the link or over a connection of its own (R8)."""
        try:
            payload = self._storage.payload(frame.file_id, frame.start, frame.stop)
        except Exception as error:  # whatever it is, it is this file's
            log.warning("cannot send chunks [%d, %d): %s", frame.start, frame.stop, error)
            log.debug("cannot send chunks: where:", exc_info=error)
            self._suspected(frame.file_id)
            return
        views = [payload] if isinstance(payload, memoryview) else payload
        unreadable = functools.partial(self._cannot_read, frame)
        if self._kept_links:
            if self._link is not None:
                self._link.send(frame, views, unreadable=unreadable)
        elif len(self._connections) < CONNECTIONS_MAX:
            try:
                connection = Link.dial(self._server, self, kept=False)
            except OSError:
                return  # the server asks again
            self._connections.add(connection)
            connection.send(frame, views, unreadable=unreadable)
            connection.close_when_sent()
            connection.begin()

    def _cannot_read(self, frame: Frame) -> None:
        log.warning("cannot read chunks [%d, %d) any more: verifying their file", frame.start, frame.stop)
        self._suspected(frame.file_id)

    # -- datagrams

    def _on_datagram(self, data: bytes, source: Address) -> None:
        self._machine.receive_datagram(data, source, now_ns())
        if self._machine.hellos.downlink_ok:
            self._path.note_datagram()
        self.pump()

    # -- links

    def _dial(self) -> None:
        self._dial_timer = None
        if self._session == 0 or self._link is not None:
            return
        try:
            self._link = Link.dial(self._server, self, kept=True)
        except OSError as error:
            self._dial_failed(error.strerror or str(error))
            return
        self._link.send(Frame(Kind.LINK, self._session), [])
        self._link.begin()

    def _dial_failed(self, why: str) -> None:
        self._path.note_tcp(why)
        self._dial_log.failed(self._server, why)
        self._dial_later()

    def _dial_later(self) -> None:
        if self._session and self._dial_timer is None:
            delay = self._dial_seconds * (0.5 + self._random.random())
            self._dial_seconds = min(2 * self._dial_seconds, DIAL_SECONDS_MAX)
            self._dial_timer = self._loop.call_later(delay, self._dial)

    def _take_in(self, stream: socket.socket, peer: Address) -> None:
        if len(self._connections) >= CONNECTIONS_MAX:
            stream.close()
            self._machine.frame_refused(DropReason.TOO_MANY, address_text(peer))
            self.pump()
            return
        link = Link.accepted(stream, peer, self, kept=False)
        self._connections.add(link)
        link.begin()

    def link_opened(self, link: Link) -> None:
        """Implements ``LinkHandler``: ask for what is wanted as soon as it can come."""
        if link is self._link:
            self._link_since = self._loop.time()
            self._loop.call_later(LASTING_SECONDS, self._note_lasting, link)
            self._path.note_tcp(None)
            self._machine.link_opened(now_ns())
            self.pump()

    def _note_lasting(self, link: Link) -> None:
        if link is self._link:
            self._dial_seconds = DIAL_SECONDS_MIN
            self._dial_log.succeeded(self._server)

    def link_closed(self, link: Link, error: WireError | None) -> None:
        """Implements ``LinkHandler``."""
        self._connections.discard(link)
        self._pieces.pop(link, None)
        if error is not None:
            self._machine.frame_refused(error.reason, address_text(link.peer))
            self.pump()
        if link is self._link:
            self._link = None
            if link.failure:
                self._dial_failed(link.failure)
            elif self._loop.time() < self._link_since + LASTING_SECONDS:
                self._dial_failed("it was closed at once")
            else:
                self._dial_later()

    def frame_started(self, link: Link, frame: Frame) -> list[memoryview] | None:
        """Implements ``LinkHandler``."""
        if self._machine.delivery_started(frame, address_text(link.peer)):
            return [self._next_piece(link, frame, frame.start)]
        self.pump()
        return None

    def _next_piece(self, link: Link, frame: Frame, start: int) -> memoryview:
        """Where a piece of a delivery is to go. The last one bears the delivery's number, as it is whole by it."""
        stop = min(frame.stop, start - start % PIECE_CHUNKS + PIECE_CHUNKS)
        if stop == frame.stop:
            length = frame.length - (start - frame.start) * CHUNK_BYTES
            piece = frame if start == frame.start else frame._replace(start=start, length=length)
        else:
            length = (stop - start) * CHUNK_BYTES
            piece = frame._replace(start=start, stop=stop, length=length, number=0, echo=0)
        buffer = self._pieces[link][1] if link in self._pieces else memoryview(b"")
        if len(buffer) < length:
            buffer = memoryview(bytearray(length))
        self._pieces[link] = (piece, buffer)
        return buffer[:length]

    def frame_continued(self, link: Link, frame: Frame) -> list[memoryview]:
        """Implements ``LinkHandler``."""
        piece = self._store_piece(link)
        return [] if link.closed else [self._next_piece(link, frame, piece.stop)]

    def frame_received(self, link: Link, frame: Frame) -> None:
        """Implements ``LinkHandler``."""
        self._store_piece(link)
        if link is not self._link:
            link.close()

    def _store_piece(self, link: Link) -> Frame:
        """Stores and verifies what has come, and tells the machine (R10)."""
        piece, buffer = self._pieces[link]
        if self._machine.takes(piece.file_id):  # it may be removed, or declined, while it comes
            try:
                written = self._storage.write(piece.file_id, piece.start, piece.stop, buffer[: piece.length])
                self._machine.delivery_stored(piece, written, now_ns())
            except Exception as error:  # whatever it is, it is this file's
                self._failed(piece.file_id, error)
            self.pump()
        return piece

    def frame_aborted(self, link: Link, frame: Frame) -> None:
        """Implements ``LinkHandler``; the server knows, and what lacks is asked again."""
