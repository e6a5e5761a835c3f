"""The record of a file that the server saves for a restart: everything except its bytes (R2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pspd.core.model.manifest import FileId, Manifest


class Phase(Enum):
    """The phases of a file, from the server's view."""

    ANNOUNCED = "announced"
    SEEDING = "seeding"
    SEEDED = "seeded"
    EXCHANGING = "exchanging"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """The saved state of a divided file. Holdings are not saved: clients report them when they rejoin.

    Attributes:
        manifest: the manifest of the divided file.
        source: the name of the member that seeds it.
        phase: its phase.
        held_back: whether the exchange waits for its release.
        owners: the owner of each share, in the order of the shares.
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
