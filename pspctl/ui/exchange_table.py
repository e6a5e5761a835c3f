"""What an exchange moved, each figure beside its ideal."""

from __future__ import annotations

from pspctl.ui.columns import Column, FittedTable
from pspctl.ui.units import ratio_text, size_text
from pspctl.ui.views import FileView, recipients

RATE_TOLERANCE = 0.1
"""The largest relative difference of delivered and needed bytes at which an exchange has a rate."""


def exchange_table(file: FileView) -> FittedTable:
    """Return what the exchange of a file moved, each figure beside its ideal."""
    traffic = file["traffic"]
    contributed = traffic["contributed_bytes"] - traffic["seeding_contributed_bytes"]
    delivered = traffic["delivered_bytes"] - traffic["seeding_delivered_bytes"]
    datagrams = traffic["request_datagrams"] + traffic["broadcast_datagrams"]
    needed_chunks = _needed_chunks(file)
    contributed_ideal = "1.0" if _has_ideals(file) else "-"
    delivered_ideal = "1.0" if _has_all_shares(file) else "-"
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
    needed_bytes = file["size_bytes"] * needed_chunks / max(1, file["chunk_count"])
    table.add_row("delivered / needed", size_text(delivered), ratio_text(delivered, needed_bytes), delivered_ideal)
    duplicates = traffic["duplicate_bytes"]
    table.add_row("duplicates / file size", size_text(duplicates), ratio_text(duplicates, file["size_bytes"]), "0")
    table.add_row("datagrams / chunk delivered", str(datagrams), ratio_text(datagrams, needed_chunks), "")
    table.add_row("retransmissions", str(traffic["retransmit_count"]), "", "0")
    return table


def ideals_text(file: FileView) -> str | None:
    """Return why some ratios have no ideal; None if all have one."""
    if _has_ideals(file) or not file["clients"]:
        return None
    return "no ideal (-): clients joined after the division, or left with their shares"


def exchange_rate(file: FileView) -> float | None:
    """Return the rate of an exchange: what the clients lacked after seeding, in bytes per second of the exchange.

    None if another amount was moved because a client joined late or already had chunks: the time is that of the first
    completion.
    """
    seconds, needed = file["seconds"]["exchange"], file["size_bytes"] * max(0, file["client_count"] - 1)
    delivered = file["traffic"]["delivered_bytes"] - file["traffic"]["seeding_delivered_bytes"]
    is_comparable = not _has_late_client(file) and abs(delivered - needed) <= RATE_TOLERANCE * needed
    return needed / seconds if seconds and needed and is_comparable else None


def _needed_chunks(file: FileView) -> int:
    """Return how many chunks the exchange has to bring to the connected clients: all except their shares."""
    clients = recipients(file)
    return file["chunk_count"] * len(clients) - sum(client["share_chunk_count"] for client in clients)


def _has_late_client(file: FileView) -> bool:
    """Return whether a client joined after the division: with enough chunks, only such a client has no share."""
    clients = recipients(file)
    return file["chunk_count"] >= len(clients) and not all(client["share_chunk_count"] for client in clients)


def _has_ideals(file: FileView) -> bool:
    """Return whether the connected clients are those that the file was divided among, for whom the ideals hold."""
    return not _has_late_client(file) and _has_all_shares(file)


def _has_all_shares(file: FileView) -> bool:
    """Return whether no client has left with its share; if one has, what it lacked is unknown."""
    return sum(client["share_chunk_count"] for client in recipients(file)) >= file["chunk_count"]
