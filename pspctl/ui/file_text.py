"""Sentences about a file: its state, and what prevents it from becoming complete."""

from __future__ import annotations

import shlex

from pspctl.ui.units import count_text, duration_text, percent_text
from pspctl.ui.views import FileView, MissingRangeView, accepting_clients
from pspd.core.model.terms import SAFE_HOLDERS
from pspd.text.plain import plain_text

SHORT_ID_DIGITS = 12
MISSING_RANGES_MAX = 4
IDLE_SECONDS = 5.0
"""A client without its share is idle after this time without a request: normally it sends one every few seconds."""
IDLE_CLIENTS_MAX = 4
MISSING_CLIENTS_MAX = 20


def short_id(file: FileView) -> str:
    """Return the first digits of a file's id."""
    return file["file_id"][:SHORT_ID_DIGITS]


def shown_name(file: FileView) -> str:
    """Return a file's name, safe to print; the name of a folder ends with a slash."""
    return plain_text(file["name"]) + ("/" if file["folder"] else "")


def file_state_text(file: FileView) -> str:
    """Return a file's state, with ``(held)`` if it is held back."""
    return f"{file['state']} (held)" if file["held_back"] else file["state"]


def progress_text(file: FileView) -> str:
    """Return how much of a file the clients that accept it hold on average, in percent; 100 % if it is complete.

    If the file lists no such client, return the percentage of the file's clients that have the whole file.
    """
    if file["state"] == "complete":
        return "100.0 %"
    clients = accepting_clients(file)
    if not clients:
        return percent_text(file["complete_client_count"], file["client_count"])
    held_chunks = sum(client["held_chunk_count"] for client in clients)
    return percent_text(held_chunks, file["chunk_count"] * len(clients))


def declined_text(file: FileView) -> str:
    """Return how many clients declined a file, as a suffix such as ``, 1 declined``; empty if no client did."""
    return f", {file['declined_client_count']} declined" if file["declined_client_count"] else ""


def refusal_texts(file: FileView) -> list[str]:
    """Return one sentence for each client that declined a file: the client's name and reason."""
    return [
        f"{plain_text(client['name'])} declined it: {plain_text(client['refusal'])}"
        for client in file["clients"]
        if client["refusal"]
    ]


def idle_texts_by_client(file: FileView) -> dict[str, str]:
    """Return a sentence for each client that delays the seeding because it is idle, keyed by the client's name.

    The client that has been idle for the longest time comes first. A slow client that sends requests is not idle.
    """
    idle = [
        (client["share_idle_seconds"] or 0.0, client["name"]) for client in file["clients"] if not client["refusal"]
    ]
    return {
        name: f"waiting for {plain_text(name)}: share incomplete, no request for {duration_text(seconds)}"
        for seconds, name in sorted(idle, reverse=True)
        if seconds >= IDLE_SECONDS
    }


def idle_texts(file: FileView) -> list[str]:
    """Return the first `IDLE_CLIENTS_MAX` sentences of `idle_texts_by_client`."""
    return list(idle_texts_by_client(file).values())[:IDLE_CLIENTS_MAX]


def missing_clients_text(file: FileView) -> str:
    """Return the names of the recipients that are away and may not have a file, such as ``anna (lost 35.2 s ago)``.

    After `MISSING_CLIENTS_MAX` names, the text only counts the other clients.
    """
    missing = file["missing_clients"]
    names = [
        f"{plain_text(client['name'])} (lost {duration_text(client['away_seconds'])} ago)"
        for client in missing[:MISSING_CLIENTS_MAX]
    ]
    more = len(missing) - MISSING_CLIENTS_MAX
    return ", ".join([*names, *([f"and {count_text(more, 'more client')}"] if more > 0 else [])])


def release_advice(file: FileView) -> str:
    """Return advice on how to start the exchange of a file that is held back; empty for other files."""
    if not file["held_back"]:
        return ""
    return f"held back: start it with `pspctl release {shlex.quote(plain_text(file['name']))}`"


def safety_text(file: FileView) -> str:
    """Return a sentence that says whether one client and the original may be lost without losing chunks.

    The text is empty while the file is being seeded or is stalled.
    """
    if file["state"] in ("seeding", "stalled"):
        return ""
    if file["min_holder_count"] == 0:
        return "not safe: some chunks are on no reachable client: keep the original, or start lost clients again"
    if file["min_holder_count"] < SAFE_HOLDERS:
        return "not safe: some chunks are on one client only, perhaps not all on the same: keep all and the original"
    holders = f"at least {file['min_holder_count']} clients"
    return f"safe: each chunk is on {holders}, so one client and the original may be lost"


def missing_chunks_texts(file: FileView) -> list[str]:
    """Return sentences that say which chunks of a stalled file are missing, and what to do; empty if not stalled.

    After `MISSING_RANGES_MAX` ranges, the last text only counts the other ranges.
    """
    if file["state"] != "stalled":
        return []
    ranges = file["missing_ranges"]
    groups: dict[str, list[MissingRangeView]] = {}
    for missing in ranges[:MISSING_RANGES_MAX]:
        groups.setdefault(missing["last_holder"], []).append(missing)
    refusals = {client["name"]: client["refusal"] for client in file["clients"]}
    any_refused = any(refusals.values())
    texts = [
        _missing_chunks_text(holder, group, refusals.get(holder, ""), any_refused=any_refused)
        for holder, group in groups.items()
    ]
    more = len(ranges) - MISSING_RANGES_MAX
    return [*texts, f"and {count_text(more, 'more range')}"] if more > 0 else texts


def _missing_chunks_text(holder: str, ranges: list[MissingRangeView], refusal: str, *, any_refused: bool) -> str:
    listed = ", ".join(f"[{missing['start']}, {missing['stop']})" for missing in ranges)
    if not holder and any_refused:
        last = "and clients declined the file: resolve their reasons, then seed it again if chunks are still missing"
    elif not holder:
        last = "no earlier holder is known: seed the file again"
    elif refusal:
        # The reason says what to do. Until that is done, the client would decline the file again.
        last = f"last held by {plain_text(holder)}, which declined it: {plain_text(refusal)}"
    else:
        last = f"last held by {plain_text(holder)}: start it again"
    return f"chunks {listed} have no reachable holder, {last}"
