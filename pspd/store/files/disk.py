"""A client's folder on disk.

Finished files are in the folder under their own names. Unfinished work is in its hidden folder, for each
file: ``<id>.manifest``, ``<id>.part`` (the bytes, sparse), ``<id>.held`` (the journal of verified
ranges), and ``<id>.done`` once it is finished. Besides: ``lock``, ``instance``, ``boot``.

Of a folder it is its archive that is written, verified and, as ``<id>.tar``, sent to others. What is unpacked of it
(``<id>.unpacked`` until it gets its name) is the user's from then on.

The order of things is what makes a crash at any moment harmless. What is verified is saved, and only then
entered in the journal; what cannot be verified by itself is saved, and verified from there once its unit is
whole. A finished file gets its name, then its mark, and only then does the part lose its own.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pspd.core.model.manifest import CHUNK_BYTES, STORE_FOLDER, Digest, FileId, Manifest
from pspd.core.model.ranges import RangeSet
from pspd.core.model.storage import FileSlice, Held, Written
from pspd.errors import IntegrityError, StorageError, StoreFailed
from pspd.store.files.atomic import (
    PRIVATE_FOLDER_MODE,
    boot_id,
    flush_file,
    give_mode,
    instance_of,
    lock_folder,
    make_private,
    plain_state,
    publish_file,
)
from pspd.store.files.descriptors import OpenFiles
from pspd.store.files.failures import failed
from pspd.store.files.records import ON_DISK, UNVERIFIED, Records
from pspd.store.files.table import Place, StoredFile, StoredFiles
from pspd.store.messages import no_room, not_begun, not_verified, over_quota
from pspd.store.tree.unpack import flush_tree
from pspd.store.tree.unpacked import Folders

_LOG = logging.getLogger(__name__)


class Touched(NamedTuple):
    """What somebody has done to finished files.

    Attributes:
        removed: where they were, by file.
        changed: what bears their name may have other bytes; to be verified.
    """

    removed: dict[FileId, Path]
    changed: list[FileId]


class DiskStore:
    """Implements ``pspd.core.model.storage.Storage`` in a folder; for one thread at a time.

    Attributes:
        instance_id: 16 random bytes that name this folder's client for good.
    """

    def __init__(
        self,
        folder: Path,
        digest: Digest,
        max_bytes: int | None = None,
        *,
        verifies: bool = False,
        open_files_max: int | None = None,
    ) -> None:
        """Takes the folder, makes it if need be, and reads what is there from before.

        Args:
            folder: where files appear.
            digest: what manifests are made with.
            max_bytes: how large the network's files in the folder may be together; None for any size.
            verifies: read all that is there, as if nothing were known of it.
            open_files_max: how many descriptors it may keep, if not the usual ones.

        Raises:
            StorageError: the folder is another client's, or cannot be used.
        """
        self._folder = folder
        self._work = folder / STORE_FOLDER
        self._max_bytes = max_bytes
        self._open_files = OpenFiles(open_files_max)
        self._files: dict[FileId, StoredFile] = {}
        self._begun: dict[FileId, None] = {}  # since the start: whether the rest is in any network is not known
        try:
            self._work.mkdir(PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
        except OSError as error:
            raise failed("use", self._work, error) from None
        make_private(self._work)  # it may be of a version that left this to the umask
        self._lock_fd = lock_folder(folder, self._work / "lock")
        self._folder = folder = folder.absolute()  # what is said of it from now on is read on other machines
        self._work = folder / STORE_FOLDER
        self._records = Records(self._work, digest)
        self._folders = Folders(folder, self._records, digest)
        try:
            self._work_state = os.stat(self._work)
            self.instance_id = instance_of(self._work / "instance")
            self._boot = boot_id()
            self._stored = StoredFiles(
                folder, self._records, self._folders, self._open_files, digest, self._boot, verifies=verifies
            )
            self._files = self._stored.found()
        except BaseException:
            self.close()
            raise

    def known(self) -> dict[FileId, Held]:
        """See ``Storage.known``.

        A finished file that somebody has changed is not complete, and held as far as its bytes are still
        right; one that was removed is forgotten.
        """
        return {file_id: file.held for file_id, file in self._files.items()}

    def manifest(self, file_id: FileId) -> Manifest:
        """The manifest that a file was last begun with."""
        return self._file(file_id).intake.manifest

    def begin(self, manifest: Manifest) -> Held:
        """See ``Storage.begin``. A manifest divided otherwise than before is taken, and saved.

        Raises:
            StorageError: a file of that name with other bytes is in the folder, it is more than may be taken, or
                nothing can be saved.
        """
        file_id = manifest.file_id
        file = self._files.get(file_id)
        if file is not None and file.place is Place.ALTERED and self._stored.is_in_the_way(file):
            raise self._stored.conflict(manifest)
        if file is None or file.place is not Place.VISIBLE:
            adopted = self._stored.adopted(manifest, self._require_room)
            if adopted is not None:
                file = adopted
            elif file is not None and file.place is Place.ALTERED and manifest.is_folder:
                file.intake.verify_all()  # what was in the folder's way is gone; its archive never was altered
                file = self._stored.taken_back(file, set_aside=False)
            elif file is None or file.place is not Place.PART:
                self._require_room(manifest, _disk_bytes(manifest))
                self._records.save_manifest(manifest)
                file = self._stored.resumed(manifest)
        if file.intake.manifest != manifest:
            # Until all of it is saved, the file is not known: then the next attempt starts from the disk.
            self._files.pop(file_id, None)
            self._redivide(file, manifest)
        self._files[file_id] = file
        self._begun[file_id] = None
        return file.held

    def write(self, file_id: FileId, start: int, stop: int, data: memoryview) -> Written:
        """See ``Storage.write``."""
        file = self._file(file_id)
        if file.place is Place.ALTERED:
            raise self._stored.conflict(file.intake.manifest)
        written = file.intake.write(start, stop, data)
        # A journal that is younger than what somebody else wrote would vouch for it after a restart.
        if written.verified and not file.saved.altered:
            file.journal.append(written.verified)
        return written

    def payload(self, file_id: FileId, start: int, stop: int) -> FileSlice:
        """See ``Storage.payload``.

        That nobody else has written to the file is looked at first.
        The slice's descriptor stays the store's: it is good until as many others as may be open were opened
        since it was last asked for, or the store is closed. Who sends across that needs ``os.dup``.

        Raises:
            InternalError: not all these chunks are verified.
            StorageError: somebody has changed the file, or it cannot be read.
        """
        file = self._file(file_id)
        offset, length = file.intake.payload_span(start, stop)
        if file.saved.altered:
            raise StorageError(f"{file.saved.path} was changed by somebody")
        return FileSlice(file.saved.fd, offset, length)

    def missing(self, file_id: FileId) -> RangeSet:
        """See ``Storage.missing``."""
        return self._file(file_id).intake.missing()

    def finish(self, file_id: FileId) -> None:
        """See ``Storage.finish`` (R10).

        Raises:
            IntegrityError: not all of it is verified, or somebody has written to it since.
            StorageError: another file has that name, or the disk fails.
        """
        file = self._file(file_id)
        manifest, part = file.intake.manifest, file.saved.path
        if file.place is Place.VISIBLE:
            return
        if file.place is Place.ALTERED:
            raise self._stored.conflict(manifest)
        if file.saved.altered:
            raise IntegrityError(f"{part} was changed by somebody: verify it")
        if not file.intake.complete:
            raise IntegrityError(not_verified(manifest, file.intake.verified))
        visible = self._stored.finished_path(manifest)
        try:
            os.ftruncate(file.saved.fd, manifest.size_bytes)
            file.saved.see()
            state = os.fstat(file.saved.fd)
            if manifest.is_folder:
                self._folders.require_unpacked(manifest, part)
            else:
                give_mode(file.saved.fd, manifest.mode, visible)
            publish_file(part, visible)
        except FileExistsError:
            raise self._stored.conflict(manifest) from None
        except OSError as error:
            raise failed("finish", visible, error) from None
        self._stored.publish(file, state)

    def flush_of(self, file_id: FileId) -> Callable[[], None]:
        """What waits until a finished file is on the disk, whatever happens to the machine then; for any thread.

        Say :meth:`flushed` when it has returned. It raises ``StorageError`` if the disk fails.
        """
        file = self._file(file_id)
        path, name = file.saved.path, self._folders.visible(file.intake.manifest)
        if not file.intake.manifest.is_folder:
            return lambda: flush_file(path)

        def flush() -> None:
            flush_file(path)
            flush_tree(name)

        return flush

    def flushed(self, file_id: FileId) -> None:
        """A finished file is on the disk: unless it was changed, it need not be read again after the next boot.

        Raises:
            StorageError: that cannot be noted.
        """
        file = self._files.get(file_id)
        mark = self._records.mark(file_id)
        if self._lock_fd < 0 or file is None or mark is None or mark.boot_id != self._boot:
            return
        state = plain_state(self._stored.finished_path(file.intake.manifest))
        if state is not None and (state.st_size, state.st_mtime_ns) == (mark.size_bytes, mark.mtime_ns):
            self._records.save_mark(file_id, self._stored.mark(file.intake.manifest, state, ON_DISK))

    def verify(self, file_id: FileId) -> None:
        """See ``Storage.verify``. A finished file that is not right any more is the user's: it is left alone.

        Raises:
            StorageError: the disk fails.
        """
        file = self._file(file_id)
        # What cannot be verified is not known: then the next attempt starts from the disk.
        del self._files[file_id]
        if file.place is Place.PART:
            self._folders.remove_unpacked(file_id)
            file.saved.see()
            file.intake.verify_all()
            file.journal.rewrite(file.intake.verified)
            self._files[file_id] = file
            return
        manifest = file.intake.manifest
        # Nothing that was noted of it is to be trusted, now or after a restart.
        mark = self._records.distrust(manifest, UNVERIFIED)
        verified = self._stored.finished(manifest, mark)
        if verified is not None:
            self._files[file_id] = verified

    def touched(self) -> Touched:
        """Finished files with which somebody has meddled, as their names and times tell: nothing is opened or read."""
        found = Touched({}, [])
        for file_id, file in self._files.items():
            if file.place is not Place.VISIBLE:
                continue
            try:
                if not self._stored.looks_as_finished(file):
                    found.changed.append(file_id)
            except FileNotFoundError:
                found.removed[file_id] = self._folders.visible(file.intake.manifest)
            except Exception as error:  # that it cannot be looked at says nothing about it
                _LOG.warning("cannot look at %s: %s", file.saved.path, error)
        return found

    def unpacking_of(self, file_id: FileId) -> Callable[[], None] | None:
        """What unpacks a folder of which all is verified, so that :meth:`finish` need not; for any thread.

        None for a file, and for a folder that is unpacked or finished. See ``Folders.unpacking_of``.
        """
        file = self._file(file_id)
        if not file.intake.manifest.is_folder or file.place is not Place.PART:
            return None
        return self._folders.unpacking_of(file.intake.manifest, file.saved.path)

    def discard(self, file_id: FileId) -> None:
        """See ``Storage.discard``. What a thread unpacks of it just now is left: discard it again when that is done.

        Raises:
            StorageError: something cannot be removed.
        """
        file = self._files.pop(file_id, None)
        self._begun.pop(file_id, None)
        if file is not None:
            self._open_files.close(file.saved.path)
        self._stored.remove_work(file_id)
        self._records.remove(file_id, "tar", "done", "manifest")

    def require_usable(self) -> None:
        """See ``Storage.require_usable``: the folder is still in its place, and this process may use it.

        Raises:
            StoreFailed: it is not so.
        """
        try:
            is_in_place = os.path.samestat(os.stat(self._work), self._work_state)
            may_use = os.access(self._work, os.R_OK | os.W_OK | os.X_OK)
            is_read_only = bool(os.statvfs(self._work).f_flag & os.ST_RDONLY)
        except OSError as error:
            raise StoreFailed(str(failed("use", self._work, error))) from None
        if not is_in_place:
            raise StoreFailed(f"{self._work} is another folder than at the start: start the client anew")
        if not may_use:
            number = errno.EROFS if is_read_only else errno.EACCES
            raise StoreFailed(str(failed("use", self._work, OSError(number, ""))))

    def close(self) -> None:
        """Closes all files and gives the folder free; idempotent. Writes nothing: a crash loses no more."""
        self._folders.end()
        self._open_files.close_all()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _require_room(self, manifest: Manifest, more_bytes: int) -> None:
        """A file that has no room is declined before it is begun, and takes none from those that were.

        Other clients that share the disk are not known here, nor what else fills it: it can be full all the same.

        Args:
            manifest: the file's.
            more_bytes: how much of the disk it is going to take.
        """
        others = [
            self._files[file_id] for file_id in self._begun if file_id in self._files and file_id != manifest.file_id
        ]
        used_bytes = sum(_disk_bytes(file.intake.manifest) for file in others)
        needed_bytes = _disk_bytes(manifest)
        if self._max_bytes is not None and used_bytes + needed_bytes > self._max_bytes:
            raise StorageError(over_quota(manifest, needed_bytes, self._max_bytes - used_bytes, self._max_bytes))
        try:
            disk = os.statvfs(self._work)
        except OSError as error:
            raise failed("use", self._work, error) from None
        promised_bytes = sum(map(_unwritten_bytes, others))
        free_bytes = max(0, disk.f_bavail * disk.f_frsize - promised_bytes)
        more_bytes -= self._stored.written_bytes(manifest.file_id)
        if more_bytes > free_bytes and disk.f_blocks > 0:  # there are file systems that do not say how large they are
            raise StorageError(no_room(manifest, more_bytes, free_bytes, promised_bytes, self._folder))

    def _file(self, file_id: FileId) -> StoredFile:
        try:
            return self._files[file_id]
        except KeyError:
            raise not_begun(file_id) from None

    def _redivide(self, file: StoredFile, manifest: Manifest) -> None:
        file.intake.redivide(manifest)
        if file.place is Place.PART:
            # Before the manifest: chunks that are only kept from now on may be written over.
            file.journal.rewrite(file.intake.verified)
        self._records.save_manifest(manifest)


def _unwritten_bytes(file: StoredFile) -> int:
    """How much more of the disk a file is going to take."""
    if file.place is not Place.PART:
        return 0
    return max(0, _disk_bytes(file.intake.manifest) - file.intake.verified.chunk_count * CHUNK_BYTES)


def _disk_bytes(manifest: Manifest) -> int:
    """What it takes of the disk: of a folder there are its archive and what is unpacked of it."""
    return manifest.size_bytes * (2 if manifest.is_folder else 1)
