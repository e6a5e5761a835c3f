"""Open, publish and recover the files of a client's folder.

Recovery decides which existing bytes are right: after a restart, a power failure, or a change by the user. A finished
file belongs to the user. Its bytes are never removed or overwritten; it is renamed only if the disk has damaged it.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path

from pspd.core.model.manifest import MODE_BITS, FileId, Manifest, ReadAt
from pspd.core.model.ranges import Range, RangeSet
from pspd.errors import StorageError, StoreFailed
from pspd.store.errors import name_conflict
from pspd.store.files.records import DAMAGED, FLUSHED, CompletionRecord, Records, current_boot_id
from pspd.store.files.stored_file import FileStatus, Journal, StoredFile
from pspd.store.files.unpacked import UnpackedFolders
from pspd.store.files.verifier import FileVerifier
from pspd.store.filesystem.failures import storage_error
from pspd.store.filesystem.file_bytes import FileBytes, OpenFiles
from pspd.store.filesystem.files import flush_file, is_same_file, mtime_ns, remove_file, stat_regular
from pspd.store.layout import ARCHIVE, COMPLETION, JOURNAL, MANIFEST, PARTIAL
from pspd.store.tree.archive import FolderArchive
from pspd.store.tree.traverse import flush_tree, is_changed_since

_LOG = logging.getLogger(__name__)

_FINISHING_NS = 2_000_000_000
"""A change that is at most this many nanoseconds later than the completion record may be this program's own change."""
_COPY_CHUNKS = 1024
"""The most chunks that are copied at once."""
_PARTIAL_FLAGS = os.O_RDWR | os.O_CREAT
# A symbolic link is not followed, because it could lead out of the folder.
_FINISHED_FLAGS = os.O_RDONLY | os.O_NOFOLLOW


class FileRecovery:
    """Opens, publishes and recovers the files of one folder.

    Attributes:
        boot_id: the id of the machine's present boot.
    """

    def __init__(
        self, records: Records, unpacked: UnpackedFolders, open_files: OpenFiles, *, trusts_records: bool
    ) -> None:
        """Determine whether the journals can be trusted.

        Args:
            records: the records of a client's folder that this process has locked.
            unpacked: the unpacked folders among the client's files.
            open_files: the store's open descriptors.
            trusts_records: whether to trust the records of verified bytes. If not, all these bytes are verified.
        """
        self.boot_id = current_boot_id()
        self._records = records
        self._unpacked = unpacked
        self._open_files = open_files
        self._trusts_records = trusts_records
        # If this is False, the saved bytes of an unfinished file are verified when the file is opened.
        self._trusts_journals = records.trusted_boot_id() == self.boot_id and trusts_records

    def finished_path(self, manifest: Manifest) -> Path:
        """Return the path of a finished file, or of a finished folder's archive."""
        if manifest.is_folder:
            return self._records.hidden_path(manifest.file_id, ARCHIVE)
        return self._records.visible_path(manifest)

    def name_conflict(self, manifest: Manifest) -> StorageError:
        """Return the error for a file whose name another file has."""
        return name_conflict(manifest.name, self._records.folder)

    def open_partial(self, manifest: Manifest, *, keeps_completion: bool = False) -> StoredFile:
        """Open a file for writing, and keep its saved bytes, if there are any.

        If the finished path is a second name of the partial file, but not every chunk is verified, remove the finished
        path.

        Args:
            manifest: the file's manifest.
            keeps_completion: whether to keep the file's completion record; otherwise it is removed.
        """
        file_id = manifest.file_id
        if not keeps_completion:
            self._records.remove(file_id, COMPLETION)
        partial = FileBytes(self._records.hidden_path(file_id, PARTIAL), _PARTIAL_FLAGS, self._open_files)
        journal = Journal(self._records.hidden_path(file_id, JOURNAL), self._open_files)
        verifier = FileVerifier(manifest, partial, self._records.digest)
        file = StoredFile(verifier, partial, journal, FileStatus.UNFINISHED)
        recorded, journal_is_intact = journal.read(manifest.chunk_count)
        state = os.fstat(partial.fd)
        ranges_fit = all(sum(manifest.byte_span(*span)) <= state.st_size for span in recorded)
        # A write after the journal's last entry may be another program's.
        journal_is_newer = state.st_mtime_ns <= mtime_ns(journal.path)
        if self._trusts_journals and ranges_fit and journal_is_newer:
            file.verifier.resume(recorded, ())
        else:
            file.verifier.resume(RangeSet(), recorded)
        if not journal_is_intact or not journal_is_newer or file.verifier.verified != recorded:
            journal.rewrite(file.verifier.verified)
        finished_path = self.finished_path(manifest)
        if not file.verifier.is_complete and is_same_file(finished_path, partial.path):
            # The partial file is the same file under its other name, and stays.
            remove_file(finished_path)
        partial.mark_unchanged()
        return file

    def _open_finished(self, manifest: Manifest) -> StoredFile:
        """Open a finished file for reading. No chunk is verified yet."""
        content = FileBytes(self.finished_path(manifest), _FINISHED_FLAGS, self._open_files)
        # The file may have been replaced since its descriptor was opened.
        self._open_files.close(content.path)
        content.mark_unchanged()
        journal = Journal(self._records.hidden_path(manifest.file_id, JOURNAL), self._open_files)
        return StoredFile(FileVerifier(manifest, content, self._records.digest), content, journal, FileStatus.FINISHED)

    def publish(self, file: StoredFile, state: os.stat_result) -> None:
        """Finish a file that is already at :meth:`finished_path`.

        Save the completion record, then give an unpacked folder its name, then remove the temporary files.

        Args:
            file: the file.
            state: the ``stat`` result of the file, or of a folder's archive.

        Raises:
            StorageError: the record cannot be saved, a folder cannot be renamed, or a file cannot be removed.
        """
        manifest = file.verifier.manifest
        self._records.save_completion(manifest, state, self.boot_id)
        if manifest.is_folder:
            self._unpacked.publish(manifest)
        path = self.finished_path(manifest)
        self._open_files.record_rename(file.content.path, path)
        file.mark_finished(FileBytes(path, _FINISHED_FLAGS, self._open_files))
        self.remove_temporary_files(manifest.file_id)

    def flush(self, manifest: Manifest) -> None:
        """Flush a finished file, or a folder and its archive, to the disk. Any thread may call this.

        Raises:
            StorageError: a file cannot be opened, or the disk fails.
        """
        flush_file(self.finished_path(manifest))
        if manifest.is_folder:
            flush_tree(self._records.visible_path(manifest))

    def is_name_taken(self, file: StoredFile) -> bool:
        """Return whether the name of a changed file is still taken, so that verifying it again would be useless.

        For a file, return False if the file was removed, replaced or changed once more. For a folder, return whether
        something other than a folder has the name.
        """
        manifest = file.verifier.manifest
        return self._unpacked.is_replaced(manifest) if manifest.is_folder else file.content.is_in_place

    def looks_unchanged(self, file: StoredFile) -> bool:
        """Return whether a finished file still has the size and modification time that the store knows.

        For a folder, return whether its archive has them, and a folder still has the name.

        Raises:
            FileNotFoundError: the file, folder or archive was removed.
            OSError: the file, folder or archive cannot be examined.
        """
        manifest = file.verifier.manifest
        if manifest.is_folder and not stat.S_ISDIR(os.lstat(self._records.visible_path(manifest)).st_mode):
            return False
        return file.content.matches(os.lstat(file.content.path))

    def remove_temporary_files(self, file_id: FileId) -> None:
        """Remove the partial file, the journal, and the unpacked folder unless a thread is unpacking it."""
        for suffix in (PARTIAL, JOURNAL):
            self._open_files.close(self._records.hidden_path(file_id, suffix))
            self._records.remove(file_id, suffix)
        self._unpacked.remove_unpacked(file_id)

    def load_all(self) -> dict[FileId, StoredFile]:
        """Load the files in the folder, verify them if necessary, and return them by id.

        After a restart of the machine, verify the bytes that were not flushed. Otherwise, trust a finished file that
        has its recorded size and time, and a journal that was written after its partial file. Without trust in the
        records, verify everything. Log a warning for each file that cannot be loaded, and skip the file.

        Raises:
            StoreFailed: the whole store has failed.
            StorageError: an old journal cannot be removed, or the boot id cannot be saved.
        """
        files: dict[FileId, StoredFile] = {}
        all_loaded = True
        manifests = list(self._records.manifests())
        for manifest in manifests:
            try:
                record = self._records.completion(manifest.file_id)
                file = self.open_partial(manifest) if record is None else self.load_finished(manifest, record)
            except StoreFailed:
                raise
            except Exception as error:  # any error concerns only this file
                _LOG.warning("cannot load %r: %s", manifest.name, error)
                _LOG.debug("cannot load %r: where:", manifest.name, exc_info=error)
                all_loaded = False
            else:
                if file is not None:
                    files[manifest.file_id] = file
        self._unpacked.remove_all_unpacked()
        if all_loaded and not self._trusts_journals:
            # Every unfinished file was verified just now, so the journals can be trusted in this boot.
            self._records.remove_journals_except({manifest.file_id for manifest in manifests})
            self._records.save_trusted_boot_id(self.boot_id)
            self._trusts_journals = True
        return files

    def load_finished(self, manifest: Manifest, record: CompletionRecord) -> StoredFile | None:
        """Load a file that has a completion record, verify it if necessary, and return it.

        A file that the disk has damaged, and a folder whose archive is corrupt, become unfinished. A file that another
        program has changed, and a folder that something else has replaced, get the status ``CHANGED``. If the file,
        the folder or its archive is missing, open the partial file instead. If the partial file is missing too, forget
        the file and return None.

        Args:
            manifest: the file's manifest.
            record: the file's completion record.
        """
        visible_path, state = self._records.visible_path(manifest), stat_regular(self.finished_path(manifest))
        if manifest.is_folder and not os.path.lexists(visible_path):
            state = None  # an archive without its folder is not used
        if state is None and self._records.hidden_path(manifest.file_id, PARTIAL).exists():
            return self.open_partial(manifest)
        self.remove_temporary_files(manifest.file_id)
        if state is None:
            _LOG.warning("%s was removed by another program; forgetting it", visible_path)
            self._records.remove(manifest.file_id, ARCHIVE, COMPLETION, MANIFEST)
            return None
        file = self._open_finished(manifest)
        if manifest.is_folder and self._unpacked.is_replaced(manifest):
            _LOG.warning("%s is no longer a folder; it is not complete", visible_path)
            file.mark_changed()
            return file
        is_unchanged = record.describes(state)
        if is_unchanged and record.boot_id in (FLUSHED, self.boot_id) and self._trusts_records:
            file.verifier.resume(RangeSet([Range(0, manifest.chunk_count)]), ())
            return file
        # Salvage a damaged file or a corrupt archive. Do not write to a file that another program has changed.
        file.verifier.verify_all()
        is_right = file.verifier.is_complete and state.st_size == manifest.size_bytes
        may_be_damaged = self._may_be_damaged(manifest, record, state)
        if is_right and not (manifest.is_folder and may_be_damaged):
            # Without FLUSHED, a folder that the user has changed would count as damaged after the next crash.
            boot_id = FLUSHED if manifest.is_folder else self.boot_id
            try:
                self.flush(manifest)
                boot_id = FLUSHED
            except StoreFailed:
                raise
            except StorageError as error:  # some file systems cannot flush a folder
                _LOG.warning("cannot flush %r: %s", manifest.name, error)
            self._records.save_completion(manifest, state, boot_id)
            return file
        if manifest.is_folder or may_be_damaged or (is_unchanged and not self._trusts_records):
            return self.salvage(file, renames_damaged=may_be_damaged or not manifest.is_folder)
        _LOG.warning("%s was changed by another program; it is not complete", file.content.path)
        file.mark_changed()
        return file

    def adopt_existing(self, manifest: Manifest, require_space: Callable[[Manifest, int], None]) -> StoredFile | None:
        """Adopt the file or folder that already has the name, and return the file; return None if nothing has the name.

        A file with the right bytes becomes a finished file. A folder with the right content becomes an unfinished file
        with all chunks. A file or folder that the disk has damaged becomes an unfinished file with the intact units.
        The name does not count if it is only a second name of this client's partial file.

        Args:
            manifest: the file's manifest.
            require_space: a function that takes the manifest and a number of bytes, and raises if these bytes do not
                fit. It is called before an archive is saved.

        Raises:
            StorageError: another file has the name, there is no space for an archive, or the disk fails.
        """
        visible_path = self._records.visible_path(manifest)
        try:
            os.lstat(visible_path)
        except FileNotFoundError:
            return None
        except OSError as error:  # the error would also keep a new file from getting this name
            raise storage_error("look at", visible_path, error) from None
        if is_same_file(visible_path, self._records.hidden_path(manifest.file_id, PARTIAL)):
            return None
        state = stat_regular(visible_path)
        if manifest.is_folder and self._unpacked.is_intact(manifest):
            return self._adopt_folder(manifest, require_space)
        if not manifest.is_folder and state is not None and state.st_size == manifest.size_bytes:
            file = self._open_finished(manifest)
            file.verifier.verify_all()
            if file.verifier.is_complete:
                if (mode := state.st_mode & MODE_BITS) != manifest.mode:
                    _LOG.info("%s keeps its mode %03o; its source has %03o", visible_path, mode, manifest.mode)
                self._records.save_manifest(manifest)
                self._records.save_completion(manifest, state, self.boot_id)
                self.remove_temporary_files(manifest.file_id)
                return file
        record = self._records.completion(manifest.file_id)
        if record is None or not self._may_be_damaged(manifest, record, state):
            raise self.name_conflict(manifest)
        # This client finished the file, but the disk has lost the manifest and some of the bytes.
        damaged = self._open_finished(manifest)
        damaged.verifier.verify_all()
        self._records.save_manifest(manifest)
        return self.salvage(damaged)

    def _adopt_folder(self, manifest: Manifest, require_space: Callable[[Manifest, int], None]) -> StoredFile:
        """Save the archive of the existing folder as the partial file, and return the file."""
        require_space(manifest, manifest.size_bytes)
        self._records.save_manifest(manifest)
        self._records.remove(manifest.file_id, ARCHIVE)
        file = self.open_partial(manifest)
        with closing(FolderArchive(self._records.visible_path(manifest))) as archive:
            _copy_chunks(file.verifier.missing(), archive.read_at, file)
        return file

    def salvage(self, damaged: StoredFile, *, renames_damaged: bool = True) -> StoredFile:
        """Copy the intact units of a damaged finished file to a new unfinished file, and return the new file.

        Then remove the completion record and, of a folder, the damaged archive.

        Args:
            damaged: the finished file, after its verification.
            renames_damaged: whether to rename the damaged file or folder, so that nobody uses it by mistake.
        """
        manifest, visible_path = damaged.verifier.manifest, self._records.visible_path(damaged.verifier.manifest)
        self._records.invalidate_completion(manifest, DAMAGED)
        file = self.open_partial(manifest, keeps_completion=True)
        _copy_chunks(damaged.verifier.verified, damaged.content.read_at, file)
        self._open_files.close(damaged.content.path)
        if renames_damaged:
            _rename_damaged(visible_path)
        self._records.remove(manifest.file_id, ARCHIVE, COMPLETION)
        return file

    def _may_be_damaged(self, manifest: Manifest, record: CompletionRecord, state: os.stat_result | None) -> bool:
        """Return whether a crash of the machine, and no program, may have damaged a finished file.

        A program that changes, replaces or restores a file gives it a later change time; a crash does not. Only a
        folder that does not match its manifest is damaged.

        Args:
            manifest: the file's manifest.
            record: the file's completion record.
            state: the file's ``stat`` result; None if there is no regular file; not used for a folder.
        """
        if not record.may_have_lost_bytes(self.boot_id):
            return False
        finished_ns = mtime_ns(self._records.hidden_path(manifest.file_id, COMPLETION)) + _FINISHING_NS
        if manifest.is_folder:
            visible_path = self._records.visible_path(manifest)
            return not self._unpacked.is_intact(manifest) and not is_changed_since(visible_path, finished_ns)
        return state is not None and state.st_ctime_ns <= finished_ns


def _rename_damaged(visible_path: Path) -> None:
    """Rename a damaged file or folder to a free name: its own name, shortened if necessary, and a suffix."""
    try:
        bytes_max = os.pathconf(visible_path.parent, "PC_NAME_MAX")
    except OSError:  # the file system does not report the limit
        bytes_max = 255
    try:
        for number in count(1):
            suffix = f".damaged-{number}"
            kept = os.fsencode(visible_path.name)[: bytes_max - len(suffix)].decode("utf-8", "ignore")
            new_path = visible_path.with_name(kept + suffix)
            if not os.path.lexists(new_path):
                break
        os.rename(visible_path, new_path)
    except OSError as error:
        raise storage_error("rename", visible_path, error) from None
    _LOG.warning("the disk has damaged %s: it is now named %s, and is fetched again", visible_path, new_path.name)


def _copy_chunks(ranges: RangeSet, read_at: ReadAt, file: StoredFile) -> None:
    """Copy chunks from the bytes that ``read_at`` reads to a partial file, and add them to the journal."""
    for start, stop in ranges:
        for first in range(start, stop, _COPY_CHUNKS):
            part = Range(first, min(first + _COPY_CHUNKS, stop))
            data = memoryview(read_at(*file.verifier.manifest.byte_span(*part)))
            file.journal.append(file.verifier.write(*part, data).verified)
