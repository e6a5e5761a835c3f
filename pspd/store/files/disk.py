"""A client's store: a folder on disk.

Finished files are in the folder under their own names; so are renamed files that the disk has damaged. Everything else
is in the hidden folder; ``pspd.store.layout`` lists the names there. For a distributed folder, the store writes,
verifies and sends the archive; the unpacked folder belongs to the user.

The order of the steps makes a crash harmless at any moment. Verified bytes are saved before the journal lists them. A
finished file gets its name before its completion record; a folder gets its name after the completion record. The
partial file, if it still exists, is removed last.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pspd.core.model.manifest import STORE_FOLDER, DigestFunction, FileId, Manifest
from pspd.core.model.ranges import RangeSet
from pspd.core.model.storage import FileSlice, HeldChunks, WriteResult
from pspd.errors import IntegrityError, StorageError, StoreFailed
from pspd.store.errors import unknown_file
from pspd.store.files.records import FLUSHED, UNVERIFIED, Records, load_instance_id, lock_folder
from pspd.store.files.recovery import FileRecovery
from pspd.store.files.stored_file import FileStatus, StoredFile, disk_bytes, require_space
from pspd.store.files.unpacked import UnpackedFolders
from pspd.store.filesystem.failures import storage_error
from pspd.store.filesystem.file_bytes import OpenFiles
from pspd.store.filesystem.files import publish_file, set_mode, stat_regular
from pspd.store.layout import ARCHIVE, COMPLETION, INSTANCE, MANIFEST, PARTIAL

_STAT_BLOCK_BYTES = 512
"""The unit of ``st_blocks``."""

_LOG = logging.getLogger(__name__)


class ExternalChanges(NamedTuple):
    """Changes that other programs have made to finished files.

    Attributes:
        removed: the paths of removed files, by file id. A folder also counts as removed if its archive is missing.
        changed: the ids of files that must be verified, because their size, time or kind has changed.
    """

    removed: dict[FileId, Path]
    changed: list[FileId]


class DiskStore:
    """Implements ``pspd.core.model.storage.Storage`` in a folder; for one thread at a time.

    Attributes:
        instance_id: 16 random bytes that identify this folder's client.
    """

    def __init__(
        self,
        folder: Path,
        digest: DigestFunction,
        max_bytes: int | None = None,
        *,
        trusts_records: bool = True,
        open_files_max: int | None = None,
    ) -> None:
        """Create the folder if necessary, lock it, and load its files.

        Args:
            folder: the client's folder, in which finished files appear.
            digest: the digest function of manifests.
            max_bytes: the maximum disk space of all files begun since the start together, in bytes; None for no limit.
            trusts_records: whether to trust the records of verified bytes. If not, the store verifies all these bytes.
            open_files_max: the maximum number of open descriptors; None for the default.

        Raises:
            WrongState: another client uses the folder.
            StorageError: the folder is unusable.
        """
        self._open_files = OpenFiles(open_files_max)
        self._files: dict[FileId, StoredFile] = {}
        self._begun: dict[FileId, None] = {}  # begun since the start; the other files may belong to other networks
        self._lock_fd = lock_folder(folder)
        folder = folder.absolute()  # later messages may be shown on other machines
        self._hidden_folder = folder / STORE_FOLDER
        self._max_bytes = max_bytes
        self._records = Records(folder, digest)
        self._unpacked = UnpackedFolders(self._records)
        try:
            self._hidden_folder_state = os.stat(self._hidden_folder)
            self.instance_id = load_instance_id(self._hidden_folder / INSTANCE)
            self._recovery = FileRecovery(
                self._records, self._unpacked, self._open_files, trusts_records=trusts_records
            )
            self._files = self._recovery.load_all()
        except BaseException:
            self.close()
            raise

    def known(self) -> dict[FileId, HeldChunks]:
        """See ``Storage.known``.

        For a finished file that another program has changed, ``verified`` has at most the chunks that the store found
        intact.
        """
        return {file_id: file.held.copy() for file_id, file in self._files.items()}

    def manifest(self, file_id: FileId) -> Manifest:
        """Return the manifest of the latest :meth:`begin` of a file; before the first one, the loaded manifest."""
        return self._file(file_id).verifier.manifest

    def begin(self, manifest: Manifest) -> HeldChunks:
        """See ``Storage.begin``. A manifest with another division is accepted and saved.

        Raises:
            StorageError: another file has the name, there is no space, or the disk fails.
        """
        file_id = manifest.file_id
        file = self._files.get(file_id)
        if file is None or file.status is not FileStatus.FINISHED:
            file = self._open(manifest, file)
        if file.verifier.manifest != manifest:
            # If saving the new division fails, the file is not known: the next ``begin`` starts from the disk.
            self._files.pop(file_id, None)
            file.verifier.redivide(manifest)
            if file.status is FileStatus.UNFINISHED:
                # Update the journal first: chunks that are no longer verified may be overwritten from now on.
                file.journal.rewrite(file.verifier.verified)
            self._records.save_manifest(manifest)
        self._files[file_id] = file
        self._begun[file_id] = None
        return file.held

    def _open(self, manifest: Manifest, file: StoredFile | None) -> StoredFile:
        """Open, adopt or create a file, and return it: an unfinished file that can be written, or a finished file.

        Args:
            manifest: the file's manifest.
            file: the file as this store knows it; None if it does not know the file.
        """
        is_changed = file is not None and file.status is FileStatus.CHANGED
        if file is not None and is_changed and self._recovery.is_name_taken(file):
            raise self._recovery.name_conflict(manifest)
        adopted = self._recovery.adopt_existing(manifest, self._require_space)
        if adopted is not None:
            return adopted
        if file is not None and is_changed and manifest.is_folder:
            # The file that had the folder's name is gone. Keep the intact units of the folder's archive.
            file.verifier.verify_all()
            return self._recovery.salvage(file, renames_damaged=False)
        if file is not None and not is_changed:
            return file
        self._require_space(manifest, disk_bytes(manifest))
        self._records.save_manifest(manifest)
        return self._recovery.open_partial(manifest)

    def write(self, file_id: FileId, start: int, stop: int, data: memoryview) -> WriteResult:
        """See ``Storage.write``."""
        file = self._file(file_id)
        if file.status is FileStatus.CHANGED:
            raise self._recovery.name_conflict(file.verifier.manifest)
        written = file.verifier.write(start, stop, data)
        # A journal entry after another program's write would make the store trust that write after a restart.
        if written.verified and not file.content.is_changed:
            file.journal.append(written.verified)
        return written

    def payload(self, file_id: FileId, start: int, stop: int) -> FileSlice:
        """See ``Storage.payload``. First check that no other program has written to the file.

        The store owns the descriptor. Any later call may close it, to make room for other descriptors. Use ``os.dup``
        to keep it open.

        Raises:
            InternalError: a chunk is not verified, or is not in the file.
            StorageError: another program has changed the file, or the file cannot be opened.
        """
        file = self._file(file_id)
        offset, length = file.verifier.payload_span(start, stop)
        if file.content.is_changed:
            raise StorageError(f"{file.content.path} was changed by another program")
        return FileSlice(file.content.fd, offset, length)

    def missing(self, file_id: FileId) -> RangeSet:
        """See ``Storage.missing``."""
        return self._file(file_id).verifier.missing()

    def finish(self, file_id: FileId) -> None:
        """See ``Storage.finish`` (R10).

        Raises:
            IntegrityError: a chunk is not verified, or another program has written to the partial file.
            StorageError: another file has the name, an archive cannot be unpacked, or the disk fails.
        """
        file = self._file(file_id)
        manifest, path = file.verifier.manifest, file.content.path
        if file.status is FileStatus.FINISHED:
            return
        if file.status is FileStatus.CHANGED:
            raise self._recovery.name_conflict(manifest)
        if file.content.is_changed:
            raise IntegrityError(f"{path} was changed by another program: verify it")
        file.verifier.require_complete()
        finished_path = self._recovery.finished_path(manifest)
        try:
            os.ftruncate(file.content.fd, manifest.size_bytes)
            file.content.mark_unchanged()
            state = os.fstat(file.content.fd)
            if manifest.is_folder:
                self._unpacked.ensure_unpacked(manifest, path)
            else:
                set_mode(file.content.fd, manifest.mode, finished_path)
            publish_file(path, finished_path)
        except FileExistsError:
            raise self._recovery.name_conflict(manifest) from None
        except OSError as error:
            raise storage_error("finish", finished_path, error) from None
        self._recovery.publish(file, state)

    def flush_job(self, file_id: FileId) -> Callable[[], None]:
        """Return a function that flushes a finished file, as ``FileRecovery.flush`` does; callable in any thread.

        After the function has returned, call :meth:`record_flushed`.
        """
        return partial(self._recovery.flush, self._file(file_id).verifier.manifest)

    def record_flushed(self, file_id: FileId) -> None:
        """Record that a finished file is on the disk, and need not be verified after the next boot.

        Do nothing if the store is closed, if the file was changed or discarded, or if its completion record does not
        name the present boot.

        Raises:
            StorageError: the record cannot be saved.
        """
        file = self._files.get(file_id)
        record = self._records.completion(file_id)
        if self._lock_fd < 0 or file is None or record is None or record.boot_id != self._recovery.boot_id:
            return
        state = stat_regular(self._recovery.finished_path(file.verifier.manifest))
        if state is not None and record.describes(state):
            self._records.save_completion(file.verifier.manifest, state, FLUSHED)

    def verify(self, file_id: FileId) -> None:
        """See ``Storage.verify``. A corrupt finished file keeps its name, because it belongs to the user.

        The store forgets a finished file that another program has removed.

        Raises:
            StorageError: the disk fails.
        """
        file = self._file(file_id)
        # If the verification raises an error, the file stays unknown: the next ``begin`` reads it from the disk.
        del self._files[file_id]
        if file.status is FileStatus.UNFINISHED:
            self._unpacked.remove_unpacked(file_id)
            file.content.mark_unchanged()
            file.verifier.verify_all()
            file.journal.rewrite(file.verifier.verified)
            self._files[file_id] = file
            return
        manifest = file.verifier.manifest
        record = self._records.invalidate_completion(manifest, UNVERIFIED)
        if (verified := self._recovery.load_finished(manifest, record)) is not None:
            self._files[file_id] = verified

    def external_changes(self) -> ExternalChanges:
        """Return the changes that other programs have made to finished files. No file is opened or read.

        Log a warning for each file that cannot be examined; such a file does not count as changed.
        """
        found = ExternalChanges({}, [])
        for file_id, file in self._files.items():
            if file.status is not FileStatus.FINISHED:
                continue
            try:
                if not self._recovery.looks_unchanged(file):
                    found.changed.append(file_id)
            except FileNotFoundError:
                found.removed[file_id] = self._records.visible_path(file.verifier.manifest)
            except Exception as error:  # an error does not prove a change
                _LOG.warning("cannot look at %s: %s", file.content.path, error)
        return found

    def unpack_job(self, file_id: FileId) -> Callable[[], None] | None:
        """Return a function that unpacks a folder. Any thread may call the function before :meth:`finish`.

        Every chunk must be verified. Return None if there is nothing to unpack; see ``UnpackedFolders.unpack_job``.
        """
        file = self._file(file_id)
        if not file.verifier.manifest.is_folder or file.status is not FileStatus.UNFINISHED:
            return None
        return self._unpacked.unpack_job(file.verifier.manifest, file.content.path)

    def discard(self, file_id: FileId) -> None:
        """See ``Storage.discard``. If a thread is unpacking the folder, the unpacked copy stays: call this again later.

        Raises:
            StorageError: something cannot be removed.
        """
        file = self._files.pop(file_id, None)
        self._begun.pop(file_id, None)
        if file is not None:
            self._open_files.close(file.content.path)
        self._recovery.remove_temporary_files(file_id)
        self._records.remove(file_id, ARCHIVE, COMPLETION, MANIFEST)

    def require_usable(self) -> None:
        """See ``Storage.require_usable``: check that the hidden folder is in place, and that this process may use it.

        Raises:
            StoreFailed: the hidden folder is gone, was replaced, or may not be used.
        """
        try:
            is_in_place = os.path.samestat(os.stat(self._hidden_folder), self._hidden_folder_state)
            may_use = os.access(self._hidden_folder, os.R_OK | os.W_OK | os.X_OK)
            is_read_only = bool(os.statvfs(self._hidden_folder).f_flag & os.ST_RDONLY)
        except OSError as error:
            raise StoreFailed(str(storage_error("use", self._hidden_folder, error))) from None
        if not is_in_place:
            raise StoreFailed(f"{self._hidden_folder} was replaced by another folder: restart the client")
        if not may_use:
            number = errno.EROFS if is_read_only else errno.EACCES
            raise StoreFailed(str(storage_error("use", self._hidden_folder, OSError(number, ""))))

    def close(self) -> None:
        """Stop unpacking, close all files and unlock the folder; idempotent. This saves nothing."""
        self._unpacked.stop()
        self._open_files.close_all()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _require_space(self, manifest: Manifest, more_bytes: int) -> None:
        """Check that there is space for a file; ``more_bytes`` includes what its partial file takes already."""
        file_id = manifest.file_id
        others = [self._files[other] for other in self._begun if other in self._files and other != file_id]
        state = stat_regular(self._records.hidden_path(file_id, PARTIAL))
        written_bytes = state.st_blocks * _STAT_BLOCK_BYTES if state is not None else 0
        require_space(manifest, more_bytes - written_bytes, others, self._hidden_folder, self._max_bytes)

    def _file(self, file_id: FileId) -> StoredFile:
        try:
            return self._files[file_id]
        except KeyError:
            raise unknown_file(file_id) from None
