"""The interface through which a command shows how far it is."""

from __future__ import annotations

from typing import Protocol

from pspctl.ui.views import FileView
from pspd.v1 import network_pb2


class SeedStep(Protocol):
    """One step of a source; `pspd.daemon.source.SeedProgress` is one."""

    @property
    def phase(self) -> str:
        """``hashing``, ``waiting``, ``seeding``, ``staying`` or ``reconnecting``."""

    @property
    def done(self) -> int:
        """Bytes hashed, clients joined, or chunks of shares held, by phase."""

    @property
    def total(self) -> int:
        """What `done` becomes at the end of the phase."""

    @property
    def file(self) -> network_pb2.File | None:
        """The file as the server shows it; None before it is divided."""


class Progress(Protocol):
    """Shows how far a command is."""

    def seeding(self, step: SeedStep) -> None:
        """Show a step of the source."""

    def exchange(self, file: FileView) -> None:
        """Show a change during the exchange of a file."""

    def seeded(self, file: FileView) -> None:
        """Show that a file is seeded, when its exchange is not waited for."""

    def simulation(self, part: float) -> None:
        """Show which part of a simulation is done, from 0 to 1."""

    def note(self, text: str) -> None:
        """Show one line, such as a reason to wait."""


class NullProgress:
    """Shows nothing."""

    def seeding(self, step: SeedStep) -> None:
        """Do nothing."""

    def exchange(self, file: FileView) -> None:
        """Do nothing."""

    def seeded(self, file: FileView) -> None:
        """Do nothing."""

    def simulation(self, part: float) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""
