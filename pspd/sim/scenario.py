"""A scenario drawn from a seed: a network, files and faults, then recovery.

Faults happen for a while. Then all of them end, and within bounded time every client must have every file (liveness).
Checks look for broken rules throughout (safety).
"""

from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random

from pspd.core.model.manifest import CHUNK_BYTES
from pspd.core.model.parameters import CLASSIC, FAST, MILLISECOND_NS, SECOND_NS, Order, Parameters
from pspd.core.model.terms import Terms
from pspd.core.model.tuning import SERVER_TUNING, ServerTuning
from pspd.sim.checks import RECORD_CHECK_STEPS, Checks, Violation
from pspd.sim.content import Content
from pspd.sim.faults import FAULTS_NS_MAX, FaultInjector
from pspd.sim.goal import LivenessGoal
from pspd.sim.hosts import HostConditions
from pspd.sim.network import VirtualNetwork
from pspd.sim.paths import Impairments
from pspd.sim.trace import Trace

LIVENESS_NS = 3 * 3600 * SECOND_NS
"""The maximum time of the recovery after all faults have ended, and after each new seeding, in nanoseconds. With a
cache of one chunk, and half of the datagrams lost in bursts, two files take 8 clients more than an hour."""
RECOVERY_NS = 60 * SECOND_NS
"""How long the network may recover by itself before a new source seeds a lost file again, in nanoseconds."""
RESEEDINGS_MAX = 3
"""How many times lost files may be seeded again: wrong bytes on a disk may be found late."""
MODES = (0o644, 0o644, 0o600, 0o755)
"""Permission bits; one of these values is drawn for each file."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one run.

    Attributes:
        seed: the run's seed.
        kind: "ok", "safety", "liveness" or "crash".
        rule: the broken rule or the type of the exception; empty for "ok".
        text: the violation or the stack trace; empty for "ok".
        digest: the digest of the whole trace.
        lines: the last lines of the trace.
        faults: the number of faults of each kind.
        seconds: the virtual duration of the run, in seconds.
    """

    seed: int
    kind: str
    rule: str
    text: str
    digest: str
    lines: list[str]
    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def run_seed(
    seed: int,
    liveness_ns: int = LIVENESS_NS,
    tuning: ServerTuning = SERVER_TUNING,
    record_check_steps: int = RECORD_CHECK_STEPS,
) -> Outcome:
    """Run the scenario of a seed, and return its outcome.

    Args:
        seed: the seed; equal seeds give equal runs.
        liveness_ns: see ``LIVENESS_NS``.
        tuning: the server's tunables.
        record_check_steps: the number of steps between two checks of all records.
    """
    return Scenario(seed, tuning, record_check_steps).run(liveness_ns)


class Scenario:
    """The network, files and faults of one seed."""

    def __init__(self, seed: int, tuning: ServerTuning, record_check_steps: int) -> None:
        self._seed = seed
        self._random = random = Random(seed)
        parameters = _draw_parameters(random)
        self._chunks_max = 300 if parameters.kept_links else 24
        cache_chunks = random.choice([None, 1, 2, 4, 16, 64, 1024])
        network_seed, server_rate = random.getrandbits(32), random.choice([0, 0, 10**6])
        self._network = VirtualNetwork(parameters, cache_chunks, Content(), network_seed, server_rate, tuning)
        self._trace = Trace(self._network)
        self._checks = Checks(self._network, record_check_steps)
        self._network.observers += [self._trace, self._checks]
        self._impairments = _draw_impairments(random)
        self._goal = LivenessGoal(self._network, self._checks, self._impairments)
        for _ in range(random.randint(1, 8)):
            self._goal.add_client(self._draw_conditions())
        self._faults = FaultInjector(self._network, self._checks, self._goal, self._trace, seed, random)

    def run(self, liveness_ns: int) -> Outcome:
        """Run until the goal is reached, a rule is broken, or the code raises; return the outcome.

        Args:
            liveness_ns: see ``LIVENESS_NS``.
        """
        kind, rule, text = "ok", "", ""
        try:
            self._begin()
            self._network.run(lambda: False, self._random.randrange(FAULTS_NS_MAX))
            self._faults.end_all()
            self._recover(liveness_ns)
            self._checks.check_files()
            self._checks.check_records()
        except Violation as violation:
            kind = "liveness" if violation.rule == "liveness" else "safety"
            rule, text = violation.rule, str(violation)
        except Exception as error:
            kind, rule, text = "crash", type(error).__name__, "".join(traceback.format_exception(error))
        trace, seconds = self._trace, self._network.now / SECOND_NS
        return Outcome(self._seed, kind, rule, text, trace.digest, list(trace.lines), self._faults.counts, seconds)

    def _begin(self) -> None:
        random, clients = self._random, self._goal.clients
        late_count = random.randint(0, len(clients) - 1) if random.random() < 0.3 else 0
        for client in clients[late_count:]:
            self._network.start(client)
        for client in clients[:late_count]:
            self._faults.plan_late_start(client)
        terms = _draw_terms(Random(f"terms {self._seed}"), len(clients))
        for number in range(1 if random.random() < 0.8 else 2):
            size_bytes = self._draw_size()
            conditions = replace(self._draw_conditions(), disk_rate=0)
            data_seed = random.getrandbits(32)
            mode = Random(f"mode {data_seed}").choice(MODES)
            data = self._network.content.bytes_of(size_bytes, data_seed)
            self._goal.seed(f"file-{number}", data, conditions, len(clients) - late_count, terms, mode)
        if random.random() < 0.75:
            for _ in range(random.randint(1, 6)):
                self._faults.plan()
        self._faults.plan_rare_faults()

    def _draw_size(self) -> int:
        random = self._random
        around = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1]
        return random.choice(around) if random.random() < 0.2 else random.randrange(self._chunks_max * CHUNK_BYTES)

    def _draw_conditions(self) -> HostConditions:
        random = self._random
        rate = random.choice([0, 0, 0, 10**5, 10**6])
        impairments = self._impairments
        if random.random() < 0.2:
            impairments = replace(impairments, delay_ns=random.randrange(100 * MILLISECOND_NS))
        return HostConditions(impairments, rate, rate * random.choice([1, 4]), random.choice([0, 0, 0, 10**5]))

    def _recover(self, liveness_ns: int) -> None:
        network, goal = self._network, self._goal
        for _ in range(RESEEDINGS_MAX + 1):
            if not network.run(lambda: goal.is_reached() or bool(goal.unrecoverable()), liveness_ns):
                break
            if network.run(goal.is_reached, RECOVERY_NS):
                return
            for seeding in goal.unrecoverable():
                goal.seed_again(seeding)
        raise Violation("liveness", "; ".join(goal.missing()))


def _draw_parameters(random: Random) -> Parameters:
    if random.random() < 0.35:
        return replace(CLASSIC, order=random.choice([Order.SEQUENTIAL, Order.RANDOM]))
    if random.random() < 0.3:
        return FAST
    window = random.choice([1, 8, 64, 1024])
    return replace(
        FAST,
        frame_chunks=random.choice([1, 4, 16, 512]),
        window_min_chunks=window,
        window_max_chunks=window * random.choice([1, 4]),
        request_ranges=random.choice([1, 3, 128]),
        all_holders_answer=random.random() < 0.1,
        order=random.choice(list(Order)),
    )


def _draw_terms(random: Random, client_count: int) -> Terms:
    replica_count = random.randint(1, client_count) if random.random() < 0.3 else 1
    return Terms(replica_count, source_stays=random.random() < 0.3)


def _draw_impairments(random: Random) -> Impairments:
    delay_ns = random.choice([0, MILLISECOND_NS // 10, MILLISECOND_NS, 30 * MILLISECOND_NS])
    if random.random() < 0.3:
        return Impairments(delay_ns)
    return Impairments(
        delay_ns,
        jitter_ns=random.choice([0, MILLISECOND_NS, 20 * MILLISECOND_NS]),
        loss=random.choice([0.0, 0.05, 0.3, 0.5]),
        burst=random.choice([1.0, 1.0, 5.0]),
        duplicate=random.choice([0.0, 0.1]),
        reorder=random.choice([0.0, 0.1]),
    )
