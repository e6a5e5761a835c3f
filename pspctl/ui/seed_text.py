"""The answers of `pspctl seed`, `pspctl wait` and `pspctl run`, in a sentence or two."""

from __future__ import annotations

from rich.text import Text

from pspctl.ui.exchange_table import exchange_rate
from pspctl.ui.file_text import declined_text, file_state_text, short_id, shown_name
from pspctl.ui.units import count_text, duration_text, rate_text, size_text
from pspctl.ui.views import RunView, SeedView


def seed_text(view: SeedView, *, with_times: bool = True) -> Text:
    """Return the answer for a file that was seeded.

    Args:
        view: the answer as JSON data.
        with_times: include how long seeding and exchange took.
    """
    file, seconds = view["file"], view["seconds"]
    name = f"{shown_name(file)} ({size_text(file['size_bytes'])}, {short_id(file)})"
    if not file["client_count"] and (file["declined_client_count"] or file["missing_clients"]):
        return Text(f"{name} is on no client{declined_text(file)}")
    if file["state"] != "complete":
        took = f" in {duration_text(seconds['seeding'])}" if seconds["seeding"] and with_times else ""
        return Text(
            f"{name} was seeded to {count_text(file['client_count'], 'client')}"
            f"{declined_text(file)}{took}; it is now {file_state_text(file)}"
        )
    bytes_per_second = exchange_rate(file)
    rate = f" at {rate_text(bytes_per_second)}" if bytes_per_second else ""
    counts = f"{file['complete_client_count']} of {count_text(file['client_count'], 'client')}{declined_text(file)}"
    parts = [("seeded", seconds["seeding"], ""), ("exchanged", seconds["exchange"], rate)]
    took = ", ".join(f"{what} in {duration_text(length)}{at}" for what, length, at in parts if length and with_times)
    return Text(f"{name} is complete on {counts}{took and f': {took}'}")


def run_text(view: RunView) -> Text:
    """Return the answer of `pspctl run`."""
    return seed_text(view).append(
        f"\nverified {view['verified_client_count']} of {view['file']['client_count']} copies"
    )
