"""A trace of a run: one line for each effect or fault. It keeps the last lines, and a digest of all lines."""

from __future__ import annotations

import hashlib
from collections import deque

from pspd.core.effects.client import ClientEffect, Contribute
from pspd.core.effects.server import Assign, Deliver, SaveFile, ServerEffect
from pspd.core.effects.shared import InputDropped, SendDatagram
from pspd.core.model.parameters import SECOND_NS
from pspd.core.wire.datagrams import Broadcast, Datagram, Request, decode_datagram
from pspd.core.wire.header import WireError
from pspd.sim.hosts import Client
from pspd.sim.network import VirtualNetwork
from pspd.sim.observer import Observer

LINES_KEPT = 60


class Trace(Observer):
    """Records every effect, and the faults that are passed to :meth:`record`.

    Attributes:
        lines: the last ``LINES_KEPT`` lines.
    """

    def __init__(self, network: VirtualNetwork) -> None:
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._network = network
        self._hash = hashlib.blake2b(digest_size=16)

    @property
    def digest(self) -> str:
        """The digest of all lines so far; equal for equal runs."""
        return self._hash.hexdigest()

    def on_server_effect(self, effect: ServerEffect) -> None:
        """See ``Observer``."""
        self.record("server", described(effect))

    def on_client_effect(self, client: Client, effect: ClientEffect) -> None:
        """See ``Observer``."""
        self.record(client.name, described(effect))

    def record(self, who: str, what: str) -> None:
        """Record one line.

        Args:
            who: "server", a client's name, or "fault".
            what: the effect or fault.
        """
        line = f"{self._network.now / SECOND_NS:.6f} {who}: {what}"
        self._hash.update(line.encode())
        self.lines.append(line)


def described(effect: ServerEffect | ClientEffect) -> str:
    """Return an effect as one line."""
    match effect:
        case SendDatagram(address, data):
            try:
                return f"datagram to {address[0]}: {_described_datagram(decode_datagram(data))}"
            except WireError as error:
                return f"datagram to {address[0]}: {error}"
        case Deliver(_, number, frame, _):
            return f"deliver [{frame.start}, {frame.stop}) as {number}, echo {frame.echo}, session {frame.session:016x}"
        case Contribute(frame):
            return f"contribute [{frame.start}, {frame.stop}) for broadcast {frame.number}"
        case Assign(session, manifest, shares, exchange_started):
            spans = ", ".join(map(str, shares))
            return f"assign {manifest.name} to {session:016x}: shares {spans or 'none'}, exchange {exchange_started}"
        case SaveFile(record):
            return f"save {record.manifest.name}: {record.phase.value}, owners {', '.join(record.owners)}"
        case InputDropped(reason, origin):
            return f"drop from {origin}: {reason.value}"
        case _:
            return repr(effect)


def _described_datagram(datagram: Datagram) -> str:
    match datagram:
        case Request(_, _, number, acknowledged, window, ranges, repeated, wants_answer, downlink_ok):
            spans = ", ".join(map(str, ranges[:4])) + (", ..." if len(ranges) > 4 else "")
            flags = {" repeated": repeated, " wants an answer": wants_answer, " downlink not ok": not downlink_ok}
            flags_text = "".join(flag for flag, is_set in flags.items() if is_set)
            return f"request {number}{flags_text}: {spans}, window {window}, got {acknowledged}"
        case Broadcast(_, _, number, asked):
            spans = ", ".join(f"[{entry.start}, {entry.stop}) of {entry.responder:x}" for entry in asked[:4])
            return f"broadcast {number}: {spans}"
        case _:
            return repr(datagram)
