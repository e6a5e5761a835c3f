"""Compares the orders of requests, with 50 clients and a cache of 64 KiB.

Prints for each order how often holders sent the file in the exchange, and by which factor the last of the fastest
clients was slower than its link: with equal clients, with clients of four speeds, and with late joiners as well.
Run it with ``.venv/bin/python -m scripts.experiments.order``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from random import Random

from pspd.core.model.parameters import FAST, SECOND_NS, Order
from pspd.sim.content import BlankContent
from pspd.sim.forecast import Completions
from pspd.sim.hosts import HostConditions
from pspd.sim.network import VirtualNetwork
from pspd.sim.seeding import Seeding

MBIT = 125_000
CLIENTS = 50
SPEEDS = (1, 2, 3, 4)
LATE = 0.3
LIMIT_NS = 3600 * SECOND_NS


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of network.

    Attributes:
        name: the name in the table.
        mixed: whether clients have four speeds, the fastest four times the slowest.
        late: whether three in ten join during the exchange.
    """

    name: str
    mixed: bool
    late: bool


CASES = (Case("equal", False, False), Case("mixed", True, False), Case("mixed, late", True, True))


def measure(order: Order, case: Case, size_bytes: int, cache_chunks: int, seed: int) -> str:
    """Return how often the file was contributed in one exchange, and the slowdown of the fastest clients.

    Args:
        order: the order of requests.
        case: the kind of network.
        size_bytes: the file's size.
        cache_chunks: the size of the server's cache, in chunks.
        seed: the seed of all random draws.
    """
    random = Random(seed)
    network = VirtualNetwork(replace(FAST, order=order), cache_chunks, BlankContent(), seed, 10_000 * MBIT)
    completions = Completions(network)
    network.observers.append(completions)
    speeds = [SPEEDS[index % len(SPEEDS)] if case.mixed else max(SPEEDS) for index in range(CLIENTS)]
    rates = [speed * 100 * MBIT // max(SPEEDS) for speed in speeds]
    clients = [
        network.add_client(f"client-{i}", HostConditions(up_rate=rate, down_rate=rate)) for i, rate in enumerate(rates)
    ]
    late = clients[: int(CLIENTS * LATE)] if case.late else []
    for client in clients[len(late) :]:
        network.start(client)
    seeding = Seeding(network, "file", b"", size_bytes, HostConditions(), CLIENTS - len(late))
    seeding.start()
    network.run(lambda: seeding.file is not None and seeding.file.exchanging_at is not None, LIMIT_NS)
    begun = network.now
    usual_ns = size_bytes * SECOND_NS // min(rates)
    for client in late:
        network.after(random.randrange(usual_ns), network.start, client)
    assert network.run(lambda: len(completions.completed_at) == CLIENTS, LIMIT_NS), "the exchange does not end"
    file = seeding.file
    assert file is not None, "the file is complete"
    traffic = file.traffic
    ratio = (traffic.contributed_bytes - traffic.seeding_contributed_bytes) / size_bytes
    fastest = [c for c, rate in zip(clients, rates, strict=True) if rate == max(rates) and c not in late]
    slowdown = max(completions.completed_at[c.name] - begun for c in fastest) / (size_bytes * SECOND_NS / max(rates))
    return f"{ratio:6.2f} x{slowdown:4.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mib", type=int, default=4)
    parser.add_argument("--cache-kib", type=int, default=64)
    parser.add_argument("--orders", default=",".join(Order))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{'order':<12}", *(f"{case.name:>14}" for case in CASES))
    for order in map(Order, arguments.orders.split(",")):
        row = [measure(order, case, arguments.size_mib << 20, arguments.cache_kib, arguments.seed) for case in CASES]
        print(f"{order.value:<12}", *(f"{text:>14}" for text in row), flush=True)


if __name__ == "__main__":
    main()
