"""The record that the server saves for each divided file. The record has no bytes of the file (R2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pspd.core.model.manifest import FileId, Manifest


class Phase(Enum):
    """The phases of a file at the server.

    An ANNOUNCED file is not yet divided. A SEEDED file waits until its exchange may start. A REMOVED file is deleted
    when its last byte has left the cache.
    """

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
        source: the name of the source that seeds or seeded the file.
        phase: the phase of the file.
        held_back: whether the exchange waits for ``ReleaseFile``.
        owners: the name of each share's owner, replica by replica; an empty name for a share without an owner.
    """

    manifest: Manifest
    source: str
    phase: Phase
    held_back: bool
    owners: tuple[str, ...]

    @property
    def file_id(self) -> FileId:
        """The id of the file."""
        return self.manifest.file_id
