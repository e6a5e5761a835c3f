"""``pspctl cache``: show, clear or resize the server's cache (R4)."""

from __future__ import annotations

import click
from rich.text import Text

from pspctl.api import ServerApi
from pspctl.options import Group, Settings, size
from pspctl.ui.output import printer
from pspctl.ui.tables import cache_text
from pspctl.ui.units import size_text
from pspctl.ui.views import SCHEMA_VERSION, cache_view
from pspd.core.model.manifest import CHUNK_BYTES
from pspd.errors import WrongState
from pspd.v1 import network_pb2


@click.group("cache", cls=Group, invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Show, clear or resize the server's cache.

    The cache is the only place where the server holds file data. Without a subcommand, show it.

    Examples:
      pspctl cache
      pspctl cache resize 64MiB
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(show)


@command.command("show")
@click.pass_obj
def show(settings: Settings) -> None:
    """Show the cache's size, usage and counters.

    Example:
      pspctl cache show -o json
    """
    with ServerApi(settings.server) as api:
        cache = cache_view(api.cache())
    document = {"schema_version": SCHEMA_VERSION, "cache": cache}
    printer(settings.output).show(document, lambda _: cache_text(cache))


@command.command("clear")
@click.pass_obj
def clear(settings: Settings) -> None:
    """Drop every cached chunk that is not in use.

    Example:
      pspctl cache clear
    """
    with ServerApi(settings.server) as api:
        response = api.clear_cache()
    document = {
        "schema_version": SCHEMA_VERSION,
        "cache": cache_view(response.cache),
        "dropped_chunk_count": response.dropped_chunk_count,
    }
    printer(settings.output).show(document, lambda _: Text(f"dropped {response.dropped_chunk_count} chunks"))


@command.command("resize")
@click.argument("capacity", metavar="SIZE", type=size)
@click.pass_obj
def resize(settings: Settings, capacity: int | str) -> None:
    """Change the cache's size.

    SIZE is a size such as 64MiB, a number of bytes, or auto, which means one KiB per connected client.
    Chunks that no longer fit are evicted, least recently used first.

    Example:
      pspctl cache resize 64MiB
    """
    with ServerApi(settings.server) as api:
        capacity_bytes = _automatic_bytes(api) if isinstance(capacity, str) else capacity
        cache = cache_view(api.resize_cache(capacity_bytes))
    document = {"schema_version": SCHEMA_VERSION, "cache": cache}
    printer(settings.output).show(
        document, lambda _: Text(f"the cache now holds up to {size_text(cache['capacity_bytes'])}")
    )


def _automatic_bytes(api: ServerApi) -> int:
    """Return the size that ``auto`` means: one chunk per connected client."""
    connected = [
        client for client in api.clients() if client.state == network_pb2.CLIENT_STATE_CONNECTED and not client.source
    ]
    if not connected:
        raise WrongState("no client is connected to size the cache by: start one, or name a size such as 64MiB")
    return len(connected) * CHUNK_BYTES
