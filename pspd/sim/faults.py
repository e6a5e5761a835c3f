"""Faults of a virtual network: what can fail, when it fails, and how it recovers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from pspd.core.model.parameters import SECOND_NS
from pspd.core.wire.datagrams import Request, encode_datagram
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import Kind
from pspd.errors import DuplicateInstance, WrongState
from pspd.sim.checks import Checks
from pspd.sim.goal import LivenessGoal
from pspd.sim.hosts import Client
from pspd.sim.network import VirtualNetwork
from pspd.sim.trace import Trace
from pspd.store.files.memory import MemoryStore

FAULTS_NS_MAX = 30 * SECOND_NS
"""The maximum length of the time in which faults begin, in nanoseconds."""
DISK_LOSS_RATE = 1 / 3
"""The fraction of the server's crashes in which the server loses its disk."""
REMOVAL_RATE = 0.2
"""The fraction of networks for which the removal of a file is planned; the file is seeded again."""
ATTACK_RATE = 0.15
"""The fraction of networks for which a cloned machine is planned. Forged requests are drawn separately at this rate."""
CLONE_JOIN_NS = SECOND_NS // 2
"""The interval at which a cloned machine tries to join, in nanoseconds."""

Fault = Callable[[Client, int], None]
"""Causes a fault. Takes the affected client and a duration in nanoseconds, which some faults scale or ignore."""


@dataclass(slots=True, eq=False)
class FaultInjector:
    """Plans faults, causes them, and ends them.

    Args:
        network: the network.
        checks: the checks, which some faults relax.
        goal: the clients and files of the network.
        trace: the trace, which records each fault.
        seed: the scenario's seed, from which each special fault makes its own source of randomness.
        random: the scenario's source of randomness.
        counts: the number of faults of each kind so far.
        has_ended: whether :meth:`end_all` has been called. No fault begins after that.
    """

    network: VirtualNetwork
    checks: Checks
    goal: LivenessGoal
    trace: Trace
    seed: int
    random: Random
    counts: Counter[str] = field(default_factory=Counter)
    has_ended: bool = False

    # -- planning

    def plan(self) -> None:
        """Plan one random fault; tell the checks if it sends unsolicited contributions."""
        random = self.random
        kinds: list[tuple[str, Fault]] = [
            ("crash", self._crash),
            ("crash", self._crash),
            ("partition", self._partition),
            ("broken link", self._break_link),
            ("blocked downlink", self._block_downlink),
            ("slow reader", self._stop_reading),
            ("paused process", self._pause),
            ("full disk", self._fill_disk),
            ("altered store", self._alter_store),
            ("wrong bytes", self._send_wrong_bytes),
            ("aborted transfers", self._break_transfers),
            ("unsolicited contributions", self._send_unsolicited),
            ("left for good", self._leave),
            ("disk lost", self._lose_disk),
            ("server crash", self._crash_server),
            ("cache cleared", self._clear_cache),
            ("seeded twice", self._seed_again),
        ]
        name, cause = random.choice(kinds)
        self.checks.expects_unsolicited |= cause == self._send_unsolicited
        client = random.choice([*self.goal.clients, *(seeding.source for seeding in self.goal.seedings)])
        when = random.randrange(random.choice([SECOND_NS // 5, 15 * SECOND_NS]))
        self._schedule(when, name, cause, client, random.randrange(30 * SECOND_NS))

    def plan_late_start(self, client: Client) -> None:
        """Plan that a client joins late."""
        self._schedule(self.random.randrange(20 * SECOND_NS), "late joiner", self._restart, client, 0)

    def plan_rare_faults(self) -> None:
        """Plan a removal, a cloned machine and a forged request, each in some networks only."""
        self._plan_rarely("removal", REMOVAL_RATE, 5 * SECOND_NS, self._remove)
        self._plan_rarely("cloned machine", ATTACK_RATE, 30 * SECOND_NS, self._clone)
        self._plan_rarely("forged request", ATTACK_RATE, 30 * SECOND_NS, self._forge_request)

    def _plan_rarely(self, name: str, rate: float, duration_ns_max: int, cause: Fault) -> None:
        random = Random(f"{name} {self.seed}")
        if random.random() < rate:
            when, duration_ns = random.randrange(FAULTS_NS_MAX), random.randrange(duration_ns_max)
            self._schedule(when, name, cause, random.choice(self.goal.clients), duration_ns)

    def _schedule(self, delay_ns: int, name: str, cause: Fault, client: Client, duration_ns: int) -> None:
        def happen() -> None:
            if not self.has_ended:
                self.counts[name] += 1
                self.trace.record("fault", f"{name} at {client.name}")
                cause(client, duration_ns)

        self.network.after(delay_ns, happen)

    # -- the end

    def end_all(self) -> None:
        """End all faults that last, except pauses, which end by themselves; prevent further faults.

        Restart the server if it is down, and every client that is down and has not left for good.
        """
        self.has_ended = True
        self.trace.record("fault", "all faults end")
        self._restart_server()
        for client in self.network.clients.values():
            self._restore_data_plane(client)
            self.network.heal(client)
            client.disk_full_until = 0
            self._free_disk(client)
            self._restart(client)

    def _restore_data_plane(self, client: Client) -> None:
        """Let a client receive datagrams, read its deliveries and send right contributions."""
        client.downlink_blocked, client.reads_deliveries, client.tamper = False, True, None

    def _restart(self, client: Client, duration_ns: int = 0) -> None:
        if not client.alive and not self.goal.has_left(client):
            self.network.start(client)
            if client.source_file is not None:
                client.machine.contribute_as_source(client.source_file[0])

    # -- processes and links

    def _crash(self, client: Client, duration_ns: int) -> None:
        if client.alive:
            self.network.crash(client)
            self.network.after(duration_ns, self._restart, client)

    def _pause(self, client: Client, duration_ns: int) -> None:
        """Pause a client's process. When the process resumes, it receives everything that arrived meanwhile."""
        client.paused_until = max(client.paused_until, self.network.now + duration_ns)

    def _partition(self, client: Client, duration_ns: int) -> None:
        self.network.partition(client)
        self.network.after(duration_ns, self.network.heal, client)

    def _break_link(self, client: Client, duration_ns: int) -> None:
        self.network.control.break_link(client)

    def _block_downlink(self, client: Client, duration_ns: int) -> None:
        client.downlink_blocked = True
        self.network.after(2 * duration_ns, self._restore_data_plane, client)

    def _stop_reading(self, client: Client, duration_ns: int) -> None:
        client.reads_deliveries = False
        self.network.after(duration_ns, self._restore_data_plane, client)

    def _leave(self, client: Client, duration_ns: int) -> None:
        """Let a client leave for good; do nothing for a source or the last client."""
        if client in self.goal.clients and len(self.goal.clients) > 1:
            self.goal.leave(client)

    # -- storage

    def _fill_disk(self, client: Client, duration_ns: int) -> None:
        """Fill a client's disk; the client declines files and retries later."""
        if isinstance(client.store, MemoryStore):
            client.store.is_full = True
            client.disk_full_until = max(client.disk_full_until, self.network.now + duration_ns)
            self.network.after(duration_ns, self._free_disk, client)

    def _free_disk(self, client: Client) -> None:
        if client.disk_full_until <= self.network.now and isinstance(client.store, MemoryStore):
            client.store.is_full = False

    def _alter_store(self, client: Client, duration_ns: int) -> None:
        """Change one byte of each file that a client has begun and not finished."""
        self.checks.data_intact = False
        if isinstance(client.store, MemoryStore):
            for seeding in self.goal.seedings:
                client.store.alter(seeding.manifest.file_id, self.random.randrange(2**16))

    def _lose_disk(self, client: Client, duration_ns: int) -> None:
        """Crash a client, and restart it later with an empty disk. For a source, only relax the checks."""
        self.checks.data_intact = False
        if not client.is_source:
            if client.alive:
                self.network.crash(client)
            client.store = self.network.content.new_store(client.instance_id)
            self.network.after(duration_ns, self._restart, client)

    # -- contributions

    def _send_wrong_bytes(self, client: Client, duration_ns: int) -> None:
        """Let a holder send frames whose last byte is wrong."""
        self.checks.data_intact = False
        client.tamper = lambda frame, payload: payload[:-1] + bytes(byte ^ 0x55 for byte in payload[-1:])
        self.network.after(duration_ns, self._restore_data_plane, client)

    def _break_transfers(self, client: Client, duration_ns: int) -> None:
        """Abort most of a holder's contributions before the payload is complete.

        The link stays open, although an abort closes a real link: the fault "broken link" covers that.
        """
        client.tamper = lambda frame, payload: None if self.random.random() < 0.7 else payload
        self.network.after(duration_ns, self._restore_data_plane, client)

    def _send_unsolicited(self, client: Client, duration_ns: int) -> None:
        """Send the first chunk of each range that a client holds, although no broadcast asked for the chunk."""
        for file_id, held in client.store.known().items():
            for start, _ in held.verified if client.session else ():
                manifest = self.checks.seedings[file_id].manifest
                length = manifest.byte_span(start, start + 1)[1]
                frame = Frame(Kind.CONTRIBUTION, client.session, file_id, start, start + 1, length, 0)
                self.network.data_plane.contribute(client, frame)

    # -- the server and its files

    def _crash_server(self, client: Client, duration_ns: int) -> None:
        if self.network.server is not None:
            self.network.crash_server(disk_lost=self.random.random() < DISK_LOSS_RATE)
            self.network.after(duration_ns // 3, self._restart_server)

    def _restart_server(self) -> None:
        if self.network.server is None:
            self.network.boot_server()

    def _clear_cache(self, client: Client, duration_ns: int) -> None:
        server = self.network.server_for_input()
        if server is not None:
            server.clear_cache(self.network.now)

    def _seed_again(self, client: Client, duration_ns: int) -> None:
        """Start a second source for a file."""
        self.goal.seed_again(self.random.choice(self.goal.seedings))

    def _remove(self, client: Client, duration_ns: int) -> None:
        """Remove a file from the network, and seed it again later."""
        seeding = self.goal.seedings[0]
        server, file = self.network.server_for_input(), seeding.file
        if server is not None and file is not None:
            with suppress(WrongState):
                server.catalogue.remove(file, self.network.now, force=True)
                self.checks.shares_unmoved = False
                self.network.after(duration_ns, self.goal.seed_again, seeding)

    # -- attacks

    def _clone(self, client: Client, duration_ns: int) -> None:
        """Let a second machine join with a client's identity, and join again whenever that machine has no session."""
        ends_at, session = self.network.now + duration_ns, 0

        def join() -> None:
            nonlocal session
            server = self.network.server_for_input()
            if self.has_ended or self.network.now >= ends_at:
                return
            present = server.members.get(client.name) if server is not None else None
            if server is not None and (present is None or present.session != session):
                with suppress(DuplicateInstance):
                    session = server.member_joined(client.name, client.instance_id, self.network.now).session
            self.network.after(CLONE_JOIN_NS, join)

        join()

    def _forge_request(self, client: Client, duration_ns: int) -> None:
        """Forge a request in a client's session, with a number far above the client's own numbers."""
        server = self.network.server_for_input()
        file_id = next(iter(client.machine.downloads), None)
        if server is not None and file_id is not None and client.session:
            forged = Request(client.session, file_id, 2**31, 0, 1, ())
            server.receive_datagram(encode_datagram(forged), client.address, self.network.now)
