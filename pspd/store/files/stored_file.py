"""One file of a client's folder."""

from __future__ import annotations

from enum import Enum, auto

from pspd.core.model.storage import Held
from pspd.store.files.journal import Journal
from pspd.store.files.verifier import BlockVerifier
from pspd.store.filesystem.file_bytes import FileBytes


class FileStatus(Enum):
    """How far a file is, and so where its bytes are."""

    UNFINISHED = auto()  # in the hidden folder; written to
    FINISHED = auto()  # under its own name; never written to
    CHANGED = auto()  # under its own name, changed by another program; its intact units can be sent


class StoredFile:
    """A file's verified chunks, bytes, journal and status. Only its own methods change the fields.

    Args:
        verifier: verifies what is written, and knows what is verified.
        saved: the bytes.
        journal: the journal, which exists while the file is unfinished.
        status: how far the file is.
    """

    __slots__ = ("journal", "saved", "status", "verifier")

    def __init__(self, verifier: BlockVerifier, saved: FileBytes, journal: Journal, status: FileStatus) -> None:
        self.verifier = verifier
        self.saved = saved
        self.journal = journal
        self.status = status

    @property
    def held(self) -> Held:
        """What the file holds; its verified chunks are a live view."""
        return Held(self.verifier.verified, self.status is FileStatus.FINISHED)

    def mark_finished(self, saved: FileBytes) -> None:
        """Note that the file has its own name; ``saved`` are its bytes there."""
        saved.accept_state()
        self.saved = saved
        self.status = FileStatus.FINISHED

    def mark_changed(self) -> None:
        """Note that another program has changed the finished file."""
        self.status = FileStatus.CHANGED
