"""The files of the network, by id."""

from __future__ import annotations

import itertools

from pspd.core.model.manifest import FileId
from pspd.core.server.shared_file import SharedFile


class Files:
    """Every file, oldest first.

    Attributes:
        by_id: the files.
    """

    def __init__(self) -> None:
        self.by_id: dict[FileId, SharedFile] = {}
        self._divisions = itertools.count(1)

    def new_division(self) -> int:
        """Return a number that no division of a file had since the server was started."""
        return next(self._divisions)

    def add(self, file: SharedFile) -> None:
        """Add a file."""
        self.by_id[file.file_id] = file

    def delete(self, file_id: FileId) -> None:
        """Delete a file, if it is there."""
        self.by_id.pop(file_id, None)

    def get(self, file_id: FileId) -> SharedFile | None:
        """Return a file; None if there is none."""
        return self.by_id.get(file_id)

    def all(self) -> list[SharedFile]:
        """Return every file, oldest first."""
        return list(self.by_id.values())
