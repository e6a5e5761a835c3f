"""The data plane: frames over TCP and datagrams over UDP between the server and its clients."""

from __future__ import annotations

from pspd.core.effects.server import Deliver
from pspd.core.model.manifest import CHUNK_BYTES
from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS
from pspd.core.server.contributions import Receipt
from pspd.core.server.machine import ServerMachine
from pspd.core.wire.frames import FRAME_BYTES, Frame
from pspd.errors import PspError, StorageError
from pspd.sim.control import ControlPlane
from pspd.sim.hosts import Client, Link
from pspd.sim.paths import Pipe
from pspd.sim.state import SERVER, NetworkState

SOCKET_BUFFER_BYTES = 4 * 1024 * 1024
"""How many unread bytes the kernels of both ends buffer for one connection."""
ETHERNET_BYTES = 14
DATAGRAM_HEAD_BYTES = ETHERNET_BYTES + 20 + 8
"""Ethernet, IP and UDP headers."""
SEGMENT_HEAD_BYTES = ETHERNET_BYTES + 20 + 32
"""Ethernet, IP and TCP headers, with the usual options."""
SEGMENT_BYTES = 1448
"""Payload of one TCP segment."""
RETRY_NS = SECOND_NS
"""How soon bytes that wait for a partition to heal, or for a reader, are tried again."""


def on_the_wire(byte_count: int) -> int:
    """Return how many bytes of a cable TCP needs for ``byte_count`` bytes, acknowledgements excluded."""
    return byte_count + -(-byte_count // SEGMENT_BYTES) * SEGMENT_HEAD_BYTES


class Transport:
    """Carries frames and datagrams.

    Args:
        state: the network's state.
        control: what a client does when its storage fails.
        server_rate: bytes per second that the server can send, and receive; 0 for unlimited.

    Attributes:
        up: what the server sends through.
        down: what it receives through.
    """

    def __init__(self, state: NetworkState, control: ControlPlane, server_rate: int) -> None:
        self.up, self.down = Pipe(server_rate), Pipe(server_rate)
        self._state = state
        self._control = control

    # -- deliveries

    def deliver(self, delivery: Deliver) -> None:
        """Send a delivery over the client's link, or over a connection of its own (classic)."""
        state = self._state
        server, client = state.server, state.client_of(delivery.session)
        assert server is not None, "a server that delivers is running"
        if client is None or not client.alive:
            server.delivery_failed(delivery.session, delivery.number, state.now)
        elif not state.parameters.kept_links:
            # One round trip opens the connection; the next segment carries the first bytes.
            state.clock.after(2 * state.delay(client), self._deliver_alone, client, client.epoch, delivery)
        elif not client.link.is_open:
            server.delivery_failed(delivery.session, delivery.number, state.now)
        else:
            client.link.queue.append(delivery)
            self._fill_buffers(client, client.link)

    def _fill_buffers(self, client: Client, link: Link) -> None:
        """Move queued deliveries into the kernels' buffers while there is space."""
        while link.queue and link.buffered_bytes < SOCKET_BUFFER_BYTES and link.is_open:
            delivery = link.queue.popleft()
            link.buffered_bytes += delivery.frame.length
            arrives, payload = self._transmit_down(client, delivery)
            self._state.at_client(client, arrives, self._arrive, client, client.epoch, link, delivery.frame, payload)

    def _deliver_alone(self, client: Client, epoch: int, delivery: Deliver) -> None:
        server = self._state.server
        if server is None:
            return
        if client.epoch != epoch or client.partitioned or not client.reads_deliveries:
            server.delivery_failed(delivery.session, delivery.number, self._state.now)
            return
        arrives, payload = self._transmit_down(client, delivery)
        self._state.at_client(client, arrives, self._arrive_alone, client, epoch, delivery, payload)

    def _transmit_down(self, client: Client, delivery: Deliver) -> tuple[int, bytes]:
        """Take the bytes of a delivery from the server; return when the last one arrives, and the payload."""
        state, server = self._state, self._state.server
        assert server is not None, "the caller has checked"
        payload = b"".join(delivery.views) if state.content.copied else b""
        size = on_the_wire(FRAME_BYTES + delivery.frame.length)
        delay = state.delay(client)
        begins, ends = self.up.transmit(size, state.now)
        _, arrives = client.down.transmit(size, begins + delay, ends + delay)
        server.delivery_sent(delivery.session, delivery.number, state.now)
        return arrives, payload

    def _arrive(self, client: Client, epoch: int, link: Link, frame: Frame, payload: bytes) -> None:
        state = self._state
        if client.epoch != epoch or client.link is not link:
            return
        if client.partitioned or not client.reads_deliveries:
            state.at_client(client, state.now + RETRY_NS, self._arrive, client, epoch, link, frame, payload)
            return
        _, written = client.disk.transmit(frame.length, state.now)
        if written > state.now:
            state.at_client(client, written, self._store, client, epoch, link, frame, payload)
        else:
            self._store(client, epoch, link, frame, payload)

    def _arrive_alone(self, client: Client, epoch: int, delivery: Deliver, payload: bytes) -> None:
        if client.epoch == epoch and not client.partitioned:
            self._write(client, delivery.frame, payload)

    def _store(self, client: Client, epoch: int, link: Link, frame: Frame, payload: bytes) -> None:
        if client.epoch == epoch and client.link is link:
            self._write(client, frame, payload)
            link.buffered_bytes -= frame.length
            self._fill_buffers(client, link)

    def _write(self, client: Client, frame: Frame, payload: bytes) -> None:
        state = self._state
        if client.machine.delivery_started(frame, "server"):
            data = payload if state.content.copied else state.content.read(b"", 0, frame.length)
            try:
                written = client.store.write(frame.file_id, frame.start, frame.stop, memoryview(data))
            except StorageError as error:
                self._control.decline(client, frame.file_id, error)
                return
            client.machine.delivery_stored(frame, written, state.now)
        state.touch(client)

    # -- contributions

    def contribute(self, client: Client, frame: Frame) -> None:
        """Send a contribution over the client's link, or over a connection of its own (classic).

        Args:
            client: the holder.
            frame: what to send.
        """
        state = self._state
        if state.parameters.kept_links:
            if client.link.is_open:
                self._transmit_up(client, client.epoch, client.link, frame)
        else:
            link = Link()
            link.is_open = True
            state.clock.after(2 * state.delay(client), self._transmit_up, client, client.epoch, link, frame)

    def _transmit_up(self, client: Client, epoch: int, link: Link, frame: Frame) -> None:
        state = self._state
        if client.epoch != epoch:
            return
        payload: bytes | None = b""
        if state.content.copied:
            try:
                payload = self._payload(client, frame)
            except PspError:
                self._control.reverify(client, frame.file_id)
                return
            if client.tamper is not None:
                payload = client.tamper(frame, payload or b"")
        size, delay = on_the_wire(FRAME_BYTES + frame.length), state.delay(client)
        begins, ends = client.up.transmit(size, state.now)
        state.clock.at(begins + delay, self._reach_server, client, epoch, link, frame, payload, size, ends + delay)

    def _payload(self, client: Client, frame: Frame) -> bytes:
        if client.source_file is not None:
            return client.source_file[1][frame.start * CHUNK_BYTES :][: frame.length]
        return bytes(client.store.payload(frame.file_id, frame.start, frame.stop))

    def _reach_server(
        self, client: Client, epoch: int, link: Link, frame: Frame, payload: bytes | None, size: int, ends: int
    ) -> None:
        """Occupy the server's link only now: other traffic may have passed while the first bytes were under way."""
        starts, arrives = self.down.transmit(size, self._state.now, ends)
        self._state.clock.at(starts, self._head_arrives, client, epoch, link, frame, payload, arrives)

    def _head_arrives(
        self, client: Client, epoch: int, link: Link, frame: Frame, payload: bytes | None, arrives: int
    ) -> None:
        state = self._state
        server, clock = state.server, state.clock
        if client.epoch != epoch or not link.is_open or server is None:
            return
        if client.partitioned:
            clock.after(RETRY_NS, self._head_arrives, client, epoch, link, frame, payload, arrives)
            return
        if link.receiving is not None:  # frames of one link do not interleave
            clock.after(MILLISECOND_NS, self._head_arrives, client, epoch, link, frame, payload, arrives)
            return
        receipt = server.contribution_started(frame, client.name, state.now)
        if receipt is not None:
            link.receiving = receipt
            clock.at(arrives, self._tail_arrives, server, client, epoch, link, receipt, payload)

    def _tail_arrives(
        self,
        server: ServerMachine,
        client: Client,
        epoch: int,
        link: Link,
        receipt: Receipt,
        payload: bytes | None,
    ) -> None:
        state = self._state
        if link.receiving is not receipt or state.server is not server:  # a restarted server knows nothing of it
            return
        if client.partitioned and client.epoch == epoch:
            state.clock.after(RETRY_NS, self._tail_arrives, server, client, epoch, link, receipt, payload)
            return
        link.receiving = None
        if payload is None or client.epoch != epoch:
            server.contribution_aborted(receipt, state.now)
            return
        for view in receipt.views if state.content.copied else ():
            view[:] = payload[: len(view)]
            payload = payload[len(view) :]
        server.contribution_received(receipt, state.now)

    # -- datagrams

    def send_to_client(self, client: Client, data: bytes) -> None:
        """Send a datagram from the server.

        Args:
            client: the receiver.
            data: the datagram.
        """
        state = self._state
        self.up.transmit_datagram(len(data) + DATAGRAM_HEAD_BYTES, state.now)
        for delay in client.path_down.delays():
            state.at_client(client, state.now + delay, self._receive, client, client.epoch, data)

    def _receive(self, client: Client, epoch: int, data: bytes) -> None:
        is_reachable = client.alive and not client.partitioned and not client.downlink_blocked
        if client.epoch == epoch and is_reachable:
            client.machine.receive_datagram(data, SERVER, self._state.now)
            self._state.touch(client)

    def send_to_server(self, client: Client, data: bytes) -> None:
        """Send a datagram from a client.

        Args:
            client: the sender.
            data: the datagram.
        """
        state = self._state
        client.up.transmit_datagram(len(data) + DATAGRAM_HEAD_BYTES, state.now)
        for delay in client.path_up.delays():
            state.clock.after(delay, self._receive_at_server, client, state.server_epoch, data)

    def _receive_at_server(self, client: Client, server_epoch: int, data: bytes) -> None:
        state = self._state
        server = state.server
        if server is not None and state.server_epoch == server_epoch and not client.partitioned:
            server.receive_datagram(data, client.address, state.now)
