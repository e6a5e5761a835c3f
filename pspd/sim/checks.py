"""Checks of the rules that must always hold in a virtual network.

The checks examine effects, stores and the records of the state machines. A check that fails raises :class:`Violation`
with the name of the broken rule.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from pspd.core.effects import server as effects
from pspd.core.effects.client import ClientEffect, Contribute, ReportMilestone
from pspd.core.effects.shared import Milestone, SendDatagram
from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import CHUNK_BYTES, FileId, Manifest
from pspd.core.model.parameters import SECOND_NS
from pspd.core.model.ranges import RangeSet
from pspd.core.server.machine import ServerMachine
from pspd.core.server.shared_file import SharedFile
from pspd.core.wire.datagrams import DATAGRAM_BYTES_MAX, Broadcast, decode_datagram
from pspd.sim.hosts import Client
from pspd.sim.network import VirtualNetwork
from pspd.sim.network_state import SERVER
from pspd.sim.observer import Observer
from pspd.sim.seeding import Seeding
from pspd.store.files.memory import MemoryStore

FILE_CHECK_STEPS = 64
"""The most steps between two runs of :meth:`Checks.check_files`.

A run also follows each step in which a member leaves or changes its reachability.
"""
RECORD_CHECK_STEPS = 1024
"""The number of steps between two checks of all records.

Each step checks the polled clients' records and, if the server acted, one kind of the server's records.
"""

JOINS_MAX, JOINS_NS = 30, 60 * SECOND_NS
"""JOINS_MAX joins under one name within JOINS_NS (nanoseconds) mean that two machines replace each other."""


class Violation(AssertionError):
    """A rule is broken.

    Args:
        rule: the rule's name.
        what: how the rule is broken.

    Attributes:
        rule: the rule's name.
    """

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule


class Checks(Observer):
    """An observer that checks the rules. The files of its network must have real bytes.

    Args:
        network: the network.
        record_check_steps: the number of steps between two checks of all records.

    Attributes:
        seedings: the latest seeding of each file, by file id. A seeding must be added before it starts.
        expects_unsolicited: whether members may send unsolicited contributions. If so, every step checks the cache for
            unsolicited chunks.
        data_intact: whether all bytes that clients hold and send must be right. A fault that alters or erases a store,
            or makes a holder send wrong bytes, sets this to False.
        shares_unmoved: whether every share must still be with its first owner. A restart of the server, a member that
            leaves, a change of reachability, a reassignment, a declined file or a removed file sets this to False.
    """

    def __init__(self, network: VirtualNetwork, record_check_steps: int = RECORD_CHECK_STEPS) -> None:
        self.seedings: dict[FileId, Seeding] = {}
        self.expects_unsolicited = False
        self.data_intact = True
        self.shares_unmoved = True
        self._members_changed = False
        self._server_acted = False
        self._network = network
        self._solicited: dict[FileId, RangeSet] = {}
        self._cached: dict[FileId, RangeSet] = {}
        self._broadcast_number = 0
        self._joins: dict[str, deque[int]] = {}
        self._server: ServerMachine | None = None
        self._steps = 0
        self._record_check_steps = record_check_steps

    # -- the server

    def on_server_effect(self, effect: effects.ServerEffect) -> None:
        """See ``Observer``."""
        self._server_acted = True
        match effect:
            case SendDatagram(_, data):
                self._check_datagram(data)
            case effects.Deliver():
                self._check_delivery(effect)
            case effects.FileDivided():
                self._check_division(effect)
            case effects.ShareReassigned() | effects.FileDeclined():
                self.shares_unmoved = False
            case effects.ReachabilityChanged() | effects.MemberLeft():
                self.shares_unmoved = False
                self._members_changed = True
            case effects.FileSeeded():
                self._check_seeded(effect)
            case effects.MemberJoined(name):
                self._check_joins(name)

    def _check_joins(self, name: str) -> None:
        joins = self._joins.setdefault(name, deque(maxlen=JOINS_MAX))
        joins.append(self._network.now)
        if len(joins) == JOINS_MAX and joins[-1] - joins[0] < JOINS_NS:
            raise Violation("R12 one identity", f"{name} joined {JOINS_MAX} times within a minute")

    def _check_division(self, divided: effects.FileDivided) -> None:
        server = self._network.server
        assert server is not None, "the running server emitted the effect"
        file = server.catalogue.files[divided.file_id]
        replica_count = file.terms.replica_count
        spans = [span for _, span in divided.shares[: file.manifest.share_count]]
        sizes = [span.chunk_count for span in spans]
        boundaries = [0, *(span.stop for span in spans)]
        exhaustive = [span.start for span in spans] == boundaries[:-1]
        if not exhaustive or boundaries[-1] != self._original(divided.file_id)[0].chunk_count:
            raise Violation("R1 division", f"the shares {spans} are not disjoint and exhaustive")
        if max(sizes) - min(sizes) > 1:
            raise Violation("R1 division", f"the shares {spans} differ by more than one chunk")
        if [span for _, span in divided.shares] != replica_count * spans:
            raise Violation("replicas", f"the shares {divided.shares} are not {replica_count} of each")
        for index in range(len(spans)):
            if len({owner for owner, _ in divided.shares[index :: len(spans)]}) < replica_count:
                raise Violation("replicas", f"one client is given {spans[index]} twice")

    def _check_datagram(self, data: bytes) -> None:
        if len(data) > DATAGRAM_BYTES_MAX:
            raise Violation("bounds", f"a datagram of {len(data)} bytes")
        datagram = decode_datagram(data)
        if not isinstance(datagram, Broadcast) or datagram.number <= self._broadcast_number:
            return
        server = self._network.server
        assert server is not None, "the running server emitted the effect"
        self._broadcast_number = datagram.number
        solicited = self._solicited.setdefault(datagram.file_id, RangeSet())
        for entry in datagram.asked:
            if server.cache.cached(datagram.file_id, entry.start, entry.stop):
                raise Violation("R7 miss", f"the server broadcasts for [{entry.start}, {entry.stop}), which is cached")
            solicited.add(entry.start, entry.stop)

    def _check_delivery(self, delivery: effects.Deliver) -> None:
        frame = delivery.frame
        manifest, data = self._original(frame.file_id)
        payload = b"".join(delivery.views)
        if len(payload) != frame.length:
            raise Violation("R6 hit", f"{len(payload)} bytes are delivered as {frame.length}")
        start, stop = (frame.start, frame.stop) if self.data_intact else manifest.whole_units(frame.start, frame.stop)
        offset = (start - frame.start) * CHUNK_BYTES
        expected = data[start * CHUNK_BYTES : stop * CHUNK_BYTES]
        if payload[offset : offset + len(expected)] != expected:
            raise Violation("R9 first good copy", f"wrong bytes are delivered within [{start}, {stop})")

    def _check_seeded(self, event: effects.FileSeeded) -> None:
        server = self._network.server
        assert server is not None, "the running server emitted the effect"
        manifest, _ = self._original(event.file_id)
        if server.cache.chunks_of(event.file_id) or event.cached_bytes:
            raise Violation("R2 the server forgets", f"{server.cache.chunks_of(event.file_id)} chunks are cached")
        file = server.catalogue.files[event.file_id]
        for share in filter(lambda share: share.owner and not share.is_empty, file.shares.all):
            owner = server.members.get(share.owner)
            if owner is None or not owner.reachable:
                raise Violation("R2 every share is held", f"{share.owner}, the owner of {share}, is not reachable")
        held = RangeSet()
        for client in self._network.clients.values():
            verified = self._verified(client, event.file_id)
            if self.shares_unmoved and file.terms.replica_count == 1 and held.intersection(verified):
                raise Violation("R2 the server forgets", f"{client.name} holds a chunk that another client holds")
            held.update(verified)
            for share in file.shares.all:
                if share.owner == client.name and not verified.covers(share.start, share.stop) and self.data_intact:
                    raise Violation("R2 every share is held", f"{client.name} does not hold all of its share {share}")
        if self.data_intact and held.chunk_count < manifest.chunk_count:
            raise Violation("R2 every share is held", "some chunk is held by no client")

    # -- clients

    def on_client_effect(self, client: Client, effect: ClientEffect) -> None:
        """See ``Observer``."""
        match effect:
            case SendDatagram(address, data):
                if address != SERVER:
                    raise Violation("R12 independence", f"{client.name} sends to {address}")
                if len(data) > DATAGRAM_BYTES_MAX:
                    raise Violation("bounds", f"a datagram of {len(data)} bytes")
            case Contribute(frame):
                verified = self._verified(client, frame.file_id)
                if client.source_file is None and not verified.covers(frame.start, frame.stop):
                    raise Violation("R8 holders", f"{client.name} sends unverified [{frame.start}, {frame.stop})")
            case ReportMilestone(file_id, milestone):
                self._check_verified(client, file_id)
                if milestone is Milestone.COMPLETE:
                    self._check_complete(client, file_id)

    def _check_complete(self, client: Client, file_id: FileId) -> None:
        manifest, data = self._original(file_id)
        store = client.store
        assert isinstance(store, MemoryStore), "the content is real"
        if (store.finished.get(manifest.name), store.modes.get(manifest.name)) != (data, manifest.mode):
            raise Violation("R10 done", f"the finished file of {client.name} differs from the source's")

    def _check_verified(self, client: Client, file_id: FileId) -> None:
        manifest, data = self._original(file_id)
        for start, stop in self._verified(client, file_id) if self.data_intact else ():
            offset, length = manifest.byte_span(start, stop)
            payload = client.store.payload(file_id, start, stop)
            assert isinstance(payload, memoryview), "the store is in memory"
            if payload != data[offset : offset + length]:
                raise Violation("R10 verified", f"{client.name} holds wrong bytes within [{start}, {stop})")

    # -- state

    def on_settled(self, polled: Collection[Client]) -> None:
        """See ``Observer``."""
        for client in polled:
            client.machine.check()
        server = self._network.server
        if server is not self._server:
            self.shares_unmoved = self.shares_unmoved and self._server is None
            self._server, self._broadcast_number, self._solicited, self._cached = server, 0, {}, {}
        if server is None:
            return
        cache = server.cache
        if cache.used_chunks > cache.capacity_chunks or cache.high_water_chunks > cache.capacity_chunks:
            raise Violation("R4 cache", f"{cache.used_chunks} of {cache.capacity_chunks} chunks are in use")
        if self.expects_unsolicited:
            self._check_solicited(server)
        self._steps += 1
        if self._members_changed or self._steps % FILE_CHECK_STEPS == 0:
            self._members_changed = False
            self.check_files()
        if self._steps % self._record_check_steps == 0:
            self.check_records()
        elif self._server_acted:
            self._server_acted = False
            checks = server.checks()
            checks[self._steps % len(checks)]()

    def check_records(self) -> None:
        """Let the state machines of all clients and of the server check their records."""
        for client in self._network.clients.values():
            client.machine.check()
        if self._network.server is not None:
            self._network.server.check()

    def check_files(self) -> None:
        """Run the checks that compare all files of the server with all members and stores."""
        server = self._network.server
        if server is None:
            return
        for file in server.catalogue.files.values():
            self._check_waiters(server, file)
            self._check_recipients(server, file)
            if file.phase is Phase.EXCHANGING:
                self._check_no_silent_loss(server, file)

    def _check_solicited(self, server: ServerMachine) -> None:
        """Check that a broadcast asked for each newly cached chunk; one broadcast permits one copy."""
        for file in server.catalogue.files.values():
            solicited = self._solicited.setdefault(file.file_id, RangeSet())
            cached = RangeSet(server.cache.cached(file.file_id, 0, file.manifest.chunk_count))
            new = cached.difference(self._cached.get(file.file_id, RangeSet()))
            for span in new:
                if not solicited.covers(*span):
                    raise Violation("R9 unsolicited", f"{span} of {file.manifest.name} is cached")
            solicited.difference_update(new)
            self._cached[file.file_id] = cached

    def _check_waiters(self, server: ServerMachine, file: SharedFile) -> None:
        unflushed = RangeSet(fetch.span for fetch in server.deliveries.batches.get(file, ()))
        for state in server.demand.of_file(file.file_id).wanting:
            member = state.member
            if member.has_data_path and state.window_left_chunks > 0 and state.requester.quota_used_chunks == 0:
                for start, stop in state.wanted.difference(unflushed):
                    if cached := server.cache.cached(file.file_id, start, stop):
                        raise Violation("R9 waiters are served", f"{member.name} waits for {cached}, which are cached")

    def _check_recipients(self, server: ServerMachine, file: SharedFile) -> None:
        """Check that only unreachable clients without the file are reported as missing."""
        for name, _ in file.recipients.away():
            member = server.members.get(name)
            if member is not None and member.reachable:
                raise Violation("R12 recipients", f"{name} is reported as missing, but is reachable")
            if name in file.recipients.complete_names:
                raise Violation("R12 recipients", f"{name} is reported as missing, but has the file")

    def _check_no_silent_loss(self, server: ServerMachine, file: SharedFile) -> None:
        """Check that a file is stalled if a chunk has no holder.

        Skip the check if a store may have been altered or erased, while members are awaited, or while a member's
        session has already ended on the member's side.
        """
        if file.is_stalled or not self.data_intact or server.lifecycle.awaited:
            return
        held = RangeSet()
        for member in server.members.values():
            client = self._network.clients[member.name]
            if not client.alive or client.session != member.session:
                return
            held.update(self._verified(client, file.file_id))
            if client.source_file is not None and client.source_file[0].file_id == file.file_id:
                held.add(0, file.manifest.chunk_count)
        if held.chunk_count < file.manifest.chunk_count:
            name, missing = file.manifest.name, held.gaps(0, file.manifest.chunk_count)
            raise Violation("no silent loss", f"{missing} of {name} have no holder, but it is not stalled")

    # -- expected contents

    def _original(self, file_id: FileId) -> tuple[Manifest, bytes]:
        seeding = self.seedings[file_id]
        return seeding.manifest, seeding.data

    def _verified(self, client: Client, file_id: FileId) -> RangeSet:
        known = client.store.known().get(file_id)
        return known.verified if known is not None else RangeSet()
