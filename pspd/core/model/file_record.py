"""What the server saves of a file for a restart: everything but its bytes (R2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pspd.core.model.manifest import FileId, Manifest


class Phase(Enum):
    """How far the server has taken a file."""

    ANNOUNCED = "announced"
    SEEDING = "seeding"
    SEEDED = "seeded"
    EXCHANGING = "exchanging"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A divided file. Who holds what of it is not saved: clients report that when they come back.

    Attributes:
        manifest: the file's, as it was divided.
        source: name of the member that seeds it.
        phase: how far the server has taken it.
        held_back: whether the exchange waits until it is released.
        owners: to whom each share was given, in the order of the shares.
    """

    manifest: Manifest
    source: str
    phase: Phase
    held_back: bool
    owners: tuple[str, ...]

    @property
    def file_id(self) -> FileId:
        """The digest of the file's manifest."""
        return self.manifest.file_id
