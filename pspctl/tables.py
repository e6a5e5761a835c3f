"""What people read: tables and sentences, made from the same views that programs get as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pspctl.units import duration_text, percent_text, plain_text, rate_text, ratio_text, size_text
from pspctl.views import (
    CacheView,
    ClientView,
    FileClientView,
    FileView,
    MissingRangeView,
    RunView,
    SeedView,
    StatusView,
)

SHORT_ID_DIGITS = 12
MAX_MISSING_RANGES = 4

_STATE_STYLES = {
    "complete": "green",
    "connected": "green",
    "stalled": "red",
    "lost": "red",
    "distributing": "cyan",
}


def status_table(status: StatusView) -> RenderableType:
    """The whole network at a glance."""
    parts: list[RenderableType] = [status_header(status)]
    if status["clients"] or status["sources"]:
        parts += ["", clients_table(status["clients"], status["sources"])]
    else:
        parts += ["", "no client has joined: start some with `pspctl launch N` or `pspd client`"]
    if status["files"]:
        parts += ["", files_table(status["files"])]
        parts += [stall for file in status["files"] for stall in _stall_lines(file)]
    else:
        parts += ["", "no file: bring one in with `pspctl seed FILE`"]
    return Group(*parts)


def status_header(status: StatusView) -> Text:
    """One line about the server and its cache."""
    server, cache = status["server"], status["cache"]
    return Text(
        f"server {server['address']}  {server['version']}  profile {server['profile']}"
        f"  up {duration_text(server['uptime_seconds'])}  cache {_cache_text(cache)}"
    )


def clients_table(clients: Iterable[ClientView], sources: Iterable[ClientView] = ()) -> Table:
    """Clients, then sources."""
    table = _table("CLIENT", "ADDRESS", "STATE", ">RTT")
    rows = [(client, client["state"]) for client in clients]
    rows += [(source, "source" if source["state"] == "connected" else source["state"]) for source in sources]
    for client, state in rows:
        srtt = f"{client['srtt_ms']:.1f} ms" if client["srtt_ms"] else "-"
        table.add_row(Text(plain_text(client["name"])), Text(client["address"] or "-"), _state(state), srtt)
    return table


def files_table(files: Iterable[FileView]) -> Table:
    """Files, a line each."""
    table = _table("FILE", "ID", ">SIZE", "STATE", ">PROGRESS", ">CLIENTS", ">MIN HOLDERS")
    for file in files:
        table.add_row(
            Text(plain_text(file["name"])),
            file["file_id"][:SHORT_ID_DIGITS],
            size_text(file["size_bytes"]),
            _state(file_state_text(file)),
            progress_text(file),
            f"{file['complete_client_count']}/{file['client_count']}",
            str(file["min_holder_count"]),
        )
    return table


def file_table(status: StatusView) -> RenderableType:
    """One file in full: where it is, who has how much, and what it cost against the ideal."""
    parts: list[RenderableType] = [status_header(status)]
    for file in status["files"]:
        parts += [
            "",
            files_table([file]),
            *_stall_lines(file),
            "",
            _file_clients_table(file),
            "",
            economy_table(file),
        ]
    return Group(*parts)


def economy_table(file: FileView) -> Table:
    """What the exchange moved, each figure beside its ideal."""
    traffic, client_count = file["traffic"], file["client_count"]
    contributed = traffic["contributed_bytes"] - traffic["seeding_contributed_bytes"]
    delivered = traffic["delivered_bytes"] - traffic["seeding_delivered_bytes"]
    datagrams = traffic["request_datagrams"] + traffic["broadcast_datagrams"]
    exchanged_chunks = file["chunk_count"] * max(0, client_count - 1)
    table = _table("EXCHANGE", ">MOVED", ">RATIO", "IDEAL")
    table.add_row("contributed / file size", size_text(contributed), ratio_text(contributed, file["size_bytes"]), "1.0")
    table.add_row(
        "delivered / (n-1) file sizes",
        size_text(delivered),
        ratio_text(delivered, file["size_bytes"] * max(0, client_count - 1)),
        "1.0",
    )
    duplicates = traffic["duplicate_bytes"]
    table.add_row("duplicates / file size", size_text(duplicates), ratio_text(duplicates, file["size_bytes"]), "0")
    table.add_row("datagrams / chunk delivered", str(datagrams), ratio_text(datagrams, exchanged_chunks), "")
    table.add_row("sent again", str(traffic["retransmit_count"]), "", "0")
    return table


def cache_text(cache: CacheView) -> Text:
    """One line about the cache."""
    return Text(
        f"cache {_cache_text(cache)}, at most {size_text(cache['high_water_bytes'])};"
        f" {cache['hit_count']} hits, {cache['miss_count']} misses, {cache['join_count']} joined a fetch,"
        f" {cache['eviction_count']} evicted"
    )


def seed_text(view: SeedView) -> Text:
    """What seeding came to, in a sentence or two."""
    file, seconds = view["file"], view["seconds"]
    name, size = plain_text(file["name"]), size_text(file["size_bytes"])
    short_id = file["file_id"][:SHORT_ID_DIGITS]
    if file["state"] != "complete":
        return Text(
            f"{name} ({size}, {short_id}) was seeded to {file['client_count']} clients"
            f" in {duration_text(seconds['seeding'])}; it is now {file_state_text(file)}"
        )
    moved = file["size_bytes"] * max(0, file["client_count"] - 1)
    rate = f" at {rate_text(moved / seconds['exchange'])}" if seconds["exchange"] and moved else ""
    counts = f"{file['complete_client_count']} of {file['client_count']} clients"
    return Text(
        f"{name} ({size}, {short_id}) is complete on {counts}: seeded in {duration_text(seconds['seeding'])},"
        f" exchanged in {duration_text(seconds['exchange'])}{rate}"
    )


def run_text(view: RunView) -> Text:
    """What a run came to."""
    return seed_text(view).append(
        f"\nverified {view['verified_client_count']} of {view['file']['client_count']} copies"
    )


def contexts_table(current: str | None, addresses: Mapping[str, str]) -> Table:
    """Named servers; a star marks the current one."""
    table = _table("", "NAME", "SERVER")
    for name, address in sorted(addresses.items()):
        table.add_row("*" if name == current else "", Text(plain_text(name)), Text(plain_text(address)))
    return table


def file_state_text(file: FileView) -> str:
    """A file's state; said so when it is held back."""
    return f"{file['state']} (held)" if file["held_back"] else file["state"]


def progress_text(file: FileView) -> str:
    """How much of what the clients want they hold."""
    if file["state"] == "complete":
        return "100.0 %"
    if not file["clients"]:
        return percent_text(file["complete_client_count"], file["client_count"])
    held_chunks = sum(client["held_chunk_count"] for client in file["clients"])
    return percent_text(held_chunks, file["chunk_count"] * len(file["clients"]))


def missing_texts(file: FileView) -> list[str]:
    """What a stalled file lacks, in words; empty for a file that is not stalled."""
    if file["state"] != "stalled":
        return []
    ranges = file["missing_ranges"]
    texts = [_missing_text(missing) for missing in ranges[:MAX_MISSING_RANGES]]
    more = len(ranges) - MAX_MISSING_RANGES
    return [*texts, f"and {more} more ranges"] if more > 0 else texts


def _missing_text(missing: MissingRangeView) -> str:
    holder = plain_text(missing["last_holder"])
    last = f"last held by {holder}: bring it back" if holder else "never held by a client: seed the file again"
    return f"chunks [{missing['start']}, {missing['stop']}) have no connected holder, {last}"


def _stall_lines(file: FileView) -> list[Text]:
    return [Text(f"{plain_text(file['name'])}: {text}", style="red") for text in missing_texts(file)]


def _cache_text(cache: CacheView) -> str:
    # A request that joins a fetch on its way costs no second broadcast, but it was no hit either.
    asked = cache["hit_count"] + cache["miss_count"] + cache["join_count"]
    hits = percent_text(cache["hit_count"], asked)
    return f"{size_text(cache['used_bytes'])} of {size_text(cache['capacity_bytes'])} used, hit ratio {hits}"


def _file_clients_table(file: FileView) -> Table:
    table = _table("CLIENT", ">CHUNKS", ">OF", ">SHARE", ">PROGRESS", "COMPLETE")
    for client in file["clients"]:
        held = client["held_chunk_count"]
        table.add_row(
            Text(plain_text(client["name"])),
            str(held),
            str(file["chunk_count"]),
            str(client["share_chunk_count"]),
            "100.0 %" if client["complete"] else percent_text(held, file["chunk_count"]),
            _completeness(client),
        )
    return table


def _completeness(client: FileClientView) -> Text:
    if client["refusal"]:
        return Text(f"declined: {plain_text(client['refusal'])}", style="yellow")
    return Text("yes" if client["complete"] else "no")


def _state(state: str) -> Text:
    return Text(state, style=_STATE_STYLES.get(state, ""))


def _table(*headings: str) -> Table:
    """A table without lines; a heading that begins with ``>`` is of a column of numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(
            heading.removeprefix(">"), justify="right" if heading.startswith(">") else "left", no_wrap=True
        )
    return table
