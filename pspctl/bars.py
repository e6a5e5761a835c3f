"""Bars that update in place, for a person at a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import rich.progress as bars
from rich.console import Console
from rich.text import Text

from pspctl.progress import Notes, SeedStep
from pspctl.units import rate_text, size_text
from pspctl.views import FileView, file_view, takers
from pspd.core.manifest import CHUNK_BYTES
from pspd.text import plain_text

MAX_CLIENT_BARS = 8


class AmountColumn(bars.ProgressColumn):
    """``1.5 MiB / 8.0 MiB``, or a count of things that are no bytes."""

    def render(self, task: bars.Task) -> Text:
        total = task.total or 0
        if task.fields["unit"] == "bytes":
            return Text(f"{size_text(task.completed)} / {size_text(total)}")
        return Text(f"{task.completed:.0f} / {total:.0f} {task.fields['unit']}")


class RateColumn(bars.ProgressColumn):
    """The rate of a bar that counts bytes."""

    def render(self, task: bars.Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(rate_text(speed) if speed and task.fields["unit"] == "bytes" else "")


class Bars(Notes):
    """Bars that update in place: one for each phase, and one per client when they are few."""

    def __init__(self, progress: bars.Progress) -> None:
        super().__init__()
        self._progress = progress
        self._tasks: dict[str, bars.TaskID] = {}

    def seeding(self, step: SeedStep) -> None:
        """Moves the bar of the phase."""
        if step.file is not None:
            self._tell_of_clients(file_view(step.file))
        match step.phase:
            case "hashing":
                self._show("hashing", step.done, step.total)
            case "waiting":
                self._show("waiting", step.done, step.total, unit="clients")
            case "seeding":
                self._show("seeding", step.done * CHUNK_BYTES, step.total * CHUNK_BYTES)

    def exchange(self, file: FileView) -> None:
        """Moves the bar of the whole exchange, and those of the clients."""
        if file["state"] == "seeding":
            return
        super().exchange(file)
        held = {client["name"]: client["held_chunk_count"] for client in takers(file)}
        self._show("exchange", sum(held.values()) * CHUNK_BYTES, file["chunk_count"] * len(held) * CHUNK_BYTES)
        if len(held) <= MAX_CLIENT_BARS:
            for name, chunk_count in held.items():
                self._show(f"  {plain_text(name)}", chunk_count * CHUNK_BYTES, file["chunk_count"] * CHUNK_BYTES)

    def simulation(self, part: float) -> None:
        """Moves the simulation's bar."""
        self._show("simulating", int(100 * part), 100, unit="%")

    def note(self, text: str) -> None:
        """Writes the line above the bars."""
        self._progress.console.print(Text(f"pspctl: {text}"))

    def _show(self, label: str, done: int, total: int, unit: str = "bytes") -> None:
        if label not in self._tasks:
            self._tasks[label] = self._progress.add_task(label, total=total, unit=unit)
        self._progress.update(self._tasks[label], completed=done, total=total)


@contextmanager
def shown_bars() -> Iterator[Bars]:
    """Bars on stderr, for as long as the work takes."""
    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        AmountColumn(),
        RateColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True)) as progress:
        yield Bars(progress)
