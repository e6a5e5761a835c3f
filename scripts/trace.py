"""Write the trace in ``docs/trace.md``; ``scripts/trace_protocol`` runs this script.

A server, three clients and a source distribute a file of one byte. They are the real state machines of
:mod:`pspd.core`. Virtual time and fixed seeds make every run the same, byte for byte.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from pspd.core.effects import client as client_effects
from pspd.core.effects import server as effects
from pspd.core.effects.shared import SendDatagram
from pspd.core.model.manifest import Manifest
from pspd.core.model.parameters import FAST, FAST_CACHE_CHUNKS, MILLISECOND_NS
from pspd.core.server.machine import ServerMachine
from pspd.core.wire.datagrams import Broadcast, Request, decode_datagram
from pspd.core.wire.frames import Frame, decode_frame, encode_frame
from pspd.core.wire.header import Kind
from pspd.rpc import translate
from pspd.sim.content import Content
from pspd.sim.hosts import Client, HostConditions
from pspd.sim.network import VirtualNetwork
from pspd.sim.observer import Observer
from pspd.sim.paths import Impairments
from pspd.store.digests import blake3_digest
from pspd.v1 import file_service_pb2, membership_service_pb2

PAGE = Path(__file__).resolve().parent.parent / "docs" / "trace.md"
BEGIN, END = "<!-- trace: begin -->\n", "<!-- trace: end -->\n"

NAME, DATA = "one.txt", b"A"
CLIENTS = ("anna", "bert", "carl")
SOURCE = "source-1"
DATA_PORT = 7071
DELAY_NS = MILLISECOND_NS // 2
"""How long each message takes, one way."""
END_NS = 100 * MILLISECOND_NS
SEED = 1


class Run(Observer):
    """A virtual network whose messages are written as lines of the trace.

    Attributes:
        lines: the lines written so far.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._network = VirtualNetwork(FAST, FAST_CACHE_CHUNKS, Content(), SEED)
        self._network.observers.append(self)

    def run(self) -> str:
        """Distribute the file and return the trace."""
        network, clients = self._network, [self._add(name) for name in CLIENTS]
        for index, client in enumerate(clients):
            network.after(10 * index * MILLISECOND_NS, self._join, client)
            network.after(90 * MILLISECOND_NS, self._leave, client)
        network.after(40 * MILLISECOND_NS, self._join, self._add(SOURCE))
        network.run(lambda: False, END_NS)
        assert all(client.store.known()[self._manifest().file_id].complete for client in clients), "a file is missing"
        return "\n".join(self.lines)

    def _add(self, name: str) -> Client:
        conditions = HostConditions(Impairments(DELAY_NS))
        client = self._network.add_client(name, conditions, is_source=name == SOURCE)
        client.instance_id = bytes([len(self._network.clients)]) * 16
        return client

    @property
    def _server(self) -> ServerMachine:
        server = self._network.server
        assert server is not None, "the server does not crash"
        return server

    # -- control calls, in the times that the simulator gives them

    def _call(self, client: Client, method: str, request: Message, answer: Callable[[], Message | None]) -> None:
        """Call the server for a client.

        Args:
            client: the caller.
            method: the name of the call.
            request: the request message.
            answer: returns the response when the request has arrived; None if the call stays open.
        """
        self._write(client.name, "server", f"{method} request", _fields(request))

        def serve() -> None:
            message = answer()
            if message is not None:
                self._write("server", client.name, f"{method} response", _fields(message))

        self._network.after(DELAY_NS, serve)

    def _join(self, client: Client) -> None:
        role = f"MEMBER_ROLE_{'SOURCE' if client.is_source else 'CLIENT'}"
        request = membership_service_pb2.JoinRequest(name=client.name, role=role, instance_id=client.instance_id)
        self._network.start(client)  # its Join arrives before ``answer`` runs
        self._call(client, "Join", request, lambda: self._joined(client))

    def _joined(self, client: Client) -> Message:
        self._network.after(DELAY_NS, self._attend, client)
        self._network.after(3 * DELAY_NS, self._link_opened, client)
        if client.is_source:
            self._network.after(DELAY_NS, self._announce, client)
        return membership_service_pb2.JoinResponse(
            session_id=client.session,
            data_port=DATA_PORT,
            lease_ms=self._server.sessions.lease_ns // MILLISECOND_NS,
            parameters=translate.parameters_to_pb(FAST),
        )

    def _link_opened(self, client: Client) -> None:
        self._write(client.name, "server", *_frame(Frame(Kind.LINK, client.session), b""))

    def _attend(self, client: Client) -> None:
        def answer() -> None:
            self._write("server", client.name, "Attend event", ["(empty)"])

        self._call(client, "Attend", membership_service_pb2.AttendRequest(session_id=client.session), answer)

    def _manifest(self) -> Manifest:
        return Manifest.build(NAME, len(DATA), _read, blake3_digest)

    def _announce(self, source: Client) -> None:
        manifest = self._manifest()
        request = file_service_pb2.AnnounceFileRequest(
            session_id=source.session, manifest=translate.manifest_to_pb(manifest), client_count=len(CLIENTS)
        )

        def answer() -> Message:
            file = self._server.catalogue.announce(manifest, source.session)
            self._network.after(DELAY_NS, self._divide, source)
            return file_service_pb2.AnnounceFileResponse(file_id=file.file_id, share_count=len(CLIENTS))

        self._call(source, "AnnounceFile", request, answer)

    def _divide(self, source: Client) -> None:
        divided = self._manifest().divided(len(CLIENTS), _read, blake3_digest)
        source.source_file = divided, DATA
        source.machine.contribute_as_source(divided)
        request = file_service_pb2.DivideFileRequest(
            session_id=source.session, manifest=translate.manifest_to_pb(divided)
        )

        def answer() -> Message:
            self._server.catalogue.divide(divided, source.session, self._network.now)
            return file_service_pb2.DivideFileResponse()

        self._call(source, "DivideFile", request, answer)

    def _leave(self, client: Client) -> None:
        request = membership_service_pb2.LeaveRequest(session_id=client.session)
        self._network.stop(client)
        self._call(client, "Leave", request, membership_service_pb2.LeaveResponse)

    # -- effects

    def on_server_effect(self, effect: effects.ServerEffect) -> None:
        """See ``Observer``."""
        match effect:
            case SendDatagram((name, _), data):
                self._write("server", name, *_datagram(data))
            case effects.Deliver(session, _, frame, views):
                self._write("server", self._name_of(session), *_frame(frame, b"".join(views)))
            case (
                effects.Assign(session)
                | effects.StartExchange(session)
                | effects.EndSession(session)
                | effects.RemoveFile(session)
            ):
                event = _fields(translate.member_event_to_pb(effect))
                self._write("server", self._name_of(session), "Attend event", event)

    def _name_of(self, session: int) -> str:
        return self._network.sessions[session].name

    def on_client_effect(self, client: Client, effect: client_effects.ClientEffect) -> None:
        """See ``Observer``."""
        match effect:
            case SendDatagram(_, data):
                self._write(client.name, "server", *_datagram(data))
            case client_effects.Contribute(frame):
                self._write(client.name, "server", *_frame(frame, DATA))
            case client_effects.FinishFile():
                self._write(client.name, "", f"makes {NAME} visible", [])
            case client_effects.ReportMilestone():
                request = membership_service_pb2.ReportFilesRequest(
                    session_id=client.session, reports=[translate.report_to_pb(effect)]
                )
                self._call(client, "ReportFiles", request, membership_service_pb2.ReportFilesResponse)

    # -- the page

    def _write(self, sender: str, receiver: str, what: str, details: list[str]) -> None:
        arrow = f"{sender} -> {receiver}" if receiver else sender
        self.lines.append(f"{self._network.now / MILLISECOND_NS:7.3f} ms  {arrow:<20}  {what}")
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
