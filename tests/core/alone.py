"""A client machine alone. The test plays its server and its store."""

from __future__ import annotations

from pspd.core.client.machine import ClientMachine
from pspd.core.effects.client import ClientEffect
from pspd.core.effects.shared import SendDatagram
from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.parameters import FAST, Parameters
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import HeldChunks, WriteResult
from pspd.core.model.tuning import CLIENT_TUNING, ClientTuning
from pspd.core.wire.datagrams import Datagram, Request, decode_datagram, encode_datagram
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import Kind
from pspd.text.addresses import Address
from tests.core.bench import Bench

SERVER: Address = ("server", 1)
SESSION = 77


def manifest_of(chunk_count: int, name: str = "f", share_count: int = 2) -> Manifest:
    return Bench().manifest(name, chunk_count, share_count)


class Client:
    """The machine, the time, and the datagrams that its server would receive."""

    def __init__(
        self, parameters: Parameters = FAST, tuning: ClientTuning = CLIENT_TUNING, *, checked: bool = True
    ) -> None:
        self._checked = checked
        self.machine = ClientMachine(seed=5, tuning=tuning)
        self.now = 1_000_000
        self.effects: list[ClientEffect] = []
        self.verified: dict[FileId, RangeSet] = {}  # the verified chunks in the store, by file
        self.machine.joined(SESSION, SERVER, parameters, self.now)

    def datagrams(self) -> list[Datagram]:
        """Return the datagrams sent since the last call."""
        self.effects = self.machine.poll()
        sent = [effect for effect in self.effects if isinstance(effect, SendDatagram)]
        assert all(effect.address == SERVER for effect in sent)
        return [decode_datagram(effect.data) for effect in sent]

    def requests(self) -> list[Request]:
        return [datagram for datagram in self.datagrams() if isinstance(datagram, Request)]

    def other_effects(self) -> list[ClientEffect]:
        """Return the effects since the last call that are not datagrams."""
        self.datagrams()
        return [effect for effect in self.effects if not isinstance(effect, SendDatagram)]

    def receive(self, datagram: Datagram, source: Address = SERVER) -> None:
        self.machine.receive_datagram(encode_datagram(datagram), source, self.now)
        self._check()

    def assign(
        self,
        manifest: Manifest,
        *shares: tuple[int, int],
        exchange: bool = False,
        held: tuple[tuple[int, int], ...] | None = None,
        complete: bool = False,
    ) -> None:
        """Assign a file; ``held`` replaces the chunks of the file in the store."""
        spans = tuple(Range(*share) for share in shares)
        if held is not None or manifest.file_id not in self.verified:
            self.verified[manifest.file_id] = RangeSet(held or ())
        verified = self.verified[manifest.file_id]
        self.machine.file_assigned(manifest, spans, exchange, HeldChunks(verified, complete), self.now, 0)
        self._check()

    def frame(self, manifest: Manifest, start: int, stop: int, number: int = 1, echo: int = 0) -> Frame:
        length = manifest.byte_span(start, stop)[1]
        return Frame(Kind.DELIVERY, SESSION, manifest.file_id, start, stop, length, number, echo)

    def deliver(
        self, manifest: Manifest, start: int, stop: int, number: int = 1, echo: int = 0, *, good: bool = True
    ) -> None:
        frame, span = self.frame(manifest, start, stop, number, echo), [Range(start, stop)]
        assert self.machine.delivery_started(frame, "server")
        written = WriteResult(verified=RangeSet(span)) if good else WriteResult(corrupt=span)
        self.verified[manifest.file_id].difference_update(written.corrupt)
        self.verified[manifest.file_id].update(written.verified)
        self.machine.delivery_stored(frame, written, self.now)
        self._check()

    def pass_time(self, duration_ns: int) -> None:
        end = self.now + duration_ns
        while (deadline := self.machine.next_timeout()) is not None and deadline <= end:
            self.now = deadline
            self.machine.handle_timeout(deadline)
            self._check()
        self.now = end

    def _check(self) -> None:
        if self._checked:
            self.machine.check()
