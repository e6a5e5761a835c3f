"""The data plane: frames over TCP and datagrams over UDP between the server and its clients."""

from __future__ import annotations

from pspd.core.effects.server import Deliver
from pspd.core.model.manifest import CHUNK_BYTES
from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS
from pspd.core.server.contributions import Reception
from pspd.core.server.machine import ServerMachine
from pspd.core.wire.frames import FRAME_BYTES, Frame
from pspd.errors import PspError, StorageError
from pspd.sim.control import ControlPlane
from pspd.sim.hosts import Client, Connection
from pspd.sim.network_state import SERVER, NetworkState
from pspd.sim.paths import Pipe

SOCKET_BUFFER_BYTES = 4 * 1024 * 1024
"""How many bytes the kernels of both ends buffer for one connection. The last delivery may exceed this number."""
ETHERNET_BYTES = 14
DATAGRAM_HEAD_BYTES = ETHERNET_BYTES + 20 + 8
"""Ethernet, IP and UDP headers."""
SEGMENT_HEAD_BYTES = ETHERNET_BYTES + 20 + 32
"""Ethernet, IP and TCP headers, with the usual options."""
SEGMENT_BYTES = 1448
"""Payload of one TCP segment."""
RETRY_NS = SECOND_NS
"""The time between two attempts to pass on the bytes of a partitioned or unread connection, in nanoseconds."""


def wire_bytes(byte_count: int) -> int:
    """Return the bytes on the cable for ``byte_count`` bytes of TCP data: with headers, without acknowledgements."""
    return byte_count + -(-byte_count // SEGMENT_BYTES) * SEGMENT_HEAD_BYTES


class DataPlane:
    """Carries frames and datagrams. A datagram occupies only the sending direction of its sender.

    Args:
        network: the network.
        control: the control plane, which declines or verifies a file if a client's store fails.
        server_rate: the server's rate in each direction, in bytes per second; 0 for unlimited.

    Attributes:
        uplink: the server's sending direction.
        downlink: the server's receiving direction.
    """

    def __init__(self, network: NetworkState, control: ControlPlane, server_rate: int) -> None:
        self.uplink, self.downlink = Pipe(server_rate), Pipe(server_rate)
        self._network = network
        self._control = control

    # -- deliveries

    def deliver(self, delivery: Deliver) -> None:
        """Send a delivery over the client's link, or over a new connection (classic); tell the server if this fails."""
        network = self._network
        server, client = network.server_for_input(), network.client_of(delivery.session)
        assert server is not None, "a server that delivers is running"
        is_classic = not network.parameters.kept_links
        if client is None or not client.alive or not (is_classic or client.link.is_open):
            server.delivery_failed(delivery.session, delivery.number, network.now)
        elif is_classic:
            # One round trip opens the connection; the next segment carries the first bytes.
            when = network.now + 2 * network.draw_delay(client)
            network.at_server(when, self._deliver_classic, client, client.epoch, delivery)
        else:
            client.link.queue.append(delivery)
            self._fill_buffers(server, client, client.link)

    def _fill_buffers(self, server: ServerMachine, client: Client, connection: Connection) -> None:
        """Move queued deliveries into the kernels' buffers while there is space."""
        while connection.queue and connection.buffered_bytes < SOCKET_BUFFER_BYTES and connection.is_open:
            delivery = connection.queue.popleft()
            connection.buffered_bytes += delivery.frame.length
            arrives, payload = self._transmit_down(server, client, delivery)
            self._network.at_client(client, arrives, self._delivery_arrived, connection, delivery.frame, payload)

    def _deliver_classic(self, server: ServerMachine, client: Client, epoch: int, delivery: Deliver) -> None:
        if client.epoch != epoch or client.partitioned or not client.reads_deliveries:
            server.delivery_failed(delivery.session, delivery.number, self._network.now)
            return
        arrives, payload = self._transmit_down(server, client, delivery)
        self._network.at_client(client, arrives, self._delivery_arrived_classic, delivery.frame, payload)

    def _transmit_down(self, server: ServerMachine, client: Client, delivery: Deliver) -> tuple[int, bytes]:
        """Send a delivery, and tell the server that it was sent; return when the last byte arrives, and the payload."""
        network = self._network
        payload = b"".join(delivery.views) if network.content.has_bytes else b""
        size, delay = wire_bytes(FRAME_BYTES + delivery.frame.length), network.draw_delay(client)
        begins, ends = self.uplink.transmit(size, network.now)
        _, arrives = client.downlink.transmit(size, begins + delay, ends + delay)
        server.delivery_sent(delivery.session, delivery.number, network.now)
        return arrives, payload

    def _delivery_arrived(self, client: Client, connection: Connection, frame: Frame, payload: bytes) -> None:
        network = self._network
        if client.link is not connection:
            return
        if client.partitioned or not client.reads_deliveries:
            network.at_client(client, network.now + RETRY_NS, self._delivery_arrived, connection, frame, payload)
            return
        _, written = client.disk.transmit(frame.length, network.now)
        if written > network.now:
            network.at_client(client, written, self._delivery_written, connection, frame, payload)
        else:
            self._delivery_written(client, connection, frame, payload)

    def _delivery_arrived_classic(self, client: Client, frame: Frame, payload: bytes) -> None:
        if not client.partitioned:
            self._write(client, frame, payload)

    def _delivery_written(self, client: Client, connection: Connection, frame: Frame, payload: bytes) -> None:
        server = self._network.server_for_input()
        if client.link is connection:
            self._write(client, frame, payload)
            connection.buffered_bytes -= frame.length
            if server is not None:
                self._fill_buffers(server, client, connection)

    def _write(self, client: Client, frame: Frame, payload: bytes) -> None:
        network = self._network
        if client.machine.delivery_started(frame, "server"):
            data = payload if network.content.has_bytes else network.content.read(b"", 0, frame.length)
            try:
                written = client.store.write(frame.file_id, frame.start, frame.stop, memoryview(data))
            except StorageError as error:
                self._control.decline(client, frame.file_id, error)
                return
            client.machine.delivery_stored(frame, written, network.now)
        network.poll_soon(client)

    # -- contributions

    def contribute(self, client: Client, frame: Frame) -> None:
        """Send a contribution over the client's link, or over a new connection (classic).

        If the link is not open, drop the contribution. If the client cannot read the chunks, it verifies the file.

        Args:
            client: the holder.
            frame: the frame to send.
        """
        network = self._network
        if network.parameters.kept_links:
            if client.link.is_open:
                self._transmit_up(client, client.link, frame)
        else:
            connection, when = Connection(is_open=True), network.now + 2 * network.draw_delay(client)
            network.in_epoch(client, when, self._transmit_up, connection, frame)

    def _transmit_up(self, client: Client, connection: Connection, frame: Frame) -> None:
        network = self._network
        payload: bytes | None = b""
        if network.content.has_bytes:
            try:
                if client.source_file is not None:
                    payload = client.source_file[1][frame.start * CHUNK_BYTES :][: frame.length]
                else:
                    payload = bytes(client.store.payload(frame.file_id, frame.start, frame.stop))
            except PspError:
                self._control.reverify(client, frame.file_id)
                return
            if client.tamper is not None:
                payload = client.tamper(frame, payload or b"")
        size, delay = wire_bytes(FRAME_BYTES + frame.length), network.draw_delay(client)
        first, last = (when + delay for when in client.uplink.transmit(size, network.now))
        network.in_epoch(client, first, self._contribution_arrives, connection, frame, payload, size, last)

    def _contribution_arrives(
        self, client: Client, connection: Connection, frame: Frame, payload: bytes | None, size: int, ends: int
    ) -> None:
        """Occupy the server's receiving direction only when the first byte arrives, as other bytes may come first."""
        starts, arrives = self.downlink.transmit(size, self._network.now, ends)
        self._network.in_epoch(client, starts, self._contribution_begins, connection, frame, payload, arrives)

    def _contribution_begins(
        self, client: Client, connection: Connection, frame: Frame, payload: bytes | None, arrives: int
    ) -> None:
        network, server = self._network, self._network.server_for_input()
        if not connection.is_open or server is None:
            return
        # The bytes of a partitioned client wait, and the frames of one connection arrive one after the other.
        retry_ns = RETRY_NS if client.partitioned else MILLISECOND_NS if connection.receiving is not None else 0
        if retry_ns:
            when = network.now + retry_ns
            network.in_epoch(client, when, self._contribution_begins, connection, frame, payload, arrives)
            return
        reception = server.contribution_started(frame, client.name, network.now)
        if reception is not None:
            connection.receiving = reception
            network.at_server(arrives, self._contribution_ends, client, client.epoch, connection, reception, payload)

    def _contribution_ends(
        self,
        server: ServerMachine,
        client: Client,
        epoch: int,
        connection: Connection,
        reception: Reception,
        payload: bytes | None,
    ) -> None:
        network = self._network
        if connection.receiving is not reception:
            return
        if client.partitioned and client.epoch == epoch:
            when = network.now + RETRY_NS
            network.at_server(when, self._contribution_ends, client, epoch, connection, reception, payload)
            return
        connection.receiving = None
        if payload is None or client.epoch != epoch:
            server.contribution_aborted(reception, network.now)
            return
        for view in reception.views if network.content.has_bytes else ():
            view[:] = payload[: len(view)]
            payload = payload[len(view) :]
        server.contribution_received(reception, network.now)

    # -- datagrams

    def send_to_client(self, client: Client, data: bytes) -> None:
        """Send a datagram from the server to a client.

        Args:
            client: the receiver.
            data: the datagram.
        """
        network = self._network
        self.uplink.transmit_datagram(len(data) + DATAGRAM_HEAD_BYTES, network.now)
        for delay in client.downlink_path.delays():
            network.at_client(client, network.now + delay, self._datagram_arrived, data)

    def _datagram_arrived(self, client: Client, data: bytes) -> None:
        if client.alive and not client.partitioned and not client.downlink_blocked:
            client.machine.receive_datagram(data, SERVER, self._network.now)
            self._network.poll_soon(client)

    def send_to_server(self, client: Client, data: bytes) -> None:
        """Send a datagram from a client to the server.

        Args:
            client: the sender.
            data: the datagram.
        """
        network = self._network
        client.uplink.transmit_datagram(len(data) + DATAGRAM_HEAD_BYTES, network.now)
        for delay in client.uplink_path.delays():
            network.at_server(network.now + delay, self._datagram_arrived_at_server, client, data)

    def _datagram_arrived_at_server(self, server: ServerMachine, client: Client, data: bytes) -> None:
        if not client.partitioned:
            server.receive_datagram(data, client.address, self._network.now)
