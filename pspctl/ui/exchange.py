"""The result of an exchange: a table of its traffic, and the sentence that `seed`, `wait` and `run` print."""

from __future__ import annotations

from pspctl.ui.columns import Column, FittedTable, Kind
from pspctl.ui.file_text import declined_text, file_state_text, short_id, shown_name
from pspctl.ui.units import count_text, duration_text, rate_text, ratio_text, size_text
from pspctl.ui.views import FileView, RunView, SeedView, accepting_clients

RATE_TOLERANCE = 0.1
"""The largest relative difference between delivered and needed bytes for which the rate of an exchange is shown."""


def exchange_table(file: FileView) -> FittedTable:
    """Return a table of the exchange of a file: the traffic, and the ideal for comparison."""
    traffic, size_bytes = file["traffic"], file["size_bytes"]
    contributed = traffic["contributed_bytes"] - traffic["seeding_contributed_bytes"]
    datagrams = traffic["request_datagrams"] + traffic["broadcast_datagrams"]
    clients = accepting_clients(file)
    # In the exchange, each client that accepts the file needs all chunks except those of its share.
    needed_chunks = file["chunk_count"] * len(clients) - sum(client["share_chunk_count"] for client in clients)
    needed_bytes = size_bytes * needed_chunks / max(1, file["chunk_count"])
    table = FittedTable(
        Column("EXCHANGE", Kind.NAME), Column("MOVED", Kind.NUMBER), Column("RATIO", Kind.NUMBER), Column("IDEAL")
    )
    for name, moved, whole, ideal in (
        ("contributed / file size", contributed, size_bytes, "1.0" if _has_ideals(file) else "-"),
        ("delivered / needed", _delivered_bytes(file), needed_bytes, "1.0" if _has_all_shares(file) else "-"),
        ("duplicates / file size", traffic["duplicate_bytes"], size_bytes, "0"),
    ):
        table.add_row(name, size_text(moved), ratio_text(moved, whole), ideal)
    table.add_row("datagrams / chunk delivered", str(datagrams), ratio_text(datagrams, needed_chunks), "")
    table.add_row("retransmissions", str(traffic["retransmit_count"]), "", "0")
    return table


def no_ideal_text(file: FileView) -> str:
    """Return why some ratios have ``-`` as their ideal; empty if none has, or if the file lists no client."""
    if _has_ideals(file) or not file["clients"]:
        return ""
    return "no ideal (-): clients joined after the division, left with their shares, or declined the file"


def seed_text(view: SeedView, *, with_times: bool = True) -> str:
    """Return the sentence that `pspctl seed` and `pspctl wait` print about a file.

    Args:
        view: the answer as JSON data.
        with_times: whether to include how long the seeding and the exchange took.
    """
    file, seconds = view["file"], view["seconds"]
    name = f"{shown_name(file)} ({size_text(file['size_bytes'])}, {short_id(file)})"
    if not file["client_count"] and (file["declined_client_count"] or file["missing_clients"]):
        return f"{name} is on no client{declined_text(file)}"
    if file["state"] != "complete":
        took = f" in {duration_text(seconds['seeding'])}" if seconds["seeding"] and with_times else ""
        return (
            f"{name} was seeded to {count_text(file['client_count'], 'client')}"
            f"{declined_text(file)}{took}; it is now {file_state_text(file)}"
        )
    bytes_per_second = _exchange_rate(file)
    rate = f" at {rate_text(bytes_per_second)}" if bytes_per_second else ""
    counts = f"{file['complete_client_count']} of {count_text(file['client_count'], 'client')}{declined_text(file)}"
    parts = [("seeded", seconds["seeding"], ""), ("exchanged", seconds["exchange"], rate)]
    took = ", ".join(f"{verb} in {duration_text(length)}{at}" for verb, length, at in parts if length and with_times)
    return f"{name} is complete on {counts}{took and f': {took}'}"


def run_text(view: RunView) -> str:
    """Return the lines that `pspctl run` prints."""
    return f"{seed_text(view)}\nverified {view['verified_client_count']} of {view['file']['client_count']} copies"


def _exchange_rate(file: FileView) -> float | None:
    """Return the rate of an exchange in bytes per second: the bytes that clients needed, divided by the time.

    Return None if the time or the needed bytes are 0, if a client joined late, or if the delivered bytes differ too
    much from the needed bytes. The time ends when the file is complete for the first time, but later deliveries count
    as delivered bytes, too.
    """
    seconds, needed = file["seconds"]["exchange"], file["size_bytes"] * max(0, file["client_count"] - 1)
    is_comparable = not _has_late_joiner(file) and abs(_delivered_bytes(file) - needed) <= RATE_TOLERANCE * needed
    return needed / seconds if seconds and needed and is_comparable else None


def _delivered_bytes(file: FileView) -> int:
    """Return how many bytes of a file were delivered after the seeding."""
    return file["traffic"]["delivered_bytes"] - file["traffic"]["seeding_delivered_bytes"]


def _has_late_joiner(file: FileView) -> bool:
    """Return whether an accepting client has no share although there are enough chunks: it probably joined late."""
    clients = accepting_clients(file)
    return file["chunk_count"] >= len(clients) and not all(client["share_chunk_count"] for client in clients)


def _has_ideals(file: FileView) -> bool:
    """Return whether the file's shares belong to exactly the clients that accept it: the ideals assume this."""
    return not _has_late_joiner(file) and _has_all_shares(file)


def _has_all_shares(file: FileView) -> bool:
    """Return whether the shares of the clients that accept the file have at least as many chunks as the file.

    If not, a client left with its share or declined the file, and the number of chunks that it needed is unknown.
    """
    return sum(client["share_chunk_count"] for client in accepting_clients(file)) >= file["chunk_count"]
