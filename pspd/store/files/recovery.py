"""Decide what existing files are worth: after a restart, a power failure, or a change by the user.

Finished files under their own name may be the user's by now. They are never removed or overwritten; at most, a file
that the disk has damaged is set aside under another name.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path

from pspd.core.model.manifest import MODE_BITS, STORE_FOLDER, FileId, Manifest, ReadAt
from pspd.core.model.ranges import Range, RangeSet
from pspd.errors import StoreFailed
from pspd.store.files.opener import FileOpener
from pspd.store.files.records import ON_DISK, TORN, CompletionRecord, Records
from pspd.store.files.stored_file import StoredFile
from pspd.store.files.unpacked import UnpackedFolders
from pspd.store.filesystem.failures import storage_error
from pspd.store.filesystem.files import is_same_file, path_with_suffix, stat_regular
from pspd.store.layout import ARCHIVE, COMPLETION, MANIFEST, PARTIAL
from pspd.store.tree.archive import FolderArchive

_LOG = logging.getLogger(__name__)

_FINISHING_NS = 2_000_000_000
"""A change of a file within this time after its completion record was written may be this program's."""
_COPY_CHUNKS = 1024


class Recovery:
    """Loads, adopts and salvages the files of one folder.

    Args:
        folder: the client's folder, which this process has locked.
        records: its records.
        folders: the folders among its files.
        opener: opens its files.
        verifies: verify everything, as if there were no records.
    """

    def __init__(
        self, folder: Path, records: Records, folders: UnpackedFolders, opener: FileOpener, *, verifies: bool
    ) -> None:
        self._folder = folder
        self._records = records
        self._folders = folders
        self._opener = opener
        self._verifies = verifies

    def load_all(self) -> dict[FileId, StoredFile]:
        """Return the files from before, by id.

        After a restart of the machine, this verifies the bytes that were not flushed. Otherwise it trusts finished
        files with their recorded size and time, and journals that were written after their file.
        """
        files: dict[FileId, StoredFile] = {}
        all_loaded = True
        seen: set[FileId] = set()
        for manifest in self._records.manifests():
            seen.add(manifest.file_id)
            try:
                record = self._records.completion(manifest.file_id)
                file = self._opener.open_partial(manifest) if record is None else self.load_finished(manifest, record)
            except StoreFailed:
                raise
            except Exception as error:  # any error concerns this file alone
                _LOG.warning("cannot load %r: %s", manifest.name, error)
                _LOG.debug("cannot load %r: where:", manifest.name, exc_info=error)
                all_loaded = False
            else:
                if file is not None:
                    files[manifest.file_id] = file
        self._folders.remove_strays(self._folder / STORE_FOLDER)
        if all_loaded:
            self._opener.trust_journals(seen)
        return files

    def load_finished(self, manifest: Manifest, record: CompletionRecord) -> StoredFile | None:
        """Return a file that was finished, as far as it is intact; None if it was removed.

        Args:
            manifest: the file's manifest.
            record: its completion record.
        """
        path = self._opener.finished_path(manifest)
        state = stat_regular(path)
        if manifest.is_folder and not os.path.lexists(self._folders.visible(manifest)):
            state = None  # the archive exists, the folder does not
        if state is None and self._records.path(manifest.file_id, PARTIAL).exists():
            return self._opener.open_partial(manifest)
        self._opener.remove_work(manifest.file_id)
        if state is None:
            _LOG.warning("%s was removed by another program; forgetting it", self._folders.visible(manifest))
            self._records.remove(manifest.file_id, ARCHIVE, COMPLETION, MANIFEST)
            return None
        file = self._opener.open_finished(manifest)
        if manifest.is_folder and self._folders.is_replaced(manifest):
            _LOG.warning("%s is no longer a folder; it is not complete", self._folders.visible(manifest))
            file.mark_changed()
            return file
        unchanged = (state.st_size, state.st_mtime_ns) == (record.size_bytes, record.mtime_ns)
        if unchanged and record.boot_id in (ON_DISK, self._opener.boot) and not self._verifies:
            file.verifier.resume(RangeSet([Range(0, manifest.chunk_count)]), ())
            return file
        return self._verify_finished(file, record, state, unchanged=unchanged)

    def _verify_finished(
        self, file: StoredFile, record: CompletionRecord, state: os.stat_result, *, unchanged: bool
    ) -> StoredFile:
        """Verify a finished file; salvage it if the disk damaged it, leave it alone if another program changed it."""
        manifest = file.verifier.manifest
        file.verifier.verify_all()
        is_damaged = manifest.is_folder and self._is_damaged_folder(manifest, record)
        if file.verifier.complete and state.st_size == manifest.size_bytes and not is_damaged:
            # A later difference in an unpacked folder is the user's: it is flushed by now, or was verified just now.
            boot = ON_DISK if unchanged or manifest.is_folder else None
            self._records.save_completion(manifest.file_id, self._opener.completion_record(manifest, state, boot))
            return file
        if manifest.is_folder:
            return self.salvage(file, set_aside=is_damaged)
        if self._was_lost(manifest.file_id, record, state) or (unchanged and self._verifies):
            return self.salvage(file)
        _LOG.warning("%s was changed by another program; it is not complete", file.saved.path)
        file.mark_changed()
        return file

    def adopt_existing(self, manifest: Manifest, require_room: Callable[[Manifest, int], None]) -> StoredFile | None:
        """Return the file that already has the name, if its bytes are right; None if nothing has the name.

        Args:
            manifest: the file's manifest.
            require_room: called with a number of bytes before more than a manifest is written.

        Raises:
            StorageError: it is another file, or there is no room.
        """
        visible, part = self._folders.visible(manifest), self._records.path(manifest.file_id, PARTIAL)
        try:
            os.lstat(visible)
        except FileNotFoundError:
            return None
        except OSError as error:  # a file could not get this name either
            raise storage_error("look at", visible, error) from None
        if is_same_file(visible, part):
            return None
        if manifest.is_folder:
            return self._adopt_folder(manifest, require_room)
        state = stat_regular(visible)
        if state is not None and state.st_size == manifest.size_bytes:
            file = self._opener.open_finished(manifest)
            file.verifier.verify_all()
            if file.verifier.complete:
                if (mode := state.st_mode & MODE_BITS) != manifest.mode:
                    _LOG.info("%s keeps its mode %03o; its source has %03o", visible, mode, manifest.mode)
                self._records.save_manifest(manifest)
                self._records.save_completion(manifest.file_id, self._opener.completion_record(manifest, state))
                self._opener.remove_work(manifest.file_id)
                return file
        record = self._records.completion(manifest.file_id)
        if state is not None and self._was_lost(manifest.file_id, record, state):
            return self._adopt_damaged(manifest)
        raise self._opener.conflict(manifest)

    def _adopt_folder(self, manifest: Manifest, require_room: Callable[[Manifest, int], None]) -> StoredFile:
        """Read the archive from an equal folder, so that it need not be fetched."""
        if not self._folders.is_intact(manifest):
            record = self._records.completion(manifest.file_id)
            if record is None or not self._is_damaged_folder(manifest, record):
                raise self._opener.conflict(manifest)
            return self._adopt_damaged(manifest)
        require_room(manifest, manifest.size_bytes)
        self._records.save_manifest(manifest)
        self._records.remove(manifest.file_id, ARCHIVE)
        file = self._opener.open_partial(manifest)
        with closing(FolderArchive(self._folders.visible(manifest))) as archive:
            _copy(file.verifier.missing(), archive.read_at, file)
        return file

    def _adopt_damaged(self, manifest: Manifest) -> StoredFile:
        """Salvage a file of this client of which the disk has lost the manifest, and some bytes."""
        damaged = self._opener.open_finished(manifest)
        damaged.verifier.verify_all()
        self._records.save_manifest(manifest)
        return self.salvage(damaged)

    def salvage(self, damaged: StoredFile, *, set_aside: bool = True) -> StoredFile:
        """Make a file unfinished again whose bytes the disk has damaged: copy the intact units, fetch the rest.

        Args:
            damaged: the finished file.
            set_aside: rename the damaged file, so that nobody takes it for the whole one. It is left to the user.
        """
        manifest, visible = damaged.verifier.manifest, self._folders.visible(damaged.verifier.manifest)
        self._records.distrust(manifest, TORN)
        file = self._opener.open_partial(manifest, keeps_completion=True)
        _copy(damaged.verifier.verified, damaged.saved.read_at, file)
        self._opener.close_bytes(damaged)
        if set_aside:
            _set_aside(visible)
        self._records.remove(manifest.file_id, ARCHIVE, COMPLETION)
        return file

    def _was_lost(self, file_id: FileId, record: CompletionRecord | None, state: os.stat_result) -> bool:
        """Return whether the machine crashed before a finished file was on the disk, and no program changed it since.

        A program that changes, replaces or restores a file gives it a later change time; a crash does not.
        """
        if record is None or not record.may_be_lost(self._opener.boot):
            return False
        return state.st_ctime_ns <= self._records.completed_at(file_id) + _FINISHING_NS

    def _is_damaged_folder(self, manifest: Manifest, record: CompletionRecord) -> bool:
        """Return whether the machine crashed before a finished folder was on the disk, and no program changed it."""
        finished_ns = self._records.completed_at(manifest.file_id) + _FINISHING_NS
        return record.may_be_lost(self._opener.boot) and self._folders.is_damaged(manifest, finished_ns)


def _set_aside(visible: Path) -> None:
    numbered = (path_with_suffix(visible, f".damaged-{number}") for number in count(1))
    aside = next(path for path in numbered if not os.path.lexists(path))
    try:
        os.rename(visible, aside)
    except OSError as error:
        raise storage_error("set aside", visible, error) from None
    _LOG.warning("the disk has damaged %s: it is now named %s, and is fetched again", visible, aside.name)


def _copy(ranges: RangeSet, read_at: ReadAt, file: StoredFile) -> None:
    """Write chunks that are elsewhere on this disk, as if they had been delivered."""
    for start, stop in ranges:
        for first in range(start, stop, _COPY_CHUNKS):
            last = min(first + _COPY_CHUNKS, stop)
            data = memoryview(read_at(*file.verifier.manifest.byte_span(first, last)))
            file.journal.append(file.verifier.write(first, last, data).verified)
