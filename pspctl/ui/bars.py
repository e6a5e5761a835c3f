"""Progress as bars that update in place, on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import rich.progress as rich_bars
from rich.console import Console, RenderableType
from rich.text import Text

from pspctl.ui.plain import Plain
from pspctl.ui.progress import LineProgress
from pspctl.ui.units import rate_text, size_text
from pspctl.ui.views import FileView, accepting_clients, file_view
from pspd.core.model.manifest import CHUNK_BYTES
from pspd.text.plain import plain_text

if TYPE_CHECKING:  # `pspd.daemon.source` imports the whole client
    from pspd.daemon.source import SeedProgress

CLIENT_BARS_MAX = 8
"""The largest number of clients that get bars; if there are more, no client gets a bar."""
INDENT = "  "
"""Precedes the names of clients: the clients' bars are parts of the bar above."""
RATE_SECONDS_MIN = 0.2
"""A bar that was shown for less time has no rate: the time is too short to measure one."""


class AmountColumn(rich_bars.ProgressColumn):
    """The amount that is done, such as ``1.5 MiB / 8.0 MiB`` or ``2 / 3 clients``."""

    def render(self, task: rich_bars.Task) -> Text:
        """Return the cell of a bar."""
        total = task.total or 0
        if task.fields["unit"] == "bytes":
            return Text(f"{size_text(task.completed)} / {size_text(total)}")
        return Text(f"{task.completed:.0f} / {total:.0f} {task.fields['unit']}")


class RateColumn(rich_bars.ProgressColumn):
    """The current rate of a bar that counts bytes; for a finished bar, the average rate since the bar was shown."""

    def render(self, task: rich_bars.Task) -> Text:
        """Return the cell of a bar; empty without a rate."""
        seconds = task.finished_time if task.finished else task.elapsed
        if task.fields["unit"] != "bytes" or seconds is None or seconds < RATE_SECONDS_MIN:
            return Text("")
        speed = (task.completed - task.fields["done_before"]) / seconds if task.finished else task.speed
        return Text(rate_text(speed) if speed else "")


class EscapedBars(rich_bars.Progress):
    """Bars whose labels are made safe to print: they contain names from other machines."""

    def get_renderable(self) -> RenderableType:
        """Return the bars, with unprintable characters escaped."""
        return Plain(super().get_renderable())


class BarProgress(LineProgress):
    """Draws one bar per phase and, if there are few clients, one per client; prints notes above the bars."""

    def __init__(self, progress: rich_bars.Progress) -> None:
        """Start without bars; `progress` will draw them."""
        super().__init__()
        self._progress = progress
        self._tasks: dict[str, rich_bars.Task] = {}

    def show_step(self, step: SeedProgress) -> None:
        """Update the bar of the phase, if any; write which clients delay the seeding, or that none is connected."""
        if step.file is not None:
            self._show_idle_clients(file_view(step.file))
        match step.phase:
            case "hashing":
                self._update_bar("hashing", step.done, step.total)
            case "waiting":
                self._update_bar("waiting", step.done, step.total, unit="clients")
            case "seeding":
                self._fill_bar("waiting")
                self._update_bar("seeding", step.done * CHUNK_BYTES, step.total * CHUNK_BYTES)

    def show_exchange(self, file: FileView) -> None:
        """Update the bars of the exchange and the clients; write why the file is not complete.

        While the file is being seeded, do nothing.
        """
        if file["state"] == "seeding":
            return
        self.show_seeded(file)
        held = {client["name"]: client["held_chunk_count"] for client in accepting_clients(file)}
        self._update_bar("exchange", sum(held.values()) * CHUNK_BYTES, file["chunk_count"] * len(held) * CHUNK_BYTES)
        self._update_client_bars(held if len(held) <= CLIENT_BARS_MAX else {}, file["chunk_count"])
        if file["state"] == "complete":
            self._fill_bar("exchange")

    def show_seeded(self, file: FileView) -> None:
        """Fill the bars of the waiting and the seeding, which may be incomplete; write why the file is not complete."""
        super().show_seeded(file)
        for label in ("waiting", "seeding"):
            self._fill_bar(label)

    def _update_client_bars(self, held: dict[str, int], chunk_count: int) -> None:
        """Update the bars of the clients in `held`; remove the bars of other clients."""
        labels = {f"{INDENT}{plain_text(name)}": count for name, count in held.items()}
        for label in [label for label in self._tasks if label.startswith(INDENT) and label not in labels]:
            self._progress.remove_task(self._tasks.pop(label).id)
        for label, count in labels.items():
            self._update_bar(label, count * CHUNK_BYTES, chunk_count * CHUNK_BYTES)

    def show_simulation(self, part: float) -> None:
        """Update the bar of the simulation."""
        self._update_bar("simulating", int(100 * part), 100, unit="%")

    def show_note(self, text: str) -> None:
        """Write one line above the bars."""
        self._progress.console.print(Plain(Text(f"pspctl: {text}")))

    def _update_bar(self, label: str, done: int, total: int, unit: str = "bytes") -> None:
        if not total:  # an empty file, or no client that accepts the file: the bar would stay at 0 %
            return
        if label not in self._tasks:
            self._progress.add_task(label, total=total, unit=unit, done_before=done)
            self._tasks[label] = self._progress.tasks[-1]
        self._progress.update(self._tasks[label].id, completed=done, total=total)

    def _fill_bar(self, label: str) -> None:
        """Fill a bar if it is shown."""
        if task := self._tasks.get(label):
            self._progress.update(task.id, completed=task.total)


@contextmanager
def shown_bars() -> Iterator[BarProgress]:
    """Show bars on stderr inside the ``with`` block."""
    columns = (
        rich_bars.TextColumn("{task.description}", markup=False),
        rich_bars.BarColumn(),
        rich_bars.TaskProgressColumn(),
        AmountColumn(),
        RateColumn(),
        rich_bars.TimeRemainingColumn(),
    )
    with EscapedBars(*columns, console=Console(stderr=True)) as progress:
        yield BarProgress(progress)
