"""The tables of `pspctl`, made from the same views that are printed as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from pspctl.ui import file_text
from pspctl.ui.columns import Column, FittedTable, Kind
from pspctl.ui.exchange import exchange_table, no_ideal_text
from pspctl.ui.units import count_text, duration_text, percent_text, rate_text, size_text
from pspctl.ui.views import CacheView, ClientView, FileClientView, FileView, StatusView
from pspd.text.plain import plain_text

NO_CLIENT = "no client has joined: start some with `pspctl launch N` or `pspd client`"
NO_FILE = "no file: seed one with `pspctl seed FILE`"

_STATE_STYLES = {
    "complete": "green",
    "connected": "green",
    "stalled": "red",
    "lost": "red",
    "distributing": "cyan",
}


def status_table(status: StatusView) -> RenderableType:
    """Return the status of the network: the server, the clients, the files, and the missing chunks of stalled files."""
    clients, files = clients_table(status["clients"], status["sources"]), status["files"]
    return Group(
        status_header(status),
        "",
        clients if status["clients"] or status["sources"] else NO_CLIENT,
        "",
        files_table(files) if files else NO_FILE,
        *[stall for file in files for stall in stall_lines(file)],
    )


def status_header(status: StatusView) -> Text:
    """Return one line about the server and its cache."""
    server, cache = status["server"], status["cache"]
    return Text(
        f"server {plain_text(server['address'])}  {plain_text(server['version'])}"
        f"  profile {plain_text(server['profile'])}"
        f"  up {duration_text(server['uptime_seconds'])}  cache {_cache_usage_text(cache)}"
    )


def clients_table(
    clients: Iterable[ClientView],
    sources: Iterable[ClientView] = (),
    progress: Mapping[str, tuple[int, int]] | None = None,
) -> FittedTable:
    """Return the clients, then the sources, one per row.

    Args:
        clients: the clients.
        sources: the sources.
        progress: by client name, the number of chunks that the client holds and the number that it should hold in the
            end; None to omit the column.
    """
    columns = [Column("CLIENT", Kind.NAME), Column("ADDRESS", drop_order=1), Column("STATE")]
    columns += [] if progress is None else [Column("PROGRESS", Kind.NUMBER)]
    table = FittedTable(*columns, Column("RTT", Kind.NUMBER))
    rows = [(client, client["state"]) for client in clients]
    rows += [(source, "source" if source["state"] == "connected" else source["state"]) for source in sources]
    for client, state in rows:
        name, address = plain_text(client["name"]), plain_text(client["address"]) or "-"
        percentage = [] if progress is None else [percent_text(*progress.get(client["name"], (0, 0)))]
        rtt = f"{client['srtt_ms']:.1f} ms" if client["srtt_ms"] else "-"
        table.add_row(name, address, _state_text(state), *percentage, rtt)
    return table


def files_table(files: Sequence[FileView]) -> FittedTable:
    """Return the files, one per row, with the rate and the time left if the rate of any file is known."""
    with_rates = any(file["rate_bytes_per_second"] is not None for file in files)
    rates = [Column("RATE", Kind.NUMBER), Column("LEFT", Kind.NUMBER)] if with_rates else []
    table = FittedTable(
        Column("FILE", Kind.NAME),
        Column("ID", drop_order=2),
        Column("SIZE", Kind.NUMBER, drop_order=3),
        Column("STATE"),
        Column("PROGRESS", Kind.NUMBER),
        *rates,
        Column("CLIENTS", Kind.NUMBER),
        Column("MIN HOLDERS", Kind.NUMBER, drop_order=1),
    )
    for file in files:
        table.add_row(
            file_text.shown_name(file),
            file_text.short_id(file),
            size_text(file["size_bytes"]),
            _state_text(file_text.file_state_text(file)),
            file_text.progress_text(file),
            *(_rate_cells(file) if with_rates else ()),
            f"{file['complete_client_count']}/{file['client_count']}{file_text.declined_text(file)}",
            str(file["min_holder_count"]),
        )
    return table


def _rate_cells(file: FileView) -> tuple[str, str]:
    rate, eta = file["rate_bytes_per_second"], file["eta_seconds"]
    return ("-" if rate is None else rate_text(rate), "-" if eta is None else duration_text(eta))


def file_table(status: StatusView) -> RenderableType:
    """Return the server and the file of a status: the file's state, its clients' progress, and its exchange."""
    parts: list[RenderableType] = [status_header(status)]
    for file in status["files"]:
        parts += ["", files_table([file]), *stall_lines(file), *safety_lines(file)]
        parts += ["", file_clients_table(file, file["clients"]), *problem_lines(file), *exchange_parts(file)]
    return Group(*parts)


def safety_lines(file: FileView) -> list[Text]:
    """Return `safety_text` as a list of one line; an empty list if the text is empty."""
    return _lines([file_text.safety_text(file)])


def problem_lines(file: FileView) -> list[Text]:
    """Return a line for each client that declined the file, and for up to `IDLE_CLIENTS_MAX` that delay its seeding."""
    return _lines([*file_text.refusal_texts(file), *file_text.idle_texts(file)], "yellow")


def exchange_parts(file: FileView) -> list[RenderableType]:
    """Return a blank line, the table of the exchange and, if some ratios have no ideal, the reason."""
    return ["", exchange_table(file), *_lines([no_ideal_text(file)], "dim")]


def _lines(texts: list[str], style: str = "") -> list[Text]:
    return [Text(text, style=style) for text in texts if text]


def stall_lines(file: FileView) -> list[Text]:
    """Return `missing_chunks_texts` as lines that begin with the file's name."""
    return _lines([f"{plain_text(file['name'])}: {text}" for text in file_text.missing_chunks_texts(file)], "red")


def file_clients_table(file: FileView, clients: Iterable[FileClientView]) -> FittedTable:
    """Return the progress of clients with a file, one client per row.

    Args:
        file: the file.
        clients: the clients that the table shows.
    """
    table = FittedTable(
        Column("CLIENT", Kind.NAME),
        Column("CHUNKS", Kind.NUMBER, drop_order=3),
        Column("OF", Kind.NUMBER, drop_order=2),
        Column("SHARE", Kind.NUMBER, drop_order=1),
        Column("PROGRESS", Kind.NUMBER),
        Column("COMPLETE"),
    )
    for client in clients:
        held = client["held_chunk_count"]
        table.add_row(
            plain_text(client["name"]),
            str(held),
            str(file["chunk_count"]),
            str(client["share_chunk_count"]),
            "100.0 %" if client["complete"] else percent_text(held, file["chunk_count"]),
            _complete_text(client),
        )
    return table


def _complete_text(client: FileClientView) -> Text:
    if client["refusal"]:
        return Text("declined", style="yellow")
    return Text("yes" if client["complete"] else "no")


def contexts_table(current: str | None, addresses: Mapping[str, str]) -> FittedTable:
    """Return the named servers, one per row.

    Args:
        current: the name of the current context, which gets a star; None if there is none.
        addresses: the servers' addresses by name.
    """
    table = FittedTable(Column(""), Column("NAME", Kind.NAME), Column("SERVER"))
    for name, address in sorted(addresses.items()):
        table.add_row("*" if name == current else "", plain_text(name), plain_text(address))
    return table


def cache_text(cache: CacheView) -> str:
    """Return one line about the cache."""
    return (
        f"cache {_cache_usage_text(cache)}, highest use {size_text(cache['high_water_bytes'])};"
        f" {count_text(cache['hit_count'], 'hit')}, {count_text(cache['miss_count'], 'miss', 'misses')},"
        f" {cache['join_count']} aggregated, {cache['eviction_count']} evicted"
    )


def _cache_usage_text(cache: CacheView) -> str:
    # All counts are in chunks. A chunk of an aggregated request costs no broadcast, but is not a hit either.
    requested_chunks = cache["hit_count"] + cache["miss_count"] + cache["join_count"]
    hits = percent_text(cache["hit_count"], requested_chunks)
    return f"{size_text(cache['used_bytes'])} of {size_text(cache['capacity_bytes'])} used, hit ratio {hits}"


def _state_text(state: str) -> Text:
    return Text(state, style=_STATE_STYLES.get(state, ""))
