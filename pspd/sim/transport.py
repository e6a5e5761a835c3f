"""How frames and datagrams pass between the server and its clients in a world."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pspd.core.effects.server import Deliver
from pspd.core.model.manifest import CHUNK_BYTES
from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS
from pspd.core.wire.frames import FRAME_BYTES, Frame
from pspd.errors import PspError, StorageError
from pspd.sim.hosts import Client, Link
from pspd.sim.wires import Pipe
from pspd.text.addresses import Address

if TYPE_CHECKING:
    from pspd.core.server.machine import ServerMachine
    from pspd.sim.world import World

SERVER: Address = ("server", 1)
SOCKET_BUFFER_BYTES = 4 * 1024 * 1024
"""What the kernels of both sides take of one connection before its reader has read it."""
ETHERNET_BYTES = 14
DATAGRAM_HEAD_BYTES = ETHERNET_BYTES + 20 + 8
"""Ethernet's, IP's and UDP's own."""
SEGMENT_HEAD_BYTES = ETHERNET_BYTES + 20 + 32
"""Ethernet's, IP's and TCP's own, with its usual options."""
SEGMENT_BYTES = 1448
"""What one packet of a connection carries."""
REDIAL_NS = 50 * MILLISECOND_NS
RETRY_NS = SECOND_NS
"""How soon what waits for a cut wire, or for a reader, is tried again."""


def on_the_wire(byte_count: int) -> int:
    """How many bytes of a cable so many bytes of a connection take; acknowledgements are left out."""
    return byte_count + -(-byte_count // SEGMENT_BYTES) * SEGMENT_HEAD_BYTES


class Transport:
    """The data plane of a world.

    Attributes:
        up, down: what the server sends and receives through.
    """

    def __init__(self, world: World, server_rate: int) -> None:
        self.up, self.down = Pipe(server_rate), Pipe(server_rate)
        self._world = world
        self._at = world.at_client

    # -- links

    def dial(self, client: Client, life: int) -> None:
        """The client opens its link, or tries to until it can."""
        if client.life != life or client.link.stands:
            return
        if self._world.server is None or client.cut_off:
            self._world.clock.after(self._world.soon(REDIAL_NS), self.dial, client, life)
            return
        link = client.link = Link()
        self._at(client, self._world.now + 2 * self._world.delay(client), self._link_stands, client, life, link)

    def _link_stands(self, client: Client, life: int, link: Link) -> None:
        if client.life != life or client.link is not link:
            return
        if (
            self._world.server is None
            or client.cut_off
            or not self._world.server.link_opened(client.session, self._world.now)
        ):
            self._world.clock.after(self._world.soon(REDIAL_NS), self.dial, client, life)
            return
        link.stands = True
        client.machine.link_opened(self._world.now)
        self._world.touch(client)

    def cut_link(self, client: Client) -> None:
        """The client's link breaks, and it dials again."""
        if client.link.stands:
            self.close(client)
            self._world.clock.after(self._world.soon(REDIAL_NS), self.dial, client, client.life)

    def close(self, client: Client) -> None:
        """A client's link is gone, and both sides know."""
        link, client.link = client.link, Link()
        if self._world.server is not None and client.session:
            self._world.server.link_closed(client.session, self._world.now)
        self.end_link(link)

    def end_link(self, link: Link) -> None:
        """Whatever waited on a link, or came over it, is told that it ended."""
        link.stands = False
        server = self._world.server
        if server is None:
            return
        if link.receiving is not None:
            frame, link.receiving = link.receiving, None
            server.contribution_aborted(frame, self._world.now)
        while link.queue:
            delivery = link.queue.popleft()
            server.delivery_failed(delivery.session, delivery.number, self._world.now)

    # -- from the server to clients

    def deliver(self, delivery: Deliver) -> None:
        """Sends over the client's link, or over a connection of its own."""
        client = self._world.client_of(delivery.session)
        assert self._world.server is not None, "who delivers is there"
        if client is None or client.session != delivery.session or not client.alive:
            self._world.server.delivery_failed(delivery.session, delivery.number, self._world.now)
        elif not self._world.parameters.kept_links:
            # Two ways to open the connection, and the third carries the first bytes.
            self._world.clock.after(2 * self._world.delay(client), self._deliver_alone, client, client.life, delivery)
        elif not client.link.stands:
            self._world.server.delivery_failed(delivery.session, delivery.number, self._world.now)
        else:
            client.link.queue.append(delivery)
            self._fill(client, client.link)

    def _fill(self, client: Client, link: Link) -> None:
        """The kernel takes of the link's queue what its buffers hold."""
        while link.queue and link.buffered_bytes < SOCKET_BUFFER_BYTES and link.stands:
            delivery = link.queue.popleft()
            link.buffered_bytes += delivery.frame.length
            self._send_down(client, link, delivery)

    def _send_down(self, client: Client, link: Link, delivery: Deliver) -> None:
        frame, server_life = delivery.frame, self._world.server_life
        payload = b"".join(delivery.views) if self._world.content.copied else b""
        size = on_the_wire(FRAME_BYTES + frame.length)
        delay = self._world.delay(client)
        begins, ends = self.up.take(size, self._world.now)
        _, arrives = client.down.take(size, begins + delay, ends + delay)
        self._sent(server_life, delivery)
        self._at(client, arrives, self._arrive, client, client.life, link, frame, payload)

    def _sent(self, server_life: int, delivery: Deliver) -> None:
        if self._world.server is not None and self._world.server_life == server_life:
            self._world.server.delivery_sent(delivery.session, delivery.number, self._world.now)

    def _arrive(self, client: Client, life: int, link: Link, frame: Frame, payload: bytes) -> None:
        if client.life != life or client.link is not link:
            return
        if client.cut_off or not client.takes_deliveries:
            self._at(client, self._world.now + RETRY_NS, self._arrive, client, life, link, frame, payload)
            return
        _, written = client.disk.take(frame.length, self._world.now)
        if written > self._world.now:
            self._at(client, written, self._store, client, life, link, frame, payload)
        else:
            self._store(client, life, link, frame, payload)

    def _store(self, client: Client, life: int, link: Link, frame: Frame, payload: bytes) -> None:
        if client.life == life and client.link is link:
            self._write(client, frame, payload)
            link.buffered_bytes -= frame.length
            self._fill(client, link)

    def _write(self, client: Client, frame: Frame, payload: bytes) -> None:
        if client.machine.delivery_started(frame, "server"):
            data = memoryview(payload) if self._world.content.copied else self._world.content.read(b"", 0, frame.length)
            try:
                written = client.store.write(frame.file_id, frame.start, frame.stop, memoryview(data))
            except StorageError as error:
                self._world.stop_taking(client, frame.file_id, error)
                return
            client.machine.delivery_stored(frame, written, self._world.now)
        self._world.touch(client)

    def _deliver_alone(self, client: Client, life: int, delivery: Deliver) -> None:
        """A delivery over a connection of its own (classic)."""
        frame, server_life = delivery.frame, self._world.server_life
        if self._world.server is None:
            return
        if client.life != life or client.cut_off or not client.takes_deliveries:
            self._world.server.delivery_failed(delivery.session, delivery.number, self._world.now)
            return
        payload = b"".join(delivery.views) if self._world.content.copied else b""
        size, delay = on_the_wire(FRAME_BYTES + frame.length), self._world.delay(client)
        begins, ends = self.up.take(size, self._world.now)
        _, arrives = client.down.take(size, begins + delay, ends + delay)
        self._sent(server_life, delivery)
        self._at(client, arrives, self._arrive_alone, client, life, delivery, payload)

    def _arrive_alone(self, client: Client, life: int, delivery: Deliver, payload: bytes) -> None:
        if client.life == life and not client.cut_off:
            self._write(client, delivery.frame, payload)

    # -- from clients to the server

    def contribute(self, client: Client, frame: Frame) -> None:
        """Sends what was asked, over the link, or over a connection of its own."""
        if self._world.parameters.kept_links:
            if client.link.stands:
                self._send_up(client, client.life, client.link, frame)
        else:
            link = Link()
            link.stands = True
            self._world.clock.after(2 * self._world.delay(client), self._send_up, client, client.life, link, frame)

    def _send_up(self, client: Client, life: int, link: Link, frame: Frame) -> None:
        if client.life != life:
            return
        payload: bytes | None = b""
        if self._world.content.copied:
            try:
                payload = self._payload(client, frame)
            except PspError:
                self._world.suspect(client, frame.file_id)
                return
            if client.forge is not None:
                payload = client.forge(frame, payload or b"")
        size, delay = on_the_wire(FRAME_BYTES + frame.length), self._world.delay(client)
        begins, ends = client.up.take(size, self._world.now)
        self._world.clock.at(begins + delay, self._enter_server, client, life, link, frame, payload, size, ends + delay)

    def _enter_server(
        self, client: Client, life: int, link: Link, frame: Frame, payload: bytes | None, size: int, ends: int
    ) -> None:
        """The first bytes are there: only now is the server's cable taken, which others may have used meanwhile."""
        starts, arrives = self.down.take(size, self._world.now, ends)
        self._world.clock.at(starts, self._head_arrives, client, life, link, frame, payload, arrives)

    def _payload(self, client: Client, frame: Frame) -> bytes:
        if client.original is not None:
            return client.original[1][frame.start * CHUNK_BYTES :][: frame.length]
        return bytes(client.store.payload(frame.file_id, frame.start, frame.stop))

    def _head_arrives(
        self, client: Client, life: int, link: Link, frame: Frame, payload: bytes | None, arrives: int
    ) -> None:
        server = self._world.server
        if client.life != life or not link.stands or server is None:
            return
        if client.cut_off:
            self._world.clock.after(RETRY_NS, self._head_arrives, client, life, link, frame, payload, arrives)
            return
        if link.receiving is not None:  # a link brings one frame after the other
            self._world.clock.after(MILLISECOND_NS, self._head_arrives, client, life, link, frame, payload, arrives)
            return
        views = server.contribution_started(frame, client.name, self._world.now)
        if views is not None:
            link.receiving = frame
            self._world.clock.at(arrives, self._tail_arrives, server, client, life, link, frame, payload, views)

    def _tail_arrives(
        self,
        server: ServerMachine,
        client: Client,
        life: int,
        link: Link,
        frame: Frame,
        payload: bytes | None,
        views: list[memoryview],
    ) -> None:
        if link.receiving is not frame or self._world.server is not server:  # one that crashed has left no heir
            return
        if client.cut_off and client.life == life:
            self._world.clock.after(RETRY_NS, self._tail_arrives, server, client, life, link, frame, payload, views)
            return
        link.receiving = None
        if payload is None or client.life != life:
            server.contribution_aborted(frame, self._world.now)
            return
        for view in views if self._world.content.copied else ():
            view[:] = payload[: len(view)]
            payload = payload[len(view) :]
        server.contribution_received(frame, self._world.now)

    # -- datagrams

    def send_to_client(self, client: Client, data: bytes) -> None:
        """Sends a datagram from the server."""
        self.up.squeeze_in(len(data) + DATAGRAM_HEAD_BYTES, self._world.now)
        for delay in client.air_down.copies():
            self._at(client, self._world.now + delay, self._hear, client, client.life, data)

    def _hear(self, client: Client, life: int, data: bytes) -> None:
        if client.life == life and client.alive and not client.cut_off and not client.deaf:
            client.machine.receive_datagram(data, SERVER, self._world.now)
            self._world.touch(client)

    def send_to_server(self, client: Client, data: bytes) -> None:
        """Sends a datagram from a client."""
        client.up.squeeze_in(len(data) + DATAGRAM_HEAD_BYTES, self._world.now)
        for delay in client.air_up.copies():
            self._world.clock.after(delay, self._hear_at_server, client, self._world.server_life, data)

    def _hear_at_server(self, client: Client, server_life: int, data: bytes) -> None:
        if self._world.server is not None and self._world.server_life == server_life and not client.cut_off:
            self._world.server.receive_datagram(data, client.address, self._world.now)
