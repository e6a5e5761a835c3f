"""What a network would do, before anybody builds it: time, traffic, and who waits for whom."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pspd.core.effects.client import ClientEffect, ReportMilestone
from pspd.core.effects.server import FileCompleted, ServerEffect
from pspd.core.effects.shared import Milestone
from pspd.core.model.parameters import SECOND_NS, Parameters
from pspd.errors import TimedOut
from pspd.sim.content import BlankContent
from pspd.sim.hosts import Access, Client
from pspd.sim.observer import Observer
from pspd.sim.seeding import Seeding
from pspd.sim.world import World

LIMIT_NS = 7 * 24 * 3600 * SECOND_NS
ACTIONS_PER_LOOK = 1000


@dataclass(frozen=True, slots=True)
class Plan:
    """The network that is asked about.

    Attributes:
        client_count: clients, all there from the start.
        size_bytes: the file's size.
        parameters: the protocol's.
        cache_chunks: the server's cache; None for one chunk per client.
        access: how each client is connected.
        server_rate: bytes per second that the server sends, and receives; 0 for any.
        source: how the source is connected.
        seed: of all that is left to chance.
    """

    client_count: int
    size_bytes: int
    parameters: Parameters
    cache_chunks: int | None
    access: Access = field(default_factory=Access)
    server_rate: int = 0
    source: Access = field(default_factory=Access)
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the network did. Times in seconds, of the exchange unless said otherwise; counts as the server counts them.

    Attributes:
        seeding_seconds: from the division until every share was held.
        exchange_seconds: from then until every client had the file.
        first_client_seconds: until the first client had it.
        last_client_seconds: until the last.
        contributed_bytes: what holders sent in the exchange; ideal is one file.
        delivered_bytes: what clients were sent in the exchange; ideal is n-1 files.
        duplicate_bytes: what holders sent in vain.
        request_datagrams: requests.
        broadcast_datagrams: broadcasts, one for each member.
        retransmit_count: requests and broadcasts that were repeated.
        server_sent_bytes: all that left the server, heads included.
        server_received_bytes: all that reached it.
        hit_count, miss_count, join_count, eviction_count: the cache's, in chunks.
        event_count: how many things happened in the simulation.
    """

    seeding_seconds: float
    exchange_seconds: float
    first_client_seconds: float
    last_client_seconds: float
    contributed_bytes: int
    delivered_bytes: int
    duplicate_bytes: int
    request_datagrams: int
    broadcast_datagrams: int
    retransmit_count: int
    server_sent_bytes: int
    server_received_bytes: int
    hit_count: int
    miss_count: int
    join_count: int
    eviction_count: int
    event_count: int


class Finishes(Observer):
    """Notes when each client has the file.

    Attributes:
        at: when that was, in nanoseconds, by the client's name.
        all_have_it: whether the server says that all have it.
    """

    def __init__(self, world: World) -> None:
        self.at: dict[str, int] = {}
        self.all_have_it = False
        self._world = world

    def server_did(self, effect: ServerEffect) -> None:
        """See ``Observer``."""
        if isinstance(effect, FileCompleted):
            self.all_have_it = True

    def client_did(self, client: Client, effect: ClientEffect) -> None:
        """See ``Observer``."""
        if isinstance(effect, ReportMilestone) and effect.milestone is Milestone.COMPLETE:
            self.at[client.name] = self._world.now


@contextmanager
def _without_collections() -> Iterator[None]:
    """Garbage in cycles is not looked for: there is next to none, among the millions of objects of a large network."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def forecast(plan: Plan, on_progress: Callable[[float], None] = lambda done: None) -> Forecast:
    """Lets the network run in virtual time.

    Args:
        plan: the network.
        on_progress: told now and then how much of all bytes has been delivered, of 1.

    Raises:
        TimedOut: it would take longer than a week.
    """
    world = World(plan.parameters, plan.cache_chunks, BlankContent(), plan.seed, plan.server_rate)
    finishes = Finishes(world)
    world.observers.append(finishes)
    for index in range(plan.client_count):
        world.start(world.add_client(f"client-{index}", plan.access))
    seeding = Seeding(world, "file", plan.size_bytes, 0, plan.source, plan.client_count)
    seeding.start()
    total_bytes = max(1, plan.size_bytes * plan.client_count)
    looks = 0

    def is_over() -> bool:
        nonlocal looks
        looks += 1
        if looks % ACTIONS_PER_LOOK == 0 and (file := seeding.file) is not None:
            on_progress(min(1.0, file.traffic.delivered_bytes / total_bytes))
        return finishes.all_have_it

    with _without_collections():
        is_done = world.run(is_over, LIMIT_NS)
    if not is_done:
        raise TimedOut("this network would take longer than a week")
    on_progress(1.0)
    return _measured(world, seeding, list(finishes.at.values()))


def _measured(world: World, seeding: Seeding, finishes: list[int]) -> Forecast:
    file, server = seeding.file, world.server
    assert file is not None, "the file is complete"
    assert server is not None, "it never crashes here"
    traffic, cache = file.traffic, server.cache
    divided, seeded, begun, completed = (
        moment or 0 for moment in (file.seeding_at, file.seeded_at, file.exchanging_at, file.completed_at)
    )
    return Forecast(
        seeding_seconds=(seeded - divided) / SECOND_NS,
        exchange_seconds=(completed - begun) / SECOND_NS,
        first_client_seconds=max(0, min(finishes) - begun) / SECOND_NS,
        last_client_seconds=max(0, max(finishes) - begun) / SECOND_NS,
        contributed_bytes=traffic.contributed_bytes - traffic.seeding_contributed_bytes,
        delivered_bytes=traffic.delivered_bytes - traffic.seeding_delivered_bytes,
        duplicate_bytes=traffic.duplicate_bytes,
        request_datagrams=traffic.request_datagrams,
        broadcast_datagrams=traffic.broadcast_datagrams,
        retransmit_count=traffic.retransmit_count,
        server_sent_bytes=world.transport.up.byte_count,
        server_received_bytes=world.transport.down.byte_count,
        hit_count=cache.hit_count,
        miss_count=cache.miss_count,
        join_count=cache.join_count,
        eviction_count=cache.eviction_count,
        event_count=world.clock.action_count,
    )


def ideal_seconds(plan: Plan) -> float:
    """How long the exchange takes at least: what the narrowest link must carry, at its rate; 0 if none has one."""
    count = plan.client_count
    share = plan.size_bytes // count
    lacking = plan.size_bytes - share if count > 1 else 0
    loads = [
        (lacking * count, plan.server_rate),
        (plan.size_bytes if lacking else 0, plan.server_rate),
        (lacking, plan.access.down_rate),
        (share if lacking else 0, plan.access.up_rate),
    ]
    return max(load / rate if rate else 0.0 for load, rate in loads)
