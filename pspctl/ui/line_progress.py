"""Progress in a few lines on stderr, where it is no terminal."""

from __future__ import annotations

import sys
import time

from pspctl.ui.file_text import hold_text, idle_clients, missing_texts, refusal_texts
from pspctl.ui.progress import SeedStep
from pspctl.ui.views import FileView, file_view
from pspd.text.plain import plain_text

WAITING_NOTE_SECONDS = 5.0
"""The least time between two notes about clients that join."""


class LineProgress:
    """Writes one line for each thing that keeps the command waiting."""

    def __init__(self) -> None:
        """Start with nothing written."""
        self._stalls: list[str] = []
        self._noted: set[str] = set()
        self._has_no_client = False
        self._joined: int | None = None
        self._joined_noted_at = 0.0

    def seeding(self, step: SeedStep) -> None:
        """Write how many clients have joined: at the first step, then when the number changes."""
        if step.file is not None:
            self._note_clients(file_view(step.file))
        if step.phase != "waiting" or step.done >= step.total or step.done == self._joined:
            return
        now = time.monotonic()
        if self._joined is None or now - self._joined_noted_at >= WAITING_NOTE_SECONDS:
            self._joined, self._joined_noted_at = step.done, now
            self.note(f"waiting for clients: {step.done} of {step.total} have joined")

    def exchange(self, file: FileView) -> None:
        """Write what prevents the file from becoming complete."""
        self.seeded(file)

    def seeded(self, file: FileView) -> None:
        """Write what prevents the file from becoming complete: a hold, a client that declined it, missing chunks."""
        if file["state"] != "complete":
            for text in [hold_text(file), *refusal_texts(file)]:
                if text and text not in self._noted:
                    self._noted.add(text)
                    self.note(f"{plain_text(file['name'])}: {text}")
        self._note_if_no_client(file)
        stalls = missing_texts(file)
        if stalls and stalls != self._stalls:
            self.note(f"{plain_text(file['name'])} is stalled: {'; '.join(stalls)}")
        self._stalls = stalls

    def simulation(self, part: float) -> None:
        """Write nothing: a simulation ends soon."""

    def note(self, text: str) -> None:
        """Write one line."""
        print(f"pspctl: {plain_text(text)}", file=sys.stderr, flush=True)

    def _note_clients(self, file: FileView) -> None:
        """Write which clients delay the seeding, each once, or that there is none."""
        self._note_if_no_client(file)
        for client, text in idle_clients(file).items():
            if f"idle {client}" not in self._noted:
                self._noted.add(f"idle {client}")
                self.note(f"{plain_text(file['name'])}: {text}")

    def _note_if_no_client(self, file: FileView) -> None:
        """Write that no client is connected, each time that this becomes so."""
        has_no_client = not (file["client_count"] or file["declined_client_count"])
        if has_no_client and not self._has_no_client:
            self.note(f"{plain_text(file['name'])}: no client is connected: waiting for one")
        self._has_no_client = has_no_client
