"""Shows the progress of a command: not at all, or in a few lines on stderr; `pspctl.ui.bars` draws bars."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from pspctl.ui.file_text import idle_texts_by_client, missing_chunks_texts, refusal_texts, release_advice
from pspctl.ui.views import FileView, file_view
from pspd.text.plain import plain_text

if TYPE_CHECKING:  # `pspd.daemon.source` imports the whole client
    from pspd.daemon.source import SeedProgress

WAITING_NOTE_SECONDS = 5.0
"""The shortest time between two notes that say how many clients have joined."""


class Progress:
    """Shows nothing; subclasses show what a command does."""

    def show_step(self, step: SeedProgress) -> None:
        """Show a step of the source."""

    def show_exchange(self, file: FileView) -> None:
        """Show the state of a file that the command waits for."""

    def show_seeded(self, file: FileView) -> None:
        """Show that a file is seeded."""

    def show_simulation(self, part: float) -> None:
        """Show which part of a simulation is done; `part` is from 0 to 1."""

    def show_note(self, text: str) -> None:
        """Show one line, such as a reason to wait."""


class LineProgress(Progress):
    """Writes one line to stderr for each reason to wait."""

    def __init__(self) -> None:
        self._stalls: list[str] = []
        self._shown: set[str] = set()
        self._has_no_client = False
        self._joined_count: int | None = None
        self._joined_noted_at = 0.0

    def show_step(self, step: SeedProgress) -> None:
        """Write which clients delay the seeding, or that none is connected, and how many have joined.

        The number is written when it is new, at most every `WAITING_NOTE_SECONDS`, and not when all have joined.
        """
        if step.file is not None:
            self._show_idle_clients(file_view(step.file))
        if step.phase != "waiting" or step.done >= step.total or step.done == self._joined_count:
            return
        now = time.monotonic()
        if self._joined_count is None or now - self._joined_noted_at >= WAITING_NOTE_SECONDS:
            self._joined_count, self._joined_noted_at = step.done, now
            self.show_note(f"waiting for clients: {step.done} of {step.total} have joined")

    def show_exchange(self, file: FileView) -> None:
        """Write why the file is not complete."""
        self.show_seeded(file)

    def show_seeded(self, file: FileView) -> None:
        """Write why the file is not complete: held back, declined, stalled, or without a connected client."""
        if file["state"] != "complete":
            for text in [release_advice(file), *refusal_texts(file)]:
                self._show_once(file, text, text)
        self._show_if_no_client(file)
        stalls = missing_chunks_texts(file)
        if stalls and stalls != self._stalls:
            self.show_note(f"{plain_text(file['name'])} is stalled: {'; '.join(stalls)}")
        self._stalls = stalls

    def show_note(self, text: str) -> None:
        """Write one line."""
        print(f"pspctl: {plain_text(text)}", file=sys.stderr, flush=True)

    def _show_idle_clients(self, file: FileView) -> None:
        """Write, once for each idle client, that it delays the seeding; also write if no client is connected."""
        self._show_if_no_client(file)
        for client, text in idle_texts_by_client(file).items():
            self._show_once(file, text, f"idle {client}")

    def _show_once(self, file: FileView, text: str, key: str) -> None:
        """Write a text about a file if it is not empty and is the first text with this key."""
        if text and key not in self._shown:
            self._shown.add(key)
            self.show_note(f"{plain_text(file['name'])}: {text}")

    def _show_if_no_client(self, file: FileView) -> None:
        """Write that no client is connected, if this is so; write it again only after a client has been connected."""
        has_no_client = not (file["client_count"] or file["declined_client_count"])
        if has_no_client and not self._has_no_client:
            self.show_note(f"{plain_text(file['name'])}: no client is connected: waiting for one")
        self._has_no_client = has_no_client
