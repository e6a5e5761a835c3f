"""``pspctl simulate``: what a network would do, before anybody builds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TypedDict

import click
from rich.console import Group, RenderableType

from pspctl.options import Command, Settings, size
from pspctl.ui.columns import Column, FittedTable
from pspctl.ui.output import printer
from pspctl.ui.progress import shown_progress
from pspctl.ui.units import count_text, duration_text, percent_text, ratio_text, size_text
from pspctl.ui.views import SCHEMA_VERSION
from pspd.cli.arguments import Count
from pspd.core.model.manifest import CHUNK_BYTES
from pspd.core.model.parameters import MILLISECOND_NS, PROFILES, Order, default_cache_chunks
from pspd.errors import BadArgument
from pspd.sim.forecast import Forecast, Plan, forecast, ideal_seconds
from pspd.sim.hosts import Access
from pspd.sim.wires import Weather
from pspd.text.sizes import parse_size

BYTES_PER_MBIT = 125_000
SIZE_BYTES_MAX = 1 << 40
DELAY_MS_MAX = 10_000
MBIT_MIN, MBIT_MAX = 0.01, 10_000_000


class SimulationView(TypedDict):
    """What was asked, what would happen, and how fast it could be at best."""

    schema_version: int
    clients: int
    size_bytes: int
    profile: str
    cache_bytes: int
    order: str
    ideal_exchange_seconds: float
    forecast: dict[str, float]


def _within(least: float, most: float, *, or_zero: bool = False) -> Callable[..., float]:
    """Has a number refused that is not between bounds; 0 may stand for none."""

    def check(ctx: click.Context, parameter: click.Parameter, number: float) -> float:
        if least <= number <= most or (or_zero and number == 0):
            return number
        none = "0, or " if or_zero else ""
        raise click.BadParameter(f"{number:g} is not {none}a number from {least:g} to {most:,.10g}", ctx, parameter)

    return check


def _bytes(ctx: click.Context, parameter: click.Parameter, text: str) -> int:
    size_bytes = parse_size(text)
    if size_bytes > SIZE_BYTES_MAX:
        raise BadArgument(f"{text} is too large to simulate: give {SIZE_BYTES_MAX >> 40}TiB or less")
    return size_bytes


def _rate_option(name: str, metavar: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        name,
        type=float,
        callback=_within(MBIT_MIN, MBIT_MAX, or_zero=True),
        default=1000,
        metavar=metavar,
        show_default=True,
        help="Each way; 0 for any.",
    )


@click.command("simulate", cls=Command)
@click.option("--clients", type=Count(1, 100_000), metavar="N", required=True, help="How many clients.")
@click.option("--size", "size_bytes", callback=_bytes, metavar="SIZE", required=True, help="The file, such as 64MiB.")
@click.option("--cache", metavar="SIZE", help="The server's cache; else the profile's. auto: one KiB for each client.")
@click.option("--profile", type=click.Choice(list(PROFILES)), default="fast", show_default=True)
@click.option("--order", type=click.Choice([order.value for order in Order]), help="The order of requests.")
@click.option(
    "--loss", type=float, callback=_within(0, 0.9), default=0, metavar="P", help="Datagrams lost each way, of 1."
)
@click.option(
    "--delay",
    type=float,
    callback=_within(0, DELAY_MS_MAX),
    default=0.5,
    metavar="MS",
    show_default=True,
    help="One way.",
)
@_rate_option("--server-mbit", "X")
@_rate_option("--client-mbit", "Y")
@click.option("--seed", type=int, default=1, metavar="K", show_default=True, help="Of all that is left to chance.")
@click.pass_obj
def command(
    settings: Settings,
    clients: int,
    size_bytes: int,
    cache: str | None,
    profile: str,
    order: str | None,
    loss: float,
    delay: float,
    server_mbit: float,
    client_mbit: float,
    seed: int,
) -> None:
    """Tell what a network of many clients would do.

    Runs the protocol itself, for each client and the server, in virtual time over links of the speed, delay
    and loss given. No daemon is started and no byte is sent. A rate of 0 is one that never limits. The
    processors' speed is not simulated: where links are faster than the machines, expect less. The one who seeds
    has a link like a client's.

    \b
    Examples:
      pspctl simulate --clients 1000 --size 64MiB --server-mbit 10000
      pspctl simulate --clients 50 --size 1GiB --client-mbit 100 --loss 0.02 --delay 20 -o json
    """
    parameters = PROFILES[profile]
    if order is not None:
        parameters = replace(parameters, order=Order(order))
    access = Access(
        Weather(delay_ns=int(delay * MILLISECOND_NS), loss=loss),
        up_rate=int(client_mbit * BYTES_PER_MBIT),
        down_rate=int(client_mbit * BYTES_PER_MBIT),
    )
    plan = Plan(
        client_count=clients,
        size_bytes=size_bytes,
        parameters=parameters,
        cache_chunks=_cache_chunks(cache, default_cache_chunks(parameters)),
        access=access,
        server_rate=int(server_mbit * BYTES_PER_MBIT),
        source=access,
        seed=seed,
    )
    with shown_progress(settings) as progress:
        told = forecast(plan, progress.simulation)
    printer(settings.output).show(_view(plan, told), _rendered)


def _cache_chunks(cache: str | None, usual: int | None) -> int | None:
    if cache is None:
        return usual
    wanted = size(cache)
    if isinstance(wanted, str):
        return None
    if wanted < CHUNK_BYTES:
        raise BadArgument("the cache holds at least one chunk: give 1KiB or more")
    return wanted // CHUNK_BYTES


def _view(plan: Plan, told: Forecast) -> SimulationView:
    return SimulationView(
        schema_version=SCHEMA_VERSION,
        clients=plan.client_count,
        size_bytes=plan.size_bytes,
        profile=plan.parameters.profile,
        cache_bytes=(plan.cache_chunks or plan.client_count) * CHUNK_BYTES,
        order=plan.parameters.order.value,
        ideal_exchange_seconds=ideal_seconds(plan),
        forecast=asdict(told),
    )


def _rendered(view: SimulationView) -> RenderableType:
    told, size_bytes, count = view["forecast"], view["size_bytes"], view["clients"]
    table = FittedTable(
        Column("EXCHANGE", is_name=True),
        Column("FORECAST", is_number=True),
        Column("RATIO", is_number=True),
        Column("IDEAL"),
    )
    ideal = view["ideal_exchange_seconds"]
    exchange = told["exchange_seconds"]
    table.add_row("time", duration_text(exchange), ratio_text(exchange, ideal), duration_text(ideal))
    table.add_row("first client done", duration_text(told["first_client_seconds"]), "", "")
    table.add_row("last client done", duration_text(told["last_client_seconds"]), "", "")
    for name, moved, whole in (
        ("contributed", told["contributed_bytes"], size_bytes if count > 1 else 0),
        ("delivered", told["delivered_bytes"], size_bytes * (count - 1)),
        ("duplicates", told["duplicate_bytes"], 0),
    ):
        files = f"{moved / size_bytes:.2f} files" if size_bytes else "-"
        table.add_row(name, size_text(moved), files, size_text(whole))
    table.add_row("datagrams", f"{told['request_datagrams'] + told['broadcast_datagrams']:.0f}", "", "")
    asked = told["hit_count"] + told["join_count"] + told["miss_count"]
    for name, field in (("hits", "hit_count"), ("joins", "join_count"), ("misses", "miss_count")):
        table.add_row(f"{name}, chunks", f"{told[field]:.0f}", percent_text(told[field], asked), "")
    head = (
        f"{count_text(count, 'client')}, {size_text(size_bytes)}, profile {view['profile']}, order {view['order']}, "
        f"cache {size_text(view['cache_bytes'])}: seeded in {duration_text(told['seeding_seconds'])}"
    )
    return Group(head, "", table)
