"""In which order clients should ask: what each order costs holders, with 50 clients and a cache of 64 KiB.

Prints, for each order, how often holders sent the file in the exchange, and how much longer the last of the
fastest clients took than its link needs: in lock-step, with clients of four speeds, and with late joiners
besides. Run it with ``.venv/bin/python scripts/experiments/order.py``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from random import Random

from pspd.core.model.parameters import FAST, SECOND_NS, Order
from pspd.sim.content import BlankContent
from pspd.sim.forecast import Finishes
from pspd.sim.hosts import Access
from pspd.sim.seeding import Seeding
from pspd.sim.world import World

MBIT = 125_000
CLIENTS = 50
SPEEDS = (1, 2, 3, 4)
LATE = 0.3
LIMIT_NS = 3600 * SECOND_NS


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured.

    Attributes:
        mixed: clients of four speeds, the fastest four times the slowest; else all of one.
        late: three in ten join at some time during the exchange.
    """

    name: str
    mixed: bool
    late: bool


CASES = (Case("lock-step", False, False), Case("mixed", True, False), Case("mixed, late", True, True))


def measure(order: Order, case: Case, size_bytes: int, cache_chunks: int, seed: int) -> str:
    """Runs one exchange: how often the file was contributed, and how much longer the fast took than they need."""
    dice = Random(seed)
    world = World(replace(FAST, order=order), cache_chunks, BlankContent(), seed, 10_000 * MBIT)
    finishes = Finishes(world)
    world.observers.append(finishes)
    speeds = [SPEEDS[index % len(SPEEDS)] if case.mixed else max(SPEEDS) for index in range(CLIENTS)]
    rates = [speed * 100 * MBIT // max(SPEEDS) for speed in speeds]
    clients = [world.add_client(f"client-{i}", Access(up_rate=rate, down_rate=rate)) for i, rate in enumerate(rates)]
    late = clients[: int(CLIENTS * LATE)] if case.late else []
    for client in clients[len(late) :]:
        world.start(client)
    seeding = Seeding(world, "file", size_bytes, 0, Access(), CLIENTS - len(late))
    seeding.start()
    world.run(lambda: seeding.file is not None and seeding.file.exchanging_at is not None, LIMIT_NS)
    begun = world.now
    usual_ns = size_bytes * SECOND_NS // min(rates)
    for client in late:
        world.clock.after(dice.randrange(usual_ns), world.start, client)
    assert world.run(lambda: len(finishes.at) == CLIENTS, LIMIT_NS), "it does not end"
    file = seeding.file
    assert file is not None, "it is complete"
    traffic = file.traffic
    ratio = (traffic.contributed_bytes - traffic.seeding_contributed_bytes) / size_bytes
    fastest = [c for c, rate in zip(clients, rates, strict=True) if rate == max(rates) and c not in late]
    slowdown = max(finishes.at[c.name] - begun for c in fastest) / (size_bytes * SECOND_NS / max(rates))
    return f"{ratio:6.2f} x{slowdown:4.2f}"


def main() -> None:
    """Prints the table."""
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
