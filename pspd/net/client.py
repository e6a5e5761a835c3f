"""The data plane of a client or a source: connects the state machine with UDP, TCP and the store."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import Callable
from typing import assert_never

from pspd.core.client.machine import ClientMachine
from pspd.core.effects.client import ClientEffect, Contribute, DownlinkChanged, FinishFile, ReportMilestone
from pspd.core.effects.shared import InputDropped, SendDatagram
from pspd.core.model.manifest import CHUNK_BYTES, FileId, Manifest
from pspd.core.model.parameters import Parameters
from pspd.core.model.ranges import Range
from pspd.core.model.storage import Storage
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason, WireError
from pspd.errors import NoDataPath
from pspd.host.addresses import family_of
from pspd.net.acceptor import Acceptor
from pspd.net.connection import FrameConnection
from pspd.net.datagrams import DatagramSocket
from pspd.net.dial import probe_tcp
from pspd.net.driver import Driver, now_ns
from pspd.net.faults import Faults
from pspd.net.reconnecting_link import DataPathStatus, ReconnectingLink
from pspd.net.sockets import bind_datagrams, bind_listener
from pspd.text.addresses import Address, address_text

TCP_PROBE_SECONDS = 0.05
"""The delay between two attempts to connect to the server's data port, in the classic profile."""
CONNECTIONS_MAX = 256
"""The most connections for single transfers that may be open at the same time, in the classic profile."""

PART_CHUNKS = 1024
"""A delivery is received in parts, which end at multiples of this number of chunks or with the delivery. Each part is
stored and verified while it is in the processor's cache. In files of up to 1 TiB, each multiple also ends a unit."""

log = logging.getLogger(__name__)

_WILDCARD_HOST = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}


class DeliveryParts:
    """Provides memory for the deliveries on each connection, and stores the received parts.

    Args:
        machine: the client's state machine, which records the stored chunks (R10).
        storage: the client's store, which writes and verifies the chunks.
        on_error: called with a file's id and the error if chunks of the file cannot be stored.
    """

    def __init__(self, machine: ClientMachine, storage: Storage, on_error: Callable[[FileId, Exception], None]) -> None:
        self._machine = machine
        self._storage = storage
        self._on_error = on_error
        self._parts: dict[FrameConnection, tuple[Frame, memoryview]] = {}

    def allocate(self, connection: FrameConnection, frame: Frame, start: int) -> memoryview:
        """Begin the next part of a delivery; return memory for the part.

        Only the last part has the delivery's number and echo, because the delivery is complete only when that
        part is stored.

        Args:
            connection: the connection that receives the delivery.
            frame: the head of the delivery.
            start: the first chunk of the part.
        """
        stop = min(frame.stop, start - start % PART_CHUNKS + PART_CHUNKS)
        if stop < frame.stop:
            part = frame._replace(start=start, stop=stop, length=(stop - start) * CHUNK_BYTES, number=0, echo=0)
        elif start > frame.start:
            part = frame._replace(start=start, length=frame.length - (start - frame.start) * CHUNK_BYTES)
        else:
            part = frame
        buffer = self._parts[connection][1] if connection in self._parts else memoryview(b"")
        if len(buffer) < part.length:
            buffer = memoryview(bytearray(part.length))
        self._parts[connection] = (part, buffer)
        return buffer[: part.length]

    def store(self, connection: FrameConnection) -> Frame:
        """Store and verify the part that a connection has received; return the head of the part.

        Ignore the part if its file was removed or declined. If an error occurs, pass it to ``on_error``.
        """
        part, buffer = self._parts[connection]
        if self._machine.accepts_deliveries(part.file_id):
            try:
                written = self._storage.write(part.file_id, part.start, part.stop, buffer[: part.length])
                self._machine.delivery_stored(part, written, now_ns())
            except Exception as error:  # other files go on, unless the whole store has failed
                self._on_error(part.file_id, error)
        return part

    def forget(self, connection: FrameConnection) -> None:
        """Free the memory for the deliveries on a connection."""
        self._parts.pop(connection, None)


class ClientPlane:
    """Drives a client's state machine over real sockets and a store.

    Args:
        machine: the client's state machine.
        storage: the client's store.
        execute_control: called with each effect that sends neither a datagram nor a frame, to execute it.
        on_unreadable: called with the id of a file whose held chunks cannot be read: the file must be verified again.
        on_error: called with a file's id and the error if received chunks cannot be stored.
        faults: the faults to inject into received datagrams; None for none.
    """

    def __init__(
        self,
        machine: ClientMachine,
        storage: Storage,
        execute_control: Callable[[FinishFile | ReportMilestone | DownlinkChanged | InputDropped], None],
        on_unreadable: Callable[[FileId], None],
        on_error: Callable[[FileId, Exception], None],
        faults: Faults | None = None,
    ) -> None:
        self._machine = machine
        self._storage = storage
        self._execute_control = execute_control
        self._on_unreadable = on_unreadable
        self._faults = faults
        self._driver: Driver[ClientEffect] = Driver(machine, self._execute)
        self._server_address: Address = ("", 0)
        self._kept_links = True
        self._data_path = DataPathStatus()
        self._datagrams: DatagramSocket | None = None
        self._acceptor: Acceptor | None = None
        self._link = ReconnectingLink(self)
        self._connections: set[FrameConnection] = set()
        self._parts = DeliveryParts(machine, storage, on_error)

    # -- the session

    def listen(self, family: socket.AddressFamily) -> int:
        """Open the port for deliveries on separate connections (classic), unless it is open; return its number.

        Raises:
            PortTaken: no port can be opened.
        """
        if self._acceptor is None:
            self._acceptor = Acceptor(bind_listener(_WILDCARD_HOST[family], 0), self._accept, accepts_per_wakeup=1)
        return self._acceptor.port

    def join(self, session: int, server: Address, parameters: Parameters) -> None:
        """End the current session, if any, and begin another: open the UDP socket and, if the profile is fast, a link.

        Args:
            session: the session number of the member.
            server: the address of the server's data ports (UDP and TCP have the same number).
            parameters: the parameters of the network.

        Raises:
            PortTaken: no UDP socket can be bound.
        """
        self.leave()
        self._server_address, self._kept_links = server, parameters.kept_links
        self._data_path = DataPathStatus()
        bound = bind_datagrams(_WILDCARD_HOST[family_of(server)], 0)
        self._datagrams = DatagramSocket(bound, self._on_datagram, self._faults)
        self._machine.joined(session, server, parameters, now_ns())
        if self._kept_links:
            self._link.open(session, server, self._data_path)
        self.pump()

    async def wait_for_data_path(self, timeout_seconds: float) -> None:
        """Wait until data can flow in this session: UDP works in both directions, and TCP connections can be made.

        In the classic profile, a TCP connection that carries no data is opened as a test, and closed again.

        Args:
            timeout_seconds: the longest wait, in seconds.

        Raises:
            NoDataPath: UDP, TCP or both do not work in time; the message says which.
        """
        data_path = self._data_path
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                if not self._kept_links:
                    while (failure := await probe_tcp(self._server_address, timeout_seconds)) is not None:
                        data_path.note_tcp(failure)
                        await asyncio.sleep(TCP_PROBE_SECONDS)
                    data_path.note_tcp(None)
                await data_path.ready.wait()
        if not data_path.ready.is_set():
            raise NoDataPath(data_path.problem_text(self._server_address))

    def leave(self) -> None:
        """End the session: close its UDP socket and its TCP connections. The files and the listener stay."""
        self._machine.left()
        self._link.close()
        for connection in list(self._connections):
            connection.close()
        if self._datagrams is not None:
            self._datagrams.close()
            self._datagrams = None

    def close(self) -> None:
        """End the session, and close all sockets."""
        self.leave()
        self._driver.close()
        if self._acceptor is not None:
            self._acceptor.close()

    def pump(self) -> None:
        """Execute the machine's effects. Call this after every command to the machine."""
        self._driver.pump()

    def assign(self, manifest: Manifest, shares: tuple[Range, ...], exchange_started: bool, division: int = 0) -> None:
        """Begin to receive a file that the server has assigned, or change the shares of a file.

        Args:
            manifest: the file's manifest.
            shares: the ranges to request first.
            exchange_started: whether to request all chunks, not only those of the shares.
            division: the number of the division that the shares belong to.

        Raises:
            Exception: the store cannot begin or resume the file.
        """
        held = self._storage.begin(manifest)
        self._machine.file_assigned(manifest, shares, exchange_started, held, now_ns(), division)
        self.pump()

    # -- effects

    def _execute(self, effect: ClientEffect) -> None:
        match effect:
            case SendDatagram(address, data):
                if self._datagrams is not None:
                    self._datagrams.send(data, address)
            case Contribute(frame):
                self._contribute(frame)
            case FinishFile() | ReportMilestone() | DownlinkChanged() | InputDropped():
                self._execute_control(effect)
            case _:
                assert_never(effect)

    def _contribute(self, frame: Frame) -> None:
        """Send a contribution over the link or a separate connection (R8); drop it if neither is possible now.

        If the store cannot read the payload, report this with ``on_unreadable``.
        """
        try:
            payload = self._storage.payload(frame.file_id, frame.start, frame.stop)
        except Exception as error:  # other files go on, unless the whole store has failed
            log.warning("cannot send chunks [%d, %d): %s", frame.start, frame.stop, error)
            log.debug("cannot send chunks: stack trace:", exc_info=error)
            self._on_unreadable(frame.file_id)
            return
        views = [payload] if isinstance(payload, memoryview) else payload
        on_unreadable = functools.partial(self._note_unreadable, frame)
        if self._kept_links:
            if self._link.current is not None:
                self._link.current.send(frame, views, on_unreadable=on_unreadable)
        elif len(self._connections) < CONNECTIONS_MAX:
            try:
                connection = FrameConnection.dial(self._server_address, self, persistent=False)
            except OSError:
                return  # the server asks for the chunks again
            self._connections.add(connection)
            connection.send(frame, views, on_unreadable=on_unreadable)
            connection.close_when_sent()
            connection.start()

    def _note_unreadable(self, frame: Frame) -> None:
        log.warning("cannot read chunks [%d, %d) any more: verifying the file", frame.start, frame.stop)
        self._on_unreadable(frame.file_id)

    # -- input

    def _on_datagram(self, data: bytes, source: Address) -> None:
        self._machine.receive_datagram(data, source, now_ns())
        if self._machine.hellos.downlink_ok:
            self._data_path.note_udp()
        self.pump()

    def _accept(self, stream: socket.socket, peer: Address) -> None:
        if len(self._connections) >= CONNECTIONS_MAX:
            stream.close()
            self._machine.connection_dropped(DropReason.TOO_MANY, address_text(peer))
            self.pump()
            return
        connection = FrameConnection.wrap(stream, peer, self, persistent=False)
        self._connections.add(connection)
        connection.start()

    def connection_opened(self, connection: FrameConnection) -> None:
        """See ``ConnectionHandler.connection_opened``. When the link opens, the machine repeats its requests."""
        if connection is self._link.current:
            self._link.note_opened()
            self._machine.link_opened(now_ns())
            self.pump()

    def connection_closed(self, connection: FrameConnection, error: WireError | None) -> None:
        """See ``ConnectionHandler.connection_closed``."""
        self._connections.discard(connection)
        self._parts.forget(connection)
        if error is not None:
            self._machine.connection_dropped(error.reason, address_text(connection.peer))
            self.pump()
        if connection is self._link.current:
            self._link.note_closed(connection)

    def frame_started(self, connection: FrameConnection, frame: Frame) -> list[memoryview] | None:
        """See ``FrameHandler.frame_started``."""
        if self._machine.delivery_started(frame, address_text(connection.peer)):
            return [self._parts.allocate(connection, frame, frame.start)]
        if connection is not self._link.current:  # the connection was for this transfer only
            connection.close()
        self.pump()
        return None

    def frame_continued(self, connection: FrameConnection, frame: Frame) -> list[memoryview]:
        """See ``FrameHandler.frame_continued``."""
        part = self._parts.store(connection)
        self.pump()
        return [] if connection.closed else [self._parts.allocate(connection, frame, part.stop)]

    def frame_received(self, connection: FrameConnection, frame: Frame) -> None:
        """See ``FrameHandler.frame_received``."""
        self._parts.store(connection)
        self.pump()
        if connection is not self._link.current:
            connection.close()

    def frame_aborted(self, connection: FrameConnection, frame: Frame) -> None:
        """See ``ConnectionHandler.frame_aborted``. Nothing to do: the machine requests missing chunks again."""
