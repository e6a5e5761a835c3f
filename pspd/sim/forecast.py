"""Forecasts how long a network takes to give a file to all clients, and how much traffic this causes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field

from pspd.core.effects.client import ClientEffect, ReportMilestone
from pspd.core.effects.server import FileCompleted, ServerEffect
from pspd.core.effects.shared import Milestone
from pspd.core.model.parameters import SECOND_NS, Parameters
from pspd.errors import TimedOut
from pspd.sim.content import BlankContent
from pspd.sim.hosts import Client, HostConditions
from pspd.sim.network import VirtualNetwork
from pspd.sim.observer import Observer
from pspd.sim.seeding import Seeding

LIMIT_NS = 7 * 24 * 3600 * SECOND_NS
ACTIONS_PER_PROGRESS = 1000


@dataclass(frozen=True, slots=True)
class Plan:
    """The network to simulate.

    Attributes:
        client_count: the number of clients; all of them start at once.
        size_bytes: the file's size.
        parameters: the protocol's parameters.
        cache_chunks: the size of the server's cache, in chunks; None for one chunk for each client.
        client_conditions: the impairments and rates of each client.
        server_rate: the server's rate in each direction, in bytes per second; 0 for unlimited.
        source_conditions: the impairments and rates of the source.
        seed: the seed of all random draws.
    """

    client_count: int
    size_bytes: int
    parameters: Parameters
    cache_chunks: int | None
    client_conditions: HostConditions = field(default_factory=HostConditions)
    server_rate: int = 0
    source_conditions: HostConditions = field(default_factory=HostConditions)
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Forecast:
    """The results of a simulation.

    Attributes:
        seeding_seconds: the time from the division until the file was seeded.
        exchange_seconds: the time from the start of the exchange until the server knew that every client had the file.
        first_client_seconds: the time from the start of the exchange until the first client had the file.
        last_client_seconds: the time from the start of the exchange until the last client had the file.
        contributed_bytes: the bytes of the contributions that the server accepted in the exchange.
        delivered_bytes: the bytes that the server delivered in the exchange.
        duplicate_bytes: the bytes of the contributions that the server dropped as duplicate or unsolicited.
        request_datagrams: the number of requests that the server received.
        broadcast_datagrams: the number of broadcasts that the server sent, counted for each member.
        retransmit_count: the number of repeated requests, and of fetches that were broadcast again.
        server_sent_bytes: all bytes that the server sent, headers included, TCP acknowledgements excluded.
        server_received_bytes: the bytes that the server received by TCP, headers included; datagrams are not counted.
        hit_count: the cache's hits, in chunks.
        miss_count: the cache's misses, in chunks.
        join_count: the number of requested chunks that were already being fetched.
        eviction_count: the cache's evictions, in chunks.
        event_count: the number of simulated actions.
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


@dataclass(eq=False)
class Completions(Observer):
    """Records when each client has the file.

    Attributes:
        network: the network.
        completed_at: the time of the latest report that a client has the file, in nanoseconds, by client name.
        is_complete: whether the server reported that all clients have the file.
    """

    network: VirtualNetwork
    completed_at: dict[str, int] = field(default_factory=dict)
    is_complete: bool = False

    def on_server_effect(self, effect: ServerEffect) -> None:
        """See ``Observer``."""
        if isinstance(effect, FileCompleted):
            self.is_complete = True

    def on_client_effect(self, client: Client, effect: ClientEffect) -> None:
        """See ``Observer``."""
        if isinstance(effect, ReportMilestone) and effect.milestone is Milestone.COMPLETE:
            self.completed_at[client.name] = self.network.now


def forecast(plan: Plan, on_progress: Callable[[float], None] = lambda done: None) -> Forecast:
    """Simulate a network until the server knows that all clients have the file, and return the results.

    Args:
        plan: the network and the file.
        on_progress: a function that is called periodically with the fraction of the bytes that the server has
            delivered, and with 1.0 at the end.

    Raises:
        TimedOut: the file is not complete after a week of virtual time.
    """
    network = VirtualNetwork(plan.parameters, plan.cache_chunks, BlankContent(), plan.seed, plan.server_rate)
    completions = Completions(network)
    network.observers.append(completions)
    for index in range(plan.client_count):
        network.start(network.add_client(f"client-{index}", plan.client_conditions))
    seeding = Seeding(network, "file", b"", plan.size_bytes, plan.source_conditions, plan.client_count)
    seeding.start()
    total_bytes = max(1, plan.size_bytes * plan.client_count)

    def is_over() -> bool:
        if network.action_count % ACTIONS_PER_PROGRESS == 0 and (file := seeding.file) is not None:
            on_progress(min(1.0, file.traffic.delivered_bytes / total_bytes))
        return completions.is_complete

    gc.disable()  # a large network has millions of objects and few cycles: collections would only take time
    try:
        is_done = network.run(is_over, LIMIT_NS)
    finally:
        gc.enable()
    if not is_done:
        raise TimedOut("this network would take longer than a week")
    on_progress(1.0)
    return _measured(network, seeding, list(completions.completed_at.values()))


def _measured(network: VirtualNetwork, seeding: Seeding, completions: list[int]) -> Forecast:
    file, server = seeding.file, network.server
    assert file is not None, "the file is complete"
    assert server is not None, "forecasts have no crashes"
    traffic, cache = file.traffic, server.cache
    divided, seeded, begun, completed = (
        moment or 0 for moment in (file.seeding_at, file.seeded_at, file.exchanging_at, file.completed_at)
    )
    return Forecast(
        seeding_seconds=(seeded - divided) / SECOND_NS,
        exchange_seconds=(completed - begun) / SECOND_NS,
        first_client_seconds=max(0, min(completions) - begun) / SECOND_NS,
        last_client_seconds=max(0, max(completions) - begun) / SECOND_NS,
        contributed_bytes=traffic.contributed_bytes - traffic.seeding_contributed_bytes,
        delivered_bytes=traffic.delivered_bytes - traffic.seeding_delivered_bytes,
        duplicate_bytes=traffic.duplicate_bytes,
        request_datagrams=traffic.request_datagrams,
        broadcast_datagrams=traffic.broadcast_datagrams,
        retransmit_count=traffic.retransmit_count,
        server_sent_bytes=network.data_plane.uplink.byte_count,
        server_received_bytes=network.data_plane.downlink.byte_count,
        hit_count=cache.hit_count,
        miss_count=cache.miss_count,
        join_count=cache.join_count,
        eviction_count=cache.eviction_count,
        event_count=network.action_count,
    )


def ideal_seconds(plan: Plan) -> float:
    """Return the least possible duration of the exchange in seconds.

    Only the network rates of the server and the clients count; 0 if all are unlimited, or if there is one client.
    """
    count = plan.client_count
    share = plan.size_bytes // count
    missing = plan.size_bytes - share if count > 1 else 0
    loads = [
        (missing * count, plan.server_rate),
        (plan.size_bytes if missing else 0, plan.server_rate),
        (missing, plan.client_conditions.down_rate),
        (share if missing else 0, plan.client_conditions.up_rate),
    ]
    return max(load / rate if rate else 0.0 for load, rate in loads)
