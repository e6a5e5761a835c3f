"""A test bench: a server machine without sockets, and members that do exactly what a test says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import BuiltinMethodType, MethodType
from typing import Any, TypeVar, cast

from pspd.core.effects.client import ReportMilestone
from pspd.core.effects.server import Deliver, MemberFailed, ServerEffect
from pspd.core.effects.shared import Milestone, SendDatagram
from pspd.core.model.manifest import CHUNK_BYTES, FileId, Manifest
from pspd.core.model.parameters import FAST, MILLISECOND_NS, SECOND_NS, Parameters
from pspd.core.model.ranges import Range, RangeMap
from pspd.core.model.storage import HeldChunks
from pspd.core.model.terms import ONE_COPY, Terms
from pspd.core.model.tuning import SERVER_TUNING, ServerTuning
from pspd.core.server.catalogue import Catalogue
from pspd.core.server.contributions import Reception
from pspd.core.server.machine import ServerMachine
from pspd.core.server.pending import Fetch, HolderRecord
from pspd.core.server.request_state import FileDemand, RequestState
from pspd.core.server.sessions import Member, Sessions
from pspd.core.server.shared_file import SharedFile
from pspd.core.wire.datagrams import AskedRange, Broadcast, Datagram, Hello, Request, decode_datagram, encode_datagram
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import Kind
from pspd.store.digests import blake3_digest
from pspd.text.addresses import Address
from tests.core.samples import sample_bytes, sessions

E = TypeVar("E", bound=ServerEffect)


QUARTER_FRAMES = replace(SERVER_TUNING, small_frame_chunks=1)
"""Frames are a quarter of the cache, however small it is."""


def address_of(name: str) -> Address:
    return name, 1


def raised(effects: list[ServerEffect]) -> list[ServerEffect]:
    """Return these effects; if one of them reports an internal error of the server, raise this error."""
    for effect in effects:
        if isinstance(effect, MemberFailed):
            raise effect.error
    return effects


class ServedAtOnce:
    """A proxy of a server machine or of one of its parts. After every call, it processes changes, as ``poll`` does.

    So a test sees the consequences of an input at once, and the invariants are checked after every input. It is a proxy
    because the core may be compiled, and methods of compiled classes cannot be replaced.
    """

    def __init__(self, part: object, machine: ServerMachine, *, checked: bool) -> None:
        self.part = part
        self.machine = machine
        self.checked = checked

    def __getattr__(self, item: str) -> Any:
        found = getattr(self.part, item)
        if isinstance(found, Catalogue | Sessions):
            return ServedAtOnce(found, self.machine, checked=self.checked)
        if not isinstance(found, MethodType | BuiltinMethodType):
            return found

        def call(*args: Any, **keywords: Any) -> Any:
            result = found(*args, **keywords)
            self.machine._review_and_serve()
            if self.checked:
                self.machine.check()
            return raised(result) if item == "poll" else result

        return call


class Bench:
    """A server machine, and the time.

    Requests, contributions and sent deliveries are a millisecond apart, so that none is batched with another.
    """

    def __init__(
        self,
        parameters: Parameters = FAST,
        cache_chunks: int | None = 64,
        tuning: ServerTuning = SERVER_TUNING,
        *,
        at_once: bool = True,
        checked: bool = True,
    ) -> None:
        self.machine = ServerMachine(parameters, cache_chunks, blake3_digest, 3, sessions(3), tuning)
        served = ServedAtOnce(self.machine, self.machine, checked=checked) if at_once else self.machine
        self.server = cast(ServerMachine, served)
        self.now = 1_000_000
        self.data: dict[FileId, bytes] = {}
        self.last_request = 0

    # -- effects

    def effects(self, kind: type[E]) -> list[E]:
        """Return the effects of one kind since the last call, and drop the others."""
        return [effect for effect in raised(self.server.poll()) if isinstance(effect, kind)]

    def asked(self, name: str) -> list[AskedRange]:
        """Return the entries of the broadcasts to one member since the last call."""
        found: list[AskedRange] = []
        for effect in self.effects(SendDatagram):
            datagram = decode_datagram(effect.data)
            if isinstance(datagram, Broadcast) and effect.address == address_of(name):
                found += datagram.asked
        return found

    def delivered(self, member: Member) -> list[Deliver]:
        return [effect for effect in self.effects(Deliver) if effect.session == member.session]

    # -- records

    def fetches(self, file: SharedFile) -> RangeMap[Fetch]:
        """Return the fetches of a file."""
        return self.machine._pending.table_of(file.file_id).fetches

    def demand(self, file: SharedFile) -> FileDemand:
        """Return the demand of all clients for a file."""
        return self.machine.demand.of_file(file.file_id)

    def state(self, member: Member, file: SharedFile) -> RequestState:
        """Return a member's request for a file."""
        return self.machine.demand.state(member, file)

    def holder(self, member: Member) -> HolderRecord:
        """Return the holder record of a member."""
        return self.machine._pending.holder_of(member)

    def quota_used_chunks(self, member: Member) -> int:
        """Return how many chunks the deliveries to a member pin."""
        return self.machine.demand.requester(member).quota_used_chunks

    # -- members

    def join(
        self,
        name: str,
        *,
        is_source: bool = False,
        held: Mapping[FileId, HeldChunks] | None = None,
        reachable: bool = True,
    ) -> Member:
        member = self.server.member_joined(
            name, name.encode(), self.now, is_source=is_source, delivery_port=9, held=held
        )
        if reachable:
            self.send(member, Hello(member.session, 1, 1000))
            self.server.link_opened(member.session, self.now)
        return member

    def send(self, member: Member, datagram: Datagram) -> None:
        self.server.receive_datagram(encode_datagram(datagram), address_of(member.name), self.now)

    # -- files

    def manifest(self, name: str, chunk_count: int, share_count: int = 0) -> Manifest:
        data = sample_bytes(chunk_count * CHUNK_BYTES - 100 if chunk_count else 0)

        def read_at(offset: int, length: int) -> bytes:
            return data[offset : offset + length]

        manifest = Manifest.build(name, len(data), read_at, blake3_digest)
        self.data[manifest.file_id] = data
        return manifest.divided(share_count, read_at, blake3_digest)

    def seed(self, name: str, chunk_count: int, *, hold_back: bool = False, terms: Terms = ONE_COPY) -> SharedFile:
        """Announce and divide a file. The name of its source is "source of" and the file's name."""
        source = self.join(f"source of {name}", is_source=True)
        manifest = self.manifest(name, chunk_count, len(self.server.sessions.clients_with_uplink()))
        self.server.catalogue.announce(manifest, source.session, terms)
        return self.server.catalogue.divide(manifest, source.session, self.now, hold_back=hold_back)

    def exchange(self, name: str, chunk_count: int, terms: Terms = ONE_COPY) -> SharedFile:
        """Seed a file, and let every client report its share."""
        file = self.seed(name, chunk_count, terms=terms)
        for member in list(self.server.members.values()):
            if not member.is_source:
                self.reach(member, file, Milestone.SHARE_HELD)
        self.server.poll()
        return file

    def reach(self, member: Member, file: SharedFile, milestone: Milestone) -> None:
        count = sum(share.chunk_count for share in file.shares.ranges_of(member.name))
        report = ReportMilestone(file.file_id, milestone, count)
        self.server.catalogue.milestone_reached(member.session, report, self.now)

    def ask(
        self,
        member: Member,
        file: SharedFile,
        *ranges: tuple[int, int],
        acknowledged: int = 0,
        window_chunks: int = 1000,
        repeated: bool = False,
        wants_ack: bool = False,
        downlink_ok: bool = False,
    ) -> None:
        self.last_request += 1
        self.now += MILLISECOND_NS
        spans = tuple(Range(*span) for span in ranges)
        request = Request(
            member.session,
            file.file_id,
            self.last_request,
            acknowledged,
            window_chunks,
            spans,
            repeated,
            wants_ack,
            downlink_ok,
        )
        self.send(member, request)

    def frame(self, member: Member, file: SharedFile, start: int, stop: int, number: int = 1) -> Frame:
        length = file.manifest.byte_span(start, stop)[1]
        return Frame(Kind.CONTRIBUTION, member.session, file.file_id, start, stop, length, number)

    def start(self, frame: Frame) -> Reception | None:
        self.now += MILLISECOND_NS
        return self.server.contribution_started(frame, "somewhere", self.now)

    def contribute(self, frame: Frame, *, good: bool = True) -> bool:
        """Send a whole contribution. Return False if the server drops it."""
        reception = self.start(frame)
        if reception is None:
            return False
        offset = frame.start * CHUNK_BYTES
        payload = self.data[frame.file_id][offset : offset + frame.length]
        for view in reception.views:
            view[:] = payload[: len(view)] if good else bytes(len(view))
            payload = payload[len(view) :]
        self.server.contribution_received(reception, self.now)
        return True

    def sent(self, member: Member, number: int) -> None:
        """Tell the machine that the kernel has taken a whole delivery."""
        self.now += MILLISECOND_NS
        self.server.delivery_sent(member.session, number, self.now)

    def pass_time(self, duration_ns: int) -> None:
        """Let time pass, and let the machine handle its timers."""
        end = self.now + duration_ns
        while (deadline := self.server.next_timeout()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.server.handle_timeout(self.now)
        self.now = end

    def live(self, duration_ns: int, *, deaf: Collection[Member] = ()) -> None:
        """Let time pass. All members renew their leases and send hellos; deaf members do not confirm the downlink."""
        end = self.now + duration_ns
        while self.now < end:
            for member in list(self.server.members.values()):
                self.server.sessions.renew_lease(member.session, self.now)
                self.send(member, Hello(member.session, 2, 0 if member in deaf else 1000))
            self.pass_time(min(SECOND_NS, end - self.now))
