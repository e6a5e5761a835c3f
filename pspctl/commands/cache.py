"""``pspctl cache``: show, clear or resize the server's cache (R4)."""

from __future__ import annotations

import click

from pspctl.api import ServerApi
from pspctl.options import Group, Settings, parse_cache_size
from pspctl.output import show
from pspctl.ui.tables import cache_text
from pspctl.ui.units import count_text, size_text
from pspctl.ui.views import cache_view, client_views
from pspd.core.model.manifest import CHUNK_BYTES
from pspd.errors import WrongState


@click.group("cache", cls=Group, invoke_without_command=True)
@click.pass_context
def cache(ctx: click.Context) -> None:
    """Show, clear or resize the server's cache.

    The cache is the only place where the server holds file data. Without a subcommand, its state is shown.

    Examples:
      pspctl cache
      pspctl cache resize 64MiB
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(show_cache)


@cache.command("show")
@click.pass_obj
def show_cache(settings: Settings) -> None:
    """Show the cache's size, usage and counters.

    Example:
      pspctl cache show -o json
    """
    with ServerApi(settings.server_address()) as api:
        view = cache_view(api.run(api.client.cache()))
    show(settings, {"cache": view}, lambda: cache_text(view))


@cache.command("clear")
@click.pass_obj
def clear(settings: Settings) -> None:
    """Drop every cached chunk that is not in use.

    Example:
      pspctl cache clear
    """
    with ServerApi(settings.server_address()) as api:
        response = api.run(api.client.clear_cache())
    count = response.dropped_chunk_count
    document = {"cache": cache_view(response.cache), "dropped_chunk_count": count}
    show(settings, document, lambda: f"dropped {count_text(count, 'chunk')}")


@cache.command("resize")
@click.argument("capacity", metavar="SIZE", type=parse_cache_size)
@click.pass_obj
def resize(settings: Settings, capacity: int | str) -> None:
    """Change the cache's size.

    SIZE is a size such as 64MiB, a number of bytes, or auto, which means one KiB per connected client.
    Chunks that no longer fit are evicted, least recently used first.

    Example:
      pspctl cache resize 64MiB
    """
    with ServerApi(settings.server_address()) as api:
        capacity_bytes = _automatic_bytes(api) if isinstance(capacity, str) else capacity
        view = cache_view(api.run(api.client.resize_cache(capacity_bytes)))
    show(settings, {"cache": view}, lambda: f"the cache now holds up to {size_text(view['capacity_bytes'])}")


def _automatic_bytes(api: ServerApi) -> int:
    """Return the size that ``auto`` means: one chunk per connected client; raise WrongState if there is none."""
    connected = [client for client in client_views(api.run(api.client.clients())) if client["state"] == "connected"]
    if not connected:
        raise WrongState("auto needs a connected client: start one, or name a size such as 64MiB")
    return len(connected) * CHUNK_BYTES
