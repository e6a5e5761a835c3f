"""What happened in a world, a line each: the last of it to read, all of it as one digest to compare runs by."""

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
from pspd.sim.observer import Observer
from pspd.sim.world import World

LINES_KEPT = 60


class Trace(Observer):
    """Writes down every effect.

    Attributes:
        lines: the last of what happened.
    """

    def __init__(self, world: World) -> None:
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._world = world
        self._hash = hashlib.blake2b(digest_size=16)

    @property
    def digest(self) -> str:
        """Of everything so far; equal for equal runs."""
        return self._hash.hexdigest()

    def server_did(self, effect: ServerEffect) -> None:
        """See ``Observer``."""
        self.note("server", told(effect))

    def client_did(self, client: Client, effect: ClientEffect) -> None:
        """See ``Observer``."""
        self.note(client.name, told(effect))

    def note(self, who: str, what: str) -> None:
        """Writes down a line; besides effects, a fault that was made."""
        line = f"{self._world.now / SECOND_NS:.6f} {who}: {what}"
        self._hash.update(line.encode())
        self.lines.append(line)


def told(effect: ServerEffect | ClientEffect) -> str:
    """An effect in a line."""
    match effect:
        case SendDatagram(address, data):
            try:
                return f"datagram to {address[0]}: {_datagram_told(decode_datagram(data))}"
            except WireError as error:
                return f"datagram to {address[0]}: {error}"
        case Deliver(_, number, frame, _):
            return f"deliver [{frame.start}, {frame.stop}) as {number}, echo {frame.echo}, session {frame.session:016x}"
        case Contribute(frame):
            return f"contribute [{frame.start}, {frame.stop}) for broadcast {frame.number}"
        case Assign(session, manifest, shares, started):
            spans = ", ".join(map(str, shares))
            return f"assign {manifest.name} to {session:016x}: shares {spans or 'none'}, exchange {started}"
        case SaveFile(record):
            return f"save {record.manifest.name}: {record.phase.value}, owners {', '.join(record.owners)}"
        case InputDropped(reason, origin):
            return f"drop from {origin}: {reason.value}"
        case _:
            return repr(effect)


def _datagram_told(datagram: Datagram) -> str:
    match datagram:
        case Request(_, _, number, acknowledged, window, ranges, repeated, wants_answer, hears):
            spans = ", ".join(map(str, ranges[:4])) + (", ..." if len(ranges) > 4 else "")
            flags = {" again": repeated, " wants an answer": wants_answer, " deaf": not hears}
            told = "".join(flag for flag, is_set in flags.items() if is_set)
            return f"request {number}{told}: {spans}, window {window}, got {acknowledged}"
        case Broadcast(_, _, number, asked):
            spans = ", ".join(f"[{entry.start}, {entry.stop}) of {entry.responder:x}" for entry in asked[:4])
            return f"broadcast {number}: {spans}"
        case _:
            return repr(datagram)
