"""Progress on stderr, for people: bars on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import rich.progress as bars
from rich.console import Console
from rich.text import Text

from pspctl.options import Settings
from pspctl.tables import hold_text, missing_texts, refusal_texts
from pspctl.units import plain_text, rate_text, size_text
from pspctl.views import FileView, takers
from pspd.core.manifest import CHUNK_BYTES
from pspd.v1 import network_pb2

MAX_CLIENT_BARS = 8
NOTE_SECONDS = 5.0


class SeedStep(Protocol):
    """How far seeding is; what `pspd.daemon.source` reports."""

    @property
    def phase(self) -> str: ...
    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def file(self) -> network_pb2.File | None: ...


class Progress(Protocol):
    """Something that is told how far the work is."""

    def seeding(self, step: SeedStep) -> None:
        """Seeding went on."""

    def exchange(self, file: FileView) -> None:
        """The exchange of a file went on."""

    def simulation(self, part: float) -> None:
        """So much of a simulation is done, of 1."""

    def note(self, text: str) -> None:
        """Something that a waiting person should know."""


class Silence:
    """Shows nothing."""

    def seeding(self, step: SeedStep) -> None:
        """Shows nothing."""

    def exchange(self, file: FileView) -> None:
        """Shows nothing."""

    def simulation(self, part: float) -> None:
        """Shows nothing."""

    def note(self, text: str) -> None:
        """Shows nothing."""


class Notes:
    """One line for what a waiting person should know; for a stderr that is no terminal."""

    def __init__(self) -> None:
        self._stalls: list[str] = []
        self._told: set[str] = set()
        self._joined: int | None = None
        self._joined_told_at = 0.0

    def seeding(self, step: SeedStep) -> None:
        """Says how many clients are waited for: at once, and when their number has changed."""
        if step.phase != "waiting" or step.done >= step.total or step.done == self._joined:
            return
        now = time.monotonic()
        if self._joined is None or now - self._joined_told_at >= NOTE_SECONDS:
            self._joined, self._joined_told_at = step.done, now
            self.note(f"waiting for clients: {step.done} of {step.total} have joined")

    def exchange(self, file: FileView) -> None:
        """Says what keeps the file from being complete everywhere: a hold, a refusal, chunks that are missing."""
        if file["state"] != "complete":
            for text in [hold_text(file), *refusal_texts(file)]:
                if text and text not in self._told:
                    self._told.add(text)
                    self.note(f"{plain_text(file['name'])}: {text}")
        stalls = missing_texts(file)
        if stalls and stalls != self._stalls:
            self.note(f"{plain_text(file['name'])} is stalled: {'; '.join(stalls)}")
        self._stalls = stalls

    def simulation(self, part: float) -> None:
        """Says nothing: it is done soon."""

    def note(self, text: str) -> None:
        """Writes the line."""
        print(f"pspctl: {text}", file=sys.stderr, flush=True)


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
def shown_progress(settings: Settings) -> Iterator[Progress]:
    """The progress that fits the settings and the terminal."""
    if settings.quiet or settings.output == "json":
        yield Silence()
    elif not sys.stderr.isatty():
        yield Notes()
    else:
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
