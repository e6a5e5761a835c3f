"""Write the trace in ``docs/trace.md``; ``scripts/trace_protocol`` runs this script.

A server, three clients and a source distribute a file of one byte. They are the real state machines of
:mod:`pspd.core`. Virtual time and fixed seeds make every run the same, byte for byte.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from google.protobuf.message import Message

from pspd.core.client.machine import ClientMachine
from pspd.core.effects.client import ClientEffect, Contribute, FinishFile, ReportMilestone
from pspd.core.effects.server import Assign, Deliver, EndSession, MemberFailed, RemoveFile, ServerEffect, StartExchange
from pspd.core.effects.shared import SendDatagram
from pspd.core.model.manifest import Manifest
from pspd.core.model.parameters import FAST, FAST_CACHE_CHUNKS, MILLISECOND_NS
from pspd.core.server.machine import ServerMachine
from pspd.core.wire.datagrams import Broadcast, Request, decode_datagram
from pspd.core.wire.frames import Frame, decode_frame, encode_frame
from pspd.core.wire.header import Kind
from pspd.rpc import translate
from pspd.store.digests import blake3_digest
from pspd.store.files.memory import MemoryStore
from pspd.text.addresses import Address
from pspd.v1 import file_service_pb2, membership_service_pb2

PAGE = Path(__file__).resolve().parent.parent / "docs" / "trace.md"
BEGIN, END = "<!-- trace: begin -->\n", "<!-- trace: end -->\n"

NAME, DATA = "one.txt", b"A"
CLIENTS = ("anna", "bert", "carl")
SOURCE = "source-1"
SERVER: Address = ("10.0.0.1", 7071)
DELAY_NS = MILLISECOND_NS // 2
"""How long each message takes, one way."""
END_NS = 100 * MILLISECOND_NS
SEED = 1

Action = Callable[[], None]


@dataclass(eq=False)
class Peer:
    """A client or the source.

    Attributes:
        name: its name in the network.
        number: its number among the peers, from 1; its address and its identity follow from it.
        machine: its state machine.
        store: its files.
        session: its session; 0 before it has joined.
        source_data: the bytes of the source's file; empty for a client.
        attends: whether its stream of events is open.
        queued_events: events for it that wait for the stream.
    """

    name: str
    number: int
    machine: ClientMachine
    store: MemoryStore
    session: int = 0
    source_data: bytes = b""
    attends: bool = False
    queued_events: list[Message] = field(default_factory=list)

    @property
    def address(self) -> Address:
        """Its datagram address."""
        return f"10.0.0.{self.number + 1}", 50_000 + self.number


class Run:
    """The network, its virtual clock, and the lines of the trace.

    Attributes:
        now: the virtual time, in nanoseconds.
        lines: the lines written so far.
    """

    def __init__(self) -> None:
        self.now = 0
        self.lines: list[str] = []
        draw_session = partial(Random(SEED).getrandbits, 64)
        self.server = ServerMachine(FAST, FAST_CACHE_CHUNKS, blake3_digest, SEED, draw_session)
        self.peers = [
            Peer(name, number, ClientMachine(SEED + number), MemoryStore(blake3_digest, bytes([number]) * 16))
            for number, name in enumerate((*CLIENTS, SOURCE), 1)
        ]
        self._queue: list[tuple[int, int, Action]] = []
        self._order = count()

    def run(self) -> str:
        """Distribute the file and return the trace."""
        *clients, source = self.peers
        for index, client in enumerate(clients):
            self._at(10 * index * MILLISECOND_NS, self._joining(client))
        self._at(40 * MILLISECOND_NS, self._joining(source, self._announcing(source)))
        for client in clients:
            self._at(90 * MILLISECOND_NS, self._leaving(client))
        while self._queue and self._queue[0][0] < END_NS:
            self.now, _, action = heapq.heappop(self._queue)
            action()
            self._settle()
        assert all(client.store.finished == {NAME: DATA} for client in clients), "not every client has the file"
        return "\n".join(self.lines)

    # -- time

    def _at(self, when: int, action: Action) -> None:
        heapq.heappush(self._queue, (when, next(self._order), action))

    def _on_arrival(self, action: Action) -> None:
        """Schedule an action for the arrival of a message sent now."""
        self._at(self.now + DELAY_NS, action)

    def _settle(self) -> None:
        """Carry out the effects of all machines, and schedule their next timeouts."""
        while effects := self.server.poll():
            for effect in effects:
                self._server_effect(effect)
        for peer in self.peers:
            for client_effect in peer.machine.poll():
                self._client_effect(peer, client_effect)
        machines: list[ServerMachine | ClientMachine] = [self.server, *(peer.machine for peer in self.peers)]
        for machine in machines:
            deadline = machine.next_timeout()
            if deadline is not None and deadline < END_NS:
                self._at(max(deadline, self.now + 1), lambda machine=machine: machine.handle_timeout(self.now))  # type: ignore[misc]

    # -- control calls

    def _call(
        self, peer: Peer, method: str, request: Message, answer: Callable[[], Message | None], then: Action
    ) -> None:
        """Call the server for a peer.

        Args:
            peer: who calls.
            method: the name of the call.
            request: the request message.
            answer: handles the request at the server and returns the response, or None if the call stays open.
            then: runs when the response has arrived.
        """
        self._write(peer.name, "server", f"{method} request", _fields(request))

        def serve() -> None:
            message = answer()
            if message is not None:
                self._answer(peer, method, message, then)

        self._on_arrival(serve)

    def _answer(self, peer: Peer, method: str, message: Message, then: Action) -> None:
        self._write("server", peer.name, f"{method} response", _fields(message))
        self._on_arrival(then)

    def _joining(self, peer: Peer, then: Action = lambda: None) -> Action:
        role = "SOURCE" if peer.name == SOURCE else "CLIENT"
        request = membership_service_pb2.JoinRequest(
            name=peer.name, role=f"MEMBER_ROLE_{role}", instance_id=peer.store.instance_id
        )

        def answer() -> Message:
            member = self.server.client_joined(peer.name, request.instance_id, self.now, source=role == "SOURCE")
            peer.session = member.session
            return membership_service_pb2.JoinResponse(
                session_id=member.session,
                data_port=SERVER[1],
                lease_ms=self.server.sessions.lease_ns // MILLISECOND_NS,
                parameters=translate.parameters_to_pb(FAST),
            )

        def joined() -> None:
            peer.machine.joined(peer.session, SERVER, FAST, self.now)
            self._settle()
            self._frame_up(peer, Frame(Kind.LINK, peer.session), b"")
            peer.machine.link_opened(self.now)
            self._attend(peer)
            then()

        return lambda: self._call(peer, "Join", request, answer, joined)

    def _attend(self, peer: Peer) -> None:
        request = membership_service_pb2.AttendRequest(session_id=peer.session)

        def answer() -> None:
            peer.attends = True
            peer.queued_events.insert(0, membership_service_pb2.AttendResponse())
            self._send_events(peer)

        self._call(peer, "Attend", request, answer, lambda: None)

    def _announcing(self, source: Peer) -> Action:
        manifest = Manifest.build(NAME, len(DATA), _read, blake3_digest)
        source.source_data = DATA
        request = file_service_pb2.AnnounceFileRequest(
            session_id=source.session, manifest=translate.manifest_to_pb(manifest), client_count=len(CLIENTS)
        )

        def answer() -> Message:
            file = self.server.catalogue.announce(manifest, source.session)
            return file_service_pb2.AnnounceFileResponse(file_id=file.file_id, share_count=len(CLIENTS))

        def call() -> None:
            request.session_id = source.session
            self._call(source, "AnnounceFile", request, answer, lambda: self._divide(source, manifest))

        return call

    def _divide(self, source: Peer, manifest: Manifest) -> None:
        divided = manifest.divided(len(CLIENTS), _read, blake3_digest)
        source.machine.hold_whole(divided)
        request = file_service_pb2.DivideFileRequest(
            session_id=source.session, manifest=translate.manifest_to_pb(divided)
        )

        def answer() -> Message:
            self.server.catalogue.divide(divided, source.session, self.now)
            return file_service_pb2.DivideFileResponse()

        self._call(source, "DivideFile", request, answer, lambda: None)

    def _report(self, peer: Peer, effect: ReportMilestone) -> None:
        request = membership_service_pb2.ReportFilesRequest(
            session_id=peer.session, reports=[translate.report_to_pb(effect)]
        )

        def answer() -> Message:
            self.server.catalogue.milestone_reached(request.session_id, effect, self.now)
            return membership_service_pb2.ReportFilesResponse()

        self._call(peer, "ReportFiles", request, answer, lambda: None)

    def _leaving(self, peer: Peer) -> Action:
        def answer() -> Message:
            self.server.client_left(peer.session, "it left", self.now)
            return membership_service_pb2.LeaveResponse()

        def leave() -> None:
            request = membership_service_pb2.LeaveRequest(session_id=peer.session)
            peer.machine.left()
            self._call(peer, "Leave", request, answer, lambda: None)

        return leave

    # -- events

    def _send_events(self, peer: Peer) -> None:
        """Send a peer its queued events if its stream is open."""
        while peer.attends and peer.queued_events:
            message = peer.queued_events.pop(0)
            self._write("server", peer.name, "Attend event", _fields(message) or ["(empty)"])
            self._on_arrival(self._receive_event(peer, message))

    def _receive_event(self, peer: Peer, message: Message) -> Action:
        def receive() -> None:
            assert isinstance(message, membership_service_pb2.AttendResponse)
            match message.WhichOneof("event"):
                case "file_assigned":
                    event = message.file_assigned
                    manifest = translate.manifest_from_pb(event.manifest, blake3_digest)
                    shares, held = translate.ranges_from_pb(event.shares), peer.store.begin(manifest)
                    peer.machine.file_assigned(manifest, shares, event.exchange_started, held, self.now, event.division)
                case "exchange_started":
                    peer.machine.exchange_started(message.exchange_started.file_id, self.now)
                case "session_ended":
                    peer.machine.left()

        return receive

    # -- effects

    def _server_effect(self, effect: ServerEffect) -> None:
        match effect:
            case SendDatagram(address, data):
                peer = next(peer for peer in self.peers if peer.address == address)
                self._write("server", peer.name, *_datagram(data))
                self._on_arrival(lambda: peer.machine.receive_datagram(data, SERVER, self.now))
            case Deliver(session, number, frame, views):
                self._deliver(self._peer_of(session), frame, b"".join(views))
                self.server.delivery_sent(session, number, self.now)
            case MemberFailed(_, error):
                raise error
            case Assign(session) | StartExchange(session) | EndSession(session) | RemoveFile(session):
                peer = self._peer_of(session)
                peer.queued_events.append(translate.attend_response(effect))
                self._send_events(peer)

    def _peer_of(self, session: int) -> Peer:
        return next(peer for peer in self.peers if peer.session == session)

    def _deliver(self, peer: Peer, frame: Frame, payload: bytes) -> None:
        self._write("server", peer.name, *_frame(frame, payload))

        def arrive() -> None:
            if peer.machine.delivery_started(frame, "server"):
                written = peer.store.write(frame.file_id, frame.start, frame.stop, memoryview(payload))
                peer.machine.delivery_stored(frame, written, self.now)

        self._on_arrival(arrive)

    def _client_effect(self, peer: Peer, effect: ClientEffect) -> None:
        match effect:
            case SendDatagram(_, data):
                self._write(peer.name, "server", *_datagram(data))
                self._on_arrival(lambda: self.server.receive_datagram(data, peer.address, self.now))
            case Contribute(frame):
                stored = peer.source_data or peer.store.payload(frame.file_id, frame.start, frame.stop)
                self._frame_up(peer, frame, bytes(stored))
            case FinishFile(file_id):
                peer.store.finish(file_id)
                self._write(peer.name, "", f"makes {NAME} visible", [])
                peer.machine.file_finished(file_id)
                for following in peer.machine.poll():
                    self._client_effect(peer, following)
            case ReportMilestone():
                self._report(peer, effect)

    def _frame_up(self, peer: Peer, frame: Frame, payload: bytes) -> None:
        self._write(peer.name, "server", *_frame(frame, payload))

        def arrive() -> None:
            if frame.kind is Kind.LINK:
                self.server.link_opened(frame.session, self.now)
                return
            receipt = self.server.contribution_started(frame, peer.name, self.now)
            if receipt is None:
                return
            rest = payload
            for view in receipt.views:
                view[:], rest = rest[: len(view)], rest[len(view) :]
            self.server.contribution_received(receipt, self.now)

        self._on_arrival(arrive)

    # -- the page

    def _write(self, sender: str, receiver: str, what: str, details: list[str]) -> None:
        arrow = f"{sender} -> {receiver}" if receiver else sender
        self.lines.append(f"{self.now / MILLISECOND_NS:7.3f} ms  {arrow:<20}  {what}")
        self.lines += [f"            {line}" for line in details]


def _read(offset: int, length: int) -> bytes:
    return DATA[offset : offset + length]


def _fields(message: Message) -> list[str]:
    """Return a message's fields, one per line; bytes in hex."""
    return list(_field_lines(message, ""))


def _field_lines(message: Message, indent: str) -> Iterator[str]:
    for descriptor, value in message.ListFields():
        for each in value if descriptor.is_repeated else [value]:
            if descriptor.message_type is not None:
                yield f"{indent}{descriptor.name}{'' if each.ListFields() else ': (empty)'}"
                yield from _field_lines(each, indent + "  ")
            else:
                yield f"{indent}{descriptor.name}: {_value(descriptor, each)}"


def _value(descriptor: Any, value: Any) -> str:
    if descriptor.enum_type is not None:
        return str(descriptor.enum_type.values_by_number[value].name)
    if descriptor.name == "session_id":
        return f"0x{value:016x}"
    return value.hex() if isinstance(value, bytes) else str(value)


def _datagram(data: bytes) -> tuple[str, list[str]]:
    """Return a datagram's kind, and the lines with its fields and bytes."""
    datagram = decode_datagram(data)
    fields = {name: value for name, value in datagram._asdict().items() if name not in ("session", "file_id")}
    if isinstance(datagram, Request):
        fields["ranges"] = [f"[{start}, {stop})" for start, stop in datagram.ranges]
        flags = [name for name in ("repeated", "wants_ack", "downlink_ok") if fields.pop(name)]
        fields["flags"] = " and ".join(flags) or "none"
    if isinstance(datagram, Broadcast):
        fields["asked"] = [f"[{start}, {stop}) of {responder:016x}" for start, stop, responder in datagram.asked]
    kind = Kind(data[3]).name
    return f"UDP {kind}", [_field_line(fields), *_hex(data)]


def _frame(frame: Frame, payload: bytes) -> tuple[str, list[str]]:
    """Return a frame's kind, and the lines with its fields, its bytes and its payload."""
    head = encode_frame(frame)
    fields = {name: getattr(decode_frame(head), name) for name in ("start", "stop", "length", "number", "echo")}
    lines = [_field_line(fields), *_hex(head)]
    if payload:
        lines += [f"{payload.hex(' ')}  payload"]
    return f"TCP {frame.kind.name}", lines


def _field_line(fields: dict[str, Any]) -> str:
    parts = (
        (name, ", ".join(value) or "none") if isinstance(value, list) else (name, value)
        for name, value in fields.items()
    )
    return "; ".join(f"{name} {value}" for name, value in parts)


def _hex(data: bytes) -> list[str]:
    """Return bytes in hex, 32 in a line, in groups of four; the first line is the header."""
    return [data[offset : offset + 32].hex(" ", -4) for offset in range(0, len(data), 32)]


def main(arguments: list[str]) -> int:
    """Write the trace into its page; with ``--check``, only check that the page is up to date."""
    if arguments not in ([], ["--check"]):
        print("usage: scripts/trace_protocol [--check]", file=sys.stderr)
        return 2
    page = PAGE.read_text()
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"{PAGE} has no line {BEGIN}"
    assert end, f"{PAGE} has no line {END}"
    written = f"{before}{BEGIN}```\n{Run().run()}\n```\n{END}{after}"
    if not arguments:
        PAGE.write_text(written)
    elif written != page:
        print("docs/trace.md is out of date: run scripts/trace_protocol", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
