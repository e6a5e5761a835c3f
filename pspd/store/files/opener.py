"""Open the files of a client's folder, and move each from the hidden folder to its own name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from pspd.core.model.manifest import Digest, FileId, Manifest
from pspd.core.model.ranges import RangeSet
from pspd.errors import StorageError
from pspd.store.files.journal import Journal
from pspd.store.files.records import CompletionRecord, Records
from pspd.store.files.stored_file import FileStatus, StoredFile
from pspd.store.files.unpacked import UnpackedFolders
from pspd.store.files.verifier import BlockVerifier
from pspd.store.filesystem.file_bytes import FileBytes, OpenFiles
from pspd.store.filesystem.files import is_same_file, remove_file
from pspd.store.layout import COMPLETION, JOURNAL, PARTIAL
from pspd.store.messages import name_conflict

_STAT_BLOCK_BYTES = 512

_PARTIAL_FLAGS = os.O_RDWR | os.O_CREAT
# Not through a symbolic link, which could lead out of the folder.
_FINISHED_FLAGS = os.O_RDONLY | os.O_NOFOLLOW


class FileOpener:
    """Opens the files of one folder, and knows whether their journals can be trusted.

    Args:
        folder: the client's folder, which this process has locked.
        records: its records.
        folders: the folders among its files.
        open_files: the open descriptors.
        digest: the digest function of manifests.
        boot: the machine's present boot.
        trusts_journals: whether the journals are of this boot. Otherwise saved bytes are verified when opened.
    """

    def __init__(
        self,
        folder: Path,
        records: Records,
        folders: UnpackedFolders,
        open_files: OpenFiles,
        digest: Digest,
        boot: str,
        *,
        trusts_journals: bool,
    ) -> None:
        self.boot = boot
        self._folder = folder
        self._records = records
        self._folders = folders
        self._open_files = open_files
        self._digest = digest
        self._trusts_journals = trusts_journals

    def trust_journals(self, file_ids: Iterable[FileId]) -> None:
        """Trust the journals from now on, because all files were verified; remove those of any other files."""
        if self._trusts_journals:
            return
        self._records.remove_strays(JOURNAL, set(file_ids))
        self._records.save_boot(self.boot)
        self._trusts_journals = True

    def open_partial(self, manifest: Manifest, *, keeps_completion: bool = False) -> StoredFile:
        """Open a file for writing, with whatever is saved of it.

        Args:
            manifest: the file's manifest.
            keeps_completion: keep a completion record, which otherwise is removed.
        """
        file_id = manifest.file_id
        if not keeps_completion:
            self._records.remove(file_id, COMPLETION)
        part = FileBytes(self._records.path(file_id, PARTIAL), _PARTIAL_FLAGS, self._open_files)
        journal = Journal(self._records.path(file_id, JOURNAL), self._open_files)
        file = StoredFile(BlockVerifier(manifest, part, self._digest), part, journal, FileStatus.UNFINISHED)
        recorded, is_sound = journal.read(manifest.chunk_count)
        state = os.fstat(part.fd)
        is_saved = all(sum(manifest.byte_span(*span)) <= state.st_size for span in recorded)
        # A write after the journal's last entry may be another program's.
        in_order = state.st_mtime_ns <= journal.mtime_ns
        if self._trusts_journals and is_saved and in_order:
            file.verifier.resume(recorded, ())
        else:
            file.verifier.resume(RangeSet(), recorded)
        if not is_sound or not in_order or file.verifier.verified != recorded:
            journal.rewrite(file.verifier.verified)
        visible = self.finished_path(manifest)
        if not file.verifier.complete and is_same_file(visible, part.path):
            remove_file(visible)  # the machine crashed after the file got its name, and lost some of its bytes
        part.accept_state()
        return file

    def open_finished(self, manifest: Manifest) -> StoredFile:
        """Open a file under its own name; nothing of it counts as verified yet."""
        saved = FileBytes(self.finished_path(manifest), _FINISHED_FLAGS, self._open_files)
        # The file may have been replaced since its descriptor was opened.
        self._open_files.close(saved.path)
        saved.accept_state()
        journal = Journal(self._records.path(manifest.file_id, JOURNAL), self._open_files)
        return StoredFile(BlockVerifier(manifest, saved, self._digest), saved, journal, FileStatus.FINISHED)

    def publish(self, file: StoredFile, state: os.stat_result) -> None:
        """Complete the finishing of a file that has just got its own name: record that, then drop the partial file.

        Args:
            file: the file.
            state: of its bytes.
        """
        manifest = file.verifier.manifest
        self._records.save_completion(manifest.file_id, self.completion_record(manifest, state))
        if manifest.is_folder:
            self._folders.publish(manifest)
        path = self.finished_path(manifest)
        self._open_files.move(file.saved.path, path)
        file.mark_finished(FileBytes(path, _FINISHED_FLAGS, self._open_files))
        self.remove_work(manifest.file_id)

    def completion_record(self, manifest: Manifest, state: os.stat_result, boot: str | None = None) -> CompletionRecord:
        """Return the completion record for a file.

        Args:
            manifest: the file's manifest.
            state: of its bytes.
            boot: the boot to record; None for the present one.
        """
        return CompletionRecord(manifest.name, state.st_size, state.st_mtime_ns, self.boot if boot is None else boot)

    def finished_path(self, manifest: Manifest) -> Path:
        """Return where a finished file's bytes are that other clients are sent."""
        return self._folders.archive(manifest) if manifest.is_folder else self._folders.visible(manifest)

    def is_name_taken(self, file: StoredFile) -> bool:
        """Return whether the changed file, or what replaced a folder, still has the file's name."""
        manifest = file.verifier.manifest
        return self._folders.is_replaced(manifest) if manifest.is_folder else file.saved.is_in_place

    def looks_unchanged(self, file: StoredFile) -> bool:
        """Return whether a finished file has its size and modification time, or a folder is a folder.

        Raises:
            FileNotFoundError: it was removed.
            OSError: it cannot be examined.
        """
        manifest = file.verifier.manifest
        if manifest.is_folder and not stat.S_ISDIR(os.lstat(self._folders.visible(manifest)).st_mode):
            return False
        return file.saved.matches(os.lstat(file.saved.path))

    def written_bytes(self, file_id: FileId) -> int:
        """Return how much disk space an unfinished file takes now."""
        try:
            return self._records.path(file_id, PARTIAL).stat().st_blocks * _STAT_BLOCK_BYTES
        except OSError:
            return 0

    def remove_work(self, file_id: FileId) -> None:
        """Remove what exists only while a file is unfinished."""
        for suffix in (PARTIAL, JOURNAL):
            self._open_files.close(self._records.path(file_id, suffix))
            self._records.remove(file_id, suffix)
        self._folders.remove_unpacked(file_id)

    def close_bytes(self, file: StoredFile) -> None:
        """Close the descriptor of a file's bytes."""
        self._open_files.close(file.saved.path)

    def conflict(self, manifest: Manifest) -> StorageError:
        """Return the error for a file whose name something else has."""
        return StorageError(name_conflict(manifest.name, self._folder))
