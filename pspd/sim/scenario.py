"""A run that is drawn from a seed: a network, files, faults, then healing; and what must have come of it.

Faults happen for a while; then everything heals, whoever was gone comes back, and within a bounded
time every client must have every file (liveness). All the while the checks look for what must never
happen (safety).
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random

from pspd.core.model.manifest import CHUNK_BYTES
from pspd.core.model.parameters import CLASSIC, FAST, MILLISECOND_NS, SECOND_NS, Order, Parameters
from pspd.core.model.terms import Terms
from pspd.core.wire.datagrams import Request, encode_datagram
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import Kind
from pspd.errors import DuplicateInstance, WrongState
from pspd.sim.checks import Checks, Violation
from pspd.sim.content import RealContent
from pspd.sim.hosts import Access, Client
from pspd.sim.seeding import Seeding
from pspd.sim.trace import Trace
from pspd.sim.wires import Weather
from pspd.sim.world import World
from pspd.store.files.memory import MemoryStore

FAULTS_NS_MAX = 30 * SECOND_NS
LIVENESS_NS = 3600 * SECOND_NS
"""Once all is well, every client must have every file within so much virtual time."""
DISKS_LOST = 1 / 3
"""How many of the crashed servers come back without what they wrote down."""
MODES = (0o644, 0o644, 0o600, 0o755)
"""Of files, each as likely."""
REMOVALS = 0.2
"""How many networks have a file taken out, and seeded anew."""
HOSTILE = 0.15
"""How many networks have a client's identity on a second machine; and how many, apart from that, a forged request."""
CLONE_NS = SECOND_NS
"""How often a second machine tries to join."""
SETTLING_NS = 60 * SECOND_NS
"""How long the network is given to mend itself, before a source comes to repair."""
REPAIRS_MAX = 3
"""How often one may have to come: a disk may turn out to be wrong late."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one run.

    Attributes:
        seed: of the run.
        kind: "ok", "safety", "liveness" or "crash".
        rule: which rule was broken; empty if none.
        text: what happened, for a person.
        digest: of the trace.
        lines: the end of the trace.
        faults: how many of each kind were made.
        seconds: how much virtual time passed.
    """

    seed: int
    kind: str
    rule: str
    text: str
    digest: str
    lines: list[str]
    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def run_seed(seed: int) -> Outcome:
    """Runs the scenario of a seed."""
    return Scenario(seed).run()


class Scenario:
    """One seed's network and its fate.

    Attributes:
        world: the network.
        faults: how many of each kind were made.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.faults: Counter[str] = Counter()
        self._random = Random(seed)
        dice = self._random
        self._parameters = _draw_parameters(dice)
        is_classic = not self._parameters.kept_links
        self._chunks_max = 24 if is_classic else 300
        cache = dice.choice([None, 1, 2, 4, 16, 64, 1024])
        self.world = World(self._parameters, cache, RealContent(), dice.getrandbits(32), dice.choice([0, 0, 10**6]))
        self._trace = Trace(self.world)
        self._checks = Checks(self.world)
        self.world.observers += [self._trace, self._checks]
        self._weather = _draw_weather(dice)
        self._clients = [self._add_client() for _ in range(dice.randint(1, 8))]
        self._terms = _draw_terms(Random(f"terms {seed}"), len(self._clients))
        self._seedings: list[Seeding] = []
        self._healed = False

    # -- the run

    def run(self) -> Outcome:
        """Runs to the end."""
        try:
            self._begin()
            self.world.run(lambda: False, self._random.randrange(FAULTS_NS_MAX))
            self._heal()
            self._finish()
            self._checks.look_around()
        except Violation as violation:
            return self._outcome("liveness" if violation.rule == "liveness" else "safety", violation.rule, violation)
        except Exception as error:
            return self._outcome("crash", type(error).__name__, error)
        return self._outcome("ok", "", None)

    def _outcome(self, kind: str, rule: str, error: Exception | None) -> Outcome:
        text = "" if error is None else str(error)
        if kind == "crash":
            text = "".join(traceback.format_exception(error))
        lines = list(self._trace.lines)
        seconds = self.world.now / SECOND_NS
        return Outcome(self.seed, kind, rule, text, self._trace.digest, lines, self.faults, seconds)

    def _begin(self) -> None:
        dice = self._random
        late = dice.randint(0, len(self._clients) - 1) if dice.random() < 0.3 else 0
        for client in self._clients[late:]:
            self.world.start(client)
        for client in self._clients[:late]:
            self._after(dice.randrange(20 * SECOND_NS), "late joiner", self._start, client)
        for number in range(1 if dice.random() < 0.8 else 2):
            self._seed_file(f"file-{number}", self._draw_size(), len(self._clients) - late)
        if dice.random() < 0.75:
            for _ in range(dice.randint(1, 6)):
                self._plan_fault()
        removal = Random(f"removal {self.seed}")
        if removal.random() < REMOVALS:
            when, duration_ns = removal.randrange(FAULTS_NS_MAX), removal.randrange(5 * SECOND_NS)
            self._after(when, "removed", self._remove, removal.choice(self._clients), duration_ns)
        self._plan_hostile("cloned machine", self._clone)
        self._plan_hostile("forged request", self._forge_request)

    def _seed_file(self, name: str, size_bytes: int, client_count: int) -> None:
        access = replace(self._draw_access(), disk_rate=0)
        data_seed = self._random.getrandbits(32)
        mode = Random(f"mode {data_seed}").choice(MODES)
        seeding = Seeding(self.world, name, size_bytes, data_seed, access, client_count, self._terms, mode=mode)
        self._seedings.append(seeding)
        self._checks.seedings[seeding.manifest.file_id] = seeding
        seeding.start()

    # -- what is drawn

    def _draw_size(self) -> int:
        dice = self._random
        around = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1]
        return dice.choice(around) if dice.random() < 0.2 else dice.randrange(self._chunks_max * CHUNK_BYTES)

    def _draw_access(self) -> Access:
        dice = self._random
        rate = dice.choice([0, 0, 0, 10**5, 10**6])
        weather = self._weather
        if dice.random() < 0.2:
            weather = replace(weather, delay_ns=dice.randrange(100 * MILLISECOND_NS))
        return Access(weather, rate, rate * dice.choice([1, 4]), dice.choice([0, 0, 0, 10**5]))

    def _add_client(self) -> Client:
        return self.world.add_client(f"client-{len(self.world.clients)}", self._draw_access())

    # -- faults

    def _plan_fault(self) -> None:
        dice = self._random
        kinds: list[tuple[str, Callable[[Client, int], None]]] = [
            ("crash", self._crash),
            ("crash", self._crash),
            ("cut", self._cut),
            ("broken link", self._break_link),
            ("deaf", self._deafen),
            ("slow reader", self._slow_down),
            ("stopped process", self._pause),
            ("full disk", self._fill_disk),
            ("altered store", self._alter),
            ("corrupt holder", self._corrupt),
            ("broken transfers", self._break_transfers),
            ("unasked contributions", self._push),
            ("left for good", self._leave),
            ("disk lost", self._lose_disk),
            ("server crash", self._crash_server),
            ("cache cleared", self._clear_cache),
            ("seeded twice", self._seed_again),
        ]
        name, make = dice.choice(kinds)
        self._checks.pushed |= make == self._push
        client = dice.choice([*self._clients, *(seeding.source for seeding in self._seedings)])
        when = dice.randrange(dice.choice([SECOND_NS // 5, 15 * SECOND_NS]))
        self._after(when, name, make, client, dice.randrange(30 * SECOND_NS))

    def _plan_hostile(self, name: str, make: Callable[[Client, int], None]) -> None:
        dice = Random(f"{name} {self.seed}")
        if dice.random() < HOSTILE:
            when, duration_ns = dice.randrange(FAULTS_NS_MAX), dice.randrange(30 * SECOND_NS)
            self._after(when, name, make, dice.choice(self._clients), duration_ns)

    def _after(self, delay_ns: int, name: str, make: Callable[..., None], *arguments: object) -> None:
        def happen() -> None:
            if not self._healed:
                self.faults[name] += 1
                self._trace.note("fault", f"{name} {[getattr(a, 'name', a) for a in arguments]}")
                make(*arguments)

        self.world.clock.after(delay_ns, happen)

    def _start(self, client: Client) -> None:
        if not client.alive:
            self.world.start(client)

    def _crash(self, client: Client, duration_ns: int) -> None:
        if client.alive:
            self.world.crash(client)
            self.world.clock.after(duration_ns, self._restart, client)

    def _restart(self, client: Client) -> None:
        if not client.alive and not self._has_left(client):
            self.world.start(client)
            if client.original is not None:
                client.machine.hold_whole(client.original[0])

    def _has_left(self, client: Client) -> bool:
        if client.source:
            return any(seeding.over and seeding.source is client for seeding in self._seedings)
        return client not in self._clients

    def _cut(self, client: Client, duration_ns: int) -> None:
        self.world.cut(client)
        self.world.clock.after(duration_ns, self.world.mend, client)

    def _break_link(self, client: Client, duration_ns: int) -> None:
        self.world.transport.cut_link(client)

    def _deafen(self, client: Client, duration_ns: int) -> None:
        client.deaf = True
        self.world.clock.after(2 * duration_ns, self._undo_all, client)

    def _slow_down(self, client: Client, duration_ns: int) -> None:
        client.takes_deliveries = False
        self.world.clock.after(duration_ns, self._undo_all, client)

    def _pause(self, client: Client, duration_ns: int) -> None:
        """A process stands still, and finds all that came meanwhile, when it goes on."""
        client.stopped_until = max(client.stopped_until, self.world.now + duration_ns)

    def _fill_disk(self, client: Client, duration_ns: int) -> None:
        """A client has no room: what it cannot store it declines, and tries again later."""
        if isinstance(client.store, MemoryStore):
            client.store.full = True
            client.full_until = max(client.full_until, self.world.now + duration_ns)
            self.world.clock.after(duration_ns, self._free_disk, client)

    def _free_disk(self, client: Client) -> None:
        if client.full_until > self.world.now:
            return
        if isinstance(client.store, MemoryStore):
            client.store.full = False

    def _alter(self, client: Client, duration_ns: int) -> None:
        """Somebody changes bytes of a file that a client has not finished."""
        self._checks.honest = False
        if isinstance(client.store, MemoryStore):
            for seeding in self._seedings:
                client.store.alter(seeding.manifest.file_id, self._random.randrange(2**16))

    def _corrupt(self, client: Client, duration_ns: int) -> None:
        """A holder sends wrong bytes, and does not mend."""
        self._checks.honest = False

        def forge(frame: Frame, payload: bytes) -> bytes:
            return bytes(byte ^ 0x55 for byte in payload)

        client.forge = forge
        self.world.clock.after(duration_ns, self._undo_all, client)

    def _push(self, client: Client, duration_ns: int) -> None:
        """A client sends what it holds though nobody asked for it."""
        for file_id, held in client.store.known().items():
            for start, _ in held.verified if client.session else ():
                manifest = self._checks.seedings[file_id].manifest
                length = manifest.byte_span(start, start + 1)[1]
                frame = Frame(Kind.CONTRIBUTION, client.session, file_id, start, start + 1, length, 0)
                self.world.transport.contribute(client, frame)

    def _break_transfers(self, client: Client, duration_ns: int) -> None:
        """What a holder sends breaks off before its end, mostly."""

        def forge(frame: Frame, payload: bytes) -> bytes | None:
            return None if self._random.random() < 0.7 else payload

        client.forge = forge
        self.world.clock.after(duration_ns, self._undo_all, client)

    def _undo_all(self, client: Client) -> None:
        client.deaf, client.takes_deliveries, client.forge = False, True, None

    def _leave(self, client: Client, duration_ns: int) -> None:
        """A client goes and does not come back; nobody is to wait for it."""
        if client in self._clients and len(self._clients) > 1:
            self._clients.remove(client)
            self.world.stop(client)
            for seeding in self._seedings:  # as its user would, who knows that one will not come
                count = len(self._clients)
                seeding.client_count = min(seeding.client_count, count)
                seeding.terms = replace(seeding.terms, replica_count=min(seeding.terms.replica_count, count))

    def _lose_disk(self, client: Client, duration_ns: int) -> None:
        """A client comes back with an empty disk."""
        self._checks.honest = False
        if client.original is None and not client.source:
            self.world.crash(client) if client.alive else None
            client.store = self.world.content.store(client.name.encode())
            self.world.clock.after(duration_ns, self._restart, client)

    def _crash_server(self, client: Client, duration_ns: int) -> None:
        if self.world.server is not None:
            self.world.crash_server(disk_lost=self._random.random() < DISKS_LOST)
            self.world.clock.after(duration_ns // 3, self._restart_server)

    def _restart_server(self) -> None:
        if self.world.server is None:
            self.world.boot_server()

    def _clear_cache(self, client: Client, duration_ns: int) -> None:
        if self.world.server is not None:
            self.world.server.clear_cache(self.world.now)

    def _seed_again(self, client: Client, duration_ns: int) -> None:
        """Another source comes with a file that is there already."""
        self._repair(self._random.choice(self._seedings))

    def _remove(self, client: Client, duration_ns: int) -> None:
        """Somebody takes a file out of the network, whoever has it, and seeds it anew."""
        seeding = self._seedings[0]
        server, file = self.world.server, seeding.file
        if server is not None and file is not None:
            with suppress(WrongState):
                server.catalogue.remove(file, self.world.now, force=True)
                self._checks.calm = False
                self.world.clock.after(duration_ns, self._repair, seeding)

    def _clone(self, client: Client, duration_ns: int) -> None:
        """A machine with a copy of a client's folder joins whenever it has no session, and does nothing with one."""
        ends_at, session = self.world.now + duration_ns, 0

        def join() -> None:
            nonlocal session
            server = self.world.server
            if self._healed or self.world.now >= ends_at:
                return
            present = server.members.get(client.name) if server is not None else None
            if server is not None and (present is None or present.session != session):
                with suppress(DuplicateInstance):
                    session = server.client_joined(client.name, client.instance_id, self.world.now).session
            self.world.clock.after(CLONE_NS, join)

        join()

    def _forge_request(self, client: Client, duration_ns: int) -> None:
        """Somebody who knows a client's session sends a request with a number far ahead of the client's own."""
        server = self.world.server
        file_id = next(iter(client.machine.downloads), None)
        if server is not None and file_id is not None and client.session:
            forged = Request(client.session, file_id, 2**31, 0, 1, ())
            server.receive_datagram(encode_datagram(forged), client.address, self.world.now)

    # -- healing, and what must come of it

    def _heal(self) -> None:
        self._healed = True
        self._trace.note("fault", "everything heals")
        if self.world.server is None:
            self.world.boot_server()
        for client in self.world.clients.values():
            self._undo_all(client)
            self.world.mend(client)
            client.full_until = 0
            self._free_disk(client)
            self._restart(client)

    def _finish(self) -> None:
        for _ in range(REPAIRS_MAX + 1):
            if not self.world.run(lambda: self._is_done() or bool(self._lost()), LIVENESS_NS):
                break
            if self.world.run(self._is_done, SETTLING_NS):
                return
            for seeding in self._lost():
                self._repair(seeding)
        raise Violation("liveness", "; ".join(self._undone()))

    def _lost(self) -> list[Seeding]:
        """What was lost with a disk or with the server's memory, so that only a source can bring it back."""
        here = {seeding.manifest.file_id for seeding in self._seedings if not seeding.over}
        return [
            seeding
            for seeding in self._seedings
            if seeding.manifest.file_id not in here and (seeding.file is None or seeding.file.stalled)
        ]

    def _repair(self, lost: Seeding) -> None:
        again = Seeding(self.world, lost.manifest.name, 0, 0, Access(self._weather), 0, of=lost)
        self._seedings.append(again)
        self._checks.seedings[again.manifest.file_id] = again
        again.start()

    def _is_done(self) -> bool:
        if not all(seeding.over for seeding in self._seedings):
            return False
        files = [seeding.file for seeding in self._seedings]
        if not all(file is None or file.is_complete for file in files):
            return False
        return all(self._has(client, seeding) for seeding in self._seedings for client in self._clients)

    def _has(self, client: Client, seeding: Seeding) -> bool:
        held = client.store.known().get(seeding.manifest.file_id)
        return held is not None and held.complete

    def _undone(self) -> list[str]:
        found = []
        for seeding in self._seedings:
            file = seeding.file
            state = "unknown" if file is None else f"{file.phase.value}{' stalled' if file.stalled else ''}"
            if not seeding.over:
                found.append(f"{seeding.source.name} is not over")
            for client in self._clients:
                if not self._has(client, seeding):
                    held = client.store.known().get(seeding.manifest.file_id)
                    lacking = held.verified.gaps(0, seeding.manifest.chunk_count) if held else "all"
                    found.append(f"{client.name} lacks {lacking} of {seeding.manifest.name} ({state})")
        return found or ["the server does not know that all is done"]


def _draw_parameters(dice: Random) -> Parameters:
    if dice.random() < 0.35:
        return replace(CLASSIC, order=dice.choice([Order.SEQUENTIAL, Order.RANDOM]))
    if dice.random() < 0.3:
        return FAST
    window = dice.choice([1, 8, 64, 1024])
    return replace(
        FAST,
        frame_chunks=dice.choice([1, 4, 16, 512]),
        window_min_chunks=window,
        window_max_chunks=window * dice.choice([1, 4]),
        request_ranges=dice.choice([1, 3, 128]),
        all_holders_answer=dice.random() < 0.1,
        order=dice.choice(list(Order)),
    )


def _draw_terms(dice: Random, client_count: int) -> Terms:
    replica_count = dice.randint(1, client_count) if dice.random() < 0.3 else 1
    return Terms(replica_count, stays=dice.random() < 0.3)


def _draw_weather(dice: Random) -> Weather:
    delay_ns = dice.choice([0, MILLISECOND_NS // 10, MILLISECOND_NS, 30 * MILLISECOND_NS])
    if dice.random() < 0.3:
        return Weather(delay_ns)
    return Weather(
        delay_ns,
        jitter_ns=dice.choice([0, MILLISECOND_NS, 20 * MILLISECOND_NS]),
        loss=dice.choice([0.0, 0.05, 0.3, 0.5]),
        burst=dice.choice([1.0, 1.0, 5.0]),
        duplicate=dice.choice([0.0, 0.1]),
        reorder=dice.choice([0.0, 0.1]),
    )
