"""Bars that update in place, for a person at a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import rich.progress as bars
from rich.console import Console, RenderableType
from rich.text import Text

from pspctl.ui.plain import Plain
from pspctl.ui.progress import Notes, SeedStep
from pspctl.ui.units import rate_text, size_text
from pspctl.ui.views import FileView, file_view, takers
from pspd.core.model.manifest import CHUNK_BYTES
from pspd.text.plain import plain_text

MAX_CLIENT_BARS = 8
INDENT = "  "
"""Before the names of the clients, whose bars are parts of the one above."""
RATE_SECONDS_MIN = 0.2
"""What was done in a shorter time was done before it was looked at: that gives no rate."""


class AmountColumn(bars.ProgressColumn):
    """``1.5 MiB / 8.0 MiB``, or a count of things that are no bytes."""

    def render(self, task: bars.Task) -> Text:
        total = task.total or 0
        if task.fields["unit"] == "bytes":
            return Text(f"{size_text(task.completed)} / {size_text(total)}")
        return Text(f"{task.completed:.0f} / {total:.0f} {task.fields['unit']}")


class RateColumn(bars.ProgressColumn):
    """The present rate of a bar that counts bytes; at its end that of all that moved while it was shown."""

    def render(self, task: bars.Task) -> Text:
        seconds = task.finished_time if task.finished else task.elapsed
        if task.fields["unit"] != "bytes" or seconds is None or seconds < RATE_SECONDS_MIN:
            return Text("")
        speed = (task.completed - task.fields["done_before"]) / seconds if task.finished else task.speed
        return Text(rate_text(speed) if speed else "")


class PlainProgress(bars.Progress):
    """Bars whose labels come from other machines."""

    def get_renderable(self) -> RenderableType:
        """Overrides ``Progress``."""
        return Plain(super().get_renderable())


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
                self._finish("waiting")
                self._show("seeding", step.done * CHUNK_BYTES, step.total * CHUNK_BYTES)

    def exchange(self, file: FileView) -> None:
        """Moves the bar of the whole exchange, and those of the clients."""
        if file["state"] == "seeding":
            return
        self.seeded(file)
        held = {client["name"]: client["held_chunk_count"] for client in takers(file)}
        self._show("exchange", sum(held.values()) * CHUNK_BYTES, file["chunk_count"] * len(held) * CHUNK_BYTES)
        self._show_clients(held if len(held) <= MAX_CLIENT_BARS else {}, file["chunk_count"])
        if file["state"] == "complete":
            self._finish("exchange")

    def seeded(self, file: FileView) -> None:
        """Fills the bars of the seeding: what was looked at last was a moment before its end."""
        super().seeded(file)
        for label in ("waiting", "seeding"):
            self._finish(label)

    def _show_clients(self, held: dict[str, int], chunk_count: int) -> None:
        """Moves the bars of the clients; takes away those of clients that are gone."""
        labels = {f"{INDENT}{plain_text(name)}": count for name, count in held.items()}
        for label in [label for label in self._tasks if label.startswith(INDENT) and label not in labels]:
            self._progress.remove_task(self._tasks.pop(label))
        for label, count in labels.items():
            self._show(label, count * CHUNK_BYTES, chunk_count * CHUNK_BYTES)

    def simulation(self, part: float) -> None:
        """Moves the simulation's bar."""
        self._show("simulating", int(100 * part), 100, unit="%")

    def note(self, text: str) -> None:
        """Writes the line above the bars."""
        self._progress.console.print(Plain(Text(f"pspctl: {text}")))

    def _show(self, label: str, done: int, total: int, unit: str = "bytes") -> None:
        if not total:  # of an empty file: its bar would stay at 0 %
            return
        if label not in self._tasks:
            self._tasks[label] = self._progress.add_task(label, total=total, unit=unit, done_before=done)
        self._progress.update(self._tasks[label], completed=done, total=total)

    def _finish(self, label: str) -> None:
        """Fills a bar, if it is there."""
        if label in self._tasks:
            task = self._progress.tasks[self._progress.task_ids.index(self._tasks[label])]
            self._progress.update(task.id, completed=task.total)


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
    with PlainProgress(*columns, console=Console(stderr=True)) as progress:
        yield Bars(progress)
