"""What people read: tables and sentences, made from the same views that programs get as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from pspctl.ui.columns import Column, FittedTable
from pspctl.ui.units import count_text, duration_text, percent_text, rate_text, ratio_text, size_text
from pspctl.ui.views import (
    CacheView,
    ClientView,
    FileClientView,
    FileView,
    MissingRangeView,
    RunView,
    SeedView,
    StatusView,
    takers,
)
from pspd.core.model.terms import SAFE_HOLDERS
from pspd.text.plain import plain_text

SHORT_ID_DIGITS = 12
NO_CLIENT = "no client has joined: start some with `pspctl launch N` or `pspd client`"
NO_FILE = "no file: bring one in with `pspctl seed FILE`"
MAX_MISSING_RANGES = 4
IDLE_SECONDS = 5.0
"""A client asks for what it lacks every few seconds at least: one that is silent for longer is named."""
MAX_IDLE_CLIENTS = 4
MAX_MISSING_CLIENTS = 20
RATE_TOLERANCE = 0.1
"""How far what was delivered may be from what the clients lacked, for a rate to tell of the exchange."""

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
        parts += ["", NO_CLIENT]
    if status["files"]:
        parts += ["", files_table(status["files"])]
        parts += [stall for file in status["files"] for stall in stall_lines(file)]
    else:
        parts += ["", NO_FILE]
    return Group(*parts)


def status_header(status: StatusView) -> Text:
    """One line about the server and its cache."""
    server, cache = status["server"], status["cache"]
    return Text(
        f"server {plain_text(server['address'])}  {plain_text(server['version'])}"
        f"  profile {plain_text(server['profile'])}"
        f"  up {duration_text(server['uptime_seconds'])}  cache {_cache_text(cache)}"
    )


def clients_table(
    clients: Iterable[ClientView],
    sources: Iterable[ClientView] = (),
    progress: Mapping[str, tuple[int, int]] | None = None,
) -> FittedTable:
    """Clients, then sources.

    Args:
        clients: the clients.
        sources: the sources.
        progress: chunks that each client holds, and chunks that it is to hold, by name; None to leave it out.
    """
    table = FittedTable(
        Column("CLIENT", is_name=True),
        Column("ADDRESS", drop_order=1),
        Column("STATE"),
        *([] if progress is None else [Column("PROGRESS", is_number=True)]),
        Column("RTT", is_number=True),
    )
    rows = [(client, client["state"]) for client in clients]
    rows += [(source, "source" if source["state"] == "connected" else source["state"]) for source in sources]
    for client, state in rows:
        srtt = f"{client['srtt_ms']:.1f} ms" if client["srtt_ms"] else "-"
        done = [] if progress is None else [percent_text(*progress.get(client["name"], (0, 0)))]
        table.add_row(
            Text(plain_text(client["name"])), Text(plain_text(client["address"]) or "-"), _state(state), *done, srtt
        )
    return table


def shown_name(file: FileView) -> str:
    """A file's name; a folder's with a slash."""
    return plain_text(file["name"]) + ("/" if file["folder"] else "")


def files_table(files: Sequence[FileView]) -> FittedTable:
    """Files, a line each. While data moves there is also its rate, and the time left."""
    with_rates = any(file["rate_bytes_per_second"] is not None for file in files)
    rates = [Column("RATE", is_number=True), Column("LEFT", is_number=True)] if with_rates else []
    table = FittedTable(
        Column("FILE", is_name=True),
        Column("ID", drop_order=2),
        Column("SIZE", is_number=True, drop_order=3),
        Column("STATE"),
        Column("PROGRESS", is_number=True),
        *rates,
        Column("CLIENTS", is_number=True),
        Column("MIN HOLDERS", is_number=True, drop_order=1),
    )
    for file in files:
        table.add_row(
            Text(shown_name(file)),
            file["file_id"][:SHORT_ID_DIGITS],
            size_text(file["size_bytes"]),
            _state(file_state_text(file)),
            progress_text(file),
            *(_rate_cells(file) if with_rates else ()),
            f"{file['complete_client_count']}/{file['client_count']}{declined_text(file)}",
            str(file["min_holder_count"]),
        )
    return table


def _rate_cells(file: FileView) -> tuple[str, str]:
    rate, eta = file["rate_bytes_per_second"], file["eta_seconds"]
    return ("-" if rate is None else rate_text(rate), "-" if eta is None else duration_text(eta))


def file_table(status: StatusView) -> RenderableType:
    """One file in full: where it is, who has how much, and what it cost against the ideal."""
    parts: list[RenderableType] = [status_header(status)]
    for file in status["files"]:
        parts += [
            "",
            files_table([file]),
            *stall_lines(file),
            *[Text(text) for text in filter(None, [safety_text(file)])],
            "",
            file_clients_table(file, file["clients"]),
            *[Text(text, style="yellow") for text in [*refusal_texts(file), *idle_texts(file)]],
            "",
            economy_table(file),
            *[Text(text, style="dim") for text in filter(None, [ideals_text(file)])],
        ]
    return Group(*parts)


def economy_table(file: FileView) -> FittedTable:
    """What the exchange moved, each figure beside its ideal."""
    traffic = file["traffic"]
    contributed = traffic["contributed_bytes"] - traffic["seeding_contributed_bytes"]
    delivered = traffic["delivered_bytes"] - traffic["seeding_delivered_bytes"]
    datagrams = traffic["request_datagrams"] + traffic["broadcast_datagrams"]
    lacked_chunks = _lacked_chunks(file)
    contributed_ideal = "1.0" if _is_usual(file) else "-"
    delivered_ideal = "1.0" if _shares_are_here(file) else "-"
    table = FittedTable(
        Column("EXCHANGE", is_name=True),
        Column("MOVED", is_number=True),
        Column("RATIO", is_number=True),
        Column("IDEAL"),
    )
    table.add_row(
        "contributed / file size",
        size_text(contributed),
        ratio_text(contributed, file["size_bytes"]),
        contributed_ideal,
    )
    lacked_bytes = file["size_bytes"] * lacked_chunks / max(1, file["chunk_count"])
    table.add_row(
        "delivered / what was lacking", size_text(delivered), ratio_text(delivered, lacked_bytes), delivered_ideal
    )
    duplicates = traffic["duplicate_bytes"]
    table.add_row("duplicates / file size", size_text(duplicates), ratio_text(duplicates, file["size_bytes"]), "0")
    table.add_row("datagrams / chunk delivered", str(datagrams), ratio_text(datagrams, lacked_chunks), "")
    table.add_row("sent again", str(traffic["retransmit_count"]), "", "0")
    return table


def _lacked_chunks(file: FileView) -> int:
    """Chunks that the exchange has to bring to the clients that are here: all but the shares that they were given."""
    clients = takers(file)
    return file["chunk_count"] * len(clients) - sum(client["share_chunk_count"] for client in clients)


def _came_late(file: FileView) -> bool:
    """Whether some client came after the division: of a file that has enough chunks, only such a one has no share."""
    clients = takers(file)
    return file["chunk_count"] >= len(clients) and not all(client["share_chunk_count"] for client in clients)


def _is_usual(file: FileView) -> bool:
    """Whether the clients that are here are those that the file was divided among: the ideals are theirs."""
    return not _came_late(file) and _shares_are_here(file)


def _shares_are_here(file: FileView) -> bool:
    """Whether no client has left with its share: what it got is counted, while what it lacked is not known."""
    return sum(client["share_chunk_count"] for client in takers(file)) >= file["chunk_count"]


def ideals_text(file: FileView) -> str | None:
    """Why no ideal stands beside some ratios; None where all have theirs."""
    if _is_usual(file) or not file["clients"]:
        return None
    return "no ideal (-) where clients came after the file was divided, or left with their shares"


def _complete_counts(file: FileView) -> str:
    return f"{file['complete_client_count']} of {count_text(file['client_count'], 'client')}"


def cache_text(cache: CacheView) -> Text:
    """One line about the cache."""
    return Text(
        f"cache {_cache_text(cache)}, at most {size_text(cache['high_water_bytes'])};"
        f" {count_text(cache['hit_count'], 'hit')}, {count_text(cache['miss_count'], 'miss', 'misses')},"
        f" {cache['join_count']} joined a fetch,"
        f" {cache['eviction_count']} evicted"
    )


def seed_text(view: SeedView, *, with_times: bool = True) -> Text:
    """What seeding came to, in a sentence or two.

    Args:
        view: the answer.
        with_times: say how long seeding and exchange took.
    """
    file, seconds = view["file"], view["seconds"]
    name, size = shown_name(file), size_text(file["size_bytes"])
    short_id = file["file_id"][:SHORT_ID_DIGITS]
    if not file["client_count"] and (file["declined_client_count"] or file["missing_clients"]):
        return Text(f"{name} ({size}, {short_id}) is with no client{declined_text(file)}")
    if file["state"] != "complete":
        took = f" in {duration_text(seconds['seeding'])}" if seconds["seeding"] and with_times else ""
        return Text(
            f"{name} ({size}, {short_id}) was seeded to {count_text(file['client_count'], 'client')}"
            f"{declined_text(file)}{took}; it is now {file_state_text(file)}"
        )
    bytes_per_second = _exchange_rate(file)
    rate = f" at {rate_text(bytes_per_second)}" if bytes_per_second else ""
    counts = f"{_complete_counts(file)}{declined_text(file)}"
    parts = [("seeded", seconds["seeding"], ""), ("exchanged", seconds["exchange"], rate)]
    took = ", ".join(f"{what} in {duration_text(length)}{at}" for what, length, at in parts if length and with_times)
    return Text(f"{name} ({size}, {short_id}) is complete on {counts}{took and f': {took}'}")


def _exchange_rate(file: FileView) -> float | None:
    """What the clients lacked after seeding, over the time of the exchange.

    None when nothing had to move, or something else did: the time is that of the first completion, and says
    nothing of a client that came later, nor of one that brought chunks along.
    """
    seconds, lacked = file["seconds"]["exchange"], file["size_bytes"] * max(0, file["client_count"] - 1)
    delivered = file["traffic"]["delivered_bytes"] - file["traffic"]["seeding_delivered_bytes"]
    as_usual = not _came_late(file) and abs(delivered - lacked) <= RATE_TOLERANCE * lacked
    return lacked / seconds if seconds and lacked and as_usual else None


def run_text(view: RunView) -> Text:
    """What a run came to."""
    return seed_text(view).append(
        f"\nverified {view['verified_client_count']} of {view['file']['client_count']} copies"
    )


def contexts_table(current: str | None, addresses: Mapping[str, str]) -> FittedTable:
    """Named servers; a star marks the current one."""
    table = FittedTable(Column(""), Column("NAME", is_name=True), Column("SERVER"))
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
    clients = takers(file)
    if not clients:
        return percent_text(file["complete_client_count"], file["client_count"])
    held_chunks = sum(client["held_chunk_count"] for client in clients)
    return percent_text(held_chunks, file["chunk_count"] * len(clients))


def declined_text(file: FileView) -> str:
    """``, 1 declined``, to stand after a count of clients; empty when none did."""
    return f", {file['declined_client_count']} declined" if file["declined_client_count"] else ""


def refusal_texts(file: FileView) -> list[str]:
    """Who declined a file, and why."""
    return [
        f"{plain_text(client['name'])} declined it: {plain_text(client['refusal'])}"
        for client in file["clients"]
        if client["refusal"]
    ]


def idle_clients(file: FileView) -> dict[str, str]:
    """Which clients hold up the seeding, the longest silent first, and a line on each; slow ones are not named."""
    idle = [
        (client["share_idle_seconds"] or 0.0, client["name"]) for client in file["clients"] if not client["refusal"]
    ]
    return {
        name: f"waiting for {plain_text(name)}: it lacks some of its share, and has asked for nothing for"
        f" {duration_text(seconds)}"
        for seconds, name in sorted(idle, reverse=True)
        if seconds >= IDLE_SECONDS
    }


def idle_texts(file: FileView) -> list[str]:
    """The lines of :func:`idle_clients`, at most a few."""
    return list(idle_clients(file).values())[:MAX_IDLE_CLIENTS]


def missing_text(file: FileView) -> str:
    """Who went before having a file: ``anna (lost 35.2 s ago), bert (lost 2 min 3 s ago)``."""
    missing = file["missing_clients"]
    names = [
        f"{plain_text(client['name'])} (lost {duration_text(client['away_seconds'])} ago)"
        for client in missing[:MAX_MISSING_CLIENTS]
    ]
    more = len(missing) - MAX_MISSING_CLIENTS
    return ", ".join([*names, *([f"and {count_text(more, 'more client')}"] if more > 0 else [])])


def hold_text(file: FileView) -> str | None:
    """What to do about a file that is held back; None for one that is not."""
    if not file["held_back"]:
        return None
    return f"held back: start it with `pspctl release {shlex.quote(plain_text(file['name']))}`"


def safety_text(file: FileView) -> str | None:
    """Whether a client may be lost, and the original deleted; None where that is not the question yet."""
    if file["state"] in ("seeding", "stalled"):
        return None
    if file["min_holder_count"] == 0:
        return (
            "not safe: there are chunks on no client that is here: keep the source, or wait for clients that are away"
        )
    if file["min_holder_count"] < SAFE_HOLDERS:
        return "not safe: there are chunks on one client alone: keep that client, and the original"
    return (
        f"safe: each chunk is on {file['min_holder_count']} clients or more: one may be lost, and so may the original"
    )


def missing_texts(file: FileView) -> list[str]:
    """What a stalled file lacks, in words; empty for a file that is not stalled."""
    if file["state"] != "stalled":
        return []
    ranges = file["missing_ranges"]
    groups: dict[str, list[MissingRangeView]] = {}
    for missing in ranges[:MAX_MISSING_RANGES]:
        groups.setdefault(missing["last_holder"], []).append(missing)
    refusals = {client["name"]: client["refusal"] for client in file["clients"]}
    any_refused = any(refusals.values())
    texts = [
        _missing_text(holder, group, refusals.get(holder, ""), any_refused=any_refused)
        for holder, group in groups.items()
    ]
    more = len(ranges) - MAX_MISSING_RANGES
    return [*texts, f"and {count_text(more, 'more range')}"] if more > 0 else texts


def _missing_text(holder: str, ranges: list[MissingRangeView], refusal: str, *, any_refused: bool) -> str:
    listed = ", ".join(f"[{missing['start']}, {missing['stop']})" for missing in ranges)
    if not holder and any_refused:
        last = "and clients declined the file: see to their reasons, then seed it again if chunks are still missing"
    elif not holder:
        last = "never held by a client: seed the file again"
    elif refusal:
        # What to do is in its reason; to seed again before that is in vain, as it would be declined again.
        last = f"last held by {plain_text(holder)}, which declined it: {plain_text(refusal)}"
    else:
        last = f"last held by {plain_text(holder)}: bring it back"
    return f"chunks {listed} have no connected holder, {last}"


def stall_lines(file: FileView) -> list[Text]:
    """What a stalled file lacks; no line for one that is not stalled."""
    return [Text(f"{plain_text(file['name'])}: {text}", style="red") for text in missing_texts(file)]


def _cache_text(cache: CacheView) -> str:
    # A request that joins a fetch on its way costs no second broadcast, but it was no hit either.
    asked = cache["hit_count"] + cache["miss_count"] + cache["join_count"]
    hits = percent_text(cache["hit_count"], asked)
    return f"{size_text(cache['used_bytes'])} of {size_text(cache['capacity_bytes'])} used, hit ratio {hits}"


def file_clients_table(file: FileView, clients: Iterable[FileClientView]) -> FittedTable:
    """How far some clients are with a file."""
    table = FittedTable(
        Column("CLIENT", is_name=True),
        Column("CHUNKS", is_number=True, drop_order=3),
        Column("OF", is_number=True, drop_order=2),
        Column("SHARE", is_number=True, drop_order=1),
        Column("PROGRESS", is_number=True),
        Column("COMPLETE"),
    )
    for client in clients:
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
        return Text("declined", style="yellow")
    return Text("yes" if client["complete"] else "no")


def _state(state: str) -> Text:
    return Text(state, style=_STATE_STYLES.get(state, ""))
