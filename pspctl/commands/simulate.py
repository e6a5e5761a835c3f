"""``pspctl simulate``: forecast the exchange in a network of many clients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TypedDict

import click
from rich.console import Group, RenderableType

from pspctl.options import Command, Settings, parse_cache_size
from pspctl.output import show, shown_progress
from pspctl.ui.columns import Column, FittedTable, Kind
from pspctl.ui.units import count_text, duration_text, percent_text, ratio_text, size_text
from pspd.cli.arguments import Integer
from pspd.core.model.manifest import CHUNK_BYTES
from pspd.core.model.parameters import MILLISECOND_NS, PROFILES, Order, default_cache_chunks
from pspd.errors import BadArgument
from pspd.sim.forecast import Plan, forecast, ideal_seconds
from pspd.sim.hosts import HostConditions
from pspd.sim.paths import Impairments
from pspd.text.sizes import parse_size

BYTES_PER_MBIT = 125_000
SIZE_BYTES_MAX = 1 << 40
DELAY_MS_MAX = 10_000
MBIT_MIN, MBIT_MAX = 0.01, 10_000_000

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


class SimulationView(TypedDict):
    """The answer of `pspctl simulate`: the parameters, the forecast, and the shortest possible time of the exchange."""

    clients: int
    size_bytes: int
    profile: str
    cache_bytes: int
    order: str
    ideal_exchange_seconds: float
    forecast: dict[str, float]


def _within(least: float, most: float, *, or_zero: bool = False) -> Callable[..., float]:
    """Return a callback of click that accepts only numbers from `least` to `most` and, with `or_zero`, 0."""

    def check(ctx: click.Context, parameter: click.Parameter, number: float) -> float:
        if least <= number <= most or (or_zero and number == 0):
            return number
        zero = "0, or " if or_zero else ""
        raise click.BadParameter(f"{number:g} is not {zero}a number from {least:g} to {most:,.10g}", ctx, parameter)

    return check


def _file_bytes(ctx: click.Context, parameter: click.Parameter, text: str) -> int:
    size_bytes = parse_size(text)
    if size_bytes > SIZE_BYTES_MAX:
        raise BadArgument(f"{text} is too large to simulate: give {SIZE_BYTES_MAX >> 40}TiB or less")
    return size_bytes


def _float_option(name: str, metavar: str, default: float, check: Callable[..., float], text: str) -> Decorator:
    return click.option(name, type=float, metavar=metavar, default=default, callback=check, help=text)


def _rate_option(name: str, metavar: str, link: str) -> Decorator:
    text = f"The speed of {link} in each direction, in Mbit/s; 0 for unlimited."
    return _float_option(name, metavar, 1000, _within(MBIT_MIN, MBIT_MAX, or_zero=True), text)


@click.command("simulate", cls=Command, context_settings={"show_default": True})
@click.option("--clients", type=Integer(1, 100_000), metavar="N", required=True, help="The number of clients.")
@click.option(
    "--size", "size_bytes", callback=_file_bytes, metavar="SIZE", required=True, help="The file's size, such as 64MiB."
)
@click.option(
    "--cache",
    metavar="SIZE",
    help="The size of the server's cache; auto means one KiB per client. Default: the profile's.",
)
@click.option("--profile", type=click.Choice(list(PROFILES)), default="fast", help="The protocol parameters.")
@click.option(
    "--order",
    type=click.Choice([order.value for order in Order]),
    help="The order in which clients request chunks. Default: the profile's.",
)
@_float_option("--loss", "P", 0, _within(0, 0.9), "The fraction of datagrams lost in each direction, 0 to 0.9.")
@_float_option("--delay", "MS", 0.5, _within(0, DELAY_MS_MAX), "The one-way delay of each client's link, in ms.")
@_rate_option("--server-mbit", "X", "the server's link")
@_rate_option("--client-mbit", "Y", "each client's link, and the source's,")
@click.option(
    "--seed", type=int, default=1, metavar="K", help="The random seed: the same seed gives the same forecast."
)
@click.pass_obj
def simulate(
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
    """Forecast what a network of many clients would do.

    Runs the real protocol code of the server and of each client in virtual time, over links of the given speed,
    delay and loss. It starts no daemon and sends no byte. It does not simulate the processors: where links are faster
    than the machines, expect less.

    Examples:
      pspctl simulate --clients 1000 --size 64MiB --server-mbit 10000
      pspctl simulate --clients 50 --size 1GiB --client-mbit 100 --loss 0.02 --delay 20 -o json
    """
    parameters = PROFILES[profile] if order is None else replace(PROFILES[profile], order=Order(order))
    rate = int(client_mbit * BYTES_PER_MBIT)
    conditions = HostConditions(
        Impairments(delay_ns=int(delay * MILLISECOND_NS), loss=loss), up_rate=rate, down_rate=rate
    )
    plan = Plan(
        client_count=clients,
        size_bytes=size_bytes,
        parameters=parameters,
        cache_chunks=_cache_chunks(cache, default_cache_chunks(parameters)),
        client_conditions=conditions,
        server_rate=int(server_mbit * BYTES_PER_MBIT),
        source_conditions=conditions,
        seed=seed,
    )
    with shown_progress(settings) as progress:
        result = forecast(plan, progress.show_simulation)
    view = SimulationView(
        clients=clients,
        size_bytes=size_bytes,
        profile=profile,
        cache_bytes=(plan.cache_chunks or clients) * CHUNK_BYTES,
        order=parameters.order.value,
        ideal_exchange_seconds=ideal_seconds(plan),
        forecast=asdict(result),
    )
    show(settings, view, lambda: _render(view))


def _cache_chunks(cache: str | None, default: int | None) -> int | None:
    """Return the size of the cache in chunks (None: one chunk per client); without an option, return `default`."""
    if cache is None:
        return default
    wanted = parse_cache_size(cache)
    if isinstance(wanted, str):
        return None
    if wanted < CHUNK_BYTES:
        raise BadArgument("the cache holds at least one chunk: give 1KiB or more")
    return wanted // CHUNK_BYTES


def _render(view: SimulationView) -> RenderableType:
    figures, size_bytes, count = view["forecast"], view["size_bytes"], view["clients"]
    table = FittedTable(
        Column("EXCHANGE", Kind.NAME), Column("FORECAST", Kind.NUMBER), Column("RATIO", Kind.NUMBER), Column("IDEAL")
    )
    ideal = view["ideal_exchange_seconds"]
    exchange = figures["exchange_seconds"]
    table.add_row("time", duration_text(exchange), ratio_text(exchange, ideal), duration_text(ideal))
    table.add_row("first client done", duration_text(figures["first_client_seconds"]), "", "")
    table.add_row("last client done", duration_text(figures["last_client_seconds"]), "", "")
    for name, moved, whole in (
        ("contributed", figures["contributed_bytes"], size_bytes if count > 1 else 0),
        ("delivered", figures["delivered_bytes"], size_bytes * (count - 1)),
        ("duplicates", figures["duplicate_bytes"], 0),
    ):
        files = f"{moved / size_bytes:.2f} files" if size_bytes else "-"
        table.add_row(name, size_text(moved), files, size_text(whole))
    table.add_row("datagrams", f"{figures['request_datagrams'] + figures['broadcast_datagrams']:.0f}", "", "")
    request_count = figures["hit_count"] + figures["join_count"] + figures["miss_count"]
    for name, field in (("hits", "hit_count"), ("aggregated", "join_count"), ("misses", "miss_count")):
        table.add_row(f"{name}, chunks", f"{figures[field]:.0f}", percent_text(figures[field], request_count), "")
    head = (
        f"{count_text(count, 'client')}, {size_text(size_bytes)}, profile {view['profile']}, order {view['order']}, "
        f"cache {size_text(view['cache_bytes'])}: seeded in {duration_text(figures['seeding_seconds'])}"
    )
    return Group(head, "", table)
