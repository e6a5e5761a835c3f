"""Progress on stderr, for people: bars on a terminal, a few lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from pspctl.options import Settings
from pspctl.ui.tables import hold_text, idle_clients, missing_texts, refusal_texts
from pspctl.ui.views import FileView, file_view
from pspd.text.plain import plain_text
from pspd.v1 import network_pb2

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

    def seeded(self, file: FileView) -> None:
        """A file is seeded, and its exchange is not waited for."""

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

    def seeded(self, file: FileView) -> None:
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
        self._deserted = False
        self._joined: int | None = None
        self._joined_told_at = 0.0

    def seeding(self, step: SeedStep) -> None:
        """Says how many clients are waited for: at once, and when their number has changed."""
        if step.file is not None:
            self._tell_of_clients(file_view(step.file))
        if step.phase != "waiting" or step.done >= step.total or step.done == self._joined:
            return
        now = time.monotonic()
        if self._joined is None or now - self._joined_told_at >= NOTE_SECONDS:
            self._joined, self._joined_told_at = step.done, now
            self.note(f"waiting for clients: {step.done} of {step.total} have joined")

    def exchange(self, file: FileView) -> None:
        """Says what keeps the file from being complete everywhere."""
        self.seeded(file)

    def seeded(self, file: FileView) -> None:
        """Says what keeps the file from being complete everywhere: a hold, a refusal, chunks that are missing."""
        if file["state"] != "complete":
            for text in [hold_text(file), *refusal_texts(file)]:
                if text and text not in self._told:
                    self._told.add(text)
                    self.note(f"{plain_text(file['name'])}: {text}")
        self._tell_if_deserted(file)
        stalls = missing_texts(file)
        if stalls and stalls != self._stalls:
            self.note(f"{plain_text(file['name'])} is stalled: {'; '.join(stalls)}")
        self._stalls = stalls

    def _tell_of_clients(self, file: FileView) -> None:
        """Says that nobody is there to take the file, or who holds up its seeding: of each client once."""
        self._tell_if_deserted(file)
        for client, text in idle_clients(file).items():
            if f"idle {client}" not in self._told:
                self._told.add(f"idle {client}")
                self.note(f"{plain_text(file['name'])}: {text}")

    def _tell_if_deserted(self, file: FileView) -> None:
        """Says that nobody is there to take the file; again when that was otherwise meanwhile."""
        is_deserted = not (file["client_count"] or file["declined_client_count"])
        if is_deserted and not self._deserted:
            self.note(f"{plain_text(file['name'])}: no client is here to take it: waiting for one")
        self._deserted = is_deserted

    def simulation(self, part: float) -> None:
        """Says nothing: it is done soon."""

    def note(self, text: str) -> None:
        """Writes the line."""
        print(f"pspctl: {plain_text(text)}", file=sys.stderr, flush=True)


@contextmanager
def shown_progress(settings: Settings) -> Iterator[Progress]:
    """The progress that fits the settings and the terminal."""
    if settings.quiet or settings.output == "json":
        yield Silence()
    elif not sys.stderr.isatty():
        yield Notes()
    else:
        from pspctl.ui.bars import shown_bars  # only who sees bars waits for what draws them

        with shown_bars() as progress:
            yield progress
